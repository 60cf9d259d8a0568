"""What an exported file computes: a network with its preprocessing in front and, where wanted, its decoding behind."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms

from heads.boxes import decode
from heads.ssd import SSDLite
from tasks.detect.model import Detector
from tasks.images import RGBImage, resize_image
from tasks.segment.model import Segmenter, cornered

DetectionOutputs = Literal["raw", "decoded", "detections"]
SegmentationOutputs = Literal["raw", "labels"]

# Best scored boxes that the graph's non-maximum suppression looks at, as `heads.nms` does first.
CANDIDATES = 1000


class DetectionGraph(nn.Module):
    """A detector as an exported file has it.

    Args:
        model: the detector.
        outputs: `raw` for class_logits (B, A, K + 1), box_deltas (B, A, 4) and anchors (A, 4); `decoded` for boxes (B, A, 4), x1 y1 x2 y2
            in pixels of the input, and scores (B, A, K); `detections` for boxes (N, 4), scores (N,) and labels (N,) in 1..K of one image
            after non-maximum suppression.

    Raises:
        ValueError: the head decodes its boxes in another way than SSDLite.
    """

    def __init__(self, model: Detector, outputs: DetectionOutputs = "raw") -> None:
        super().__init__()
        if not isinstance(model.head, SSDLite) and outputs != "raw":
            raise ValueError(f"outputs {outputs!r} is not possible with {type(model.head).__name__}; accepted: 'raw'")
        self.model, self.outputs = model, outputs

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in order."""
        return {
            "raw": ["class_logits", "box_deltas", "anchors"],
            "decoded": ["boxes", "scores"],
            "detections": ["boxes", "scores", "labels"],
        }[self.outputs]

    def inputs(self, pixels: RGBImage) -> tuple[Tensor]:
        """Returns what `forward` takes of one (H, W, 3) image, as `Detector.predict` shows it to the network."""
        return (torch.from_numpy(resize_image(pixels, self.model.size))[None],)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Takes (B, H, W, 3) uint8 RGB."""
        found = self.model(images.permute(0, 3, 1, 2))
        if self.outputs == "raw":
            return found.class_logits, found.box_deltas, found.anchors
        scores = self.model.head.class_loss.scores(found.class_logits)
        boxes = decode(found.box_deltas, found.anchors)
        if self.outputs == "decoded":
            return clip_boxes_to_image(boxes, found.input_size), scores
        return self._suppress(boxes[0], scores[0], found.input_size)

    def _suppress(self, boxes: Tensor, scores: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        rule = self.model.head.suppression
        best, place = scores.flatten().topk(min(CANDIDATES, scores.numel()))
        labels = place % scores.shape[1]
        boxes = boxes[place // scores.shape[1]]
        # Boxes of different classes are moved apart so that one call serves all classes.
        span = boxes.max() - boxes.min() + 1
        apart = boxes if rule.class_agnostic else boxes + (labels * span)[:, None]
        kept = nms(apart, best, rule.iou_threshold)[: rule.max_detections]
        kept = kept[best[kept] > rule.score_threshold]
        return clip_boxes_to_image(boxes[kept], input_size), best[kept], labels[kept] + 1


class SegmentationGraph(nn.Module):
    """A segmenter as an exported file has it.

    Args:
        model: the segmenter.
        outputs: `raw` for logits (B, K, h, w) at the head's own resolution; `labels` for (B, H, W) uint8 classes at that of the input.
    """

    def __init__(self, model: Segmenter, outputs: SegmentationOutputs = "raw") -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in order."""
        return ["logits"] if self.outputs == "raw" else ["labels"]

    def inputs(self, pixels: RGBImage) -> tuple[Tensor, Tensor]:
        """Returns what `forward` takes of one (H, W, 3) image, as `Segmenter.predict` shows it to the network."""
        shown = self.model.fit(torch.from_numpy(pixels).permute(2, 0, 1), enlarge=True)
        return cornered(shown, self.model.size).permute(0, 2, 3, 1), torch.tensor([shown.shape[1:]])

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Takes (B, H, W, 3) uint8 RGB, and the (B, 2) int64 heights and widths of their top left parts that show the image."""
        height, width = images.shape[1:3]
        inside = (torch.arange(height) < sizes[:, :1])[:, :, None] & (torch.arange(width) < sizes[:, 1:])[:, None, :]
        # What is outside is the mean colour, as in `Segmenter`.
        pixels = self.model.normalise(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) * inside[..., None]
        logits: Tensor = self.model.head(self.model.backbone(pixels.permute(0, 3, 1, 2)), (height, width))
        if self.outputs == "raw":
            return logits
        labels: Tensor = self.model.head.upsample(logits, (height, width)).argmax(dim=1).to(torch.uint8)
        return labels
