"""SSDLite (MobileNetV2 paper, section 6.2) and SSD (Liu et al. 2016) heads."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import Tap
from backbones.layers import Conv2d, Layers, Padding
from heads.anchors import PRESETS, AnchorRule, make_anchors
from heads.base import BoxPredictions, DetectionHead, Detections, Targets
from heads.boxes import CODER_WEIGHTS, MAX_LOG_SIDE, decode, encode, match, to_image
from heads.greedy import decode_all, detected
from heads.multibox import ClassLoss, SoftmaxLoss
from heads.nms import Suppression
from heads.shared import shared_count
from heads.taps import last_of_strides

# TensorFlow's ssdlite_mobilenet_v2_coco draws new weights from a truncated normal distribution of this standard deviation.
INIT_STD = 0.03
# Strides of the features that the paper attaches to (section 6.2: the expansion of layer 15, and the last layer).
STRIDES = (16, 32)


class SSDLite(DetectionHead):
    """Single-shot detector with depthwise-separable extra layers and prediction layers.

    Args:
        taps: the backbone's taps, finest first; all are used. Of a backbone that was not told its taps, the last of stride 16 and the last
            of stride 32, as in the paper.
        num_classes: number of foreground classes K.
        extra_channels: channels of the extra stride-2 layers on top of the last tap (512 256 256 128 in TensorFlow's
            ssdlite_mobilenet_v2_coco).
        anchors: `paper`, `torchvision`, `mmdet`, or a rule of one's own.
        class_loss: the classification loss; by default softmax with hard negatives.
        iou_threshold: least overlap of an anchor with its box (SSD, section 2.2).
        box_weight: weight of the smooth-L1 box loss against the classification loss.
        suppression: how predictions become detections.
        padding: `symmetric` or `same`, as in the backbone.
        bn_eps: batch-norm epsilon (1e-3 in TensorFlow, mmdetection and torchvision).
        bn_momentum: batch-norm momentum in torch's sense (.03 in mmdetection and torchvision).

    Raises:
        ValueError: `num_classes` or `anchors` is not accepted, or the backbone lacks a stride.
    """

    def __init__(
        self,
        taps: Mapping[str, Tap],
        num_classes: int,
        extra_channels: Sequence[int] = (512, 256, 256, 128),
        anchors: Literal["paper", "torchvision", "mmdet"] | AnchorRule = "paper",
        class_loss: ClassLoss | None = None,
        iou_threshold: float = 0.5,
        box_weight: float = 1.0,
        suppression: Suppression = Suppression(),
        padding: Padding = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.03,
    ) -> None:
        super().__init__(last_of_strides(taps, STRIDES, type(self).__name__), num_classes)
        self.class_loss = class_loss or SoftmaxLoss()
        self.iou_threshold, self.box_weight = iou_threshold, box_weight
        self.suppression = suppression
        if min(extra_channels, default=2) < 2:
            raise ValueError(f"extra_channels {list(extra_channels)} are not possible; accepted: whole numbers of at least 2")
        self.anchor_rule = _anchor_rule(anchors)
        layers = Layers(padding, bn_eps, bn_momentum)
        channels = [tap.channels for tap in self.taps.values()]
        self.extras = nn.ModuleList(
            self.extra_layer(below, here, layers) for below, here in zip([channels[-1], *extra_channels], extra_channels, strict=False)
        )
        channels += extra_channels
        self.levels = self.anchor_rule.levels(len(channels))
        counts = [len(level) for level in self.levels]
        self.box_layers = nn.ModuleList(self.prediction_layer(c, n * 4, layers) for c, n in zip(channels, counts, strict=True))
        self.class_layers = nn.ModuleList(
            self.prediction_layer(c, n * (num_classes + 1), layers) for c, n in zip(channels, counts, strict=True)
        )
        self._anchor_cache: dict[object, Tensor] = {}
        self._initialise()

    def extra_layer(self, in_channels: int, out_channels: int, layers: Layers) -> nn.Module:
        """1x1 to half the channels, 3x3 depthwise of stride 2, 1x1."""
        half = out_channels // 2
        return nn.Sequential(
            layers.conv_bn_relu6(in_channels, half), layers.depthwise(half, stride=2), layers.conv_bn_relu6(half, out_channels)
        )

    def prediction_layer(self, in_channels: int, out_channels: int, layers: Layers) -> nn.Module:
        """3x3 depthwise, then 1x1 with bias."""
        return nn.Sequential(layers.depthwise(in_channels), Conv2d(in_channels, out_channels, 1, bias=True))

    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> BoxPredictions:
        """Predicts boxes from the taps' features, see `DetectionHead.forward`."""
        maps = [features[name] for name in self.taps]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        deltas = [_by_anchor(layer(m), 4) for layer, m in zip(self.box_layers, maps, strict=True)]
        logits = [_by_anchor(layer(m), self.num_classes + 1) for layer, m in zip(self.class_layers, maps, strict=True)]
        anchors = self._anchors([(m.shape[-2], m.shape[-1]) for m in maps], input_size, maps[0].device)
        return BoxPredictions(torch.cat(logits, dim=1), torch.cat(deltas, dim=1), anchors, input_size)

    def loss(self, predictions: BoxPredictions, targets: Targets) -> dict[str, Tensor]:
        """Classification and smooth-L1 loss, each summed over the batch and divided by its matched anchors (at least 1).

        Over several processes, the average of their losses is the loss of all their images together, see `heads.shared`.
        """
        logits, deltas = predictions.class_logits.float(), predictions.box_deltas.float()
        with torch.autocast(logits.device.type, enabled=False):
            labels, boxes = match(predictions.anchors, targets.boxes.float(), targets.labels, self.iou_threshold)
            positive = labels > 0
            matches = shared_count(positive.sum())
            # Of all anchors: picking the matched ones would wait for a GPU.
            distance = F.smooth_l1_loss(deltas, encode(boxes, predictions.anchors), reduction="none")
            localization = distance.where(positive[..., None], 0.0).sum()
            localization = localization + 0 * targets.boxes.sum()  # a box that is NaN overlaps nothing and would pass for none
            return {
                "classification": self.class_loss(logits, labels) / matches,
                "localization": self.box_weight * localization / matches,
            }

    @torch.no_grad()
    def postprocess(self, predictions: BoxPredictions, image_sizes: Tensor) -> list[Detections]:
        """Scores, non-maximum suppression, and boxes in original pixels, see `DetectionHead.postprocess`."""
        scores = self.class_loss.scores(predictions.class_logits.float())
        decoded = _decode(predictions.box_deltas.float(), predictions.anchors.float())
        found = []
        for own_scores, own_boxes, size in zip(scores, decoded, image_sizes, strict=True):
            anchors, labels = self.suppression(own_scores, own_boxes)
            found.append(Detections(*_detected(own_boxes, own_scores, anchors, labels, predictions.input_size, size), labels))
        return found

    def _anchors(self, shapes: list[tuple[int, int]], input_size: tuple[int, int], device: torch.device) -> Tensor:
        key = (tuple(shapes), tuple(input_size), device)
        if key not in self._anchor_cache:
            made = make_anchors(self.levels, shapes, input_size, self.anchor_rule.clip_sides)
            self._anchor_cache = {key: made.to(device)}
        return self._anchor_cache[key]

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.class_layers:
            last = [m for m in layer.modules() if isinstance(m, nn.Conv2d)][-1]
            biases = cast(Tensor, last.bias)  # prediction layers have one
            biases.data.view(-1, self.num_classes + 1)[:, 1:] = self.class_loss.foreground_bias


