"""What the figures of several tasks share: images that are counted once, and quotients that may be undefined."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


class SetMetric(Metric):
    """Counts over a whole set, each image once however many processes share the set.

    Args:
        images: number of images in the set.
    """

    full_state_update = False
    seen: Tensor

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.visits = images, 0
        self.add_state("seen", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def visit(self, count: int) -> int:
        """Takes note of the next `count` images of the loader and returns how many of them, from the first, are not repetitions."""
        # torch's DistributedSampler deals images out in turn and starts again where the last round is not full.
        several = torch.distributed.is_initialized()
        rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        own = len(range(rank, self.images, processes))
        new = max(0, min(count, own - self.visits))
        self.visits += count
        self.seen += new
        return new

    def reset(self) -> None:
        """Starts anew."""
        super().reset()
        self.visits = 0


class MeanOverImages(SetMetric):
    """Mean of a value that each image has, the same to the last digit however images are dealt out.

    Args:
        images: number of images in the set.
    """

    values: list[Tensor]

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, values: Tensor) -> None:
        """Adds the (B,) values of a batch, in the order of the loader."""
        self.values.append(values[: self.visit(len(values))].detach())

    def compute(self) -> float:
        """Returns the mean; -1 where there are no images."""
        return exact_mean(self.values)


def exact_mean(values: Sequence[Tensor] | Tensor) -> float:
    """Returns the mean of (N,) values or a list of such, -1 where N is 0; its sum is rounded once, so that their order does not matter."""
    joined = values if isinstance(values, Tensor) else torch.cat([torch.zeros(0), *(part.cpu() for part in values)])
    return math.fsum(joined.tolist()) / len(joined) if len(joined) else -1.0


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divides; -1 where the whole is 0."""
    shares: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), -1.0)
    return shares


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Returns the mean of the values that are defined, which are 0 or more; -1 where there are none."""
    known = values[values >= 0]
    return float(known.mean()) if known.size else -1.0
