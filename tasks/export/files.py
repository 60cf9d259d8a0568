"""Writing exported files."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.export.engines import METADATA
from tasks.export.graphs import DetectionGraph, SegmentationGraph
from tasks.files import write_whole

Graph = DetectionGraph | SegmentationGraph


def metadata_of(graph: Graph) -> dict[str, Any]:
    """Returns what an exported file says of itself: `kind`, `outputs`, and the model's description with class names, size and anchors."""
    return {"kind": graph.model.kind, "outputs": graph.outputs, "model": graph.model.describe()}


def write_onnx(graph: Graph, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Writes an .onnx file whose batch is of any size, unless it ends in the detections of one image.

    Args:
        graph: what to write, in evaluation mode.
        inputs: an example of its inputs, of which height and width are kept.
        path: the file.
    """
    import onnx

    one = isinstance(graph, DetectionGraph) and graph.outputs == "detections"
    batch = None if one else tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, about itself
        program: Any = torch.onnx.export(
            graph.eval(), inputs, dynamo=True, dynamic_shapes=batch, output_names=graph.names, verbose=False, optimize=True
        )
    made = program.model_proto
    entry = made.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(metadata_of(graph))
    onnx.checker.check_model(made)
    write_whole(path, made.SerializeToString())


def write_openvino(graph: Graph, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Writes an .xml file with its .bin beside it, by way of ONNX; arguments as of `write_onnx`."""
    import openvino  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        write_onnx(graph, inputs, Path(folder) / "graph.onnx")
        model = openvino.convert_model(Path(folder) / "graph.onnx")
        model.set_rt_info(json.dumps(metadata_of(graph)), METADATA)
        openvino.save_model(model, Path(folder) / "graph.xml", compress_to_fp16=False)
        write_whole(path.with_suffix(".bin"), (Path(folder) / "graph.bin").read_bytes())
        write_whole(path, (Path(folder) / "graph.xml").read_bytes())
