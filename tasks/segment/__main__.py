"""`python -m tasks.segment {fit,validate,test,predict,export,check}`."""

from collections.abc import Sequence

from tasks.cli import TaskCLI
from tasks.command import run_command
from tasks.segment.check import describe
from tasks.segment.data import MaskData
from tasks.segment.export import export
from tasks.segment.module import SegmentationModule
from tasks.segment.predict import predict


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    functions, config = (predict, export), "deeplabv3_mobilenet_v2_shapes.yaml"
    run_command(lambda: TaskCLI("segment", config, "val/mIoU", functions, describe, SegmentationModule, MaskData, args))


if __name__ == "__main__":
    main()
