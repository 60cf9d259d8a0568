"""How long work must take at least on this machine: measured rates of matrix products and copies, and what a network asks of them."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from tasks.cost.count import trace
from tasks.model import TaskModel

# Edge of the 1x1 convolution that measures products: 1024 channels on 64 x 64 positions, 8.6 GFLOP, so that its start does not count.
CHANNELS, POSITIONS = 1024, 64
# Bytes that are copied: more than any cache holds.
COPIED = 256 * 2**20
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Work(NamedTuple):
    """What one operator must do: floating-point operations, bytes read and written, and the type that it computes in."""

    flops: float
    bytes: float
    dtype: str = "float32"


class Rates(NamedTuple):
    """Operations a second by type, and bytes read and written a second by a copy."""

    flops: dict[str, float]
    bytes: float


def measure_rates(repeats: int = 10) -> Rates:
    """Measures with the threads that torch has been given; the best of the repeats counts, as this is a limit."""
    flops = {}
    for name, dtype in DTYPES.items():
        layer = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False, dtype=dtype).to(memory_format=torch.channels_last)
        input = torch.randn(1, CHANNELS, POSITIONS, POSITIONS, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            flops[name] = 2 * CHANNELS**2 * POSITIONS**2 / _best(lambda layer=layer, input=input: layer(input), repeats)  # type: ignore[misc]
    source, target = torch.zeros(COPIED, dtype=torch.uint8), torch.empty(COPIED, dtype=torch.uint8)
    return Rates(flops, 2 * COPIED / _best(lambda: target.copy_(source), repeats))


def least_seconds(work: Iterable[Work], rates: Rates) -> float:
    """The sum over operators of the longer of computing and moving."""
    return sum(max(part.flops / rates.flops[part.dtype], part.bytes / rates.bytes) for part in work)


def convolutions(model: TaskModel, size: Sequence[int], batch_size: int = 1, dtype: str = "float32", passes: int = 1) -> list[Work]:
    """The work of a network's convolutions; everything else could be done while they write.

    Args:
        model: the model.
        size: height and width of the input in pixels.
        batch_size: images.
        dtype: what it computes in, `float32` or `bfloat16`.
        passes: 1 for inference, 3 for a training step: outputs, gradients of inputs, gradients of weights.
    """
    width, found = DTYPES[dtype].itemsize, []
    for layer in trace(model, tuple(size)).layers:
        if isinstance(layer.module, nn.Conv2d):
            weights = layer.module.weight.numel()
            moved = batch_size * (torch.Size(layer.input).numel() + torch.Size(layer.output).numel()) + weights
            found.append(Work(2 * layer.multiply_adds * batch_size, moved * width, dtype))
    return found * passes


def _best(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
