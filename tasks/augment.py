"""What the augmentations of all tasks share: cutting a window out of an image, mirroring, and changing colours.

The window is chosen first, so that one resize serves zooming, cropping and resizing; all that follows works on bytes of the final size.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads import IGNORE_INDEX
from tasks.colours import Colours
from tasks.images import resize_image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

# What lies outside an image: ImageNet's mean colour.
FILL = (124, 116, 104)
# By so much the share of a box that is in view may be off.
ROUNDING = 1e-9

Window = tuple[float, float, float, float]
# How pixels are chosen: see `cut_window`.
Sampling = Literal["bilinear", "triangle", "nearest"]
Boxes = NDArray[np.float64]
# Chooses a window, x1 y1 x2 y2 in image sides, for an image of some height and width with (N, 4) boxes in image sides.
Chooser = Callable[[np.random.Generator, tuple[int, int], Boxes], Window]


def check_shares(**shares: float) -> None:
    """Refuses probabilities and strengths that are none, by their names.

    Raises:
        ValueError: one is not 0 to 1.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} {share} is not possible; accepted: 0 to 1")


def check_recipe(augmentation: Any) -> Any:
    """Returns a recipe for training images, unless it is none.

    Raises:
        ValueError: it has no `compose`, such as null in a config.
    """
    if not hasattr(augmentation, "compose"):
        raise ValueError(f"augmentation {augmentation!r} is not possible; accepted: a class of the task's transforms, or leave it out")
    return augmentation


def cut_window(
    image: NDArray[np.uint8],
    window: Window,
    size: tuple[int, int],
    fill: int | tuple[int, int, int] = FILL,
    sampling: Sampling = "bilinear",
) -> NDArray[np.uint8]:
    """Resizes a window of an image to a fixed size in one step.

    Args:
        image: (H, W, 3) or (H, W).
        window: x1 y1 x2 y2 in image sides, which may reach beyond the image.
        size: height and width of the result in pixels.
        fill: value of what lies beyond the image.
        sampling: `bilinear` for pictures (averaging where pixels would be skipped), `triangle` for (H, W, 3) pictures in half the time
            (with Pillow's weighted average there, as `tasks.images.resize_image`), `nearest` for masks.
    """
    import cv2

    height, width = size
    x1, y1, x2, y2 = window
    rows, columns = _cut(y1, y2, height, image.shape[0]), _cut(x1, x2, width, image.shape[1])
    part = image[rows[0] : rows[1], columns[0] : columns[1]]
    resized = _resize(part, (rows[3] - rows[2], columns[3] - columns[2]), max(rows[4], columns[4]) > 1, sampling)
    if resized.shape[:2] == (height, width):
        return resized
    borders = rows[2], height - rows[3], columns[2], width - columns[3]
    colour = fill if isinstance(fill, tuple) else (fill,)
    canvas: NDArray[np.uint8] = cv2.copyMakeBorder(resized, *borders, cv2.BORDER_CONSTANT, value=colour)  # type: ignore[assignment]
    return canvas


def _cut(low: float, high: float, target: int, source: int) -> tuple[int, int, int, int, float]:
    """Which pixels of a side of the image are seen, on which of the canvas, and how many fall on one of the canvas."""
    scale = target / (high - low)
    # The image's borders on the canvas, and the part of the canvas between them.
    start = round(-low * scale)
    end = max(round((1 - low) * scale), start + 1)
    first = min(max(start, 0), target - 1)
    last = max(min(end, target), first + 1)
    ratio = source / (end - start)
    begin = min(max(round((first - start) * ratio), 0), source - 1)
    return begin, max(round((last - start) * ratio), begin + 1), first, last, ratio


def _resize(part: NDArray[np.uint8], size: tuple[int, int], reduces: bool, sampling: str) -> NDArray[np.uint8]:
    import cv2

    if sampling == "triangle" and reduces:
        return resize_image(part, size)
    smooth = cv2.INTER_AREA if reduces else cv2.INTER_LINEAR
    interpolation = cv2.INTER_NEAREST_EXACT if sampling == "nearest" else smooth
    resized: NDArray[np.uint8] = cv2.resize(part, size[::-1], interpolation=interpolation)  # type: ignore[assignment]
    return resized


