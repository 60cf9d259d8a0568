"""What every backbone offers: named feature taps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from backbones.spec import Described


class Tap(NamedTuple):
    """A feature map that a backbone hands to heads.

    Attributes:
        channels: number of channels.
        stride: pixels of the input per cell of the map, in each direction.
    """

    channels: int
    stride: int


class Backbone(Described, nn.Module, ABC):
    """Makes features from images.

    Attributes:
        taps: the feature maps that `forward` returns, in network order (finest first).
    """

    taps: dict[str, Tap]

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features.

        Args:
            images: (B, 3, H, W) normalised float images of any size.

        Returns:
            For every tap, (B, C, ceil(H / stride), ceil(W / stride)) features.
        """


def select_taps(offered: dict[str, Tap], wanted: Sequence[str]) -> dict[str, Tap]:
    """Returns the wanted taps in network order.

    Raises:
        ValueError: no tap is wanted, or one that is not offered.
    """
    unknown = [name for name in wanted if name not in offered]
    if unknown or not wanted:
        raise ValueError(f"taps {unknown or list(wanted)} cannot be had; accepted: one or more of {', '.join(offered)}")
    return {name: tap for name, tap in offered.items() if name in wanted}
