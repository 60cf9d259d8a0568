"""Windows that are cut out of images, of training and of evaluation."""

from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from tasks.augment import Boxes, Window, cut_window
from tasks.classify.model import central_window

# Tries for a crop that fits into the image, as in torchvision's RandomResizedCrop.
ATTEMPTS = 10


class RandomWindow:
    """Chooses a window of random area and ratio of sides; where none of ten fits, the largest in the middle.

    Args:
        size: height and width of the result in pixels.
        min_scale: least area of the window in areas of the image.
        ratio: greatest ratio of the window's longer to its shorter side, beside that of `size`.
    """

    def __init__(self, size: tuple[int, int], min_scale: float, ratio: float) -> None:
        self.size, self.min_scale, self.ratio = size, min_scale, ratio

    def __call__(self, draw: np.random.Generator, shape: tuple[int, int], boxes: Boxes) -> Window:
        """Chooses x1 y1 x2 y2 in image sides."""
        height, width = shape
        areas = draw.uniform(self.min_scale, 1, size=ATTEMPTS)
        ratios = np.exp(draw.uniform(-1, 1, size=ATTEMPTS) * np.log(self.ratio)) * self.size[1] / self.size[0]
        # In image sides a window of area a and ratio r is as wide as sqrt(a r H / W) and as high as sqrt(a W / (r H)).
        spans = np.sqrt(np.stack([areas * ratios * height / width, areas * width / (ratios * height)], axis=1))
        fitting = (spans <= 1).all(axis=1)
        if not fitting.any():
            return central_window((height, width), self.size, crop=1.0)
        across, down = spans[fitting.argmax()].tolist()
        x, y = draw.uniform(0, 1 - across), draw.uniform(0, 1 - down)
        return x, y, x + across, y + down


class CentralWindow(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Cuts the middle out, as `Classifier.predict` does.

    Args:
        size: height and width of the result in pixels.
        crop: side of the window, as a share of the largest that fits.
    """

    def __init__(self, size: tuple[int, int], crop: float, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.size, self.crop = size, crop

    def apply(self, img: NDArray[np.uint8], **params: Any) -> NDArray[np.uint8]:
        """Resizes the middle of the image."""
        return cut_window(img, central_window(img.shape[:2], self.size, self.crop), self.size)
