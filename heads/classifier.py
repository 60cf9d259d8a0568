"""The head of image classification."""

from collections.abc import Mapping

from torch import Tensor, nn

from backbones import Tap
from backbones.spec import Described

# Standard deviation of new weights of the linear layer (torchvision's MobileNetV2).
LINEAR_STD = 0.01


class ClassifierHead(Described, nn.Module):
    """Averages the coarsest tap over the image, drops some of it in training, and scores the classes by one linear layer.

    Args:
        taps: the backbone's taps, finest first; the last one is scored (`layer19` of MobileNetV2 in the paper, table 2).
        num_classes: number of classes K.
        dropout: share of the averaged features that is dropped in training (.2 in TensorFlow's and torchvision's MobileNetV2).

    Raises:
        ValueError: `num_classes` is not accepted.
    """

    def __init__(self, taps: Mapping[str, Tap], num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes {num_classes} is not possible; accepted: 2 or more classes")
        self.tap, tap = list(taps.items())[-1]
        self.taps = {self.tap: tap}
        self.num_classes = num_classes
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(tap.channels, num_classes)
        nn.init.normal_(self.linear.weight, std=LINEAR_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Scores classes.

        Args:
            features: the taps' (B, C, H', W') features.

        Returns:
            (B, K) logits.
        """
        logits: Tensor = self.linear(self.dropout(features[self.tap].mean(dim=(2, 3))))
        return logits
