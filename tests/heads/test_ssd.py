"""SSDLite and SSD: shapes, losses, results, and Google's published detector."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD as TorchvisionSSD  # noqa: N811
from torchvision.ops import box_convert, box_iou

from backbones import MobileNetV2, Tap
from backbones.layers import Conv2d
from heads import SSD, AnchorRule, BoxPredictions, FocalLoss, SigmoidLoss, SoftmaxLoss, SSDLite, Suppression, Targets
from heads.boxes import encode
from heads.multibox import ClassLoss

HEADS = [SSDLite, SSD]
LOSSES = [SoftmaxLoss(), SigmoidLoss(), FocalLoss()]
TAPS = {"fine": Tap(24, 16), "coarse": Tap(32, 32)}


def small_head(cls: type[SSDLite] = SSDLite, **kwargs: Any) -> SSDLite:
    return cls(TAPS, 3, **{"extra_channels": (16, 16), **kwargs})


def features(head: SSDLite, batch: int = 2, size: tuple[int, int] = (97, 130)) -> dict[str, Tensor]:
    return {n: torch.randn(batch, t.channels, -(-size[0] // t.stride), -(-size[1] // t.stride)) for n, t in head.taps.items()}


def no_boxes(batch: int) -> Targets:
    return Targets.collate([torch.zeros(0, 4)] * batch, [torch.zeros(0, dtype=torch.int64)] * batch)


def some_boxes() -> Targets:
    boxes = [torch.tensor([[3.0, 5.0, 40.0, 60.0], [50.0, 20.0, 125.0, 95.0]]), torch.tensor([[10.0, 10.0, 30.0, 30.0]])]
    return Targets.collate(boxes, [torch.tensor([1, 3]), torch.tensor([2])])


def convolutions(module: nn.Module) -> list[Conv2d]:
    return [m for m in module.modules() if isinstance(m, Conv2d)]


def test_collate_pads_with_label_zero() -> None:
    targets = some_boxes()
    assert targets.boxes.shape == (2, 2, 4)
    assert targets.labels.tolist() == [[1, 3], [2, 0]]
    assert no_boxes(2).boxes.shape == (2, 0, 4)


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("taps", [["layer7"], ["layer15_expand", "layer19"], ["layer4", "layer7", "layer14", "layer18"]])
@pytest.mark.parametrize("extra_channels", [(), (32,), (64, 32, 16)])
@pytest.mark.parametrize("anchors", ["paper", "torchvision", AnchorRule(interpolated="none")])
def test_every_combination_of_taps_and_levels(cls: type[SSDLite], taps: list[str], extra_channels: tuple[int, ...], anchors: Any) -> None:
    backbone = MobileNetV2(taps, width_mult=0.1).eval()
    head = cls(backbone.taps, 2, extra_channels, anchors).eval()
    predictions = head(backbone(torch.randn(2, 3, 97, 65)), (97, 65))
    count = len(predictions.anchors)
    assert predictions.class_logits.shape == (2, count, 3)
    assert predictions.box_deltas.shape == (2, count, 4)
    strides = [tap.stride for tap in backbone.taps.values()]
    strides += [strides[-1] * 2**k for k in range(1, len(extra_channels) + 1)]
    assert len(head.levels) == len(strides)
    assert count == sum(-(-97 // s) * -(-65 // s) * len(level) for s, level in zip(strides, head.levels, strict=True))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@torch.no_grad()
def test_atrous_backbones_and_paddings(output_stride: int, padding: str) -> None:
    backbone = MobileNetV2(["layer15_expand", "layer19"], 0.1, output_stride, padding=padding).eval()
    head = SSDLite(backbone.taps, 1, (16, 16), padding=padding).eval()
    predictions = head(backbone(torch.randn(1, 3, 64, 96)), (64, 96))
    assert {conv.pads_asymmetrically for conv in convolutions(head) if conv.stride[0] > 1} == {padding == "same"}
    assert predictions.class_logits.shape[1] == len(predictions.anchors)


def test_predictions_stand_at_their_anchors() -> None:
    head = small_head(extra_channels=()).eval()
    seen = features(head, batch=1)
    before = head(seen, (97, 130)).box_deltas
    seen["fine"][0, :, 4, 6] += 10
    moved = (head(seen, (97, 130)).box_deltas != before).any(dim=-1)[0]
    centres = box_convert(head(seen, (97, 130)).anchors, "xyxy", "cxcywh")[:, :2]
    # A 3x3 kernel: the cell itself and its neighbours, at 130 / 9 by 97 / 7 pixels a cell.
    distance = (centres[moved] - torch.tensor([6.5 * 130 / 9, 4.5 * 97 / 7])).abs() / torch.tensor([130 / 9, 97 / 7])
    assert moved.sum() == 9 * 3
    assert distance.max() < 1.01


@pytest.mark.parametrize("cls", HEADS)
def test_gradients_reach_every_parameter(cls: type[SSDLite]) -> None:
    backbone = MobileNetV2(["layer7", "layer14"], width_mult=0.35)
    # Every anchor that touches a box is trained, so that every level has matches.
    head = cls(backbone.taps, 3, (16, 16), class_loss=FocalLoss(), iou_threshold=0.01)
    predictions = head(backbone(torch.randn(2, 3, 97, 130)), (97, 130))
    torch.stack(list(head.loss(predictions, some_boxes()).values())).sum().backward()
    for module in (backbone, head):
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_loss_by_hand() -> None:
    head = small_head(box_weight=2.0, class_loss=SoftmaxLoss(min_negatives=0))
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [0.0, 20.0, 10.0, 30.0]])
    targets = Targets(torch.tensor([[[0.0, 0.0, 10.0, 10.0], [20.5, 0.0, 30.5, 10.0]]]), torch.tensor([[1, 2]]))
    losses = head.loss(BoxPredictions(torch.zeros(1, 3, 4), torch.tensor([[[2.0, 0, 0, 0]] * 3]), anchors, (40, 40)), targets)
    # Smooth L1 of (2, 0, 0, 0) is 1.5; the second box is 10 x 0.5 / 10 = .5 away and leaves 1.5, of smooth L1 1.
    assert losses["localization"].item() == pytest.approx(2 * (1.5 + 1.0) / 2)
    assert losses["classification"].item() == pytest.approx(3 * np.log(4) / 2)


def test_loss_equals_torchvision() -> None:
    head = small_head(class_loss=SoftmaxLoss(negative_ratio=3, min_negatives=0))
    predictions = head(features(head), (97, 130))
    predictions = predictions._replace(class_logits=torch.randn_like(predictions.class_logits) * 2)
    boxes, labels = some_boxes()
    targets = [{"boxes": b[k > 0], "labels": k[k > 0]} for b, k in zip(boxes, labels, strict=True)]
    theirs = SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    outputs = {"bbox_regression": predictions.box_deltas, "cls_logits": predictions.class_logits}
    matches = [SSDMatcher(0.5)(box_iou(t["boxes"], predictions.anchors)) for t in targets]
    expected = TorchvisionSSD.compute_loss(theirs, targets, outputs, [predictions.anchors] * 2, matches)
    found = head.loss(predictions, Targets(boxes, labels))
    assert_close(found["classification"], expected["classification"])
    assert_close(found["localization"], expected["bbox_regression"])


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("class_loss", LOSSES)
def test_batches_without_boxes_train(cls: type[SSDLite], class_loss: ClassLoss) -> None:
    head = small_head(cls, class_loss=class_loss)
    losses = head.loss(head(features(head), (97, 130)), no_boxes(2))
    assert losses["localization"] == 0
    assert losses["classification"].isfinite()
    assert losses["classification"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("class_loss", LOSSES)
def test_padding_of_a_batch_does_not_change_its_loss(class_loss: ClassLoss) -> None:
    head = small_head(class_loss=class_loss)
    predictions, targets = head(features(head), (97, 130)), some_boxes()
    padded = Targets(nn.functional.pad(targets.boxes, (0, 0, 0, 5)), nn.functional.pad(targets.labels, (0, 5)))
    assert_close(head.loss(predictions, padded), head.loss(predictions, targets))


@pytest.mark.parametrize("class_loss", LOSSES)
@pytest.mark.parametrize("targets", [some_boxes(), no_boxes(2)])
def test_losses_under_bfloat16_are_float32(class_loss: ClassLoss, targets: Targets) -> None:
    head = small_head(class_loss=class_loss)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(features(head), (97, 130))
        losses = head.loss(predictions, targets)
    assert predictions.class_logits.dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() and loss.shape == () for loss in losses.values())
    widened = predictions._replace(class_logits=predictions.class_logits.float(), box_deltas=predictions.box_deltas.float())
    exact = head.loss(widened, targets)
    assert_close(losses, exact)


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [5, 5, 5, 50], [500, 500, 600, 600], [-50, -50, 300, 300]])
def test_bad_boxes_give_a_finite_loss(box: list[float]) -> None:
    head = small_head().eval()
    targets = Targets(torch.tensor([[box]]).float(), torch.tensor([[1]]))
    losses = head.loss(head(features(head, 1), (97, 130)), targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in head.parameters())


def predicted(head: SSDLite, boxes: Sequence[Sequence[float]], logits: Tensor, size: tuple[int, int]) -> BoxPredictions:
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0]]).expand(len(boxes), 4)
    return BoxPredictions(logits[None], encode(torch.tensor(boxes), anchors)[None], anchors, size)


def test_postprocess_clips_and_scales_to_the_original_image() -> None:
    head = small_head()
    logits = torch.tensor([[0.0, 0.0, 9.0, 0.0], [0.0, 12.0, 0.0, 0.0]])
    predictions = predicted(head, [[10.0, 20.0, 30.0, 80.0], [-40.0, -10.0, 400.0, 50.0]], logits, (100, 200))
    (found,) = head.postprocess(predictions, torch.tensor([[300, 1000]]))
    assert found.labels.tolist() == [1, 2]
    assert_close(found.boxes, torch.tensor([[0.0, 0.0, 1000.0, 150.0], [50.0, 60.0, 150.0, 240.0]]), rtol=1e-4, atol=1e-2)
    assert_close(found.scores, logits.softmax(dim=1)[[1, 0], [1, 2]])


def test_postprocess_keeps_images_apart_and_sorted() -> None:
    head = small_head(suppression=Suppression(score_threshold=0.0, max_detections=30)).eval()
    predictions = head(features(head), (97, 130))
    predictions = predictions._replace(class_logits=torch.randn_like(predictions.class_logits))
    sizes = torch.tensor([[97, 130], [970, 65]])
    together = head.postprocess(predictions, sizes)
    assert len(together) == 2
    for image, found in enumerate(together):
        assert len(found.boxes) == 30
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert set(found.labels.tolist()) <= {1, 2, 3}
        corners = found.boxes.view(-1, 2, 2)
        assert (corners >= 0).all()
        assert (corners <= sizes[image].flip(0) + 1e-3).all()
        alone = predictions._replace(class_logits=predictions.class_logits[[image]], box_deltas=predictions.box_deltas[[image]])
        assert_close(found, head.postprocess(alone, sizes[[image]])[0])


def test_postprocess_of_background_finds_nothing() -> None:
    head = small_head()
    logits = torch.tensor([[20.0, 0.0, 0.0, 0.0]])
    (found,) = head.postprocess(predicted(head, [[10.0, 20.0, 30.0, 80.0]], logits, (100, 200)), torch.tensor([[300, 1000]]))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_training_after_inference_mode() -> None:
    # Lightning validates in inference mode before it trains, and anchors are kept between the two.
    head = small_head()
    with torch.inference_mode():
        head(features(head), (97, 130))
    losses = head.loss(head(features(head), (97, 130)), some_boxes())
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_anchors_follow_a_change_of_input_size() -> None:
    head = small_head().eval()
    first, other = (head(features(head, size=size), size).anchors for size in ((97, 130), (98, 130)))
    assert len(first) == len(other)
    assert not torch.allclose(first, other)
    assert_close(head(features(head), (97, 130)).anchors, first)


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize(("class_loss", "bias"), [(None, 0.0), (SigmoidLoss(), -4.6), (FocalLoss(), -4.6)])
def test_initial_weights_and_biases(cls: type[SSDLite], class_loss: ClassLoss | None, bias: float) -> None:
    head = small_head(cls, class_loss=class_loss)
    weights = torch.cat([conv.weight.flatten() for conv in convolutions(head)])
    assert weights.abs().max() <= 0.06
    assert weights.std().item() == pytest.approx(0.03 * 0.88, rel=0.05)  # the standard deviation after truncation at 2
    assert all((convolutions(layer)[-1].bias == 0).all() for layer in head.box_layers)
    for layer in head.class_layers:
        biases = convolutions(layer)[-1].bias.view(-1, 4)
        assert (biases[:, 0] == 0).all()
        assert_close(biases[:, 1:], torch.full_like(biases[:, 1:], bias))
        assert biases.requires_grad


def test_focal_scores_begin_near_one_percent() -> None:
    head = small_head(class_loss=FocalLoss()).eval()
    scores = head.class_loss.scores(head(features(head), (97, 130)).class_logits)
    assert scores.mean().item() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("cls", HEADS)
def test_batch_norm_settings_reach_every_batch_norm(cls: type[SSDLite]) -> None:
    head = small_head(cls, bn_eps=1e-4, bn_momentum=0.2)
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.2)}


def test_copies_give_the_same_predictions() -> None:
    head = small_head().eval()
    seen = features(head)
    head(seen, (97, 130))
    assert_close(copy.deepcopy(head)(seen, (97, 130))[:3], head(seen, (97, 130))[:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes 0 is not possible; accepted: 1 or more"),
        ({"anchors": "yolo"}, "anchors 'yolo' is unknown; accepted: paper, torchvision, mmdet"),
        ({"anchors": "mmdet", "extra_channels": (16,)}, "6 anchor scales were given for 3 feature maps"),
        ({"padding": "valid"}, "padding 'valid' is unknown; accepted: 'symmetric', 'same'"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSDLite(TAPS, **{"num_classes": 3, **arguments})
