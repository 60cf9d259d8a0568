"""What the augmentations of all tasks share: cutting a window out of an image, and changing colours."""

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

# What lies outside an image: ImageNet's mean colour.
FILL = (124, 116, 104)

Window = tuple[float, float, float, float]


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
    sampling: Literal["bilinear", "nearest"] = "bilinear",
) -> NDArray[np.uint8]:
    """Resizes a window of an image to a fixed size in one step.

    Args:
        image: (H, W, 3) or (H, W).
        window: x1 y1 x2 y2 in image sides, which may reach beyond the image.
        size: height and width of the result in pixels.
        fill: value of what lies beyond the image.
        sampling: `bilinear` for pictures (averaging where pixels would be skipped), `nearest` for masks.
    """
    import cv2

    height, width = size
    x1, y1, x2, y2 = window
    scale = np.array([width / (x2 - x1), height / (y2 - y1)])
    # The image's corners on the canvas, and the part of the canvas that they cover.
    start = np.round(-np.array([x1, y1]) * scale).astype(int)
    end = np.maximum(np.round((1 - np.array([x1, y1])) * scale).astype(int), start + 1)
    seen = np.clip([start, end], 0, [width, height])
    seen[0] = np.minimum(seen[0], [width - 1, height - 1])
    ratio = np.array([image.shape[1], image.shape[0]]) / (end - start)
    corners = np.round((seen - start) * ratio).astype(int)
    left, top = np.minimum(corners[0], [image.shape[1] - 1, image.shape[0] - 1])
    right, bottom = corners[1]
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    target = tuple(np.maximum(seen[1] - seen[0], 1).tolist())
    smooth = cv2.INTER_AREA if ratio.max() > 1 else cv2.INTER_LINEAR
    interpolation = smooth if sampling == "bilinear" else cv2.INTER_NEAREST_EXACT
    resized: NDArray[np.uint8] = cv2.resize(part, target, interpolation=interpolation)  # type: ignore[assignment]
    if resized.shape[:2] == (height, width):
        return resized
    canvas = np.empty((height, width, *image.shape[2:]), dtype=np.uint8)
    canvas[:] = fill
    canvas[seen[0, 1] : seen[0, 1] + resized.shape[0], seen[0, 0] : seen[0, 0] + resized.shape[1]] = resized
    return canvas


def colours(brightness: float, strength: float) -> list[Any]:
    """Changes brightness by up to `brightness`, contrast and saturation by up to `strength`, hue by a tenth of it; none at 0.

    At strength .5 and brightness .125 these are the ranges of torchvision's RandomPhotometricDistort, SSD's colours for images in 0..1.
    """
    import albumentations as A

    return [A.ColorJitter(brightness, strength, strength, hue=0.1 * strength, p=0.8)] if strength > 0 else []
