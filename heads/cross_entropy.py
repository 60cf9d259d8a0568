"""Losses on the classes of pixels; those of segmentation-models-pytorch fit in their place."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads.base import IGNORE_INDEX, SegmentationHead
from heads.pixel_loops import PixelLoss, takes_loops
from heads.shared import shared_count


class CrossEntropyLoss(nn.Module):
    """Softmax cross-entropy as the mean over all pixels that are not void, over several processes those of all; 0 where all are.

    Args:
        class_weights: weight of each class, to raise rare ones; the mean is weighted by them. None counts all alike.
        ignore_index: value of void pixels.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of (B, K, H, W) logits and (B, H, W) int64 masks.

        Raises:
            ValueError: there is another number of class weights than of classes.
        """
        weights = self._weights(logits.shape[1])
        total = F.cross_entropy(logits, masks, weights, ignore_index=self.ignore_index, reduction="sum")
        valid = masks != self.ignore_index
        return self._mean(total, valid.sum() if weights is None else (weights[masks.where(valid, 0)] * valid).sum())

    def of_cells(self, cells: Tensor, masks: Tensor, head: SegmentationHead) -> Tensor:
        """Returns the loss of (B, K, h, w) logits that a head brings to the size of (B, H, W) masks; on CPUs without making all of these.

        Raises:
            ValueError: there is another number of class weights than of classes.
            IndexError: a mask holds a class that is not there.
        """
        is_plain = type(self).forward is CrossEntropyLoss.forward and type(head).upsample is SegmentationHead.upsample
        if not (is_plain and takes_loops(cells, masks)):
            return self(head.upsample(cells, masks.shape[1:]), masks)  # type: ignore[no-any-return]
        weights = self._weights(cells.shape[1])
        each = cells.new_ones(cells.shape[1]) if weights is None else weights
        return self._mean(*PixelLoss.apply(cells, masks, each, self.ignore_index, head.align_corners))  # type: ignore[no-untyped-call]

    def _weights(self, classes: int) -> Tensor | None:
        if self.class_weights is not None and len(self.class_weights) != classes:
            given = len(self.class_weights)
            raise ValueError(f"class_weights has {given} values; accepted: {classes}, one a class, background included")
        return self.class_weights

    def _mean(self, total: Tensor, count: Tensor) -> Tensor:
        return total / shared_count(count, 1.0 if self.class_weights is None else torch.finfo(count.dtype).tiny)


class OHEMLoss(nn.Module):
    """Cross-entropy on hard pixels only (online hard example mining: Shrivastava et al. 2016).

    A pixel is hard where its true class has a probability under `threshold`; at least a share `min_kept` of the pixels is kept. Over
    several processes the loss is the mean over the hard pixels of all, but each keeps that share of its own pixels.

    Args:
        threshold: probability in 0..1; .7 is the usual one.
        min_kept: least share of the batch's pixels, in 0..1.
        ignore_index: value of void pixels.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, threshold: float = 0.7, min_kept: float = 0.1, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        if not (0 < threshold <= 1 and 0 <= min_kept <= 1):
            raise ValueError(f"threshold {threshold}, min_kept {min_kept}: accepted: a threshold over 0 to 1, a share of 0 to 1")
        self.threshold, self.min_kept, self.ignore_index = threshold, min_kept, ignore_index

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the scalar loss of (B, K, H, W) logits and (B, H, W) int64 masks."""
        losses = F.cross_entropy(logits, masks, ignore_index=self.ignore_index, reduction="none").flatten()
        valid = masks.flatten() != self.ignore_index
        limit = torch.full_like(losses[0], -math.log(self.threshold))
        if kept := round(self.min_kept * losses.numel()):
            limit = limit.minimum(losses.detach().topk(kept).values[-1])
        hard = valid & (losses.detach() >= limit)
        return (losses * hard).sum() / shared_count(hard.sum())
