"""DeepLab's random scale and crop as one albumentations transform."""

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from heads import IGNORE_INDEX
from tasks.augment import Window, cut_window


class ScaledCrop(A.DualTransform):  # type: ignore[misc]  # albumentations has no types
    """Cuts a crop of fixed size out of the randomly scaled image, reading only what is in it.

    Where the scaled image is smaller than the crop, it is padded on the right and at the bottom, as in research/deeplab.

    Args:
        size: height and width of the crop in pixels.
        scales: sizes of the image in sizes of the original, one drawn at random.
        fill: RGB of the padding in 0..255.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.MASK)

    def __init__(self, size: tuple[int, int], scales: Sequence[float], fill: tuple[int, int, int], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.size, self.scales, self.fill = size, tuple(scales), fill

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Chooses the window: x1 y1 x2 y2 in image sides."""
        scale = self.random_generator.choice(self.scales)
        height, width = (size / (scale * side) for size, side in zip(self.size, params["shape"], strict=False))
        x, y = (self.random_generator.uniform(0, 1 - span) if span < 1 else 0.0 for span in (width, height))
        return {"window": (x, y, x + width, y + height)}

    def apply(self, img: NDArray[np.uint8], window: Window, **params: Any) -> NDArray[np.uint8]:
        """Cuts the image."""
        return cut_window(img, window, self.size, self.fill)

    def apply_to_mask(self, mask: NDArray[np.uint8], window: Window, **params: Any) -> NDArray[np.uint8]:
        """Cuts the mask; padding is void."""
        return cut_window(mask, window, self.size, IGNORE_INDEX, "nearest")
