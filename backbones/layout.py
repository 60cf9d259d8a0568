"""Finding out what the layers of a network do to the resolution, and changing it."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.base import Tap

# Height and width in pixels of the images by which networks are measured: multiples of all strides, and not square, so that
# what is averaged over the image is not taken for a map.
PROBE = (64, 128)
# Strides that are offered.
STRIDES = (2, 4, 8, 16, 32)


class Layer(NamedTuple):
    """A module of a network as it ran on an image.

    Attributes:
        name: its path in the network.
        module: the module itself.
        entry: stride of its input; None where that is no map.
        stride: stride of its output; None where that is no map.
        channels: channels of its output.
    """

    name: str
    module: nn.Module
    entry: int | None
    stride: int | None
    channels: int


def stride_of(features: Any, size: tuple[int, int]) -> int | None:
    """Returns the stride of (B, C, H, W) features of images of this height and width; None where they are no map of a whole stride."""
    if not isinstance(features, Tensor) or features.ndim != 4 or not all(features.shape):
        return None
    height, width = (pixels / cells for pixels, cells in zip(size, features.shape[2:], strict=True))
    return int(height) if height == width == int(height) else None


def watch(network: nn.Module, run: Callable[[], Any]) -> list[Layer]:
    """Returns the modules of a network in the order in which they end, parts before the whole.

    Args:
        network: the network.
        run: runs it on an image of the size `PROBE`.
    """
    seen: list[Layer] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            entry = stride_of(inputs[0], PROBE) if inputs else None
            stride = stride_of(output, PROBE)
            seen.append(Layer(name, module, entry, stride, output.shape[1] if stride else 0))

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in network.named_modules() if name]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def dilate(layers: list[Layer], output_stride: int) -> None:
    """Turns the strides of convolutions beyond an output stride into dilations of what follows them.

    As in DeepLabv3 (section 3.1) and torchvision's ResNet, the convolution that loses its stride still works at the old dilation, so that
    the strided network's features are found in the dense ones. Only kernels of odd size are changed; who calls looks at the result.

    Args:
        layers: what `watch` saw.
        output_stride: the largest stride that shall remain.
    """
    for layer in layers:
        conv = layer.module
        if not isinstance(conv, nn.Conv2d) or layer.entry is None or not all(size % 2 for size in conv.kernel_size):
            continue
        rate = max(1, layer.entry // output_stride)
        if layer.entry * conv.stride[0] > output_stride:
            remaining = max(1, output_stride // layer.entry)
            conv.stride = (remaining, remaining)
        conv.dilation = tuple(dilation * (rate if size > 1 else 1) for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True))
        if not isinstance(conv.padding, str):
            conv.padding = tuple(padding * rate for padding in conv.padding)


def expansions(layers: list[Layer], taps: Mapping[str, Tap]) -> dict[str, Tap]:
    """Returns the expanded features of the inverted residuals that halve the resolution, SSDLite's taps (MobileNetV2, section 6.2).

    They are what a depthwise convolution of stride 2 reads, where they have more channels than the last block before.

    Args:
        layers: what `watch` saw.
        taps: outputs of blocks.
    """
    channels = {tap.stride: tap.channels for tap in taps.values()}
    found: dict[int, tuple[str, Tap]] = {}
    for before, layer in pairwise(layers):
        conv, stride = layer.module, layer.entry
        if not isinstance(conv, nn.Conv2d) or stride not in channels or before.stride != stride or layer.stride != 2 * stride:
            continue
        if before.channels == conv.in_channels == conv.groups > channels[stride]:
            found.setdefault(stride, (before.name, Tap(before.channels, stride, block=False)))
    return dict(found.values())


def finest_first(taps: Mapping[str, Tap]) -> dict[str, Tap]:
    """Returns taps by stride, and those of equal stride as they are."""
    return dict(sorted(taps.items(), key=lambda named: named[1].stride))


def prune(network: nn.Module, run: Callable[[], Iterable[Tensor]]) -> None:
    """Replaces the modules that outputs do not depend on by ones that do nothing.

    Args:
        network: the network.
        run: runs it and returns the outputs.
    """
    made: list[tuple[nn.Module, Tensor]] = []
    # Layers without parameters must go too: an activation in place would change the features that it is given.
    plain = [module for module in network.modules() if not [*module.parameters(), *module.children()]]

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        hands_on = any(output is given for given in inputs) and not getattr(module, "inplace", False)
        if isinstance(output, Tensor) and output.requires_grad and not hands_on:
            made.append((module, output))

    handles = [module.register_forward_hook(record) for module in plain]
    try:
        with torch.enable_grad():
            total = torch.stack([output.sum() for output in run()]).sum()
    finally:
        for handle in handles:
            handle.remove()
    owners = [*(p for p in network.parameters() if p.requires_grad), *(module for module, _ in made)]
    tensors = [*(p for p in network.parameters() if p.requires_grad), *(output for _, output in made)]
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    used = {id(owner) for owner, gradient in zip(owners, gradients, strict=True) if gradient is not None}
    _replace_unused(network, {id(owner) for owner in owners}, used)


class Skipped(nn.Module):
    """Stands where a layer was that no tap needs."""

    def forward(self, features: Any, *others: Any) -> Any:
        """Returns the first of what it is given."""
        return features


def _replace_unused(module: nn.Module, known: set[int], used: set[int]) -> None:
    for name, child in module.named_children():
        own = {id(part) for part in (*child.parameters(), *child.modules())} & known
        is_list = type(child).forward in (nn.Sequential.forward, nn.Module.forward)
        if own and not own & used and not is_list:
            setattr(module, name, Skipped())
        else:  # networks count on their lists, whatever is in them
            _replace_unused(child, known, used)
    for parameter in module.parameters(recurse=False):
        if id(parameter) in known - used:
            parameter.requires_grad_(False)  # a layer that runs may hold parameters that it does not use
