"""Collecting detections over batches and processes: each image once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heads import Detections
from tasks.detect.metrics import CollectedDetections, evaluate
from tests.tasks.detect.truth import object_, truth_of


def found(count: int, value: float) -> Detections:
    return Detections(torch.full((count, 4), value), torch.linspace(0.9, 0.5, count), torch.arange(1, count + 1))


def test_collected_rows(tmp_path: Path) -> None:
    collected = CollectedDetections()
    collected.update(torch.tensor([4, 2]), [found(2, 8.5), found(0, 0.0)])
    collected.update(torch.tensor([7]), [found(1, 3.0)])
    rows, seen = collected.compute()
    assert rows.dtype == torch.float64
    assert seen.tolist() == [2, 4, 7]
    expected = [[4, 1, 0.9, 8.5, 8.5, 8.5, 8.5], [4, 2, 0.5, 8.5, 8.5, 8.5, 8.5], [7, 1, 0.9, 3, 3, 3, 3]]
    assert torch.allclose(rows, torch.tensor(expected, dtype=torch.float64))


def test_images_without_detections_are_seen() -> None:
    collected = CollectedDetections()
    collected.update(torch.tensor([0, 1]), [found(0, 0.0), found(0, 0.0)])
    rows, seen = collected.compute()
    assert rows.shape == (0, 7)
    assert seen.tolist() == [0, 1]


def test_image_that_one_process_sees_twice_counts_once() -> None:
    collected = CollectedDetections()
    collected.update(torch.tensor([3, 3]), [found(2, 1.0), found(2, 2.0)])
    collected.update(torch.tensor([3]), [found(3, 4.0)])
    rows, seen = collected.compute()
    assert rows[:, 3].tolist() == [1.0, 1.0]
    assert np.atleast_1d(seen).tolist() == [3]


def test_image_that_two_processes_see_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = []
    for rank, images in enumerate(([0, 2, 4], [1, 3, 0])):  # the sampler repeats image 0 so that both have three
        with monkeypatch.context() as patch:
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            collected = CollectedDetections()
            for image in images:
                collected.update(torch.tensor([image]), [found(2, 10.0 * rank + image)])
            ranks.append(collected)
    merged, other = ranks
    merged.rows, merged.seen = merged.rows + other.rows, merged.seen + other.seen
    rows, seen = merged.compute()
    assert seen.tolist() == [0, 1, 2, 3, 4]
    assert rows[:, 0].long().bincount().tolist() == [2] * 5
    assert rows[rows[:, 0] == 0][:, 3].tolist() == [0.0, 0.0]


def test_results_are_gathered_over_a_process_group(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        collected = CollectedDetections()
        collected.update(torch.tensor([1, 0]), [found(2, 5.0), found(0, 0.0)])
        rows, seen = collected.compute()
    finally:
        torch.distributed.destroy_process_group()
    assert rows.shape == (2, 7)
    assert seen.tolist() == [0, 1]


def test_indices_beyond_single_precision_are_exact() -> None:
    collected = CollectedDetections()
    collected.update(torch.tensor([2**24, 2**24 + 1]), [found(1, 1.0), found(1, 2.0)])
    rows, seen = collected.compute()
    assert rows[:, 0].tolist() == seen.tolist() == [2**24, 2**24 + 1]


def test_collecting_starts_anew_after_a_reset() -> None:
    collected = CollectedDetections()
    collected.update(torch.tensor([0]), [found(2, 1.0)])
    collected.reset()
    collected.update(torch.tensor([0]), [found(1, 2.0)])
    rows, seen = collected.compute()
    assert rows[:, 3].tolist() == [2.0]
    assert np.atleast_1d(seen).tolist() == [0]


@pytest.mark.parametrize("count", [0, 2])
def test_set_of_one_image_is_evaluated(tmp_path: Path, count: int) -> None:
    truth = truth_of(tmp_path, object_(10, 3, (0, 0, 20, 20)), images=1)
    collected = CollectedDetections()
    collected.update(torch.tensor([0]), [found(count, 1.0)])
    rows, seen = collected.compute()
    assert evaluate(truth, rows.numpy(), seen.numpy()).figures["AP"] == 0
