"""Batch norm, in training on CPUs together with the activation behind it."""

from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from backbones.loops import carray, compiled, loop, number, on_all_threads, pointer, rounded, shares_of, stored, take, type_from_loops

# Between which values activations keep what is normalised.
ACTIVATIONS: dict[type, tuple[float, float]] = {nn.ReLU6: (0.0, 6.0), nn.ReLU: (0.0, float("inf"))}
# Rows whose sums are of float32; those of the sums are of float64.
ROWS = 256
# Rows of fewer values are put together, so that vectors of the processor are filled.
LEAST_VALUES = 256
# What a pass makes: sums or features in the forward direction, sums or gradients in the other.
SUMS, FEATURES, BACKWARD_SUMS, GRADIENTS = range(4)
# Rows of the table of numbers for each channel; the last one begins with the bounds of the activation.
MEAN, SCALE, BIAS, BY_VALUE, BY_ALL, BOUNDS = range(6)


class BatchNorm2d(nn.BatchNorm2d):
    """A batch norm that also trains on a single value a channel (a 1x1 map of one image), by its running statistics.

    On CPUs it trains on large features in channels_last order by compiled loops: half the time of torch's operators, and sums of float64.
    Under bfloat16 autocast these return bfloat16, whatever the features are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, H, W) features."""
        found = self.bounded(input)
        if found is not None:
            return found
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)

    def bounded(self, input: Tensor, low: float = -float("inf"), high: float = float("inf")) -> Tensor | None:
        """Normalises (B, C, H, W) features by compiled loops, and keeps the outcome between two values; None where torch has to do it."""
        if not (self.training and self.affine and self.track_running_stats and self.momentum is not None):
            return None
        dtype = type_from_loops(input)
        if dtype is None or self.weight.dtype != torch.float32 or input.numel() == input.shape[1]:
            return None
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        return cast(Tensor, _Normalise.apply(input, self.weight, self.bias, self, dtype, (low, high)))  # type: ignore[no-untyped-call]


class ConvNormAct(nn.Sequential):
    """A convolution, a batch norm, and ReLU or ReLU6; the last two are computed at once where there are loops for it."""

    def forward(self, input: Tensor) -> Tensor:
        """Computes (B, C', H', W') features from (B, C, H, W) ones."""
        if len(self) != 3:  # a part of it
            return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]
        conv, norm, activation = self
        features, bounds = conv(input), ACTIVATIONS.get(type(activation))
        hooks = [layer._forward_pre_hooks or layer._forward_hooks or layer._backward_hooks for layer in (norm, activation)]
        if bounds and type(norm) is BatchNorm2d and not any(hooks):
            found = norm.bounded(features, *bounds)
            if found is not None:
                return found
        return cast(Tensor, activation(norm(features)))


class _Normalise(torch.autograd.Function):
    @staticmethod
    @np.errstate(all="ignore")  # infinite features become NaN, as in torch
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm2d, dtype: torch.dtype, bounds: tuple[float, float]
    ) -> Tensor:
        output = torch.empty_like(input, dtype=dtype)
        passes, count = _Passes(input, dtype, bounds), input.numel() / input.shape[1]
        # Sums around one of the values: it is near enough to the mean for float32.
        shift = input[0, :, 0, 0].float().numpy()
        passes.put(MEAN, shift)
        total, squares = passes.sums(SUMS, input, output)
        mean, var = shift + total / count, (squares / count - (total / count) ** 2).clip(0)
        inverse = 1 / np.sqrt(var + norm.eps)
        passes.put(MEAN, mean)
        passes.put(SCALE, weight.detach().numpy() * inverse)
        passes.put(BIAS, bias.detach().numpy())
        passes.run(FEATURES, input, output)
        for running, newest in ((norm.running_mean, mean), (norm.running_var, var * count / (count - 1))):
            cast(Tensor, running).lerp_(torch.from_numpy(newest.astype(np.float32)), cast(float, norm.momentum))
        ctx.save_for_backward(input)
        ctx.passes, ctx.inverse = passes, inverse
        return output

    @staticmethod
    @once_differentiable
    @np.errstate(all="ignore")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (input,), passes = ctx.saved_tensors, ctx.passes
        gradient, count = gradient.contiguous(memory_format=torch.channels_last), input.numel() / input.shape[1]
        total, products = passes.sums(BACKWARD_SUMS, input, gradient)
        by_weight, found = products * ctx.inverse, None
        if ctx.needs_input_grad[0]:
            scale = passes.table[SCALE, : len(total)] / count
            passes.put(BY_VALUE, -scale * ctx.inverse * by_weight)
            passes.put(BY_ALL, -scale * total)
            found = torch.empty_like(input)
            passes.run(GRADIENTS, found, gradient, input)
        return found, *(torch.from_numpy(part.astype(np.float32)) for part in (by_weight, total)), None, None, None


