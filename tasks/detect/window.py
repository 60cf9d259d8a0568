"""Windows for training images with boxes: SSD's zoom-out and overlap-constrained crop in one, a mild crop, and the resize of evaluation."""

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from tasks.augment import Boxes, Window
from tasks.images import resize_image

# Tries for a crop with the wanted overlap, as in SSD's code.
ATTEMPTS = 50
WHOLE = (0.0, 0.0, 1.0, 1.0)


class SmoothResize(A.DualTransform):  # type: ignore[misc]  # albumentations has no types
    """Resizes the whole image as `tasks.images.resize_image` does, as `predict` does too.

    Args:
        size: height and width of the result in pixels.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.BBOXES)

    def __init__(self, size: tuple[int, int], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.size = size

    def apply(self, img: NDArray[np.uint8], **params: Any) -> NDArray[np.uint8]:
        """Resizes the image."""
        return resize_image(img, self.size)

    def apply_to_bboxes(self, bboxes: NDArray[np.float32], **params: Any) -> NDArray[np.float32]:
        """Leaves boxes, which are in image sides, as they are."""
        return bboxes


class OverlapWindow:
    """Chooses a window of the image, which may reach beyond it, that shows enough of some object.

    Args:
        expand: largest side of a zoomed-out window in image sides.
        expand_probability: how often the window is zoomed out.
        min_overlaps: least share of some object that lies in the window, one drawn at random; 1 means the whole image.
        min_scale: least side of the window in sides of what it is cut from.
        min_visibility: share of an object that counts as seen; a crop that shows no object so far is not taken.
    """

    def __init__(
        self, expand: float, expand_probability: float, min_overlaps: Sequence[float], min_scale: float, min_visibility: float
    ) -> None:
        self.expand, self.expand_probability = expand, expand_probability
        self.min_overlaps, self.min_scale, self.min_visibility = tuple(min_overlaps), min_scale, min_visibility

    def __call__(self, draw: np.random.Generator, shape: tuple[int, int], boxes: Boxes) -> Window:
        """Chooses x1 y1 x2 y2 in image sides."""
        canvas = WHOLE
        if draw.random() < self.expand_probability:
            side = draw.uniform(1, self.expand)
            x, y = draw.uniform(1 - side, 0, size=2) if side > 1 else (0.0, 0.0)
            canvas = (x, y, x + side, y + side)
        wanted = self.min_overlaps[draw.integers(len(self.min_overlaps))]
        return canvas if wanted >= 1 or len(boxes) == 0 else self._crop(draw, canvas, boxes, wanted)

    def _crop(self, draw: np.random.Generator, canvas: Window, boxes: Boxes, wanted: float) -> Window:
        x, y, span = canvas[0], canvas[1], canvas[2] - canvas[0]
        sides = draw.uniform(self.min_scale, 1, size=(ATTEMPTS, 2))
        corner = draw.uniform(0, 1 - sides)
        windows = np.concatenate([corner, corner + sides], axis=1) * span + [x, y, x, y]
        seen = _share_inside(boxes, windows).max(axis=1)
        aspect = sides[:, 0] / sides[:, 1]
        good = (seen > 0) & (seen >= max(wanted, self.min_visibility)) & (aspect > 0.5) & (aspect < 2)
        x1, y1, x2, y2 = windows[good.argmax()].tolist() if good.any() else canvas
        return x1, y1, x2, y2


class SafeWindow:
    """Chooses a window of the image that holds all objects whole, as albumentations' BBoxSafeRandomCrop does.

    Args:
        probability: how often; otherwise, and where there are no objects, the window is the whole image.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, draw: np.random.Generator, shape: tuple[int, int], boxes: Boxes) -> Window:
        """Chooses x1 y1 x2 y2 in image sides."""
        if draw.random() >= self.probability or len(boxes) == 0:
            return WHOLE
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        (x1, y1), (x2, y2) = low * draw.random(2), high + (1 - high) * draw.random(2)
        return float(x1), float(y1), float(x2), float(y2)


def _share_inside(boxes: NDArray[np.float64], windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(W, N) share of each box's area inside each window."""
    low = np.maximum(boxes[None, :, :2], windows[:, None, :2])
    high = np.minimum(boxes[None, :, 2:], windows[:, None, 2:])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    share: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=-1) / np.maximum(area, 1e-12)
    return share
