"""Post-training quantisation: weights and features of convolutions as whole numbers of 8 bits."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tasks.export.engines import imported


def quantize_onnx(path: Path, inputs: Sequence[tuple[Tensor, ...]]) -> None:
    """Rewrites an .onnx file: weights by channel with a sign, features by tensor without, with ranges averaged over images.

    What lies before the first or behind the last convolutions, normalisation and decoding of boxes, stays in float. Processors without
    VNNI add products of such numbers with saturation, and so less exactly.

    Args:
        path: the file.
        inputs: inputs of the graph, from real images.
    """
    quantization = imported("onnxruntime.quantization")
    onnx = imported("onnx")
    ready = path.with_suffix(".ready.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported("onnxruntime.quantization.shape_inference").quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        quantization.quantize_static(
            str(ready),
            str(path),
            _Reader([node.name for node in graph.input], inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=outside(graph),
            # Averaged over images: Google's SSDLite loses .2 points of AP by such ranges, and 1.0 by the extremes of all.
            extra_options={"CalibMovingAverage": True},
        )
    ready.unlink()


class _Reader:
    """Hands images to ONNX Runtime's calibration."""

    def __init__(self, names: Sequence[str], inputs: Sequence[tuple[Tensor, ...]]) -> None:
        self.inputs: Iterator[dict[str, Any]] = (
            {name: part.contiguous().numpy() for name, part in zip(names, parts, strict=True)} for parts in inputs
        )

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next image's inputs by name, None after the last."""
        return next(self.inputs, None)


def outside(graph: Any) -> list[str]:
    """Returns the names of an ONNX graph's nodes that have no convolution before them or none behind; its nodes are in their order."""
    after, before = set[str](), set[str]()
    for node in graph.node:
        if node.op_type == "Conv" or after.intersection(node.input):
            after.update(node.output)
    for node in reversed(graph.node):
        if node.op_type == "Conv" or before.intersection(node.output):
            before.update(node.input)
    between = [node.op_type == "Conv" or bool(after.intersection(node.input) and before.intersection(node.output)) for node in graph.node]
    return [node.name for node, is_between in zip(graph.node, between, strict=True) if not is_between]