class SSD(SSDLite):
    """The same detector with full 3x3 convolutions in its extra layers and prediction layers.

    The original that the MobileNetV2 paper compares SSDLite with in its table 5; arguments as in `SSDLite`.
    """

    def extra_layer(self, in_channels: int, out_channels: int, layers: Layers) -> nn.Module:
        """1x1 to half the channels, full 3x3 of stride 2."""
        half = out_channels // 2
        return nn.Sequential(layers.conv_bn_relu6(in_channels, half), layers.conv_bn_relu6(half, out_channels, 3, stride=2))

    def prediction_layer(self, in_channels: int, out_channels: int, layers: Layers) -> nn.Module:
        """Full 3x3 with bias."""
        return Conv2d(in_channels, out_channels, 3, bias=True, padding_rule=layers.padding)


def _anchor_rule(anchors: str | AnchorRule) -> AnchorRule:
    if isinstance(anchors, AnchorRule):
        return anchors
    if anchors not in PRESETS:
        raise ValueError(f"anchors {anchors!r} is unknown; accepted: {', '.join(PRESETS)}, or an anchor rule")
    return PRESETS[anchors]


def _decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    if deltas.device.type != "cpu":
        return decode(deltas, anchors)
    return torch.from_numpy(decode_all(deltas.contiguous().numpy(), anchors.contiguous().numpy(), CODER_WEIGHTS, MAX_LOG_SIDE))


def _detected(
    boxes: Tensor, scores: Tensor, anchors: Tensor, labels: Tensor, input_size: tuple[int, int], image_size: Tensor
) -> tuple[Tensor, Tensor]:
    if boxes.device.type == "cpu":
        taken = detected(boxes.numpy(), scores.numpy(), anchors.numpy(), labels.numpy(), tuple(input_size), image_size.numpy())
        return torch.from_numpy(taken[0]), torch.from_numpy(taken[1])
    return to_image(boxes[anchors], input_size, image_size), scores[anchors, labels - 1]


def _by_anchor(output: Tensor, columns: int) -> Tensor:
    """(B, n columns, H, W) -> (B, H W n, columns)."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, columns)
