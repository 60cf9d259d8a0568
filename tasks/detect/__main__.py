"""`python -m tasks.detect {fit,validate,test,predict,export,check}`."""

from collections.abc import Sequence

from tasks.cli import TaskCLI
from tasks.command import run_command
from tasks.detect.check import describe
from tasks.detect.data import BoxData
from tasks.detect.export import export
from tasks.detect.module import DetectionModule
from tasks.detect.predict import predict


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    functions, config = (predict, export), "ssdlite_mobilenet_v2_shapes.yaml"
    run_command(lambda: TaskCLI("detect", config, "val/AP", functions, describe, DetectionModule, BoxData, args))


if __name__ == "__main__":
    main()
