"""Writing a detector as an ONNX or OpenVINO file."""

from tasks.export.command import Format, Stored
from tasks.export.graphs import DetectionOutputs


def export(
    ckpt_path: str,
    output: str,
    format: Format = "onnx",
    outputs: DetectionOutputs = "raw",
    size: tuple[int, int] | None = None,
    images: list[str] | str | None = None,
    precision: Stored = "fp32",
) -> None:
    """Writes a checkpoint as an ONNX or OpenVINO file, once the file computes what the checkpoint does.

    The file takes (B, H, W, 3) uint8 RGB images, normalises them itself, and holds class names, size and anchor rule. `predict`,
    `validate --model.engine` and `Detector.from_exported` run files with outputs raw. Height and width are fixed, because anchors are
    constants in it; the batch is of any size, but of one image with outputs detections.

    Args:
        ckpt_path: a run's checkpoint, or a file that Detector.save wrote.
        output: the file to write: .onnx, or .xml for OpenVINO (whose weights stand beside it in a .bin).
        format: `onnx`, or `openvino`.
        outputs: `raw` for class_logits (B, A, K + 1), box_deltas (B, A, 4) and anchors (A, 4); `decoded` for boxes (B, A, 4), x1 y1 x2 y2
            in pixels of the input, and scores (B, A, K); `detections` for boxes (N, 4), scores (N) and labels (N) in 1..K after
            non-maximum suppression.
        size: height and width of the input in pixels; by default the checkpoint's.
        images: files, folders and patterns of images to compare the file on, and to take the ranges of values for int8 from; evenly spread
            ones are used, 16 and 300 at most. By default pictures of shapes, but not for int8.
        precision: `fp32`, or `int8` for convolutions by whole numbers (boxes are decoded in float); `validate --model.engine` shows what
            that costs.
    """
    from tasks.detect.model import Detector
    from tasks.export.command import export_graph
    from tasks.export.graphs import DetectionGraph

    detector = Detector.from_checkpoint(ckpt_path)
    detector.resize(size or detector.size)
    export_graph(DetectionGraph(detector, outputs), output, format, [images] if isinstance(images, str) else images, precision)
