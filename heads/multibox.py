"""Classification losses of single-shot detectors; each knows how its logits become scores."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.spec import Described

# class_prediction_bias_init of TensorFlow's ssdlite_mobilenet_v3: a score of .01 (Lin et al. 2017, section 4.1).
PRIOR_BIAS = -4.6


class ClassLoss(Described, ABC):
    """A classification loss on anchors."""

    # Initial bias of the foreground logits.
    foreground_bias = 0.0

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the scalar sum over all images, not yet divided by the number of matches.

        Args:
            logits: (B, A, K + 1) float32; column 0 is the background.
            labels: (B, A) int64 in 0..K, 0 for the background.
        """

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Turns (B, A, K + 1) logits into (B, A, K) scores of the foreground classes, in 0..1."""


def hard_negatives(loss: Tensor, labels: Tensor, ratio: float, minimum: int) -> Tensor:
    """Picks each image's background anchors of largest loss (SSD, Liu et al. 2016, section 2.2).

    Args:
        loss: (B, A) loss of each anchor.
        labels: (B, A) int64 labels, 0 for the background.
        ratio: negatives for each positive.
        minimum: least number of negatives an image, so that an image without boxes trains too.

    Returns:
        (B, A) bool, true for the chosen negatives.
    """
    positive = labels > 0
    wanted = (positive.sum(dim=1, keepdim=True) * ratio).clamp(min=minimum)
    order = loss.detach().masked_fill(positive, -math.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(loss.shape[1], device=loss.device).expand_as(order))
    return (rank < wanted) & ~positive


class SoftmaxLoss(ClassLoss):
    """Softmax cross-entropy over background and classes, on positives and hard negatives (SSD; mmdetection, torchvision).

    Args:
        negative_ratio: negatives for each positive; 3 in SSD, section 2.2.
        min_negatives: least number of negatives an image (`min_negatives_per_image` 3 in TensorFlow's ssdlite_mobilenet_v2_coco).
    """

    def __init__(self, negative_ratio: float = 3.0, min_negatives: int = 3) -> None:
        self.negative_ratio, self.min_negatives = negative_ratio, min_negatives

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the summed loss, see `ClassLoss`."""
        loss = self._anchor_loss(logits, labels)
        chosen = (labels > 0) | hard_negatives(loss, labels, self.negative_ratio, self.min_negatives)
        return loss.where(chosen, 0.0).sum()  # not by indexing, for which a GPU would wait

    def _anchor_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax without the background column."""
        return logits.softmax(dim=-1)[..., 1:]


class SigmoidLoss(SoftmaxLoss):
    """Sigmoid cross-entropy of every column, the background's too, on positives and hard negatives.

    The loss of TensorFlow's ssdlite_mobilenet_v2_coco, except that its hard negatives pass a non-maximum suppression first.
    """

    # Every score begins near .01: else the columns of all other classes, at .5, are most of the loss for thousands of steps.
    foreground_bias = PRIOR_BIAS

    def _anchor_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid without the background column."""
        return logits.sigmoid()[..., 1:]


class FocalLoss(ClassLoss):
    """Sigmoid focal loss on all anchors (Lin et al. 2017); the background column is not used.

    Args:
        alpha: weight of positives; .75 in TensorFlow's ssdlite_mobilenet_v3_large, .25 in the focal-loss paper.
        gamma: focusing exponent; 2 in both.
    """

    foreground_bias = PRIOR_BIAS

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the summed loss, see `ClassLoss`."""
        from torchvision.ops import sigmoid_focal_loss

        wanted = F.one_hot(labels, logits.shape[-1])[..., 1:].to(logits.dtype)
        loss: Tensor = sigmoid_focal_loss(logits[..., 1:], wanted, self.alpha, self.gamma, reduction="sum")
        return loss

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid without the background column."""
        return logits.sigmoid()[..., 1:]
