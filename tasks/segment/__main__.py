"""`python -m tasks.segment {fit,validate,test,predict,check}`."""

from collections.abc import Sequence

from tasks.cli import TaskCLI
from tasks.command import run_command
from tasks.segment.check import describe
from tasks.segment.data import MaskData
from tasks.segment.module import SegmentationModule
from tasks.segment.predict import predict


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_command(
        lambda: TaskCLI("segment", "deeplabv3_mobilenet_v2_shapes.yaml", "val/mIoU", predict, describe, SegmentationModule, MaskData, args)
    )


if __name__ == "__main__":
    main()
