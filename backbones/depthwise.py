"""Depthwise convolutions with strides or dilations, for training on CPUs."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.loops import carray, compiled, loop, number, on_all_threads, pointer, rounded, shares_of, stored, take

# Lines of outputs that a thread takes at a time, or more.
LINES = 8
# What a pass makes.
OUTPUTS, INPUT_GRADIENTS, WEIGHT_GRADIENTS = range(3)


class Depthwise(torch.autograd.Function):
    """A depthwise convolution of (B, C, H, W) features in channels_last order by (C, 1, k, k) weights, as compiled loops.

    With strides or dilations oneDNN's backward pass takes up to ten times as long, most of all in bfloat16. Weights, their gradients and
    all sums stay in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, stride: int, dilation: int, before: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Returns (B, C, *size) outputs; `before` are the zeros above and left of the input."""
        output = torch.empty((*input.shape[:2], *size), dtype=input.dtype, memory_format=torch.channels_last)
        ctx.geometry = weight.shape[-1], stride, dilation, *before
        ctx.save_for_backward(input, weight)
        _run(OUTPUTS, input, output, _table(weight), ctx.geometry)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of input and weights."""
        input, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        by_input = by_weight = None
        if ctx.needs_input_grad[0]:
            by_input = torch.empty_like(input)
            _run(INPUT_GRADIENTS, by_input, gradient, _table(weight), ctx.geometry)
        if ctx.needs_input_grad[1]:
            sums = np.zeros((_shares(gradient), weight[0].numel(), len(weight)), np.float32)
            _run(WEIGHT_GRADIENTS, input, gradient, sums, ctx.geometry)
            by_weight = torch.from_numpy(sums.sum(0).T.copy()).view_as(weight)
        return by_input, by_weight, None, None, None, None


def _table(weight: Tensor) -> Any:
    """(k k, C)."""
    return np.ascontiguousarray(weight.detach().flatten(1).numpy().T)


def _shares(lines: Tensor) -> int:
    return shares_of(len(lines) * lines.shape[2], LINES)


def _run(kind: int, input: Tensor, output: Tensor, table: Any, geometry: tuple[int, ...]) -> None:
    batch, channels, height, width = input.shape
    addresses = input.data_ptr(), output.data_ptr(), table.ctypes.data
    task = np.array(
        [
            0,
            kind,
            _shares(input if kind == INPUT_GRADIENTS else output),
            batch,
            channels,
            height,
            width,
            *output.shape[2:],
            *geometry,
            *addresses,
        ],
        np.int64,
    )
    on_all_threads(_loop_of(input.dtype), task)


@lru_cache(maxsize=2)
def _loop_of(dtype: torch.dtype) -> Any:
    """The loop for features of a type."""
    kept = stored(dtype)

    def run(data: Any) -> None:
        task = carray(data, (17,), np.int64)
        kind, shares, batch, channels, height, width, rows, columns = task[1], task[2], task[3], task[4], task[5], task[6], task[7], task[8]
        kernel, stride, dilation, top, left = task[9], task[10], task[11], task[12], task[13]
        inputs = carray(pointer(task[14]), (batch, height, width, channels), kept)
        outputs = carray(pointer(task[15]), (batch, rows, columns, channels), kept)
        table = carray(pointer(task[16]), (kernel * kernel, channels), np.float32)
        sums = carray(pointer(task[16]), (shares, kernel * kernel, channels), np.float32)
        lines = batch * (height if kind == INPUT_GRADIENTS else rows)
        share = take(task.ctypes.data)
        while share < shares:
            first, last = share * lines // shares, (share + 1) * lines // shares
            if kind == OUTPUTS:
                _convolve(inputs, table, outputs, first, last, kernel, stride, dilation, top, left, 1)
            elif kind == INPUT_GRADIENTS:
                _convolve(outputs, table, inputs, first, last, kernel, 1, -dilation, -top, -left, stride)
            else:
                _correlate(inputs, outputs, sums[share], first, last, kernel, stride, dilation, top, left)
            share = take(task.ctypes.data)

    return loop(run)


@compiled
def _place(position: int, before: int, divisor: int, size: int) -> int:
    """The row or column at a position in front of which zeros stand, or -1 where there is none."""
    found = position - before
    if found < 0 or found % divisor or found // divisor >= size:
        return -1
    return found // divisor


@compiled
def _convolve(
    source: Any, table: Any, output: Any, first: int, last: int, kernel: int, stride: int, step: int, top: int, left: int, divisor: int
) -> None:
    """Lines of the convolution, or with a divisor, which is its stride, and a negative step of its transpose."""
    total = np.empty(output.shape[3], np.float32)
    for line in range(first, last):
        image, y = divmod(line, output.shape[1])
        for x in range(output.shape[2]):
            total[:] = 0
            for i in range(kernel):
                row = _place(y * stride + i * step, top, divisor, source.shape[1])
                if row < 0:
                    continue
                for j in range(kernel):
                    column = _place(x * stride + j * step, left, divisor, source.shape[2])
                    if column < 0:
                        continue
                    values, weights = source[image, row, column], table[i * kernel + j]
                    for c in range(total.size):
                        total[c] += number(values[c]) * weights[c]
            found = output[image, y, x]
            for c in range(total.size):
                found[c] = rounded(total[c], found[c])


@compiled
def _correlate(
    source: Any, gradients: Any, sums: Any, first: int, last: int, kernel: int, stride: int, step: int, top: int, left: int
) -> None:
    """What lines of the outputs' gradients add to those of the weights."""
    total = np.empty(sums.shape, np.float32)
    for line in range(first, last):
        image, y = divmod(line, gradients.shape[1])
        total[:] = 0
        for x in range(gradients.shape[2]):
            gradient = gradients[image, y, x]
            for i in range(kernel):
                row = _place(y * stride + i * step, top, 1, source.shape[1])
                if row < 0:
                    continue
                for j in range(kernel):
                    column = _place(x * stride + j * step, left, 1, source.shape[2])
                    if column < 0:
                        continue
                    values, found = source[image, row, column], total[i * kernel + j]
                    for c in range(found.size):
                        found[c] += number(values[c]) * number(gradient[c])
        sums += total
