"""Suppression against a plain loop over classes and boxes."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import box_convert, box_iou

from heads import Suppression
from heads.boxes import decode, encode

Result = tuple[Tensor, Tensor, Tensor]


def plain(rule: Suppression, scores: Tensor, deltas: Tensor, anchors: Tensor) -> Result:
    """Greedy suppression by loops, in float64."""
    boxes = decode(deltas.double(), anchors.double())
    overlap = box_iou(boxes, boxes)
    entries = [(scores[a, k].item(), a, k + 1) for a, k in (scores > rule.score_threshold).nonzero().tolist()]
    kept: list[tuple[float, int, int]] = []
    seen = [0] * (scores.shape[1] + 1)
    for entry in sorted(entries, key=lambda e: -e[0]):
        seen[entry[2]] += 1
        if rule.candidates_per_class is not None and seen[entry[2]] > rule.candidates_per_class:
            continue
        rivals = [other for other in kept if rule.class_agnostic or other[2] == entry[2]]
        if all(overlap[entry[1], other[1]] <= rule.iou_threshold for other in rivals):
            kept.append(entry)
    of_class = [sum(other[2] == entry[2] for other in kept[:place]) for place, entry in enumerate(kept)]
    kept = [entry for entry, rank in zip(kept, of_class, strict=True) if rank < rule.max_per_class][: rule.max_detections]
    return boxes[[a for _, a, _ in kept]].float(), torch.tensor([s for s, _, _ in kept]), torch.tensor([k for _, _, k in kept])


def suppress(rule: Suppression, scores: Tensor, deltas: Tensor, anchors: Tensor) -> Result:
    """Boxes, scores and labels of detections, which torch's operators must find as well as the compiled loop."""
    boxes = decode(deltas, anchors)
    anchor, label = rule(scores, boxes)
    place = rule._places(scores, boxes)
    if len(scores.unique()) == scores.numel():
        assert (anchor * scores.shape[1] + label - 1).tolist() == place.tolist()
    return boxes[anchor], scores[anchor, label - 1], label


def random_inputs(anchors: int, classes: int) -> Result:
    """Crowded random boxes, with scores of which no two are equal."""
    scores = (torch.randperm(anchors * classes) + 0.5) / (anchors * classes)
    boxes = torch.cat([torch.rand(anchors, 2) * 80, torch.rand(anchors, 2) * 30 + 10], dim=1)
    return scores.view(anchors, classes), torch.randn(anchors, 4) * 0.5, box_convert(boxes, "cxcywh", "xyxy")


def assert_same(found: Result, expected: Result) -> None:
    assert found[2].tolist() == expected[2].tolist()
    assert_close(found[1], expected[1])
    assert_close(found[0], expected[0], rtol=1e-4, atol=1e-3)


def boxed(boxes: list[list[float]], scores: list[list[float]]) -> Result:
    """Inputs whose decoded boxes are those given."""
    wanted = torch.tensor(boxes)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(len(wanted), 4)
    return torch.tensor(scores), encode(wanted, anchors), anchors


@pytest.mark.parametrize(
    "rule",
    [
        Suppression(),
        Suppression(iou_threshold=0.3, max_detections=20),
        Suppression(max_per_class=3),
        Suppression(max_per_class=2, max_detections=5),
        Suppression(score_threshold=0.7, max_detections=1000, max_per_class=1000),
        Suppression(class_agnostic=True),
        Suppression(class_agnostic=True, max_per_class=4, iou_threshold=0.8),
        Suppression(candidates_per_class=9),
    ],
)
def test_equals_a_plain_loop(rule: Suppression) -> None:
    for _ in range(3):
        inputs = random_inputs(120, 4)
        assert_same(suppress(rule, *inputs), plain(rule, *inputs))


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_more_candidates_are_looked_at_where_the_best_leave_too_few(class_agnostic: bool) -> None:
    # 1,500 copies of one box stand before everything else.
    rule = Suppression(max_detections=40, class_agnostic=class_agnostic)
    scores, deltas, anchors = random_inputs(100, 3)
    crowd = torch.linspace(0.9, 1.0, 1500)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    scores = torch.cat([scores * 0.8, crowd])
    deltas = torch.cat([deltas, torch.zeros(1500, 4)])
    anchors = torch.cat([anchors, torch.tensor([[10.0, 10.0, 60.0, 60.0]]).expand(1500, 4)])
    found = suppress(rule, scores, deltas, anchors)
    assert found[1][0] == 1.0
    assert (found[1] < 0.8).sum() == len(found[1]) - 1
    assert_same(found, plain(rule, scores, deltas, anchors))