class Pipeline:
    """Cuts a random window out of a training image, mirrors it, and changes its colours; boxes and masks follow.

    All draws come from one generator. (albumentations' `Compose` gives each transform one of its own of the same seed, so that of two that
    are applied to half of the images, either both are or none.)

    Args:
        size: height and width of the result in pixels.
        choose: chooses the window.
        flip: how often the image is mirrored.
        colours: changes the colours.
        fill: RGB of what lies beyond the image in 0..255.
        min_visibility: share of a box's area that must stay in view for the box to be kept.
        sampling: of the image, see `cut_window`; as evaluation resizes.
    """

    def __init__(
        self,
        size: tuple[int, int],
        choose: Chooser,
        flip: float,
        colours: Colours,
        fill: tuple[int, int, int] = FILL,
        min_visibility: float = 0.0,
        sampling: Sampling = "bilinear",
    ) -> None:
        self.size, self.choose, self.flip, self.colours = size, choose, flip, colours
        self.fill, self.min_visibility, self.sampling = fill, min_visibility, sampling
        self.set_random_seed(None)

    def set_random_seed(self, seed: int | None) -> None:
        """Begins to draw anew."""
        self.draw = np.random.default_rng(seed)

    def __call__(
        self,
        image: NDArray[np.uint8],
        bboxes: NDArray[np.float32] | None = None,
        labels: NDArray[np.int64] | None = None,
        mask: NDArray[np.uint8] | None = None,
    ) -> dict[str, Any]:
        """Changes an (H, W, 3) image and what is given of (N, 4) boxes in pixels, (N,) labels and an (H, W) mask."""
        size = (image.shape[0], image.shape[1])
        boxes = _inside(np.asarray([] if bboxes is None else bboxes, dtype=np.float64).reshape(-1, 4) / (size * 2)[::-1])
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        window = self.choose(self.draw, size, boxes[real])
        mirrored = self.draw.random() < self.flip
        picture = cut_window(image, window, self.size, self.fill, self.sampling)
        changed: dict[str, Any] = {"image": self.colours(_mirror(picture) if mirrored else picture, self.draw)}
        if mask is not None:
            drawn = cut_window(mask, window, self.size, IGNORE_INDEX, "nearest")
            changed["mask"] = _mirror(drawn) if mirrored else drawn
        if bboxes is not None and labels is not None:
            changed["bboxes"], kept = self._move(boxes[real], window, mirrored)
            changed["labels"] = np.asarray(labels)[real][kept]
        return changed

    def _move(self, boxes: Boxes, window: Window, mirrored: bool) -> tuple[Boxes, NDArray[np.bool_]]:
        """Boxes in pixels of the result, and which of the given ones they are."""
        corner, span = np.array(window[:2]), np.array(window[2:]) - window[:2]
        moved = (boxes - np.tile(corner, 2)) / np.tile(span, 2)
        seen = _inside(moved)
        if mirrored:
            seen[:, [0, 2]] = 1 - seen[:, [2, 0]]
        pixels = seen * (self.size * 2)[::-1]
        sides = pixels[:, 2:] - pixels[:, :2]
        share = (seen[:, 2:] - seen[:, :2]).prod(axis=1) / (moved[:, 2:] - moved[:, :2]).prod(axis=1)
        # Boxes under a pixel in the input cannot be learned and make the coder's logarithms large.
        kept: NDArray[np.bool_] = (sides >= 1).all(axis=1) & (share >= self.min_visibility - ROUNDING)
        return pixels[kept], kept


def _inside(boxes: Boxes) -> Boxes:
    return np.clip(boxes, 0, 1)


def _mirror(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    mirrored: NDArray[np.uint8] = cv2.flip(image, 1)  # type: ignore[assignment]
    return mirrored
