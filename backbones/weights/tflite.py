"""Weights of .tflite files: the constants of their convolutions, dequantised."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backbones.weights.schemes import SCHEMES

NUMPY_TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "UINT8": np.uint8, "INT8": np.int8}


def read_tflite(content: bytes) -> dict[str, Tensor]:
    """Reads the weights and biases of all convolutions.

    The converter has folded batch norms into them. Their operations keep the names that they had in TensorFlow or Keras somewhere in the
    names of their tensors; the longest name that one of our schemes knows counts.

    Args:
        content: the file's bytes.

    Returns:
        `scope/weights` (Keras: `layer/kernel`), (out, in, height, width), and `scope/biases` (`layer/bias`), float32.

    Raises:
        ValueError: the file is not one of TensorFlow Lite, or none of its convolutions has a known name.
    """
    import tflite

    if content[4:8] != b"TFL3":
        raise ValueError("is not a file of TensorFlow Lite")
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    depthwise, kinds = tflite.BuiltinOperator.DEPTHWISE_CONV_2D, (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.FULLY_CONNECTED)
    makers = _dequantisers(model, graph)
    found: dict[str, Tensor] = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind not in (depthwise, *kinds):
            continue
        places = [operator.Inputs(place) for place in range(1, operator.InputsLength()) if operator.Inputs(place) >= 0]
        names = [graph.Tensors(place).Name().decode() for place in (operator.Outputs(0), *places)]
        if (scope := _scope(names)) is None:
            continue
        weight = _constant(model, graph, places[0], makers)
        order = (3, 0, 1, 2) if kind == depthwise else (0, 3, 1, 2)
        endings = ("/weights", "/biases") if "/" in scope or scope in _TF_ONLY else ("/kernel", "/bias")
        found[scope + endings[0]] = torch.from_numpy(np.ascontiguousarray(weight.transpose(order) if weight.ndim == 4 else weight))
        if len(places) > 1:
            found[scope + endings[1]] = torch.from_numpy(_constant(model, graph, places[1], makers))
    if not found:
        raise ValueError("none of its convolutions has a known name")
    return found


_TF_ONLY = ("image_pooling", "aspp0", "concat_projection")
_SCOPES = sorted({conv for scheme in SCHEMES if scheme.tensorflow for conv, _ in scheme.table.values()}, key=len, reverse=True)
_KERAS_SCOPES = [scope for scope in _SCOPES if "/" not in scope and scope not in _TF_ONLY]


def _scope(names: list[str]) -> str | None:
    """The longest known scope that occurs as a whole in one of the names, which semicolons may join; Keras 3 adds `_1` to its own."""
    split = [f"/{part}/" for name in names for part in name.split(";")]
    exact = (scope for scope in _SCOPES if any(f"/{scope}/" in part for part in split))
    return next(exact, None) or next((scope for scope in _KERAS_SCOPES if any(f"/{scope}_1/" in part for part in split)), None)


def _dequantisers(model: Any, graph: Any) -> dict[int, int]:
    """For tensors made by DEQUANTIZE (float16 files), the constant that they are made of."""
    import tflite

    made = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == tflite.BuiltinOperator.DEQUANTIZE:
            made[operator.Outputs(0)] = operator.Inputs(0)
    return made


def _constant(model: Any, graph: Any, place: int, makers: dict[int, int]) -> NDArray[np.float32]:
    """A constant tensor as float32, multiplied by its scales where it is quantised."""
    import tflite

    tensor = graph.Tensors(makers.get(place, place))
    kinds = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
    kind = kinds.get(tensor.Type(), "")
    if kind not in NUMPY_TYPES:
        raise ValueError(f"tensor {tensor.Name().decode()} is of type {kind}; accepted: {', '.join(NUMPY_TYPES)}")
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values = np.frombuffer(np.asarray(raw, dtype=np.uint8).tobytes(), NUMPY_TYPES[kind]).reshape(tensor.ShapeAsNumpy()).astype(np.float32)
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return values
    shape = [1] * values.ndim
    if quantization.ScaleLength() > 1:
        shape[quantization.QuantizedDimension()] = -1
    scales, zeros = quantization.ScaleAsNumpy().reshape(shape), quantization.ZeroPointAsNumpy().reshape(shape)
    dequantised: NDArray[np.float32] = ((values - zeros) * scales).astype(np.float32)
    return dequantised
