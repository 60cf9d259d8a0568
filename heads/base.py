"""What every head does, and the types it speaks in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from backbones import Tap
from backbones.spec import Described
from heads.label_map import label_map
from heads.upsampling import LEAST_FACTOR, upsample_by_products

# Pixels of this value in a mask are void: they neither train nor count (PASCAL VOC's object borders).
IGNORE_INDEX = 255


class Targets(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes.

    Attributes:
        boxes: (B, N, 4) x1 y1 x2 y2 in pixels of the network's input.
        labels: (B, N) int64 in 1..K; 0 marks padding.
    """

    boxes: Tensor
    labels: Tensor

    @staticmethod
    def collate(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> "Targets":
        """Pads one (N, 4) and one (N,) tensor an image; N may be zero."""
        return Targets(pad_sequence(list(boxes), batch_first=True), pad_sequence(list(labels), batch_first=True))


class BoxPredictions(NamedTuple):
    """Raw outputs of a detection head.

    Attributes:
        class_logits: (B, A, K + 1); column 0 is the background.
        box_deltas: (B, A, 4) offsets from the anchors, see `heads.boxes.decode`.
        anchors: (A, 4) x1 y1 x2 y2 in pixels of the network's input.
        input_size: height and width of the network's input in pixels.
    """

    class_logits: Tensor
    box_deltas: Tensor
    anchors: Tensor
    input_size: tuple[int, int]


class Detections(NamedTuple):
    """Detected objects of one image, best first.

    Attributes:
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the original image.
        scores: (N,) in 0..1.
        labels: (N,) int64 in 1..K.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class DetectionHead(Described, nn.Module, ABC):
    """Turns features into boxes. Built from a backbone's taps and the number of foreground classes K."""

    def __init__(self, taps: Mapping[str, Tap], num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes {num_classes} is not possible; accepted: 1 or more foreground classes")
        self.taps = dict(taps)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> BoxPredictions:
        """Predicts boxes.

        Args:
            features: the taps' (B, C, H', W') features.
            input_size: height and width of the images they were made from, in pixels.
        """

    @abstractmethod
    def loss(self, predictions: BoxPredictions, targets: Targets) -> dict[str, Tensor]:
        """Returns named scalar losses (`classification`, `localization`, ...) in float32; their sum is minimised."""

    @abstractmethod
    def postprocess(self, predictions: BoxPredictions, image_sizes: Tensor) -> list[Detections]:
        """Turns raw predictions into detections.

        Args:
            predictions: outputs of `forward`.
            image_sizes: (B, 2) heights and widths of the original images in pixels.

        Returns:
            One `Detections` an image.
        """


class SegmentationHead(Described, nn.Module, ABC):
    """Turns features into scores of every pixel. Built from a backbone's taps and the number of classes K, background included.

    Args:
        taps: the backbone's taps, finest first.
        num_classes: number of classes K.
        align_corners: whether upsampling puts the centres of the corner cells on those of the corner pixels, as TensorFlow's DeepLab does.

    Raises:
        ValueError: `num_classes` is not accepted.
    """

    def __init__(self, taps: Mapping[str, Tap], num_classes: int, align_corners: bool = False) -> None:
        super().__init__()
        if not 2 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes {num_classes} is not possible; accepted: 2 to {IGNORE_INDEX} classes, background included")
        self.taps = dict(taps)
        self.num_classes, self.align_corners = num_classes, align_corners

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> Tensor:
        """Scores cells.

        Args:
            features: the taps' (B, C, H', W') features.
            input_size: height and width of the images they were made from, in pixels.

        Returns:
            (B, K, h, w) logits at the head's own resolution.
        """

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Brings (B, K, h, w) logits to (B, K, height, width), bilinearly."""
        if logits.shape[2:] == tuple(size):
            return logits
        if self.training and LEAST_FACTOR * logits.shape[2] <= size[0] and LEAST_FACTOR * logits.shape[3] <= size[1]:
            return upsample_by_products(logits, (size[0], size[1]), self.align_corners)
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.align_corners)

    @torch.no_grad()
    def postprocess(self, logits: Tensor, input_size: tuple[int, int], content_sizes: Tensor, image_sizes: Tensor) -> list[Tensor]:
        """Finds the class of every pixel of the original images.

        Args:
            logits: (B, K, h, w) outputs of `forward`, or other scores of which the largest wins.
            input_size: height and width of the network's input in pixels.
            content_sizes: (B, 2) int64 heights and widths of its top left part that shows the image; the rest is padding.
            image_sizes: (B, 2) int64 heights and widths of the original images in pixels.

        Returns:
            One (H, W) uint8 map of class indices an image.
        """
        sizes = zip(logits, content_sizes.tolist(), image_sizes.tolist(), strict=True)
        return [label_map(scores, input_size, content, image, self.align_corners) for scores, content, image in sizes]