def test_a_limit_per_class_does_not_hide_lesser_classes() -> None:
    # Class 1 alone fills the first thousand.
    scores = torch.zeros(1200, 2)
    scores[:, 0] = torch.linspace(0.6, 1.0, 1200)
    scores[:3, 1] = torch.tensor([0.3, 0.2, 0.1])
    corners = torch.arange(1200)[:, None] * 20.0
    anchors = torch.cat([corners, corners, corners + 10, corners + 10], dim=1)
    _, found, labels = suppress(Suppression(max_per_class=5, max_detections=10), scores, torch.zeros(1200, 4), anchors)
    assert labels.tolist() == [1] * 5 + [2] * 3
    assert_close(found[5:], torch.tensor([0.3, 0.2, 0.1]))


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    inputs = boxed([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]], [[0.9, 0.8], [0.7, 0.6], [0.1, 0.95]])
    _, scores, labels = suppress(Suppression(), *inputs)
    assert labels.tolist() == [2, 1]
    assert_close(scores, torch.tensor([0.95, 0.9]))
    _, scores, labels = suppress(Suppression(class_agnostic=True), *inputs)
    assert labels.tolist() == [2]


def test_overlap_of_the_threshold_is_kept_and_more_is_not() -> None:
    inputs = boxed([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 8]], [[0.9], [0.8], [0.7]])
    _, scores, _ = suppress(Suppression(iou_threshold=0.55), *inputs)
    assert_close(scores, torch.tensor([0.9, 0.8]))


def test_equal_scores_keep_every_separate_box_and_one_of_each_pile() -> None:
    corners = torch.arange(30)[:, None] * 20.0
    anchors = torch.cat([corners, corners, corners + 10, corners + 10], dim=1).repeat(3, 1)
    boxes, scores, labels = suppress(Suppression(), torch.full((90, 1), 0.5), torch.zeros(90, 4), anchors)
    assert_close(boxes[boxes[:, 0].argsort()], anchors[:30])
    assert scores.tolist() == [0.5] * 30
    assert labels.tolist() == [1] * 30


def test_scores_descend() -> None:
    _, scores, _ = suppress(Suppression(), *random_inputs(200, 5))
    assert len(scores) == 100
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


@pytest.mark.parametrize("scores", [torch.zeros(5, 3), torch.full((5, 3), 0.005), torch.full((5, 3), float("nan")), torch.zeros(0, 3)])
def test_nothing_above_the_threshold(scores: Tensor) -> None:
    count = len(scores)
    boxes, found, labels = suppress(Suppression(), scores, torch.zeros(count, 4), torch.tensor([[0.0, 0.0, 9.0, 9.0]]).expand(count, 4))
    assert boxes.shape == (0, 4)
    assert found.shape == labels.shape == (0,)
    assert labels.dtype == torch.int64


def test_one_huge_box_does_not_blur_the_others() -> None:
    # Pairs of 6-pixel boxes of class 80 with an IoU of .59, under the threshold; and one box as large as decoding lets it be.
    corners = torch.rand(40, 2) + torch.arange(40)[:, None] * 7
    tall, flat = torch.tensor([6.0, 6.0]), torch.tensor([6.0, 6.0 * 0.59])
    anchors = torch.cat([torch.cat([corners, corners + side], dim=1) for side in (tall, flat)] + [torch.tensor([[0.0, 0.0, 300.0, 300.0]])])
    scores, deltas = torch.zeros(81, 80), torch.zeros(81, 4)
    scores[:80, 79] = torch.linspace(0.8, 0.9, 80)
    scores[80, 0], deltas[80, 2:] = 0.7, 30.0
    rule = Suppression()
    found = suppress(rule, scores, deltas, anchors)
    assert found[2].tolist() == [80] * 80 + [1]
    assert_same(found, plain(rule, scores, deltas, anchors))
