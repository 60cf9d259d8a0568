"""Intersection over union against hand computation and torchmetrics, and images that are counted once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler
from torchmetrics.classification import MulticlassJaccardIndex

from tasks.segment.metrics import ConfusionMatrix, Evaluation, evaluate

NAMES = ("background", "cat", "dog", "owl")


def byte(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def score(predicted: Sequence[Tensor], masks: Sequence[Tensor], names: Sequence[str] = NAMES) -> Evaluation:
    matrix = ConfusionMatrix(len(names), len(masks))
    matrix.update(predicted, masks)
    return evaluate(matrix.compute().numpy(), names)


def random_pair(size: tuple[int, int], classes: int = 4) -> tuple[Tensor, Tensor]:
    """A prediction and a mask that agree in about half of the pixels, with void in the mask."""
    mask = torch.randint(classes, size)
    found = torch.where(torch.rand(size) < 0.4, mask, torch.randint(classes, size))
    return found.byte(), mask.where(torch.rand(size) < 0.9, 255).byte()


def test_figures_by_hand() -> None:
    # Of the true pixels 3 are background, 3 cat and 2 void; dogs are only predicted, owls are nowhere.
    mask, found = byte([[0, 0, 1, 255], [0, 1, 1, 255]]), byte([[0, 2, 1, 1], [0, 1, 0, 0]])
    result = score([found], [mask])
    assert result.confusion.tolist() == [[2, 0, 1, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert result.per_class == {
        "background": {"IoU": pytest.approx(2 / 4), "accuracy": pytest.approx(2 / 3), "pixels": 3},
        "cat": {"IoU": pytest.approx(2 / 3), "accuracy": pytest.approx(2 / 3), "pixels": 3},
        "dog": {"IoU": 0.0, "accuracy": -1.0, "pixels": 0},
        "owl": {"IoU": -1.0, "accuracy": -1.0, "pixels": 0},
    }
    assert result.figures == {
        "mIoU": pytest.approx((2 / 4 + 2 / 3 + 0) / 3),
        "mIoU_present": pytest.approx((2 / 4 + 2 / 3) / 2),
        "pixel_accuracy": pytest.approx(4 / 6),
        "mean_accuracy": pytest.approx(2 / 3),
        "void_share": pytest.approx(2 / 8),
    }


def test_perfect_prediction() -> None:
    mask = byte([[0, 1, 2], [3, 255, 0]])
    figures = score([mask.where(mask != 255, 3)], [mask]).figures
    assert figures == {"mIoU": 1.0, "mIoU_present": 1.0, "pixel_accuracy": 1.0, "mean_accuracy": 1.0, "void_share": pytest.approx(1 / 6)}


def test_set_of_void_alone_gives_minus_one() -> None:
    result = score([byte([[0, 1]])], [byte([[255, 255]])])
    assert result.figures == {"mIoU": -1.0, "mIoU_present": -1.0, "pixel_accuracy": -1.0, "mean_accuracy": -1.0, "void_share": 1.0}
    assert {row["IoU"] for row in result.per_class.values()} == {-1.0}


def test_empty_set_gives_minus_one() -> None:
    assert set(score([], []).figures.values()) == {-1.0}


def test_one_matrix_over_images_of_different_sizes() -> None:
    pairs = [random_pair(size) for size in ((7, 11), (1, 1), (23, 5), (16, 16))]
    apart = sum(score([found], [mask]).confusion for found, mask in pairs)
    together = score(*zip(*pairs, strict=True))
    assert together.confusion.tolist() == apart.tolist()
    joined = [torch.cat([pair[side].flatten() for pair in pairs])[None] for side in (0, 1)]
    assert together.figures == score([joined[0]], [joined[1]]).figures


def test_batches_do_not_matter() -> None:
    pairs = [random_pair((9, 9)) for _ in range(5)]
    matrix = ConfusionMatrix(4, 5)
    for batch in (pairs[:2], pairs[2:4], pairs[4:]):
        matrix.update(*zip(*batch, strict=True))
    assert torch.equal(matrix.compute()[:4], torch.from_numpy(score(*zip(*pairs, strict=True)).confusion))
    assert int(matrix.seen) == 5


@pytest.mark.parametrize("classes", [2, 4, 21, 255])
def test_equals_torchmetrics(classes: int) -> None:
    pairs = [random_pair((40, 60), classes) for _ in range(3)]
    ours = score(*zip(*pairs, strict=True), names=[str(k) for k in range(classes)])
    theirs = {}
    for average in ("none", "macro"):
        metric = MulticlassJaccardIndex(classes, average=average, ignore_index=255)
        for found, mask in pairs:
            metric.update(found.long(), mask.long())
        theirs[average] = metric.compute().tolist()
    assert [row["IoU"] for row in ours.per_class.values()] == pytest.approx(theirs["none"], abs=1e-6)
    assert min(row["pixels"] for row in ours.per_class.values()) > 0
    assert ours.figures["mIoU"] == ours.figures["mIoU_present"] == pytest.approx(theirs["macro"], abs=1e-6)


def count_as(rank: int, processes: int, pairs: Sequence[tuple[Tensor, Tensor]], patch: pytest.MonkeyPatch) -> ConfusionMatrix:
    """What one of several processes counts of the images that torch's sampler hands it."""
    patch.setattr(torch.distributed, "is_initialized", lambda: True)
    patch.setattr(torch.distributed, "get_rank", lambda: rank)
    patch.setattr(torch.distributed, "get_world_size", lambda: processes)
    matrix = ConfusionMatrix(4, len(pairs))
    dealt = [pairs[i] for i in DistributedSampler(range(len(pairs)), processes, rank, shuffle=False)]
    for start in range(0, len(dealt), 2):
        matrix.update(*zip(*dealt[start : start + 2], strict=True))
    return matrix


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("images", [1, 2, 3, 4, 5, 6, 7])
def test_each_image_counts_once_over_several_processes(images: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [random_pair((5, 8)) for _ in range(images)]
    alone = ConfusionMatrix(4, images)
    alone.update(*zip(*pairs, strict=True))
    with monkeypatch.context() as patch:
        parts = [count_as(rank, processes, pairs, patch) for rank in range(processes)]
    assert torch.equal(sum(part.counts for part in parts), alone.compute())
    assert sum(int(part.seen) for part in parts) == images


def test_counts_are_summed_over_a_process_group(tmp_path: Path) -> None:
    found, mask = random_pair((6, 6))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        matrix = ConfusionMatrix(4, 1)
        matrix.update([found], [mask])
        counts = matrix.compute()
    finally:
        torch.distributed.destroy_process_group()
    assert counts.sum() == 36


def test_counting_starts_anew_after_a_reset() -> None:
    found, mask = random_pair((6, 6))
    matrix = ConfusionMatrix(4, 1)
    for _ in range(2):
        matrix.update([found], [mask])
        assert int(matrix.seen) == 1
        assert matrix.compute().sum() == 36
        matrix.reset()
