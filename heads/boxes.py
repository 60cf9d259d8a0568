"""Pure functions on boxes: encoding, decoding and matching to anchors."""

import math

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

# Coder scales of y, x, h, w in the TensorFlow Object Detection API (faster_rcnn_box_coder, 10 10 5 5) and of SSD's code.
CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# A predicted side is at most 62.5 anchor sides, torchvision's guard against overflow of exp.
MAX_LOG_SIDE = math.log(1000 / 16)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Returns the offsets (x, y, log w, log h, times `CODER_WEIGHTS`) that turn anchors into boxes.

    Args:
        boxes: (..., 4) x1 y1 x2 y2; sides are taken as at least 1e-6.
        anchors: (..., 4) x1 y1 x2 y2 of the same shape (or one that broadcasts), with positive sides.
    """
    box, anchor = box_convert(boxes, "xyxy", "cxcywh"), box_convert(anchors, "xyxy", "cxcywh")
    centres = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    sides = torch.log(box[..., 2:].clamp(min=1e-6) / anchor[..., 2:])
    return torch.cat([centres, sides], dim=-1) * boxes.new_tensor(CODER_WEIGHTS)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Inverse of `encode`: (..., 4) offsets and anchors to (..., 4) x1 y1 x2 y2."""
    deltas = deltas / deltas.new_tensor(CODER_WEIGHTS)
    anchor = box_convert(anchors, "xyxy", "cxcywh")
    centres = anchor[..., :2] + deltas[..., :2] * anchor[..., 2:]
    sides = anchor[..., 2:] * deltas[..., 2:].clamp(max=MAX_LOG_SIDE).exp()
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


def to_image(boxes: Tensor, input_size: tuple[int, int], image_size: Tensor) -> Tensor:
    """Cuts (N, 4) x1 y1 x2 y2 off at the borders of the network's input, and returns them in pixels of the original image.

    Args:
        boxes: in pixels of the network's input.
        input_size: its height and width.
        image_size: (2,) height and width of the original image.
    """
    limits = boxes.new_tensor(input_size[::-1])
    corners = boxes.view(-1, 2, 2).clamp(min=0).minimum(limits) * (image_size.to(boxes).flip(0) / limits)
    return corners.view(-1, 4)


def match(anchors: Tensor, boxes: Tensor, labels: Tensor, iou_threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Assigns boxes to anchors: each anchor its best box if they overlap enough, and each box its best anchor.

    Where several boxes want the same anchor as their best, the one that overlaps it most gets it (the first of equals).
    A box that overlaps no anchor is given none.

    Args:
        anchors: (A, 4) x1 y1 x2 y2.
        boxes: (B, N, 4) x1 y1 x2 y2; N may be 0.
        labels: (B, N) int64 labels, 0 for padding.
        iou_threshold: least intersection over union of an anchor and its box.

    Returns:
        (B, A) int64 labels of the anchors, 0 for the background, and (B, A, 4) their boxes (of background anchors: any).
    """
    batch, count = labels.shape
    if count == 0:
        return labels.new_zeros(batch, len(anchors)), anchors.expand(batch, -1, -1)
    iou = box_iou(boxes.flatten(0, 1), anchors).unflatten(0, (batch, count))
    iou = iou.nan_to_num().masked_fill((labels == 0)[..., None], 0.0)
    best_iou, best_anchor = iou.max(dim=2, keepdim=True)
    claims = torch.zeros_like(iou).scatter_(2, best_anchor, (best_iou > 0).to(iou.dtype))
    # Any claim outbids any overlap, and between claims the overlap decides.
    value, best_box = (iou + 2 * claims).max(dim=1)
    # A claimed anchor is worth over 2, so any threshold up to 1 lets it pass.
    matched_labels = labels.gather(1, best_box).where(value >= iou_threshold, 0)
    return matched_labels, boxes.gather(1, best_box[..., None].expand(-1, -1, 4))
