"""Backbones that are chains of layers."""

from collections.abc import Iterable

from torch import Tensor, nn

from backbones.base import Backbone


class ChainBackbone(Backbone):
    """A backbone of layers that run one after the other, whose outputs are the taps `layer1`, `layer2`, ...

    Attributes:
        features: the layers.
    """

    features: nn.Sequential

    def keep(self, names: Iterable[str]) -> None:
        """Narrows the taps, and drops the layers behind the last one, see `Backbone.keep`."""
        super().keep(names)
        self.cut()

    def cut(self) -> None:
        """Drops the layers behind the last tap."""
        self.features = self.features[: int(list(self.taps)[-1].removeprefix("layer"))]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features of (B, 3, H, W) images, see `Backbone.forward`."""
        features, found = images, {}
        for number, layer in enumerate(self.features, start=1):
            features = layer(features)
            if (name := f"layer{number}") in self.taps:
                found[name] = features
        return found
