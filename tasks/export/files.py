"""Writing exported files."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.export.engines import METADATA, first_line, imported
from tasks.export.graphs import DetectionGraph, SegmentationGraph

Graph = DetectionGraph | SegmentationGraph


def metadata_of(graph: Graph) -> dict[str, Any]:
    """Returns what an exported file says of itself: `kind`, `outputs`, and the model's description with class names, size and anchors."""
    return {"kind": graph.model.kind, "outputs": graph.outputs, "model": graph.model.describe()}


def write_onnx(graph: Graph, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Writes an .onnx file whose batch is of any size, unless it ends in the detections of one image.

    Args:
        graph: what to write.
        inputs: an example of its inputs, of which height and width are kept.
        path: the file.

    Raises:
        ValueError: a package is not installed, or the network does what torch cannot export.
    """
    onnx = imported("onnx")
    imported("onnxscript")
    one = isinstance(graph, DetectionGraph) and graph.outputs == "detections"
    batch = None if one else tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    example = inputs if one else tuple(torch.cat([part, part]) for part in inputs)  # torch takes a batch of one for a constant
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch, about itself
            program: Any = torch.onnx.export(
                graph.eval(), example, dynamo=True, dynamic_shapes=batch, output_names=graph.names, verbose=False, optimize=True
            )
    except Exception as error:  # torch has many classes of them
        raise ValueError(f"the {graph.model.kind} cannot be exported: {first_line(error)}") from error
    made = program.model_proto
    entry = made.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(metadata_of(graph))
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def convert_to_openvino(path: Path) -> Path:
    """Turns an .onnx file of `write_onnx` into an .xml file with its .bin beside it, and returns the .xml's path."""
    onnx, openvino = imported("onnx"), imported("openvino")
    made = openvino.convert_model(path)
    (text,) = [entry.value for entry in onnx.load(path).metadata_props if entry.key == METADATA]
    made.set_rt_info(text, METADATA)
    openvino.save_model(made, path.with_suffix(".xml"), compress_to_fp16=False)
    path.unlink()
    return path.with_suffix(".xml")
