"""How a library names the convolutions of a network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backbones.base import Preprocessing

# What TensorFlow's networks, and what torchvision's, were trained with.
HALVES = Preprocessing((0.5,) * 3, (0.5,) * 3)
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Names(NamedTuple):
    """Tensor names of one convolution: its weight, its bias, and its batch norm's scale, shift, mean and variance."""

    weight: str
    bias: str
    norm: tuple[str, str, str, str]


@dataclass(frozen=True)
class Scheme:
    """One library's names for one network.

    Attributes:
        name: the library, for messages.
        network: the network, as `load_weights` calls it.
        body: the keys of its body's convolutions, in order.
        table: for every key, the names of the convolution and of its batch norm.
        weight: endings of convolution weights, one of which a file uses for each.
        bias: ending of biases.
        norm: endings of a batch norm's scale, shift, mean and variance.
        channels_last: whether weights lie as (height, width, in, out), as Keras and TensorFlow store them.
        tensorflow: whether the network was made for TensorFlow: SAME padding, batch-norm epsilon 1e-3 and images in -1..1.
        expects: how images were normalised; None where files of these names differ.
    """

    name: str
    network: str
    body: Sequence[str]
    table: Mapping[str, tuple[str, str]]
    weight: tuple[str, ...] = (".weight",)
    bias: str = ".bias"
    norm: tuple[str, str, str, str] = (".weight", ".bias", ".running_mean", ".running_var")
    channels_last: bool = False
    tensorflow: bool = False
    expects: Preprocessing | None = None

    def prefix(self, names: Iterable[str]) -> str | None:
        """What a file puts before all names, such as `module.`; None where the file has no such stem."""
        for ending in self.weight:
            stem = self.table["stem"][0] + ending
            for name in names:
                if name == stem or name.endswith(("." + stem, "/" + stem)):
                    return name.removesuffix(stem)
        return None

    def count(self, names: Mapping[str, object]) -> int:
        """How many of the scheme's convolutions a file has."""
        prefix = self.prefix(names) or ""
        return sum(prefix + conv + ending in names for conv, _ in self.table.values() for ending in self.weight)

    def names(self, key: str, prefix: str, known: Mapping[str, object]) -> Names | None:
        """Returns the names of a convolution's tensors, the weight's as the file has it; None for keys that the scheme has not."""
        if key not in self.table:
            return None
        conv, norm = (prefix + part for part in self.table[key])
        weights = [conv + ending for ending in self.weight]
        weight = next((name for name in weights if name in known), weights[0])
        gamma, beta, mean, variance = (norm + ending for ending in self.norm)
        return Names(weight, conv + self.bias, (gamma, beta, mean, variance))


TF_NORM = ("/gamma", "/beta", "/moving_mean", "/moving_variance")


def slim(name: str, network: str, body: Sequence[str], table: Mapping[str, tuple[str, str]]) -> Scheme:
    """Names as TensorFlow 1 has them."""
    return Scheme(name, network, body, table, ("/weights", "/depthwise_weights"), "/biases", TF_NORM, True, True, HALVES)


def keras(name: str, network: str, body: Sequence[str], table: Mapping[str, tuple[str, str]]) -> Scheme:
    """Names as Keras has them."""
    return Scheme(name, network, body, table, ("/kernel", "/depthwise_kernel"), "/bias", TF_NORM, True, True, HALVES)


def wrapped(names: Mapping[str, str], conv: str, norm: str, bare: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A table of convolutions and norms in a common wrapper; `bare` keys have none."""
    return {key: (name if key in bare else f"{name}.{conv}", f"{name}.{norm}") for key, name in names.items()}
