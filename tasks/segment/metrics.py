"""Intersection over union of classes, from one confusion matrix over the whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.metrics import SetMetric, divide, mean_of_known


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


class ConfusionMatrix(SetMetric):
    """Counts pixels by true and predicted class.

    Args:
        num_classes: number of classes K.
        images: number of images in the set.
    """

    counts: Tensor

    def __init__(self, num_classes: int, images: int) -> None:
        super().__init__(images)
        self.num_classes = num_classes
        self.add_state("counts", default=torch.zeros(256, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        """Adds images, in the order of the loader.

        Args:
            predicted: (H, W) uint8 class indices, one an image.
            masks: (H, W) uint8 true classes, 255 for void, one an image.
        """
        for found, mask in list(zip(predicted, masks, strict=True))[: self.visit(len(masks))]:
            # Row 255 takes the void pixels, which is faster than leaving them out.
            pairs = mask.flatten().int() * self.num_classes + found.flatten()
            self.counts += torch.bincount(pairs, minlength=256 * self.num_classes).view(256, self.num_classes)

    def compute(self) -> Tensor:
        """Returns the (256, K) int64 pixels by mask value and predicted class."""
        self.counted = int(self.seen)  # now, and only now, the sum over all processes
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
        "mIoU": mean_of_known(iou),
        "mIoU_present": mean_of_known(iou[true > 0]),
        "pixel_accuracy": float(divide(hits.sum(), true.sum())),
        "mean_accuracy": mean_of_known(accuracy),
        "void_share": float(divide(counts.sum() - confusion.sum(), counts.sum())),
    }
    per_class = {name: {"IoU": float(iou[k]), "accuracy": float(accuracy[k]), "pixels": int(true[k])} for k, name in enumerate(class_names)}
    return Evaluation(figures, per_class, confusion)
