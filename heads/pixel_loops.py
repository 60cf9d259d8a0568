"""Softmax cross-entropy of upsampled cells and its gradient as compiled loops, for training on CPUs.

The scores of all pixels, hundreds of megabytes, are never there: each line of an image is upsampled, compared with its mask and forgotten.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backbones import loops
from backbones.loops import carray, compiled, loop, on_all_threads, pointer, power_of_two, shares_of, take

# Of the exponential function on -ln 2 / 2..ln 2 / 2, from Cephes (Moshier), expf.c: relative error 1e-7.
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
E5, E4, E3, E2, E1, E0 = (np.float32(value) for value in POLYNOMIAL)
# The logarithm of 2 in two parts, of which the first has few bits, and its inverse.
LN2_HIGH, LN2_LOW, LOG2_E = np.float32(0.693359375), np.float32(-2.12194440e-4), np.float32(1.44269504088896341)
HALF, ONE = np.float32(0.5), np.float32(1)
# Lines that a thread takes at a time, or more.
LINES = 8
# The exponential of less is nothing beside 1.
LEAST = np.float32(-87)


class Cells(NamedTuple):
    """Between which two cells each pixel of a side lies.

    Attributes:
        first: (pixels,) int64 cells, up to the one before the last.
        share: (pixels,) float32 shares of the second cell.
        starts: (cells,) int64: the first pixel between each cell and the next one, and the number of pixels.
    """

    first: NDArray[np.int64]
    share: NDArray[np.float32]
    starts: NDArray[np.int64]


def takes_loops(cells: Tensor, masks: Tensor) -> bool:
    """Whether there are loops for such cells and masks, and they take less time than torch."""
    return (
        type(cells) is type(masks) is Tensor
        and cells.dtype == torch.float32
        and masks.dtype == torch.int64
        and min(cells.shape[2:]) > 1
        and cells.shape[1] * masks.numel() >= loops.LEAST_SIZE
        and loops.are_there(cells)
    )


class PixelLoss(torch.autograd.Function):
    """The sum of weighted losses, and the sum of the weights, over all pixels that are not void."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, masks: Tensor, weights: Tensor, ignore_index: int, align_corners: bool) -> tuple[Tensor, Tensor]:
        """Takes (B, K, h, w) cells and (B, H, W) masks for which `takes_loops` is true, and (K,) weights of classes.

        Raises:
            IndexError: a mask holds a class that is not there.
        """
        (batch, classes, height, width), (rows, columns) = cells.shape, masks.shape[1:]
        down, across = between(height, rows, align_corners), between(width, columns, align_corners)
        gradients, shares = torch.empty(batch, rows, classes, width), shares_of(batch * rows, LINES)
        sums = np.zeros((shares, 3))
        memory = cells.contiguous(), masks.contiguous(), weights.float().contiguous(), gradients
        arrays = down.first, down.share, across.share, across.starts, sums
        addresses = *(tensor.data_ptr() for tensor in memory), *(array.ctypes.data for array in arrays)
        task = np.array([0, shares, batch, classes, height, width, rows, columns, ignore_index, *addresses], np.int64)
        on_all_threads(_loop(), task)
        total, count, unknown = torch.from_numpy(sums.sum(0).astype(np.float32))
        if unknown:
            raise IndexError(
                f"masks hold unknown classes in {int(unknown)} lines; accepted: 0 to {classes - 1}, and {ignore_index} for void"
            )
        parts, lines = torch.zeros(height, rows), torch.arange(rows)
        first, part = torch.from_numpy(down.first), torch.from_numpy(down.share)
        parts[first, lines], parts[first + 1, lines] = 1 - part, part
        ctx.save_for_backward((parts @ gradients.flatten(2)).view(batch, height, classes, width).transpose(1, 2))
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, total: Tensor, count: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Returns the gradient of the cells."""
        return total * ctx.saved_tensors[0], None, None, None, None


@lru_cache(maxsize=16)
def between(cells: int, pixels: int, align_corners: bool) -> Cells:
    """Places pixels as `torch.nn.functional.interpolate` does."""
    number = np.arange(pixels, dtype=np.float64)
    place = number * (cells - 1) / max(pixels - 1, 1) if align_corners else ((number + 0.5) * cells / pixels - 0.5).clip(0, cells - 1)
    first = np.floor(place).clip(0, cells - 2).astype(np.int64)
    starts = np.searchsorted(first, np.arange(cells)).astype(np.int64)
    starts[-1] = pixels
    return Cells(first, (place - first).astype(np.float32), starts)


@lru_cache(maxsize=1)
def _loop() -> Any:
    def run(data: Any) -> None:
        task = carray(data, (18,), np.int64)
        shares, batch, classes, height, width, rows, columns = task[1], task[2], task[3], task[4], task[5], task[6], task[7]
        cells = carray(pointer(task[9]), (batch, classes, height, width), np.float32)
        masks = carray(pointer(task[10]), (batch * rows, columns), np.int64)
        weights = carray(pointer(task[11]), (classes,), np.float32)
        gradients = carray(pointer(task[12]), (batch * rows, classes, width), np.float32)
        above, below = carray(pointer(task[13]), (rows,), np.int64), carray(pointer(task[14]), (rows,), np.float32)
        beside, starts = carray(pointer(task[15]), (columns,), np.float32), carray(pointer(task[16]), (width,), np.int64)
        sums = carray(pointer(task[17]), (shares, 3), np.float64)
        scores, line = np.empty((classes, columns), np.float32), np.empty((classes, width), np.float32)
        share = take(task.ctypes.data)
        while share < shares:
            for number in range(share * batch * rows // shares, (share + 1) * batch * rows // shares):
                image, row = divmod(number, rows)
                first, part = above[row], below[row]
                for k in range(classes):
                    for c in range(width):
                        line[k, c] = cells[image, k, first, c] * (ONE - part) + cells[image, k, first + 1, c] * part
                _score(line, beside, starts, scores)
                _compare(scores, masks[number], weights, task[8], sums[share])
                _gather(scores, beside, starts, gradients[number])
            share = take(task.ctypes.data)

    return loop(run)


@compiled
def _score(line: Any, beside: Any, starts: Any, scores: Any) -> None:
    """Upsamples a line."""
    for k in range(scores.shape[0]):
        for c in range(line.shape[1] - 1):
            left, more = line[k, c], line[k, c + 1] - line[k, c]
            for x in range(starts[c], starts[c + 1]):
                scores[k, x] = left + beside[x] * more


@compiled
def _exp(value: Any) -> Any:
    """The exponential of a value of at most 0; of NaN, NaN."""
    value = LEAST if value < LEAST else value
    whole = np.floor(value * LOG2_E + HALF)
    rest = value - whole * LN2_HIGH - whole * LN2_LOW
    found = ((((E5 * rest + E4) * rest + E3) * rest + E2) * rest + E1) * rest + E0
    return (found * rest * rest + rest + ONE) * power_of_two(whole)


@compiled
def _compare(scores: Any, mask: Any, weights: Any, ignore_index: int, sums: Any) -> None:
    """Adds up the losses of a line, and puts gradients in the place of its scores."""
    classes, columns = scores.shape
    top, total = np.full(columns, -np.inf, np.float32), np.zeros(columns, np.float32)
    factor = np.zeros(columns, np.float32)
    for x in range(columns):
        if mask[x] != ignore_index and not 0 <= mask[x] < classes:
            sums[2] += 1
            return
    for k in range(classes):
        for x in range(columns):
            top[x] = scores[k, x] if not scores[k, x] <= top[x] else top[x]
    for x in range(columns):
        label = mask[x]
        if label != ignore_index:
            factor[x] = weights[label]
            sums[0] += factor[x] * (top[x] - scores[label, x])
            sums[1] += factor[x]
    for k in range(classes):
        for x in range(columns):
            scores[k, x] = _exp(scores[k, x] - top[x])
            total[x] += scores[k, x]
    for x in range(columns):
        sums[0] += factor[x] * np.log(total[x])
        total[x] = factor[x] / total[x]
    for k in range(classes):
        for x in range(columns):
            scores[k, x] *= total[x]
    for x in range(columns):
        if mask[x] != ignore_index:
            scores[mask[x], x] -= factor[x]


@compiled
def _gather(scores: Any, beside: Any, starts: Any, line: Any) -> None:
    """Brings the gradients of a line's pixels to its cells."""
    for k in range(scores.shape[0]):
        line[k, 0] = 0
        for c in range(line.shape[1] - 1):
            all, right = np.float32(0), np.float32(0)
            for x in range(starts[c], starts[c + 1]):
                all += scores[k, x]
                right += scores[k, x] * beside[x]
            line[k, c] += all - right
            line[k, c + 1] = right
