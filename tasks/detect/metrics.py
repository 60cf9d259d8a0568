"""Average precision: COCO's twelve figures, and PASCAL VOC's two definitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchvision.ops import box_iou

from heads import Detections
from tasks.detect.annotations import BoxAnnotations
from tasks.detect.coco_eval import Engine, coco_results, judge

# COCOeval's recall thresholds 0, .01 ... 1 and the index of IoU .5 among its IoU thresholds.
RECALLS = np.linspace(0, 1, 101)
IOU_50 = 0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Results over a whole data set.

    Attributes:
        figures: COCO's twelve, and `AP50_voc07` and `AP50_voc12`; in 0..1, -1 where the data has no such object.
        per_class: AP and AP50 of each class, -1 where it has no object.
        precision: (10, 101, K) precision by IoU threshold .5 to .95, recall 0 to 1 and class; -1 where a class has no object.
        results: (M, 7) image id, x, y, width, height, score and category id of all detections.
        names: class names by category id.
    """

    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: Array
    results: Array
    names: dict[int, str]

    @property
    def detections(self) -> list[dict[str, Any]]:
        """All detections in COCO's results format, with class names."""
        columns = (self.results[:, 0], self.results[:, 1:5].round(2).tolist(), self.results[:, 5].round(5).tolist(), self.results[:, 6])
        return [
            {"image_id": int(image), "category_id": int(category), "category_name": self.names[int(category)], "bbox": box, "score": score}
            for image, box, score, category in zip(*columns, strict=True)
        ]


class CollectedDetections(Metric):
    """Collects the detections of a whole set, each image's once however many processes saw it."""

    full_state_update = False
    rows: list[Tensor]
    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.visits = 0
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("seen", default=[], dist_reduce_fx="cat")

    def update(self, indices: Tensor, detections: Sequence[Detections]) -> None:
        """Adds a batch.

        Args:
            indices: (B,) positions of the images in the data set.
            detections: one an image, in pixels of the original.
        """
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for index, found in zip(indices.tolist(), detections, strict=True):
            # Numbers a visit uniquely over up to a thousand processes.
            self.visits += 1
            # float64 for exact indices, which Apple's GPUs lack.
            device = "cpu" if found.boxes.device.type == "mps" else found.boxes.device
            visit = torch.tensor([[index, self.visits * 1000 + rank]], dtype=torch.float64, device=device)
            columns = torch.cat([found.labels[:, None], found.scores[:, None], found.boxes], dim=1)
            self.rows.append(torch.cat([visit.expand(len(columns), 2), columns.to(visit)], dim=1))
            self.seen.append(visit)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns (M, 7) rows of image index, label, score, x1 y1 x2 y2, by ascending image, and the (I,) int64 images seen."""
        rows, seen = (torch.cat(part) if isinstance(part, list) else part for part in (self.rows, self.seen))
        visits = seen[:, 1].long()
        first = visits.new_full((int(seen[:, 0].max()) + 1,), torch.iinfo(torch.int64).max)
        first.scatter_reduce_(0, seen[:, 0].long(), visits, "amin")
        kept = rows[rows[:, 1].long() == first[rows[:, 0].long()]]
        # Among equal scores the order of rows decides, which must not depend on the number of processes.
        kept = kept[kept[:, 0].argsort(stable=True)]
        return kept[:, [0, 2, 3, 4, 5, 6, 7]], torch.unique(seen[:, 0].long())  # type: ignore[no-untyped-call]


def evaluate(annotations: BoxAnnotations, rows: Array, seen: NDArray[np.int64], engine: Engine = "auto") -> Evaluation:
    """Scores detections.

    Args:
        annotations: the ground truth.
        rows: (M, 7) image index, label in 1..K, score, x1 y1 x2 y2 in pixels.
        seen: indices of the images that were evaluated.
        engine: which package computes COCO's figures, see `judge`.
    """
    seen = np.atleast_1d(seen)  # torchmetrics returns a tensor of one value without its dimension
    results = coco_results(annotations, rows)
    figures, precision = judge(annotations, results, annotations.image_ids[seen], engine)
    for name, eleven_points in (("AP50_voc07", True), ("AP50_voc12", False)):
        values = voc_ap(annotations, rows, seen, eleven_points)
        figures[name] = float(np.nanmean(values)) if not np.isnan(values).all() else -1.0
    per_class = {
        name: {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[IOU_50, :, k])} for k, name in enumerate(annotations.class_names)
    }
    names = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    return Evaluation(figures, per_class, precision, results, names)


def voc_ap(annotations: BoxAnnotations, rows: Array, seen: NDArray[np.int64], eleven_points: bool, iou_threshold: float = 0.5) -> Array:
    """VOC's average precision of each class (Everingham et al. 2010, section 4.2; from 2010 on the area under the curve).

    Each detection goes to the object of its class and image that it overlaps most; the best scored one of each object is right.
    Detections of `difficult` objects count neither way. Boxes are continuous, where the devkit's are inclusive pixels.

    Args:
        annotations: the ground truth; `ignored` marks difficult objects.
        rows: (M, 7) image index, label in 1..K, score, x1 y1 x2 y2 in pixels.
        seen: indices of the images that were evaluated.
        eleven_points: mean of the precision at recall 0, .1 ... 1 (VOC 2007) instead of the area.
        iou_threshold: least overlap of a right detection.

    Returns:
        (K,) average precision, NaN for a class without an object that counts.
    """
    rows = rows[np.argsort(-rows[:, 2], kind="stable")]
    objects = _matched_objects(annotations, rows, iou_threshold)
    difficult = np.append(annotations.ignored, False)[objects]
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(objects, return_index=True)[1]] = True
    right = first & (objects >= 0) & ~difficult
    counted = ~difficult
    present = np.isin(annotations.image_of_boxes(), seen) & ~annotations.ignored
    totals = np.bincount(annotations.labels[present], minlength=len(annotations.class_names) + 1)[1:]
    aps = np.full(len(totals), np.nan)
    for k, total in enumerate(totals):
        hits = right[counted & (rows[:, 1] == k + 1)]
        if total:
            aps[k] = _area(np.cumsum(hits), total, eleven_points)
    return aps


def _matched_objects(annotations: BoxAnnotations, rows: Array, iou_threshold: float) -> NDArray[np.int64]:
    """(M,) for each detection the object it overlaps most in its image and class, -1 where by less than the threshold."""
    objects = np.full(len(rows), -1)
    if not len(rows):
        return objects
    order = np.argsort(rows[:, 0], kind="stable")
    images, starts = np.unique(rows[order, 0], return_index=True)
    for image, places in zip(images.astype(int), np.split(order, starts[1:]), strict=True):
        mine = annotations.of_image(image)
        if mine.stop > mine.start:
            truth = torch.from_numpy(annotations.boxes[mine]).double()
            overlap = box_iou(torch.from_numpy(rows[places, 3:7]), truth).numpy()
            overlap[rows[places, 1][:, None] != annotations.labels[mine]] = 0
            best = overlap.argmax(axis=1)
            objects[places] = np.where(overlap.max(axis=1) >= iou_threshold, best + mine.start, -1)
    return objects


def _area(hits: NDArray[np.int64], total: int, eleven_points: bool) -> float:
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    # From here on each precision is the best at that recall or above.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_points:
        places = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-12)
        return float(np.append(precision, 0.0)[places].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _mean(precision: Array) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0
