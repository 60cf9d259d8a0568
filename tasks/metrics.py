"""What the figures of several tasks share: images that are counted once, and quotients that may be undefined."""

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


def divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divides; -1 where the whole is 0."""
    shares: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), -1.0)
    return shares


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Returns the mean of the values that are defined, which are 0 or more; -1 where there are none."""
    known = values[values >= 0]
    return float(known.mean()) if known.size else -1.0
