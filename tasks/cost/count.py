"""Counting the parameters and multiply-adds of a model, part by part and layer by layer."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tasks.model import TaskModel

# What torch.utils.flop_counter has no formula for, in words; others are named as torch names them.
WORDS = {
    "native_batch_norm": "batch norms",
    "hardtanh": "ReLU6",
    "relu": "ReLU",
    "add": "additions",
    "sub": "normalisation of images",
    "div": "normalisation of images",
    "mul": "multiplications by element",
    "mean": "average pooling",
    "upsample_bilinear2d": "bilinear resizing",
    "upsample_nearest2d": "nearest-neighbour resizing",
}
# What moves values or lays out anchors, and computes nothing on features.
MOVES = "arange as_strided cat clone constant_pad_nd copy detach empty expand flip lift_fresh min new_empty permute select slice split"
MOVES += " squeeze stack t to_copy transpose unsafe_view unsqueeze view"


class Layer(NamedTuple):
    """One layer without layers of its own.

    Attributes:
        name: its name in the model.
        module: the layer, on the meta device.
        input: shape of its first input, without the batch.
        output: shape of its output, without the batch.
        multiply_adds: of one image.
    """

    name: str
    module: nn.Module
    input: tuple[int, ...]
    output: tuple[int, ...]
    multiply_adds: int


class Trace(NamedTuple):
    """What one image does in a model.

    Attributes:
        model: the model, on the meta device.
        size: height and width of the image in pixels.
        layers: the layers in the order in which they ran.
        taps: (C, H, W) of what the backbone hands to the head, by name.
        multiply_adds: of one image, by name of the module; that of the whole model is "".
        uncounted: what ran and has no multiply-adds in torch's counter.
    """

    model: TaskModel
    size: tuple[int, int]
    layers: tuple[Layer, ...]
    taps: dict[str, tuple[int, ...]]
    multiply_adds: dict[str, int]
    uncounted: tuple[str, ...]


class Part(NamedTuple):
    """Counts of a model or a part of it.

    Attributes:
        name: `backbone`, `extra layers`, `prediction layers`, `head`, or `whole`.
        modules: names of the modules that make it up.
        parameters: number of parameters, frozen ones included.
        statistics: number of running means and variances of batch norms.
        multiply_adds: of one image.
    """

    name: str
    modules: tuple[str, ...]
    parameters: int
    statistics: int
    multiply_adds: int


class _Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that a flop counter has no formula for."""

    def __init__(self, formulas: Iterable[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas, self.names = set(formulas), dict[str, None]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket not in self.formulas:
            self.names[func._overloadpacket.__name__.strip("_")] = None
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def trace(model: TaskModel, size: Sequence[int]) -> Trace:
    """Runs a model, or a copy of it, on the meta device, which takes no memory and hardly any time, and counts.

    Args:
        model: the model, on any device.
        size: height and width of the input in pixels.

    Raises:
        ValueError: `size` is not two positive numbers.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size {list(size)} is not possible; accepted: a height and a width of at least 1")
    if any(tensor.device.type != "meta" for tensor in (*model.parameters(), *model.buffers())):
        model = copy.deepcopy(model).to("meta")
    model.eval()
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    taps: dict[str, tuple[int, ...]] = {}
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(partial(_note_shapes, shapes, name)) for name, module in leaves]
    hooks.append(model.backbone.register_forward_hook(partial(_note_taps, taps)))
    try:
        with FlopCounterMode(display=False) as counter, _Uncounted(counter.flop_registry) as others:
            model(torch.empty(1, 3, *size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    # The counter names modules from the class of the outermost one on; a multiply-add is two of its operations.
    counts = {name.partition(".")[2]: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items() if name != "Global"}
    layers = [Layer(name, model.get_submodule(name), *shape, counts.get(name, 0)) for name, shape in shapes.items()]
    words = {WORDS.get(name, name): None for name in others.names if name not in MOVES.split()}
    return Trace(model, (int(size[0]), int(size[1])), tuple(layers), taps, counts, tuple(words))


def _note_shapes(shapes: dict[str, Any], name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
        shapes.setdefault(name, (tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))


def _note_taps(taps: dict[str, Any], module: nn.Module, inputs: tuple[Any, ...], features: dict[str, Tensor]) -> None:
    taps.update({name: tuple(value.shape[1:]) for name, value in features.items()})


def filled(traced: Trace) -> int:
    """Counts the multiply-adds of one image as TensorFlow computes them.

    It turns an atrous convolution of rate r into r x r plain ones (`tf.space_to_batch`), for which it fills the map up to multiples of r.
    """
    extra = 0.0
    for layer in traced.layers:
        if isinstance(layer.module, nn.Conv2d) and max(layer.module.dilation) > 1:
            sides = zip(layer.output[1:], layer.module.dilation, strict=True)
            extra += layer.multiply_adds * (math.prod(-(-side // rate) * rate / side for side, rate in sides) - 1)
    return traced.multiply_adds[""] + round(extra)


def parameters(modules: Iterable[nn.Module], wanted: Callable[[nn.Parameter], bool] = lambda parameter: True) -> int:
    """Counts the parameters of modules, those that several share once."""
    found = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in found.values() if wanted(parameter))


def statistics(modules: Iterable[nn.Module]) -> int:
    """Counts the running means and variances of modules, which Keras counts among the parameters."""
    found = {id(b): b for module in modules for name, b in module.named_buffers() if name.rpartition(".")[2].startswith("running_")}
    return sum(buffer.numel() for buffer in found.values())


def parts(traced: Trace) -> list[Part]:
    """Counts the whole model and its parts: the backbone, and the head or an SSD's extra layers and prediction layers."""
    head = traced.model.head
    names = {"whole": [""], "backbone": ["backbone"]}
    if hasattr(head, "extras"):
        names["extra layers"] = [f"head.extras.{number}" for number in range(len(head.extras))]
        predicting = [(kind, number) for kind in ("box_layers", "class_layers") for number in range(len(getattr(head, kind)))]
        names["prediction layers"] = [f"head.{kind}.{number}" for kind, number in predicting]
    else:
        names["head"] = ["head"]
    return [_part(name, modules, traced) for name, modules in names.items() if modules]


def _part(name: str, names: list[str], traced: Trace) -> Part:
    modules = [traced.model.get_submodule(module) for module in names]
    return Part(name, tuple(names), parameters(modules), statistics(modules), sum(traced.multiply_adds.get(m, 0) for m in names))


def looks(model: TaskModel, size: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the input sizes at which an evaluation looks at one image: several where a segmenter has scales or mirror images."""
    scales, times = getattr(model, "scales", (1.0,)), 2 if getattr(model, "flip", False) else 1
    # As Segmenter scales its inputs: sizes of the form 16 n + 1 stay so.
    sizes = [(max(round((size[0] - 1) * s) + 1, 1), max(round((size[1] - 1) * s) + 1, 1)) for s in scales]
    return [look for look in sizes for _ in range(times)]


def evaluation_multiply_adds(model: TaskModel, size: Sequence[int]) -> int:
    """Counts the multiply-adds of all looks at one image."""
    sizes = looks(model, size)
    return sum(trace(model, look).multiply_adds[""] * sizes.count(look) for look in set(sizes))
