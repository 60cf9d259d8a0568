"""Changes of colours, in bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# How often colours are changed at all.
PROBABILITY = 0.8

Pixels = NDArray[np.uint8]


class Colours:
    """Changes brightness, contrast, saturation and hue at random, in random order, as albumentations' ColorJitter does.

    At strength .5 and brightness .125 the ranges are those of torchvision's RandomPhotometricDistort, SSD's colours for images in 0..1.

    Args:
        brightness: the most by which brightness changes, as a share.
        strength: the most by which contrast and saturation change, as a share; hue changes by a tenth of it, of the whole circle. 0
            changes nothing, brightness included.
    """

    def __init__(self, brightness: float, strength: float) -> None:
        self.brightness, self.strength = brightness, strength

    def __call__(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Returns an (H, W, 3) RGB image with other colours."""
        if not self.strength or draw.random() >= PROBABILITY:
            return image
        reach = np.array([self.brightness, self.strength, self.strength, 0.1 * self.strength])
        amounts = (np.array([1, 1, 1, 0]) + draw.uniform(-reach, reach)).tolist()
        for number in draw.permutation(len(CHANGES)).tolist():
            image = CHANGES[number](image, amounts[number])
        return image


def change_brightness(image: Pixels, factor: float) -> Pixels:
    """Multiplies."""
    return _look_up(image, np.arange(256) * factor)


def change_contrast(image: Pixels, factor: float) -> Pixels:
    """Multiplies the distance from the mean grey."""
    import cv2

    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return _look_up(image, np.arange(256) * factor + mean * (1 - factor))


def change_saturation(image: Pixels, factor: float) -> Pixels:
    """Multiplies each pixel's distance from its grey."""
    import cv2

    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    changed: Pixels = cv2.addWeighted(image, factor, grey, 1 - factor, 0)  # type: ignore[assignment]
    return changed


def change_hue(image: Pixels, turn: float) -> Pixels:
    """Turns the circle of hues, by a share of it."""
    import cv2

    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    table[:, 0] = np.mod(np.arange(256) + 180 * turn, 180)  # OpenCV's hues are 0 to 179
    hues = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
    changed: Pixels = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)  # type: ignore[assignment]
    return changed


CHANGES = (change_brightness, change_contrast, change_saturation, change_hue)


def _look_up(image: Pixels, values: NDArray[Any]) -> Pixels:
    import cv2

    changed: Pixels = cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8))  # type: ignore[assignment]
    return changed
