"""What may be wrong with a box."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.faults import Fault, shown

# Coordinates beyond this many pixels are of no image.
FARTHEST = 1e5
# Boxes that reach this many pixels beyond their image are rounded or continuous, not wrong.
ROUNDING = 0.5
# The faults of a box; of several, the first counts.
BOX_FAULTS = {
    "box_not_finite": "is not of finite numbers",
    "box_huge": "is far beyond any image",
    "box_reversed": "has a negative width or height",
    "box_empty": "has no width or no height",
    "box_outside": "is outside its image",
    "box_beyond": "reaches beyond its image",
}


def judge_boxes(boxes: NDArray[np.float32], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each box 0, or which of `BOX_FAULTS` it has, from 1.

    Args:
        boxes: (M, 4) x1 y1 x2 y2 in pixels.
        limits: (M, 4) the greatest coordinates.
    """
    finite = np.isfinite(boxes).all(axis=1)
    wild = ~np.all(abs(boxes) <= FARTHEST, axis=1, keepdims=True)  # so is NaN
    boxes = np.where(wild, 0, boxes)
    sides, inside = boxes[:, 2:] - boxes[:, :2], np.clip(boxes, 0, limits)
    found = [
        ~finite,
        wild[:, 0],
        (sides < 0).any(axis=1),
        (sides == 0).any(axis=1),
        ~(inside[:, 2:] > inside[:, :2]).all(axis=1),
        (abs(boxes - inside) > ROUNDING).any(axis=1),
    ]
    return np.select(found, range(1, len(found) + 1), 0)


def limits_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turns (M, 2) heights and widths into the (M, 4) greatest coordinates of boxes; those of unknown size have no limit."""
    return np.where(sizes > 0, sizes, np.iinfo(np.int32).max)[:, [1, 0, 1, 0]]


def box_fault(kind: str, file: str, found: NDArray[Any], corners: NDArray[np.float32], name: Any) -> Fault:
    """Describes a box that is wrong.

    Args:
        kind: one of `BOX_FAULTS`.
        file: its image.
        found: (4,) as its annotation file has it.
        corners: (4,) x1 y1 x2 y2.
        name: its id in that file, or None.
    """
    value = f"[{', '.join(f'{v:g}' for v in found)}]"
    whose = "" if name is None else f" of annotation {shown(name)}"
    message = f"{file}: the box {value}{whose} {BOX_FAULTS[kind]}"
    return Fault(kind, message, file, name, value, tuple(corners.tolist()) if np.isfinite(corners).all() else None)
