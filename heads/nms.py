"""From scores and boxes to detections."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from backbones.spec import Described
from heads.greedy import greedy, passing


@dataclass(frozen=True)
class Suppression(Described):
    """How raw predictions become detections.

    IoU .6 and 100 boxes a class and image are those of TensorFlow's ssdlite_mobilenet_v2_coco; the score threshold of .01 is
    SSD's (Liu et al. 2016, section 3).

    Attributes:
        score_threshold: detections score more than this.
        iou_threshold: of two boxes that overlap more, only the better scored is kept.
        max_per_class: most detections of one class in an image.
        max_detections: most detections in an image.
        class_agnostic: suppress across classes too.
        candidates_per_class: most boxes of a class that are looked at (torchvision's topk_candidates, 300 in its SSDLite); None for all.

    Raises:
        ValueError: a threshold or a number of boxes is not possible.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    max_per_class: int = 100
    max_detections: int = 100
    class_agnostic: bool = False
    candidates_per_class: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.iou_threshold <= 1 and self.score_threshold == self.score_threshold):
            raise ValueError(
                f"iou_threshold {self.iou_threshold}, score_threshold {self.score_threshold}: accepted: from 0 to 1, and a number"
            )
        if min(self.max_per_class, self.max_detections) < 1:
            raise ValueError(f"max_per_class {self.max_per_class}, max_detections {self.max_detections}: accepted: at least 1")

    def __call__(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Picks one image's detections; on CPUs, of equally scored ones that of the earlier anchor and class is the better.

        Args:
            scores: (A, K) in 0..1.
            boxes: (A, 4) x1 y1 x2 y2, shared by the classes.

        Returns:
            Indices (N,) in 0..A-1 of the anchors, by descending score, and labels (N,) in 1..K.
        """
        classes = scores.shape[1]
        if scores.device.type != "cpu" or scores.dtype != torch.float32:
            place = self._places(scores, boxes)
            return place // classes, place % classes + 1
        keys = np.sort(passing(scores.detach().numpy(), self.score_threshold))
        most = len(keys) if self.candidates_per_class is None else self.candidates_per_class
        detections = min(self.max_detections, len(keys))
        found = greedy(keys, boxes.detach().numpy(), classes, self.iou_threshold, most, self.max_per_class, detections, self.class_agnostic)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def _places(self, scores: Tensor, boxes: Tensor) -> Tensor:
        """Places of the detections among the (A K,) scores by torch's operators, on any device."""
        flat = scores.flatten()
        above = (flat > self.score_threshold).nonzero().squeeze(1)
        # Suppression only looks at better scored boxes: what survives among the best 1000 survives among all. More are looked at
        # only where those leave too few.
        candidates = min(1000, len(above))
        while True:
            score, place = flat[above].topk(candidates)
            place = above[place]
            if self.candidates_per_class is not None:  # all better ones of a class are among these
                among = _rank_in_class(place % scores.shape[1]) < self.candidates_per_class
                score, place = score[among], place[among]
            kept = self._suppress(boxes[place // scores.shape[1]], score, place % scores.shape[1])
            if len(kept) >= self.max_detections or candidates == len(above):
                return place[kept]
            candidates = min(4 * candidates, len(above))

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        # Boxes of different classes are moved apart so that one call serves all classes, in float64 (which Apple's GPUs lack) so that
        # one huge box does not cost all others their decimals.
        boxes, scores = (boxes, scores) if boxes.device.type == "mps" else (boxes.double(), scores.double())
        span = boxes.max() - boxes.min() + 1 if len(boxes) else 0
        apart = boxes if self.class_agnostic else boxes + (labels * span)[:, None]
        kept: Tensor = nms(apart, scores, self.iou_threshold)
        return kept[_rank_in_class(labels[kept]) < self.max_per_class][: self.max_detections]


def _rank_in_class(labels: Tensor) -> Tensor:
    """Counts, for each entry of (N,) labels, the earlier entries with the same label."""
    grouped, order = labels.sort(stable=True)
    start = torch.searchsorted(grouped, grouped)
    rank = torch.arange(len(labels), device=labels.device) - start
    return torch.empty_like(rank).scatter_(0, order, rank)
