"""Default boxes by hand, and against torchvision, TensorFlow and mmdetection."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert

from backbones import MobileNetV2
from heads import AnchorRule, SSDLite
from heads.anchors import PRESETS, make_anchors

SHAPES_320 = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
SHAPES_300 = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def test_first_anchors_by_hand() -> None:
    anchors = make_anchors(PRESETS["paper"].levels(6), SHAPES_320, (320, 320))
    # Scale .1 ratio 1, then scale .2 ratios 2 and 1/2, at the centre (8, 8) of the first 16-pixel cell; then the next column.
    long, short = 320 * 0.2 * sqrt(2), 320 * 0.2 / sqrt(2)
    expected = torch.tensor([[8, 8, 32, 32], [8, 8, long, short], [8, 8, short, long], [24, 8, 32, 32]])
    assert_close(box_convert(anchors[:4], "xyxy", "cxcywh"), expected)
    assert_close(anchors[0], torch.tensor([-8.0, -8.0, 24.0, 24.0]))


def test_boxes_of_later_levels_by_hand() -> None:
    levels = PRESETS["paper"].levels(6)
    assert levels[0] == [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    for level, scale, following in zip(levels[1:], scales[1:], scales[2:], strict=False):
        expected = [(scale, 1), (scale, 2), (scale, 1 / 2), (scale, 3), (scale, 1 / 3), (sqrt(scale * following), 1)]
        assert level == [pytest.approx(pair) for pair in expected]


@pytest.mark.parametrize("size", [(320, 320), (320, 480), (257, 391)])
def test_sides_follow_scale_and_ratio_of_the_shorter_side(size: tuple[int, int]) -> None:
    pairs = [(0.3, 1.0), (0.3, 2.0), (0.5, 1 / 3)]
    sides = box_convert(make_anchors([pairs], [(2, 3)], size), "xyxy", "cxcywh")[:, 2:]
    areas, ratios = sides.prod(dim=1), sides[:, 0] / sides[:, 1]
    assert_close(areas, torch.tensor([(scale * min(size)) ** 2 for scale, _ in pairs] * 6))
    assert_close(ratios, torch.tensor([ratio for _, ratio in pairs] * 6))


def test_anchors_of_a_wide_input_run_along_rows() -> None:
    anchors = make_anchors([[(0.5, 1.0)]], [(2, 3)], (100, 300))
    centres = box_convert(anchors, "xyxy", "cxcywh")[:, :2]
    assert_close(centres, torch.tensor([[50, 25], [150, 25], [250, 25], [50, 75], [150, 75], [250, 75]]).float())
    assert_close(anchors[0], torch.tensor([25.0, 0.0, 75.0, 50.0]))


@pytest.mark.parametrize(("shapes", "size"), [(SHAPES_320, 320), (SHAPES_300, 300)])
def test_equals_torchvision(shapes: list[tuple[int, int]], size: int) -> None:
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    images = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    (expected,) = generator(images, [torch.zeros(1, 1, *shape) for shape in shapes])
    rule = PRESETS["torchvision"]
    found = make_anchors(rule.levels(6), shapes, (size, size), rule.clip_sides)
    assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_equals_tensorflow(shared: Path) -> None:
    reference = np.load(shared / "weights" / "coco" / "reference_raw_pets.npz")["anchors_ycxchw"]
    expected = torch.from_numpy(reference[:, [1, 0, 3, 2]] * 300).float()
    found = make_anchors(PRESETS["paper"].levels(6), SHAPES_300, (300, 300))
    assert len(found) == 1917
    assert_close(box_convert(found, "xyxy", "cxcywh"), expected, rtol=1e-5, atol=1e-4)


def test_mmdet_boxes_are_those_of_its_config() -> None:
    # min_sizes and max_sizes of configs/ssd/ssdlite_mobilenetv2_scratch_600e_coco.py, ratios 1, 2, 1/2, 3, 1/3 of the lesser.
    sizes = [48, 100, 150, 202, 253, 304, 320]
    for level, small, large in zip(PRESETS["mmdet"].levels(6), sizes, sizes[1:], strict=False):
        found = box_convert(make_anchors([level], [(1, 1)], (320, 320)), "xyxy", "xywh")[:, 2:].tolist()
        squares = [[small, small], [sqrt(small * large)] * 2]
        others = [[small * sqrt(ratio), small / sqrt(ratio)] for ratio in (2, 1 / 2, 3, 1 / 3)]
        assert found[:2] == [pytest.approx(side, rel=1e-5) for side in squares]
        assert sorted(found) == [pytest.approx(side, rel=1e-5) for side in sorted(squares + others)]


@pytest.mark.parametrize(("interpolated", "count"), [("last", 3), ("second", 3), ("none", 2)])
@pytest.mark.parametrize("reduce_first", [False, True])
def test_place_of_the_interpolated_square(interpolated: str, count: int, reduce_first: bool) -> None:
    rule = AnchorRule(scales=(0.2, 0.4), last_scale=0.9, ratios=(1.0, 2.0), interpolated=interpolated, reduce_first=reduce_first)
    first, second = rule.levels(2)
    assert len(first) == (3 if reduce_first else count)
    assert len(second) == count
    squares = {"last": 2, "second": 1}
    if interpolated in squares:
        assert second[squares[interpolated]] == pytest.approx((0.6, 1.0))


def test_one_level_is_enough() -> None:
    assert AnchorRule(ratios=(1.0,), reduce_first=False).levels(1) == [[(0.2, 1.0), (sqrt(0.2), 1.0)]]


def test_clipped_sides_fit_the_input() -> None:
    anchors = make_anchors([[(0.95, 3.0)]], [(1, 1)], (100, 200), clip_sides=True)
    assert_close(anchors, torch.tensor([[100 - 95 * sqrt(3) / 2, 50 - 95 / sqrt(3) / 2, 100 + 95 * sqrt(3) / 2, 50 + 95 / sqrt(3) / 2]]))
    assert_close(make_anchors([[(0.95, 3.0)]], [(1, 1)], (100, 100), clip_sides=True)[0, [0, 2]], torch.tensor([0.0, 100.0]))


@pytest.mark.parametrize("count", [1, 5, 7])
def test_wrong_number_of_scales(count: int) -> None:
    with pytest.raises(ValueError, match=f"6 anchor scales were given for {count} feature maps"):
        PRESETS["mmdet"].levels(count)


@pytest.mark.parametrize("size", [(257, 391), (64, 640), (33, 17)])
@torch.no_grad()
def test_any_input_size(size: tuple[int, int]) -> None:
    backbone = MobileNetV2(width_mult=0.35).eval()
    head = SSDLite(backbone.taps, 2).eval()
    predictions = head(backbone(torch.randn(1, 3, *size)), size)
    assert predictions.class_logits.shape[1] == predictions.box_deltas.shape[1] == len(predictions.anchors)
    centres = box_convert(predictions.anchors, "xyxy", "cxcywh")[:, :2]
    assert (centres > 0).all()
    assert (centres < torch.tensor(size).flip(0)).all()
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (16, 32, 64, 128, 256, 512)]
    assert_close(predictions.anchors, make_anchors(PRESETS["paper"].levels(6), shapes, size))
