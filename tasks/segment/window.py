"""DeepLab's random scale and crop in one."""

from collections.abc import Sequence

import numpy as np

from tasks.augment import Boxes, Window


class ScaledCrop:
    """Chooses the window of a crop of fixed size out of the randomly scaled image.

    Where the scaled image is smaller than the crop, it lies at its left and top, as in research/deeplab.

    Args:
        size: height and width of the crop in pixels.
        scales: sizes of the image in sizes of the original, one drawn at random.
    """

    def __init__(self, size: tuple[int, int], scales: Sequence[float]) -> None:
        self.size, self.scales = size, tuple(scales)

    def __call__(self, draw: np.random.Generator, shape: tuple[int, int], boxes: Boxes) -> Window:
        """Chooses x1 y1 x2 y2 in image sides."""
        scale = self.scales[draw.integers(len(self.scales))]
        height, width = (size / (scale * side) for size, side in zip(self.size, shape, strict=True))
        x, y = (draw.uniform(0, 1 - span) if span < 1 else 0.0 for span in (width, height))
        return x, y, x + width, y + height
