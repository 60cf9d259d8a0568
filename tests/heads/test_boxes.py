"""Encoding, decoding and matching of boxes."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.ops import box_convert, box_iou, clip_boxes_to_image

from heads.boxes import CODER_WEIGHTS, MAX_LOG_SIDE, decode, encode, match, to_image
from heads.greedy import decode_all, detected

ANCHORS = torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [20, 20, 30, 30]]).float()


def random_boxes(*shape: int, size: float = 300.0) -> Tensor:
    return box_convert(torch.cat([torch.rand(*shape, 2) * size, torch.rand(*shape, 2) * size / 3 + 1], dim=-1), "cxcywh", "xyxy")


def matched(boxes: list[list[float]], labels: list[int], threshold: float = 0.5) -> tuple[list[int], Tensor]:
    found, wanted = match(ANCHORS, torch.tensor([boxes]).float(), torch.tensor([labels]), threshold)
    return found[0].tolist(), wanted[0]


def test_encode_by_hand() -> None:
    deltas = encode(torch.tensor([[5.0, 10.0, 25.0, 15.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    assert_close(deltas, torch.tensor([[10.0, 7.5, 5 * torch.tensor(2.0).log(), 5 * torch.tensor(0.5).log()]]))


def test_decode_undoes_encode() -> None:
    boxes, anchors = random_boxes(3, 50), random_boxes(50)
    assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=1e-5, atol=1e-3)


def test_zero_deltas_are_the_anchors() -> None:
    assert_close(decode(torch.zeros(4, 4), ANCHORS), ANCHORS)


def test_compiled_loop_decodes_alike() -> None:
    deltas, anchors = 5 * torch.randn(2, 50, 4), random_boxes(50)
    deltas[0, 0], deltas[0, 1] = 1e4, torch.nan
    found = torch.from_numpy(decode_all(deltas.numpy(), anchors.numpy(), CODER_WEIGHTS, MAX_LOG_SIDE))
    assert_close(found, decode(deltas, anchors), rtol=1e-5, atol=1e-3, equal_nan=True)


def test_boxes_in_the_image() -> None:
    boxes, scores, image_size = random_boxes(50) * 1.5 - 50, torch.rand(50, 3), torch.tensor([600, 200])
    boxes[7] = torch.nan
    expected = clip_boxes_to_image(boxes, (300, 320)) * torch.tensor([200 / 320, 2, 200 / 320, 2])
    assert_close(to_image(boxes, (300, 320), image_size), expected, equal_nan=True)
    anchors, labels = torch.tensor([30, 7, 30]), torch.tensor([1, 2, 3])
    arrays = [part.numpy() for part in (boxes, scores, anchors, labels)]
    found, own = map(torch.from_numpy, detected(*arrays, (300, 320), image_size.numpy()))
    assert_close(found, expected[anchors], equal_nan=True)
    assert torch.equal(own, scores[anchors, labels - 1])


def test_equals_torchvision() -> None:
    coder, boxes, anchors = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), random_boxes(50), random_boxes(50)
    assert_close(encode(boxes, anchors), coder.encode_single(boxes, anchors), rtol=1e-5, atol=1e-4)
    deltas = torch.randn(50, 4) * 20
    assert_close(decode(deltas, anchors), coder.decode_single(deltas, anchors), rtol=1e-5, atol=1e-2)


def test_extreme_values_stay_finite() -> None:
    degenerate = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    assert encode(degenerate, ANCHORS[:1]).isfinite().all()
    assert decode(torch.full((1, 4), 1e4), ANCHORS[:1]).isfinite().all()


def test_no_boxes_encode_and_decode_to_none() -> None:
    assert encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_overlap_of_the_threshold_matches() -> None:
    # The first box is half of anchor 0; the second takes anchor 1 as its best, and covers a third of it.
    labels, boxes = matched([[0, 0, 10, 5], [20, 0, 30, 30 / 9]], [7, 8])
    assert labels == [7, 8, 0, 0]
    assert_close(boxes[:2], torch.tensor([[0, 0, 10, 5], [20, 0, 30, 30 / 9]]))


def test_every_anchor_above_the_threshold_matches() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 4.9]])
    labels, _ = match(anchors, torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]), torch.tensor([[3]]))
    assert labels.tolist() == [[3, 3, 3, 0]]
    labels, _ = match(anchors, torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]), torch.tensor([[3]]), 0.9)
    assert labels.tolist() == [[3, 3, 0, 0]]


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_box_below_the_threshold_still_gets_its_best_anchor(threshold: float) -> None:
    labels, boxes = matched([[22, 22, 25, 25]], [2], threshold)
    assert labels == [0, 0, 0, 2]
    assert_close(boxes[3], torch.tensor([22.0, 22.0, 25.0, 25.0]))


def test_a_claim_outbids_a_larger_overlap() -> None:
    # Box 0 overlaps both anchors by over a half and prefers the first; box 1 overlaps the second less, but has no other.
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 2.0, 10.0, 12.0]])
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 11.0, 10.0, 14.0]]])
    labels, wanted = match(anchors, boxes, torch.tensor([[1, 2]]))
    assert labels.tolist() == [[1, 2]]
    assert_close(wanted, boxes)


def test_of_two_claims_the_larger_overlap_wins() -> None:
    for boxes, labels in (([[0, 0, 5, 5], [0, 0, 9, 9]], [1, 2]), ([[0, 0, 9, 9], [0, 0, 5, 5]], [2, 1])):
        found, wanted = matched(boxes, labels)
        assert found == [2, 0, 0, 0]
        assert_close(wanted[0], torch.tensor([0.0, 0.0, 9.0, 9.0]))


def test_of_equal_claims_the_first_wins() -> None:
    assert matched([[0, 0, 10, 10], [0, 0, 10, 10]], [4, 5])[0] == [4, 0, 0, 0]
    assert matched([[0, 0, 10, 10], [0, 0, 10, 10]], [5, 4])[0] == [5, 0, 0, 0]


@pytest.mark.parametrize("box", [[100, 100, 110, 110], [5, 5, 5, 5], [5, 5, 5, 9], [0, 0, 0, 0]])
def test_a_box_that_overlaps_nothing_gets_no_anchor(box: list[float]) -> None:
    labels, _ = matched([box, [20, 20, 30, 30]], [1, 2])
    assert labels == [0, 0, 0, 2]


def test_padding_matches_nothing() -> None:
    labels, _ = matched([[0, 0, 10, 10], [20, 0, 30, 10]], [6, 0])
    assert labels == [6, 0, 0, 0]
    assert matched([[0, 0, 0, 0], [0, 0, 0, 0]], [0, 0])[0] == [0, 0, 0, 0]


def test_no_boxes() -> None:
    labels, boxes = match(ANCHORS, torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.int64))
    assert labels.tolist() == [[0] * 4] * 3
    assert labels.dtype == torch.int64
    assert boxes.shape == (3, 4, 4)


def test_images_of_a_batch_do_not_mix() -> None:
    boxes, classes = random_boxes(4, 6), torch.randint(0, 5, (4, 6))
    anchors = random_boxes(200)
    together = match(anchors, boxes, classes)
    for image in range(4):
        alone = match(anchors, boxes[image : image + 1], classes[image : image + 1])
        assert torch.equal(together[0][image], alone[0][0])
        positive = alone[0][0] > 0
        assert torch.equal(together[1][image][positive], alone[1][0][positive])


def test_equals_torchvisions_matcher_where_no_two_boxes_claim_one_anchor() -> None:
    anchors, boxes, classes = random_boxes(400), random_boxes(5), torch.tensor([1, 2, 3, 4, 5])
    iou = box_iou(boxes, anchors)
    assert len(iou.argmax(dim=1).unique()) == 5
    expected = SSDMatcher(0.4)(iou)
    labels, wanted = match(anchors, boxes[None], classes[None], 0.4)
    assert torch.equal(labels[0], torch.where(expected >= 0, classes[expected.clamp(min=0)], 0))
    assert torch.equal(wanted[0][expected >= 0], boxes[expected[expected >= 0]])
    assert (labels > 0).sum() > 5
