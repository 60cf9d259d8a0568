"""`python -m tasks.classify {fit,validate,test,predict,check}`."""

from collections.abc import Sequence

from tasks.classify.check import describe
from tasks.classify.data import ImageData
from tasks.classify.module import ClassificationModule
from tasks.classify.predict import predict
from tasks.cli import TaskCLI
from tasks.command import run_command


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_command(
        lambda: TaskCLI("classify", "mobilenet_v2_shapes.yaml", "val/top1", (predict,), describe, ClassificationModule, ImageData, args)
    )


if __name__ == "__main__":
    main()
