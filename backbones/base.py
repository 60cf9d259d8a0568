"""What every backbone offers: named feature taps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from backbones.spec import Described


class Tap(NamedTuple):
    """A feature map that a backbone hands to heads.

    Attributes:
        channels: number of channels.
        stride: pixels of the input per cell of the map, in each direction.
        block: whether it is the output of a block, not a feature inside one or a last layer made for classification.
    """

    channels: int
    stride: int
    block: bool = True


class Offer(dict[str, Tap]):
    """All taps of a backbone that was not told which: a head takes those that it was designed for."""


class Preprocessing(NamedTuple):
    """Mean and standard deviation of RGB in 0..1 that images were normalised by, a value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Backbone(Described, nn.Module, ABC):
    """Makes features from images.

    Attributes:
        taps: the feature maps that `forward` returns, in network order (finest first).
        expects: how images were normalised where its weights come from; None where it has none, or that is not known.
    """

    taps: dict[str, Tap]
    expects: Preprocessing | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features.

        Args:
            images: (B, 3, H, W) normalised float images of any size.

        Returns:
            For every tap, (B, C, ceil(H / stride), ceil(W / stride)) features.
        """

    def keep(self, names: Iterable[str]) -> None:
        """Narrows the taps to those that a head reads; a network may drop the layers behind the last one.

        Raises:
            ValueError: there is no such tap.
        """
        self.taps = select_taps(self.taps, list(names))


def select_taps(offered: dict[str, Tap], wanted: Sequence[str] | None) -> dict[str, Tap]:
    """Returns the wanted taps in network order, or for None all of them as an `Offer`.

    Raises:
        ValueError: no tap is wanted, or one that is not offered.
    """
    if wanted is None:
        return Offer(offered)
    unknown = [name for name in wanted if name not in offered]
    if unknown or not wanted:
        raise ValueError(f"taps {unknown or list(wanted)} cannot be had; accepted: one or more of {', '.join(offered)}")
    return {name: tap for name, tap in offered.items() if name in wanted}
