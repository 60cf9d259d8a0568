"""The detector as a plain module: backbone, head and normalisation, without Lightning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone, Tap
from backbones.spec import describe, rebuild
from heads import BoxPredictions, DetectionHead, Detections
from tasks.checkpoint import load_checkpoint
from tasks.images import RGBImage, read_image, resize_image

# Mean and standard deviation of ImageNet's RGB in 0..1, as torchvision's weights expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

HeadBuilder = Callable[[dict[str, Tap], int], DetectionHead]


class Detector(nn.Module):
    """A backbone with a detection head that takes images as they are.

    Args:
        backbone: makes the features.
        head: builds the head from the backbone's taps and the number of classes; a head class, or a partial of one.
        class_names: names of the K foreground classes; label k is `class_names[k - 1]`.
        size: height and width in pixels that `predict` resizes images to.
        mean: per channel, of RGB in 0..1, subtracted from images.
        std: per channel, of RGB in 0..1, that images are then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: HeadBuilder,
        class_names: Sequence[str],
        size: tuple[int, int] = (320, 320),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = tuple(class_names)
        self.head = head(backbone.taps, len(self.class_names))
        self.size = (int(size[0]), int(size[1]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> BoxPredictions:
        """Predicts boxes.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, of any size.
        """
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        features = self.backbone((pixels - self.mean) / self.std)
        predictions: BoxPredictions = self.head(features, (images.shape[-2], images.shape[-1]))
        return predictions

    @torch.no_grad()
    def detect(self, images: Tensor, image_sizes: Tensor) -> list[Detections]:
        """Finds objects in a batch.

        Args:
            images: (B, 3, H, W), see `forward`.
            image_sizes: (B, 2) heights and widths of the original images, in whose pixels boxes are returned.
        """
        return self.head.postprocess(self(images), image_sizes)

    def predict(self, image: str | Path | RGBImage) -> Detections:
        """Finds objects in one image.

        Args:
            image: a file, turned as its EXIF orientation says, or (H, W, 3) uint8 RGB pixels.

        Returns:
            Detections in pixels of the image. The module is in evaluation mode afterwards.

        Raises:
            ValueError: the file cannot be read as an image.
        """
        pixels = read_image(image) if isinstance(image, (str, Path)) else image
        resized = torch.from_numpy(resize_image(pixels, self.size)).permute(2, 0, 1)[None]
        device = self.mean.device
        return self.eval().detect(resized.to(device), torch.tensor([pixels.shape[:2]], device=device))[0]

    def describe(self) -> dict[str, Any]:
        """Returns plain values from which `from_checkpoint` builds the same architecture.

        Raises:
            ValueError: a part was built with arguments that cannot be written down.
        """
        return {
            "backbone": describe(self.backbone),
            "head": describe(self.head, skip=("taps", "num_classes")),
            "class_names": list(self.class_names),
            "size": list(self.size),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def save(self, path: str | Path) -> None:
        """Writes a file of tensors and plain values for `from_checkpoint`."""
        torch.save({"detector": self.describe(), "state_dict": self.state_dict()}, path)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "Detector":
        """Rebuilds a detector from a run's checkpoint or from a file that `save` wrote; runs no code from it.

        Returns:
            The detector in evaluation mode, on the CPU; averaged weights (EMA) where the run kept them.

        Raises:
            ValueError: the file cannot be read, or holds no detector.
        """
        checkpoint = load_checkpoint(path)
        if "detector" not in checkpoint:
            raise ValueError(f"{path}: holds no detector; accepted: a checkpoint of tasks.detect, or a file of Detector.save")
        spec = checkpoint["detector"]
        head_spec = spec["head"]
        detector = cls(
            rebuild(spec["backbone"], Backbone),
            lambda taps, num_classes: rebuild(head_spec, DetectionHead, taps, num_classes),
            spec["class_names"],
            tuple(spec["size"]),
            spec["mean"],
            spec["std"],
        )
        # A training module holds the detector as its attribute `model`.
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        try:
            detector.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path}: its weights do not fit its own description: {error}") from error
        return detector.eval()
