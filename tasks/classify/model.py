"""The classifier as a plain module: backbone, head and normalisation, without Lightning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones import Backbone, Tap
from heads import ClassifierHead
from tasks.augment import Window, cut_window
from tasks.images import RGBImage, rgb_pixels
from tasks.model import IMAGENET_MEAN, IMAGENET_STD, TaskModel

HeadBuilder = Callable[[dict[str, Tap], int], ClassifierHead]

# Share of an image's shorter side that is looked at: 224 of 256 pixels in torchvision, central_fraction in TensorFlow's slim.
CROP = 0.875


class Classifier(TaskModel):
    """A backbone with a classification head that takes images as they are.

    Args:
        backbone: makes the features.
        head: builds the head from the backbone's taps and the number of classes; a head class, or a partial of one.
        class_names: names of the K classes; logit k is that of `class_names[k]`.
        size: height and width of the network's input in `predict`.
        mean: per channel, of RGB in 0..1, subtracted from images.
        std: per channel, of RGB in 0..1, that images are then divided by.
        crop: side of the part in the middle of an image that `predict` looks at, as a share of the largest that fits.

    Raises:
        ValueError: `crop` is not over 0 to 1.
    """

    kind = "classifier"
    head_class = ClassifierHead

    def __init__(
        self,
        backbone: Backbone,
        head: HeadBuilder,
        class_names: Sequence[str],
        size: tuple[int, int] = (224, 224),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop: float = CROP,
    ) -> None:
        super().__init__(backbone, head(backbone.taps, len(class_names)), class_names, size, mean, std)
        self.crop = check_crop(crop)

    def forward(self, images: Tensor) -> Tensor:
        """Scores classes.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, of any size.

        Returns:
            (B, K) logits.
        """
        logits: Tensor = self.predictions(self.normalise(images))
        return logits

    def _network(self, pixels: Tensor) -> Any:
        return self.head(self.backbone(pixels))

    @torch.no_grad()
    def predict(self, image: str | Path | RGBImage) -> Tensor:
        """Finds the probabilities of the classes of one image, of which the middle is looked at.

        Args:
            image: a file, turned as its EXIF orientation says, or (H, W, 3) uint8 RGB pixels.

        Returns:
            (K,) probabilities. The module is in evaluation mode afterwards.

        Raises:
            ValueError: the file cannot be read as an image, or the pixels are of another kind.
        """
        pixels = rgb_pixels(image)
        middle = np.ascontiguousarray(cut_window(pixels, central_window(pixels.shape[:2], self.size, self.crop), self.size))
        logits: Tensor = self.judging()(torch.from_numpy(middle).permute(2, 0, 1)[None].to(self.mean.device))
        return logits.float().softmax(dim=1)[0]

    def describe(self) -> dict[str, Any]:
        """Returns plain values from which `from_checkpoint` builds the same architecture, see `TaskModel.describe`."""
        return super().describe() | {"crop": self.crop}


def check_crop(crop: float) -> float:
    """Returns the crop.

    Raises:
        ValueError: it is not over 0 to 1.
    """
    if not 0 < crop <= 1:
        raise ValueError(f"crop {crop} is not possible; accepted: over 0 to 1")
    return float(crop)


def central_window(image_size: Sequence[int], size: Sequence[int], crop: float) -> Window:
    """Returns the window in the middle of an image with the input's ratio of sides.

    Args:
        image_size: height and width of the image.
        size: height and width of the network's input.
        crop: side of the window, as a share of the largest that fits.

    Returns:
        x1 y1 x2 y2 in image sides, for `tasks.augment.cut_window`.
    """
    largest = min(image_size[0] / size[0], image_size[1] / size[1])
    height, width = (crop * largest * side / whole for side, whole in zip(size, image_size, strict=True))
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2
