"""Augmentation of images."""

from abc import ABC, abstractmethod
from typing import Any

from tasks.augment import Pipeline, check_shares
from tasks.colours import Colours


class Augmentation(ABC):
    """A recipe that turns a training image into an input of the network."""

    @abstractmethod
    def compose(self, size: tuple[int, int]) -> Any:
        """Returns what makes an input of `size` (height, width) of an image: a `tasks.augment.Pipeline`, or one of albumentations."""


class InceptionAugmentation(Augmentation):
    """Inception's recipe (Szegedy et al. 2015, section 6): a crop of random size and ratio, mirroring, and changes of colour.

    Args:
        min_scale: least area of the crop in areas of the image; .08 in Inception.
        ratio: greatest ratio of the crop's longer to its shorter side, beside that of the input; 4/3 in Inception.
        flip: how often the image is mirrored.
        colour: strength of the changes of contrast and saturation, as a share (.5 in TensorFlow's slim, 0 in torchvision's reference);
            brightness changes by a quarter of it, and 0 changes nothing.

    Raises:
        ValueError: `min_scale` or `ratio` is out of range.
    """

    def __init__(self, min_scale: float = 0.08, ratio: float = 4 / 3, flip: float = 0.5, colour: float = 0.5) -> None:
        check_shares(flip=flip, colour=colour)
        if not 0 < min_scale <= 1 or not 1 <= ratio <= 100:
            raise ValueError(f"min_scale {min_scale} and ratio {ratio} are not possible; accepted: over 0 to 1, and 1 or more")
        self.min_scale, self.ratio, self.flip, self.colour = min_scale, ratio, flip, colour

    def compose(self, size: tuple[int, int]) -> Pipeline:
        """Crop and resize in one, flip, colour."""
        from tasks.classify.window import RandomWindow

        return Pipeline(size, RandomWindow(size, self.min_scale, self.ratio), self.flip, Colours(self.colour / 4, self.colour))


class CentreOnly(Augmentation):
    """Cuts the middle out, as evaluation does.

    Args:
        crop: side of the part in the middle, as a share of the largest that fits.
    """

    def __init__(self, crop: float) -> None:
        self.crop = crop

    def compose(self, size: tuple[int, int]) -> Any:
        """One crop with resize."""
        import albumentations as A

        from tasks.classify.window import CentralWindow

        return A.Compose([CentralWindow(size, self.crop)])
