"""`python -m tasks.detect {fit,validate,test,predict,check}`."""

from collections.abc import Sequence

from tasks.cli import TaskCLI
from tasks.command import run_command
from tasks.detect.check import describe
from tasks.detect.data import BoxData
from tasks.detect.module import DetectionModule
from tasks.detect.predict import predict


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_command(lambda: TaskCLI("detect", "ssdlite_mobilenet_v2_shapes.yaml", "val/AP", predict, describe, DetectionModule, BoxData, args))


if __name__ == "__main__":
    main()
