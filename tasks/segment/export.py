"""Writing a segmenter as an ONNX or OpenVINO file."""

from tasks.export.command import Format, Stored
from tasks.export.graphs import SegmentationOutputs


def export(
    ckpt_path: str,
    output: str,
    format: Format = "onnx",
    outputs: SegmentationOutputs = "raw",
    size: tuple[int, int] | None = None,
    images: list[str] | str | None = None,
    precision: Stored = "fp32",
) -> None:
    """Writes a checkpoint as an ONNX or OpenVINO file, once the file computes what the checkpoint does.

    The file takes (B, H, W, 3) uint8 RGB images with the image at the top left, and (B, 2) int64 heights and widths of that part; it
    normalises the images itself, and holds class names and size. `predict`, `validate --model.engine` and `Segmenter.from_exported` run
    files with outputs raw. Height and width are fixed; the batch is of any size.

    Args:
        ckpt_path: a run's checkpoint, or a file that Segmenter.save wrote.
        output: the file to write: .onnx, or .xml for OpenVINO (whose weights stand beside it in a .bin).
        format: `onnx`, or `openvino`.
        outputs: `raw` for logits (B, K, h, w) at the head's own resolution, which are small; `labels` for (B, H, W) uint8 classes at that
            of the input.
        size: height and width of the input in pixels; by default the checkpoint's.
        images: files, folders and patterns of images to compare the file on, and to take the ranges of values for int8 from; evenly spread
            ones are used, 16 and 300 at most. By default pictures of shapes, but not for int8.
        precision: `fp32`, or `int8` for convolutions by whole numbers; `validate --model.engine` shows what that costs.
    """
    from tasks.export.command import export_graph
    from tasks.export.graphs import SegmentationGraph
    from tasks.segment.model import Segmenter

    segmenter = Segmenter.from_checkpoint(ckpt_path)
    segmenter.resize(size or segmenter.size)
    export_graph(SegmentationGraph(segmenter, outputs), output, format, [images] if isinstance(images, str) else images, precision)
