"""Accuracy against hand computation and torchmetrics."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from tasks.classify.metrics import ClassCounts, Evaluation, evaluate

NAMES = ("cat", "dog", "owl")


def score(logits: Tensor, labels: Tensor, batch_size: int = 100) -> Evaluation:
    names = NAMES if logits.shape[1] == 3 else [str(k) for k in range(logits.shape[1])]
    counts = ClassCounts(len(names), len(labels))
    for start in range(0, len(labels), batch_size):
        counts.update(logits[start : start + batch_size], labels[start : start + batch_size])
    return evaluate(counts.compute(), names)


def test_figures_by_hand() -> None:
    # Two cats, of which one is taken for a dog; two dogs, both found; no owl.
    third = math.log(1 / 3)
    logits = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 3.0, 0], [0, 1.0, 0]])
    labels = torch.tensor([0, 0, 1, 1])
    result = score(logits, labels)
    assert result.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert result.per_class == {
        "cat": {"accuracy": 0.5, "images": 2},
        "dog": {"accuracy": 1.0, "images": 2},
        "owl": {"accuracy": -1.0, "images": 0},
    }
    truths = [(2, 2), (0, 1), (3, 3), (1, 1)]  # the true class's logit and the one that is not 0
    losses = [math.log(math.exp(other) + 2) - true for true, other in truths]
    assert result.figures == {
        "top1": 0.75,
        "top5": 1.0,
        "mean_accuracy": 0.75,
        "loss": pytest.approx(sum(losses) / 4, abs=1e-6),
    }
    assert score(torch.zeros(1, 3), torch.tensor([2])).figures["loss"] == pytest.approx(-third, abs=1e-6)


def test_truth_on_place_five_counts_and_on_place_six_does_not() -> None:
    logits = torch.arange(7.0).flip(0).repeat(7, 1)  # class 0 is the best, class 6 the worst
    figures = score(logits, torch.arange(7)).figures
    assert figures["top1"] == pytest.approx(1 / 7)
    assert figures["top5"] == pytest.approx(5 / 7)


def test_empty_set_gives_minus_one() -> None:
    counts = ClassCounts(3, 0)
    counts.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    result = evaluate(counts.compute(), NAMES)
    assert set(result.figures.values()) == {-1.0}


@pytest.mark.parametrize("classes", [2, 5, 6, 100])
def test_equals_torchmetrics(classes: int) -> None:
    labels = torch.randint(classes, (400,))
    logits = torch.randn(400, classes) + 2 * torch.nn.functional.one_hot(labels, classes)
    ours = score(logits, labels, batch_size=7)
    for name, top_k in (("top1", 1), ("top5", min(5, classes))):
        theirs = MulticlassAccuracy(classes, top_k=top_k, average="micro")(logits, labels)
        assert ours.figures[name] == pytest.approx(theirs.item(), abs=1e-6)
    each = MulticlassAccuracy(classes, average="none")(logits, labels)
    present = labels.unique()
    found = torch.tensor([row["accuracy"] for row in ours.per_class.values()])
    torch.testing.assert_close(found[present], each[present])
    assert ours.figures["mean_accuracy"] == pytest.approx(each[present].mean().item(), abs=1e-6)
    assert ours.figures["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)


def test_repeated_images_do_not_count() -> None:
    counts = ClassCounts(3, 3)
    logits = torch.eye(3)
    counts.update(logits[:2], torch.arange(2))
    counts.update(torch.stack([logits[2], logits[0]]), torch.tensor([2, 1]))  # the last one again, now with a wrong label
    result = evaluate(counts.compute(), NAMES)
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert (result.figures["top1"], int(counts.seen)) == (1.0, 3)


def test_half_precision_logits_are_counted_in_single() -> None:
    logits, labels = torch.randn(50, 3).bfloat16(), torch.randint(3, (50,))
    assert score(logits, labels).figures == score(logits.float(), labels).figures
