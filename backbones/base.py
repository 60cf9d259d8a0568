"""What every backbone offers: named feature taps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

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
        features: its layers in network order, where it is a chain of them.
        frozen_layers: how many of these, from the first, are not trained at all.
        freeze_bn: whether all batch norms keep their statistics, scale and shift.
    """

    taps: dict[str, Tap]
    expects: Preprocessing | None = None
    features: nn.Sequential
    frozen_layers: int = 0
    freeze_bn: bool = False

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

    def freeze(self, frozen_layers: int, freeze_bn: bool) -> None:
        """Freezes the first layers and, where wanted, all batch norms.

        Raises:
            ValueError: there are not that many layers.
        """
        layers = len(self.features) if hasattr(self, "features") else 0
        if not 0 <= frozen_layers <= layers:
            raise ValueError(f"frozen_layers {frozen_layers} is not possible; accepted: 0 to {layers}, the layers built")
        self.frozen_layers, self.freeze_bn = frozen_layers, freeze_bn
        for module in self._frozen():
            module.requires_grad_(False)
        self.train()  # Lightning does not call it before it trains

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, except for what is frozen."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        # Looked up each time: conversion to synchronised batch norm replaces modules.
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm)] if self.freeze_bn else []
        return [*norms, *(self.features[: self.frozen_layers] if self.frozen_layers else ())]


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
