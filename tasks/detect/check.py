"""What `check` says of boxes: counts, classes, and how well the anchors of the config's model fit them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from tasks.check import Split, Table, class_table
from tasks.data import TaskData

# Least overlap by which an anchor is a box's (SSD, section 2.2).
MATCHED = 0.5
# Boxes compared with the anchors at once.
PART = 2048
# Bounds of the groups of sizes: the square root of a box's area in the network's input, in pixels.
SIDES = (8, 16, 32, 64, 128)
# Classes in the table of those that the anchors fit worst.
WORST = 8

Shares = NDArray[np.float32]


def describe(splits: Sequence[Split], data: TaskData, model: Any) -> list[Table]:
    """Returns the tables of a detection data set, see `tasks.check.check`."""
    counts = [
        ("images", *(len(s.annotations) for s in splits)),
        ("images that cannot be used", *(int((~s.usable).sum()) for s in splits)),
        ("images without boxes", *(int((np.diff(s.annotations.offsets) == 0).sum()) for s in splits)),
        ("boxes", *(len(s.annotations.boxes) for s in splits)),
        ("crowds and difficult boxes", *(int(s.annotations.ignored.sum()) for s in splits)),
    ]
    names = ("count of", *(split.name for split in splits))
    used = [s.annotations.labels[~s.annotations.ignored] for s in splits]
    by_class = [np.bincount(u, minlength=len(s.annotations.class_names) + 1)[1:].tolist() for u, s in zip(used, splits, strict=True)]
    return [Table("Data set", names, counts), class_table(splits, "boxes", by_class), *_anchor_tables(splits[0], data, model)]


def _anchor_tables(split: Split, data: TaskData, model: Any) -> list[Table]:
    """Of the training split, how many boxes an anchor overlaps enough: all, by size, and of the worst classes."""
    boxes, labels = boxes_in_input(split, data.size)
    if not len(boxes):
        return []
    best = best_overlaps(boxes, model_anchors(model.model, data.size))
    title = f"Anchors of {type(model.model.head).__name__} at {data.size[0]} x {data.size[1]} ({split.name})"
    columns = ("boxes", "count", f"share with IoU >= {MATCHED}", "mean best IoU")
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    groups = np.digitize(sides, SIDES)
    ends = [f"under {SIDES[0]} px", *(f"{a} to {b} px" for a, b in pairwise(SIDES)), f"{SIDES[-1]} px and more"]
    rows = [("all", np.ones(len(best), bool)), *((end, groups == n) for n, end in enumerate(ends))]
    names = split.annotations.class_names
    of_class = [(name, labels == k) for k, name in enumerate(names, start=1) if (labels == k).any()]
    worst = sorted(of_class, key=lambda row: float((best[row[1]] >= MATCHED).mean()))[:WORST]
    return [
        Table(title, columns, [_figures(name, best[of]) for name, of in rows if of.any()]),
        Table("Classes that the anchors fit worst", ("class", *columns[1:]), [_figures(name, best[of]) for name, of in worst]),
    ]


def _figures(name: str, best: Shares) -> tuple[str, int, float, float]:
    return name, len(best), round(float((best >= MATCHED).mean()), 4), round(float(best.mean()), 4)


def boxes_in_input(split: Split, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the (M, 4) boxes of usable images, ignored ones left out, in pixels of the resized input, and their labels."""
    annotations = split.annotations
    owner = annotations.image_of_boxes()
    used = ~annotations.ignored & split.usable[owner] & (split.sizes[owner] > 0).all(axis=1)
    scale = np.array(size) / split.sizes[owner[used]]
    return (annotations.boxes[used] * scale[:, [1, 0, 1, 0]]).astype(np.float32), annotations.labels[used]


def model_anchors(model: Any, size: tuple[int, int]) -> torch.Tensor:
    """Returns the (A, 4) anchors of a detector at an input of that height and width."""
    model.eval()
    with torch.no_grad():
        anchors: torch.Tensor = model(torch.zeros(1, 3, *size, dtype=torch.uint8)).anchors
    return anchors


def best_overlaps(boxes: NDArray[np.float32], anchors: torch.Tensor) -> Shares:
    """Returns for each of (M, 4) boxes the largest intersection over union with one of (A, 4) anchors."""
    parts = (torch.from_numpy(boxes[start : start + PART]) for start in range(0, len(boxes), PART))
    best: Shares = torch.cat([box_iou(part, anchors).max(dim=1).values for part in parts]).numpy()
    return best
