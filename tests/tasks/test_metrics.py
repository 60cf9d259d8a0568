"""Images that are counted once, and quotients that may be undefined."""

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler

from tasks.metrics import MeanOverImages, SetMetric, divide, exact_mean, mean_of_known


class Places(SetMetric):
    """Lists which images it was given for the first time."""

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.found: list[int] = []

    def update(self, batch: list[int]) -> None:
        self.found += batch[: self.visit(len(batch))]

    def compute(self) -> list[int]:
        return self.found


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [0, 1, 2, 3, 4, 5, 6, 7])
def test_each_image_counts_once_over_several_processes(
    images: int, processes: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, seen = [], 0
    for rank in range(processes):
        with monkeypatch.context() as patch:
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            patch.setattr(torch.distributed, "get_world_size", lambda: processes)
            metric = Places(images)
            dealt = list(DistributedSampler(range(images), processes, rank, shuffle=False)) if images else []
            for start in range(0, len(dealt), batch_size):
                metric.update(dealt[start : start + batch_size])
        counted += metric.found
        seen += int(metric.seen)
    assert sorted(counted) == list(range(images))
    assert seen == images


def test_counting_starts_anew_after_a_reset() -> None:
    metric = Places(3)
    metric.update([0, 1])
    metric.update([2, 0])
    assert (metric.found, int(metric.seen)) == ([0, 1, 2], 3)
    metric.reset()
    metric.update([0, 1, 2])
    assert (metric.found, int(metric.seen)) == ([0, 1, 2, 0, 1, 2], 3)


def test_mean_over_images_leaves_repetitions_out() -> None:
    metric = MeanOverImages(3)
    metric.update(torch.tensor([1.0, 2.0]))
    metric.update(torch.tensor([6.0, 100.0]))
    assert metric.compute() == 3.0


def test_exact_mean_does_not_depend_on_the_order() -> None:
    values = torch.tensor([1e8, 1.0, -1e8, 1e-8, 3.0])
    assert {exact_mean(values[torch.randperm(5)]) for _ in range(20)} == {exact_mean(values)}
    assert exact_mean(values) == pytest.approx((4 + 1e-8) / 5, rel=1e-15)
    assert exact_mean([values[:2], values[2:]]) == exact_mean(values)
    assert exact_mean([]) == exact_mean(torch.zeros(0)) == -1


def test_division_by_zero_is_minus_one() -> None:
    assert divide(np.array([1, 0, 0]), np.array([4, 5, 0])).tolist() == [0.25, 0.0, -1.0]


def test_mean_leaves_out_what_is_undefined() -> None:
    assert mean_of_known(np.array([0.5, -1.0, 0.0])) == 0.25
    assert mean_of_known(np.array([-1.0])) == -1.0
