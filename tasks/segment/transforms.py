"""Augmentation of images with masks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tasks.augment import FILL, Pipeline, check_shares
from tasks.colours import Colours

# research/deeplab: min_scale_factor, max_scale_factor and scale_factor_step_size.
DEEPLAB_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


class Augmentation(ABC):
    """A recipe that turns a training image and its mask into an input of the network."""

    @abstractmethod
    def compose(self, size: tuple[int, int]) -> Any:
        """Returns what makes an input of `size` (height, width) of an image with a mask.

        It is a `tasks.augment.Pipeline`, or a pipeline of albumentations.
        """


class DeepLabAugmentation(Augmentation):
    """DeepLab's recipe: a random scale, a random crop padded with the mean colour and void, mirroring; colours if wanted.

    Args:
        scales: sizes of the image, one drawn at random, in sizes of the original; .5 to 2 by .25 in research/deeplab.
        flip: how often the image is mirrored.
        colour: strength of changes of contrast and saturation, as a share; brightness changes by a quarter of it, and 0 changes nothing.
        fill: RGB of the padding in 0..255, which should be the mean that the model subtracts; ImageNet's by default.

    Raises:
        ValueError: there is no scale, or one is not positive.
    """

    def __init__(
        self,
        scales: Sequence[float] = DEEPLAB_SCALES,
        flip: float = 0.5,
        colour: float = 0.0,
        fill: tuple[int, int, int] = FILL,
    ) -> None:
        check_shares(flip=flip, colour=colour)
        if not scales or not all(0 < scale <= 100 for scale in scales):
            raise ValueError(f"scales {list(scales)} are not possible; accepted: one or more positive numbers up to 100")
        self.scales, self.flip, self.colour, self.fill = tuple(scales), flip, colour, fill

    def compose(self, size: tuple[int, int]) -> Pipeline:
        """Scale and crop in one, flip, colour."""
        from tasks.segment.window import ScaledCrop

        colours = Colours(self.colour / 4, self.colour)
        # The triangle filter blurs borders more than they are where an image is evaluated at its own size.
        return Pipeline(size, ScaledCrop(size, self.scales), self.flip, colours, self.fill, sampling="bilinear")


class Unchanged(Augmentation):
    """Leaves images as they are, for evaluation."""

    def compose(self, size: tuple[int, int]) -> Any:
        """Nothing."""
        import albumentations as A

        return A.Compose([])
