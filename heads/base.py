"""What every head does, and the types it speaks in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from backbones import Tap
from backbones.spec import Described


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
