"""Activation memory as the MobileNetV2 paper counts it: the largest tensor that must be held at each resolution."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from tasks.cost.count import Layer, Trace

# Bytes of an activation: table 3 of the paper assumes 16-bit floats.
BYTES = 2
# Classes of blocks that are computed in parts, so that the tensors inside are never whole (paper, section 5.1); torchvision and timm call
# the first so too. The caption of table 3 has ShuffleNet's bottlenecks among them.
BOTTLENECKS = ("InvertedResidual", "ShuffleUnit")

Resolution = tuple[int, int]


class Block(NamedTuple):
    """A bottleneck block (paper, table 1).

    Attributes:
        name: its name in the model.
        layers: its convolutions: expansion or reduction (none where t = 1), depthwise, projection.
    """

    name: str
    layers: tuple[Layer, ...]

    @property
    def input(self) -> tuple[int, ...]:
        """(C, H, W) of what goes in."""
        return self.layers[0].input

    @property
    def output(self) -> tuple[int, ...]:
        """(C, H, W) of what comes out."""
        return self.layers[-1].output

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return sum(layer.multiply_adds for layer in self.layers)


def blocks(traced: Trace) -> list[Block]:
    """Finds the bottleneck blocks that ran to their end."""
    names = [name for name, module in traced.model.named_modules() if type(module).__name__ in BOTTLENECKS]
    found = []
    for name in names:
        layers = tuple(layer for layer in _weighted(traced) if layer.name.startswith(f"{name}."))
        if len(layers) > 1:  # a tap may end the backbone within a block
            found.append(Block(name, layers))
    return found


def held(traced: Trace, in_parts: Sequence[str] = ()) -> dict[Resolution, int]:
    """Returns the largest number of channels that must be held at each resolution.

    Held are the inputs and outputs of convolutions and linear layers, and the taps, but not what is inside bottleneck blocks; the
    image does not count, nor what postprocessing makes.

    Args:
        traced: the model.
        in_parts: names of convolutions outside of blocks that are computed in parts too, together with what follows; taps are then
            taken to be used up at once.
    """
    largest: dict[Resolution, int] = {}
    for shape in (*_held(traced, in_parts), *(() if in_parts else traced.taps.values())):
        channels, place = shape[0], (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        largest[place] = max(largest.get(place, 0), channels)
    return dict(sorted(largest.items(), reverse=True))


def _held(traced: Trace, in_parts: Sequence[str]) -> Iterator[tuple[int, ...]]:
    found = blocks(traced)
    starts, ends = ({block.layers[place].name for block in found} for place in (0, -1))
    inside = {layer.name for block in found for layer in block.layers}
    in_passing: tuple[int, ...] = ()
    for number, layer in enumerate(_weighted(traced)):
        if layer.name in in_parts:
            in_passing = layer.output
            continue
        if layer.name not in inside or layer.name in ends:
            yield layer.output
        if number and (layer.name not in inside or layer.name in starts) and layer.input != in_passing:
            yield layer.input


def leaving(traced: Trace) -> dict[Resolution, int]:
    """Returns the largest number of output channels of the blocks that start at each resolution, the rule that table 3 seems to follow."""
    largest: dict[Resolution, int] = {}
    for block in blocks(traced):
        place = (block.input[1], block.input[2])
        largest[place] = max(largest.get(place, 0), block.output[0])
    return largest


def kilobytes(channels: int, resolution: Resolution) -> float:
    """Size of a tensor of 16-bit floats in units of 1,000 bytes."""
    return channels * resolution[0] * resolution[1] * BYTES / 1000


def largest(held_channels: Mapping[Resolution, int]) -> float:
    """Size of the largest tensor in units of 1,000 bytes."""
    return max(kilobytes(channels, resolution) for resolution, channels in held_channels.items())


def _weighted(traced: Trace) -> list[Layer]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return [layer for layer in traced.layers if isinstance(layer.module, kinds) and len(layer.output) in (1, 3)]
