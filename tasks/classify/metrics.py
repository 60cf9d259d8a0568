"""Accuracy of classes, counted over the whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.metrics import SetMetric, divide, exact_mean, mean_of_known

# An image counts for `top5` where the truth is among this many of the best scores.
TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Results over a whole data set.

    Attributes:
        figures: `top1` and `top5`, the shares of the images whose class has the best score or one of the best five; `mean_accuracy`, the
            mean over the classes that images have; `loss`, the mean cross-entropy; -1 where there is nothing to measure.
        per_class: accuracy and number of images of each class; -1 where undefined.
        confusion: (K, K) images by true and predicted class.
    """

    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: NDArray[np.int64]


class ClassCounts(SetMetric):
    """Counts images by true and predicted class, those in the best five, and the loss.

    Args:
        num_classes: number of classes K.
        images: number of images in the set.
    """

    counts: Tensor
    among_best: Tensor
    losses: list[Tensor]

    def __init__(self, num_classes: int, images: int) -> None:
        super().__init__(images)
        self.num_classes = num_classes
        self.add_state("counts", default=torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("among_best", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("losses", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch, in the order of the loader.

        Args:
            logits: (B, K) scores.
            labels: (B,) int64 true classes.
        """
        new = self.visit(len(labels))
        logits, labels = logits[:new].float(), labels[:new]
        pairs = labels * self.num_classes + logits.argmax(dim=1)
        self.counts += torch.bincount(pairs, minlength=self.num_classes**2).view(self.num_classes, self.num_classes)
        best = logits.topk(min(TOP, self.num_classes), dim=1).indices
        self.among_best += (best == labels[:, None]).sum()
        self.losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> dict[str, Tensor]:
        """Returns the (K, K) int64 `counts` by true and predicted class, the images `among_best` and their mean `loss`, -1 without any."""
        self.counted = int(self.seen)  # now, and only now, the sum over all processes
        loss = torch.tensor(exact_mean(self.losses), dtype=torch.float64)
        return {"counts": self.counts, "among_best": self.among_best, "loss": loss}


def evaluate(counted: dict[str, Tensor], class_names: Sequence[str]) -> Evaluation:
    """Turns counts into figures.

    Args:
        counted: see `ClassCounts.compute`.
        class_names: the K names.
    """
    confusion = counted["counts"].cpu().numpy()
    hits, true = confusion.diagonal(), confusion.sum(axis=1)
    accuracy, images = divide(hits, true), true.sum()
    figures = {
        "top1": float(divide(hits.sum(), images)),
        "top5": float(divide(counted["among_best"].cpu().numpy(), images)),
        "mean_accuracy": mean_of_known(accuracy),
        "loss": float(counted["loss"]),
    }
    per_class = {name: {"accuracy": float(accuracy[k]), "images": int(true[k])} for k, name in enumerate(class_names)}
    return Evaluation(figures, per_class, confusion)
