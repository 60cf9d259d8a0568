"""Classification losses by hand and by formula."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from heads import FocalLoss, SigmoidLoss, SoftmaxLoss
from heads.multibox import ClassLoss, hard_negatives

LOSSES = [SoftmaxLoss(), SigmoidLoss(), FocalLoss()]


def test_hard_negatives_by_hand() -> None:
    loss = torch.tensor([[9.0, 1.0, 5.0, 3.0, 4.0, 2.0, 0.5]])
    labels = torch.tensor([[2, 0, 0, 0, 0, 0, 0]])
    assert hard_negatives(loss, labels, ratio=3, minimum=0).tolist() == [[False, False, True, True, True, False, False]]
    assert hard_negatives(loss, labels, ratio=0.5, minimum=2).tolist() == [[False, False, True, False, True, False, False]]


def test_each_image_picks_its_own_negatives() -> None:
    loss = torch.tensor([[1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 20.0, 10.0]])
    labels = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])
    assert hard_negatives(loss, labels, ratio=2, minimum=1).tolist() == [[False, True, True, False], [True, False, False, False]]


def test_negatives_are_never_positives_however_many_are_wanted() -> None:
    labels = torch.tensor([[1, 1, 1, 0]])
    assert hard_negatives(torch.rand(1, 4), labels, ratio=3, minimum=3).tolist() == [[False, False, False, True]]


def test_negatives_of_equal_loss_are_as_many_as_wanted() -> None:
    chosen = hard_negatives(torch.ones(2, 50), torch.tensor([[1] + [0] * 49, [0] * 50]), ratio=3, minimum=5)
    assert chosen.sum(dim=1).tolist() == [5, 5]


def test_softmax_loss_by_hand() -> None:
    # Anchor 0 is of class 1; of the four background anchors, the three with the largest loss count.
    logits = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [0.0, -3.0], [0.0, 1.0], [0.0, 2.0]]])
    labels = torch.tensor([[1, 0, 0, 0, 0]])
    expected = math.log(2) + sum(math.log(1 + math.exp(x)) for x in (3, 1, 2))
    assert SoftmaxLoss(min_negatives=0)(logits, labels).item() == pytest.approx(expected)
    assert SoftmaxLoss(negative_ratio=1, min_negatives=2)(logits, labels).item() == pytest.approx(
        math.log(2) + sum(math.log(1 + math.exp(x)) for x in (3, 2))
    )


def test_sigmoid_loss_by_formula() -> None:
    logits, labels = torch.randn(2, 6, 4), torch.tensor([[1, 3, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]])
    target = F.one_hot(labels, 4)
    p = logits.sigmoid()
    each = -(target * p.log() + (1 - target) * (1 - p).log()).sum(dim=-1)
    negatives = [each[0, 2:].topk(2).values, each[1, [0, 2, 3, 4, 5]].topk(2).values]
    expected = each[labels > 0].sum() + sum(n.sum() for n in negatives)
    assert_close(SigmoidLoss(negative_ratio=1, min_negatives=2)(logits, labels), expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.25, 1.0)])
def test_focal_loss_by_formula(alpha: float, gamma: float) -> None:
    logits, labels = torch.randn(2, 5, 4), torch.randint(0, 4, (2, 5))
    expected = 0.0
    for image in range(2):
        for anchor in range(5):
            for cls in (1, 2, 3):
                p = logits[image, anchor, cls].sigmoid().item()
                hit = labels[image, anchor] == cls
                expected -= alpha * (1 - p) ** gamma * math.log(p) if hit else (1 - alpha) * p**gamma * math.log(1 - p)
    assert FocalLoss(alpha, gamma)(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_does_not_use_the_background_column() -> None:
    logits = torch.randn(1, 5, 4, requires_grad=True)
    FocalLoss()(logits, torch.tensor([[0, 1, 2, 3, 0]])).backward()
    assert (logits.grad[..., 0] == 0).all()
    assert (logits.grad[..., 1:] != 0).all()


def test_scores() -> None:
    logits = torch.tensor([[[0.0, math.log(2), math.log(5)]]])
    assert_close(SoftmaxLoss().scores(logits), torch.tensor([[[2 / 8, 5 / 8]]]))
    for loss in (SigmoidLoss(), FocalLoss()):
        assert_close(loss.scores(logits), torch.tensor([[[2 / 3, 5 / 6]]]))


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_have_a_column_for_each_foreground_class(loss: ClassLoss) -> None:
    scores = loss.scores(torch.randn(2, 7, 5) * 10)
    assert scores.shape == (2, 7, 4)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_images_without_boxes_train(loss: ClassLoss) -> None:
    logits = torch.randn(2, 10, 4, requires_grad=True)
    value = loss(logits, torch.zeros(2, 10, dtype=torch.int64))
    assert value.isfinite()
    assert value > 0
    value.backward()
    assert all(image.any() for image in logits.grad)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_large_logits_give_a_finite_loss_and_gradient(loss: ClassLoss, size: float) -> None:
    logits = (torch.randn(2, 10, 4) * size).requires_grad_()
    value = loss(logits, torch.randint(0, 4, (2, 10)))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_fewer_anchors_than_negatives_wanted(loss: ClassLoss) -> None:
    value: Tensor = loss(torch.randn(1, 1, 3), torch.zeros(1, 1, dtype=torch.int64))
    assert value.shape == ()
    assert value > 0
