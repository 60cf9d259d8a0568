"""Drawing COCO's segmentations: polygons and run lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.faults import FaultError

# Coordinates beyond this many pixels are no polygon of an image, and pycocotools runs out of memory on them.
FARTHEST = 1e5


def draw(segmentations: Sequence[Any], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Draws the union of COCO segmentations (polygons, or run lengths, compressed or not) by pycocotools.

    Args:
        segmentations: as in annotation files.
        size: height and width of the image in pixels.
        where: whose they are, for messages.

    Returns:
        (H, W) bool.

    Raises:
        FaultError: one of them is neither, or does not fit the image.
    """
    from pycocotools import mask as rle

    encoded: list[Any] = []
    for one in segmentations:
        try:
            counts, whole = (_run_lengths(one["counts"]), list(one["size"])) if isinstance(one, dict) else (None, None)
            points = [np.asarray(polygon, dtype=np.float64) for polygon in ([] if isinstance(one, dict) else one)]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            kind = "broken_run_lengths" if isinstance(one, dict) else "broken_polygon"
            raise FaultError(f"{where} has a segmentation that is neither polygons nor run lengths: {error}", kind) from error
        if counts is not None:
            if whole != list(size) or counts.sum() != size[0] * size[1] or counts.min() < 0:
                raise FaultError(f"{where} has run lengths that do not fill its {size[0]} x {size[1]} pixels", "broken_run_lengths")
            encoded.append(rle.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size))
        elif points and all(p.ndim == 1 and p.size >= 6 and p.size % 2 == 0 and (abs(p) < FARTHEST).all() for p in points):
            encoded += rle.frPyObjects([p.tolist() for p in points], *size)
        else:
            raise FaultError(f"{where} has a polygon that is not three or more points x1, y1, x2, y2, ... in pixels", "broken_polygon")
    drawn: NDArray[np.bool_] = rle.decode(rle.merge(encoded)).astype(bool)
    return drawn


def _run_lengths(counts: Any) -> NDArray[np.int64]:
    """Pixels outside, inside, outside, ... in column order; of COCO's compressed text, what it stands for."""
    if not isinstance(counts, str):
        return np.asarray(counts, dtype=np.int64)
    # Six bits a character: five of a number, lowest first, and whether more follow; the last one's fifth bit is the sign.
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("its text is not of COCO's run lengths")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("its text is not of COCO's run lengths")
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * (ends - starts + 1), 0)
    # From the fourth on, differences to the number two before.
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