class _Passes:
    """Passes over (B, C, H, W) features, their outputs or gradients, as rows of channels."""

    def __init__(self, input: Tensor, dtype: torch.dtype, bounds: tuple[float, float]) -> None:
        channels, rows = input.shape[1], input.numel() // input.shape[1]
        self.repeats = 1
        while channels * self.repeats < LEAST_VALUES and rows % (2 * self.repeats) == 0:
            self.repeats *= 2
        self.shape = rows // self.repeats, channels * self.repeats
        self.table = np.zeros((BOUNDS + 1, self.shape[1]), np.float32)
        self.table[BOUNDS, :2] = bounds
        self.shares = shares_of(self.shape[0], ROWS)
        self.loop = _loop_of(input.dtype, dtype)

    def put(self, row: int, values: NDArray[Any]) -> None:
        """Writes a number for each channel into the table."""
        self.table[row] = np.tile(values, self.repeats)

    def sums(self, kind: int, input: Tensor, output: Tensor) -> NDArray[np.float64]:
        """(2, C) sums: of values and their squares, or of gradients and their products with values."""
        sums = np.zeros((self.shares, 2, self.shape[1]))
        self.run(kind, input, output, input, sums)
        return cast(NDArray[np.float64], sums.sum(0).reshape(2, self.repeats, -1).sum(1))

    def run(self, kind: int, input: Tensor, output: Tensor, values: Tensor | None = None, sums: NDArray[Any] | None = None) -> None:
        """Runs a pass."""
        memory = input, output, input if values is None else values
        arrays = self.table, self.table if sums is None else sums
        addresses = *(tensor.data_ptr() for tensor in memory), *(array.ctypes.data for array in arrays)
        on_all_threads(self.loop, np.array([0, kind, self.shares, *self.shape, *addresses], np.int64))


@lru_cache(maxsize=4)
def _loop_of(inside: torch.dtype, outside: torch.dtype) -> Any:
    """The loop for features of one type, and outputs of another."""
    inner, outer = stored(inside), stored(outside)

    def run(data: Any) -> None:
        task = carray(data, (10,), np.int64)
        kind, shares, rows, channels = task[1], task[2], task[3], task[4]
        inputs = carray(pointer(task[5]), (rows, channels), inner)
        outputs = carray(pointer(task[6]), (rows, channels), outer)
        values = carray(pointer(task[7]), (rows, channels), inner)
        table = carray(pointer(task[8]), (BOUNDS + 1, channels), np.float32)
        sums = carray(pointer(task[9]), (shares, 2, channels), np.float64)
        share = take(task.ctypes.data)
        while share < shares:
            first, last = share * rows // shares, (share + 1) * rows // shares
            if kind == SUMS:
                _sum(inputs[first:last], table, sums[share])
            elif kind == FEATURES:
                _normalise(inputs[first:last], table, outputs[first:last])
            elif kind == BACKWARD_SUMS:
                _sum_backward(inputs[first:last], outputs[first:last], table, sums[share])
            else:
                _normalise_backward(values[first:last], outputs[first:last], table, inputs[first:last])
            share = take(task.ctypes.data)

    return loop(run)


@compiled
def _sum(values: Any, table: Any, sums: Any) -> None:
    for first in range(0, values.shape[0], ROWS):
        plain, products = np.zeros(values.shape[1], np.float32), np.zeros(values.shape[1], np.float32)
        for row in range(first, min(first + ROWS, values.shape[0])):
            for c in range(values.shape[1]):
                value = number(values[row, c]) - table[MEAN, c]
                plain[c] += value
                products[c] += value * value
        sums[0] += plain
        sums[1] += products


@compiled
def _normalise(values: Any, table: Any, output: Any) -> None:
    low, high = table[BOUNDS, 0], table[BOUNDS, 1]
    for row in range(values.shape[0]):
        for c in range(values.shape[1]):
            found = (number(values[row, c]) - table[MEAN, c]) * table[SCALE, c] + table[BIAS, c]
            found = low if found < low else found
            found = high if found > high else found
            output[row, c] = rounded(found, output[row, c])


@compiled
def _sum_backward(values: Any, gradients: Any, table: Any, sums: Any) -> None:
    low, high = table[BOUNDS, 0], table[BOUNDS, 1]
    for first in range(0, values.shape[0], ROWS):
        plain, products = np.zeros(values.shape[1], np.float32), np.zeros(values.shape[1], np.float32)
        for row in range(first, min(first + ROWS, values.shape[0])):
            for c in range(values.shape[1]):
                value = number(values[row, c]) - table[MEAN, c]
                found = value * table[SCALE, c] + table[BIAS, c]
                gradient = number(gradients[row, c])
                gradient = np.float32(0) if (found <= low) | (found >= high) else gradient
                plain[c] += gradient
                products[c] += gradient * value
        sums[0] += plain
        sums[1] += products


@compiled
def _normalise_backward(values: Any, gradients: Any, table: Any, output: Any) -> None:
    low, high = table[BOUNDS, 0], table[BOUNDS, 1]
    for row in range(values.shape[0]):
        for c in range(values.shape[1]):
            value = number(values[row, c]) - table[MEAN, c]
            found = value * table[SCALE, c] + table[BIAS, c]
            gradient = number(gradients[row, c])
            gradient = np.float32(0) if (found <= low) | (found >= high) else gradient
            output[row, c] = rounded(gradient * table[SCALE, c] + value * table[BY_VALUE, c] + table[BY_ALL, c], output[row, c])
