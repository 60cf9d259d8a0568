"""How far the outputs of two graphs are apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = Sequence[NDArray[Any]]

# Detections are the same within this share of the largest coordinate, and this difference of scores.
SAME_BOX, SAME_SCORE = 1e-3, 1e-3


def differences(names: Sequence[str], ours: Outputs, theirs: Outputs) -> dict[str, float]:
    """Compares the outputs of two graphs, each by a share from 0 up.

    Args:
        names: what the outputs are, see `tasks.export.graphs`.
        ours: those of the one graph.
        theirs: those of the other.

    Returns:
        For floats the largest difference in shares of our largest value; for classes the share that differs; for the boxes, scores and
        labels of `detections` one share of detections that only one of both has, whatever their order.
    """
    if "labels" in names and len(names) > 1:
        return {"detections": _alone(ours, theirs)}
    return {name: _apart(one, other) for name, one, other in zip(names, ours, theirs, strict=True)}


def _apart(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype.kind in "iu":
        return float((ours != theirs).mean())
    largest = max(float(np.abs(ours).max(initial=0)), 1e-9)
    apart = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0)) / largest
    return apart if apart == apart else float("inf")


def _alone(ours: Outputs, theirs: Outputs) -> float:
    """The share of detections that have no counterpart of their class on the other side."""
    (our_boxes, our_scores, our_labels), (boxes, scores, labels) = ours, theirs
    largest = max(float(np.abs(our_boxes).max(initial=1)), 1.0)
    same = np.abs(our_boxes[:, None] - boxes[None]).max(axis=2, initial=0) <= SAME_BOX * largest
    same &= np.abs(our_scores[:, None] - scores[None]) <= SAME_SCORE
    same &= our_labels[:, None] == labels[None]
    count = len(our_labels) + len(labels)
    return float((~same.any(axis=1)).sum() + (~same.any(axis=0)).sum()) / max(count, 1)
