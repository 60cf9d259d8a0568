"""The detector as a plain module: backbone, head and normalisation, without Lightning."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones import Backbone, Tap
from heads import BoxPredictions, DetectionHead, Detections
from tasks.images import RGBImage, resize_image, rgb_pixels
from tasks.model import IMAGENET_MEAN, IMAGENET_STD, TaskModel

HeadBuilder = Callable[[dict[str, Tap], int], DetectionHead]


class Detector(TaskModel):
    """A backbone with a detection head that takes images as they are.

    Args:
        backbone: makes the features.
        head: builds the head from the backbone's taps and the number of classes; a head class, or a partial of one.
        class_names: names of the K foreground classes; label k is `class_names[k - 1]`.
        size: height and width in pixels that `predict` resizes images to.
        mean: per channel, of RGB in 0..1, subtracted from images.
        std: per channel, of RGB in 0..1, that images are then divided by.
    """

    kind = "detector"
    head_class = DetectionHead

    def __init__(
        self,
        backbone: Backbone,
        head: HeadBuilder,
        class_names: Sequence[str],
        size: tuple[int, int] = (320, 320),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(backbone, head(backbone.taps, len(class_names)), class_names, size, mean, std)

    def forward(self, images: Tensor) -> BoxPredictions:
        """Predicts boxes.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, of any size.
        """
        size = (images.shape[-2], images.shape[-1])
        if self.engine is not None:
            logits, deltas, anchors = self._run_engine(images)
            return BoxPredictions(logits, deltas, anchors, size)
        predictions: BoxPredictions = self.predictions(self.normalise(images))
        return predictions

    @torch.no_grad()
    def detect(self, images: Tensor, image_sizes: Tensor) -> list[Detections]:
        """Finds objects in a batch.

        Args:
            images: (B, 3, H, W), see `forward`.
            image_sizes: (B, 2) heights and widths of the original images, in whose pixels boxes are returned.
        """
        with self._threads():
            found: list[Detections] = self.head.postprocess(self(images), image_sizes)
        return found

    def predict(self, image: str | Path | RGBImage) -> Detections:
        """Finds objects in one image.

        Args:
            image: a file, turned as its EXIF orientation says, or (H, W, 3) uint8 RGB pixels.

        Returns:
            Detections in pixels of the image. The module is in evaluation mode afterwards.

        Raises:
            ValueError: the file cannot be read as an image, or the pixels are of another kind.
        """
        pixels = rgb_pixels(image)
        resized = torch.from_numpy(resize_image(pixels, self.size)).permute(2, 0, 1)[None]
        device = self.mean.device
        return self.judging().detect(resized.to(device), torch.tensor([pixels.shape[:2]], device=device))[0]
