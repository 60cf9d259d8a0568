"""Intersection over union of classes, from one confusion matrix over the whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Evaluation:
    """Results over a whole data set.

    Attributes:
        figures: `mIoU` over all classes (but those that neither masks nor predictions have, whose IoU is undefined), `mIoU_present` over
            the classes that the masks have, `pixel_accuracy`, `mean_accuracy` over the classes that the masks have, and `void_share` of
            the pixels, which count nowhere else; in 0..1, -1 where there is nothing to measure.
        per_class: IoU, accuracy (recall) and true pixels of each class; -1 where undefined.
        confusion: (K, K) pixels by true and predicted class.
    """

    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: NDArray[np.int64]


class ConfusionMatrix(Metric):
    """Counts pixels by true and predicted class, each image once however many processes share the set.

    Args:
        num_classes: number of classes K.
        images: number of images in the set.
    """

    full_state_update = False
    counts: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, images: int) -> None:
        super().__init__()
        self.num_classes, self.images, self.visits = num_classes, images, 0
        self.add_state("counts", default=torch.zeros(256, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        """Adds images, in the order of the loader.

        Args:
            predicted: (H, W) uint8 class indices, one an image.
            masks: (H, W) uint8 true classes, 255 for void, one an image.
        """
        for found, mask in zip(predicted, masks, strict=True):
            if not self._is_repeated():
                # Row 255 takes the void pixels, which is faster than leaving them out.
                pairs = mask.flatten().int() * self.num_classes + found.flatten()
                self.counts += torch.bincount(pairs, minlength=256 * self.num_classes).view(256, self.num_classes)
                self.seen += 1

    def reset(self) -> None:
        """Starts anew."""
        super().reset()
        self.visits = 0

    def _is_repeated(self) -> bool:
        # torch's DistributedSampler deals images out in turn and starts again where the last round is not full.
        several = torch.distributed.is_initialized()
        rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        place = self.visits * processes + rank
        self.visits += 1
        return place >= self.images

    def compute(self) -> Tensor:
        """Returns the (256, K) int64 pixels by mask value and predicted class."""
        return self.counts


def evaluate(counts: NDArray[np.int64], class_names: Sequence[str]) -> Evaluation:
    """Turns counts into figures.

    Args:
        counts: (256, K) pixels by mask value and predicted class, see `ConfusionMatrix`.
        class_names: the K names.
    """
    confusion = counts[: len(class_names)]
    hits, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    iou = divide(hits, true + predicted - hits)
    accuracy = divide(hits, true)
    figures = {
        "mIoU": _mean(iou),
        "mIoU_present": _mean(iou[true > 0]),
        "pixel_accuracy": float(divide(hits.sum(), true.sum())),
        "mean_accuracy": _mean(accuracy),
        "void_share": float(divide(counts.sum() - confusion.sum(), counts.sum())),
    }
    per_class = {name: {"IoU": float(iou[k]), "accuracy": float(accuracy[k]), "pixels": int(true[k])} for k, name in enumerate(class_names)}
    return Evaluation(figures, per_class, confusion)


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divides; -1 where the whole is 0."""
    shares: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), -1.0)
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values >= 0]
    return float(known.mean()) if known.size else -1.0
