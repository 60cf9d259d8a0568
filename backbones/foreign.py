"""What the adapters of other libraries' networks share: taps that are measured, any input size, loading, freezing."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.base import Backbone, Tap, select_taps
from backbones.layers import slow_in_float32
from backbones.layout import PROBE, STRIDES, Layer, dilate, finest_first, prune, stride_of, watch
from backbones.weights import fill, read_tensors

# Height and width in pixels at which every halving that rounds down shows: 65, 33, 17, 9, 5 and 97, 49, 25, 13, 7 cells round up.
ODD = (65, 97)
# Names under which timm's feature extractors hold a network that they do not take apart.
WRAPPERS = ("", "model_", "body_")

T = TypeVar("T")


class ForeignBackbone(Backbone):
    """A backbone around a network of another library.

    Attributes:
        network: the network.
        multiple: images are filled up with zeros, on the right and at the bottom, to sizes that it divides; 1 leaves them alone.
    """

    network: nn.Module
    multiple: int = 1

    @abstractmethod
    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Returns at least the tapped features of (B, 3, H, W) images, by name."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features of (B, 3, H, W) images, see `Backbone.forward`."""
        height, width = images.shape[-2:]
        if self.multiple > 1:
            images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        found = self.maps(images)
        if self.multiple == 1:
            return {name: found[name] for name in self.taps}
        return {name: found[name][..., : -(-height // tap.stride), : -(-width // tap.stride)] for name, tap in self.taps.items()}

    def keep(self, names: Iterable[str]) -> None:
        """Narrows the taps, and drops the layers behind the last one, see `Backbone.keep`."""
        super().keep(names)
        self.cut()

    def cut(self) -> None:
        """Drops the layers that no tap needs."""
        for norm in self._frozen():
            norm.requires_grad_(True)  # what has no gradient cannot be seen to be used
        prune(self.network, lambda: self.run(self.forward).values())
        for norm in self._frozen():
            norm.requires_grad_(False)

    def run(self, call: Callable[[Tensor], T], size: tuple[int, int] = PROBE) -> T:
        """Calls a function with one black image of this height and width, in evaluation mode.

        Raises:
            ValueError: the network cannot take it.
        """
        was, device = self.training, next(self.parameters()).device
        self.eval()
        try:
            return call(torch.zeros(1, 3, *size, device=device))
        except Exception as error:  # each library raises its own kinds of error
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{self.title} does not take images of {size[0]} x {size[1]} pixels ({reason}); accepted: networks that take any size"
            ) from error
        finally:
            self.train(was)

    @property
    def title(self) -> str:
        """The network's name for messages."""
        return str(next(iter(self._init_args.values())))

    def layers(self) -> list[Layer]:
        """Returns the network's layers as they run, see `watch`."""
        with torch.no_grad():
            return watch(self.network, lambda: self.run(self.network))

    def measure(self, wanted: Sequence[str] | None = None) -> dict[str, Tap]:
        """Returns channels and strides of what `maps` gives, finest first.

        Raises:
            ValueError: a wanted one is no map of an offered stride, or there is none.
        """
        with torch.no_grad():
            found = self.run(self.maps)
        strides = {name: stride_of(features, PROBE) for name, features in found.items()}
        taps = {name: Tap(found[name].shape[1], stride) for name, stride in strides.items() if stride in STRIDES}
        if unfit := [name for name in (wanted or found) if name not in taps] if wanted or not taps else []:
            shapes = ", ".join(f"{name} {tuple(getattr(found[name], 'shape', ()))}" for name in unfit)
            raise ValueError(
                f"{self.title} gives for an image of {PROBE[0]} x {PROBE[1]} pixels: {shapes}; "
                f"accepted: (1, C, H, W) maps of stride {', '.join(map(str, STRIDES))}"
            )
        return finest_first(taps)

    def settle(self, offered: Mapping[str, Tap], taps: Sequence[str] | None, output_stride: int, freeze_bn: bool) -> None:
        """Sets the output stride, takes the wanted taps of those offered, drops what none of them needs, and freezes.

        Raises:
            ValueError: a wanted tap is not offered, the output stride cannot be had, or sizes come out wrong.
        """
        self.freeze_bn = freeze_bn
        self.taps = self._with_output_stride(output_stride, offered)
        self.multiple = self._least_multiple()
        self.taps = select_taps(self.taps, taps)
        self.cut()
        slow_in_float32(self.network)
        self.train(self.training)

    def _with_output_stride(self, output_stride: int, offered: Mapping[str, Tap]) -> dict[str, Tap]:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride {output_stride} is not possible; accepted: 8, 16, 32")
        if max(tap.stride for tap in offered.values()) <= output_stride:
            return dict(offered)
        dilate(self.layers(), output_stride)
        try:
            measured = self.measure(list(offered))
        except ValueError:  # layers beside each other do not fit now
            measured = dict(offered)
        if max(tap.stride for tap in measured.values()) > output_stride:
            raise ValueError(
                f"output_stride {output_stride} is not possible for {self.title}, in which other layers than convolutions of odd kernels "
                "halve the resolution; accepted: 32"
            )
        return {name: tap._replace(stride=measured[name].stride) for name, tap in offered.items()}

    def _least_multiple(self) -> int:
        """Some networks round sizes down; some need images of whole windows at the coarsest stride."""
        coarsest = max(tap.stride for tap in self.taps.values())
        wanted = [tuple(-(-size // tap.stride) for size in ODD) for tap in self.taps.values()]
        failure: ValueError | None = None
        for multiple in (1, coarsest, 2 * coarsest):
            self.multiple = multiple
            try:
                with torch.no_grad():
                    found = self.run(self.forward, ODD)
            except ValueError as error:
                failure = error
                continue
            if [tuple(features.shape[2:]) for features in found.values()] == wanted:
                return multiple
        raise failure or ValueError(f"{self.title} gives maps of other sizes than ceil(H / stride); accepted: networks that give these")

    def load(self, path: str, strict: bool) -> bool:
        """Fills the network from a local file of its library's names, or from a checkpoint of a run.

        Returns:
            Whether it is of the library, so that its images were normalised as that does.

        Raises:
            ValueError: the file cannot be read, nothing in it fits, or (`strict`) something does not fit.
        """
        tensors = read_tensors(path)
        fill(self.network, aligned(list(self.network.state_dict()), tensors), path, strict)
        return not any(name.startswith("model.") for name in tensors)


def aligned(wanted: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a file's tensors to the names of a network, which may differ in dots and in what stands before them.

    timm's feature extractors write `stages_0` for `stages.0`; checkpoints of runs write `model.backbone.network.` before all names.

    Args:
        wanted: the network's names.
        tensors: the file's tensors by name.
    """
    flat = {name.replace(".", "_"): name for name in tensors}
    keys = [name.replace(".", "_") for name in wanted]
    shifts = [
        (own, name.removesuffix(keys[0].removeprefix(own)))
        for own in WRAPPERS
        if keys[0].startswith(own)
        for name in flat
        if name.endswith(keys[0].removeprefix(own))
    ]

    def names(shift: tuple[str, str]) -> dict[str, str]:
        own, theirs = shift
        places = {name: theirs + key.removeprefix(own) for name, key in zip(wanted, keys, strict=True)}
        return {name: flat[place] for name, place in places.items() if place in flat}

    found = max(map(names, shifts), key=len, default={})
    rest = set(tensors) - set(found.values())
    return {name: tensors[other] for name, other in found.items()} | {name: tensors[name] for name in tensors if name in rest - set(wanted)}


def build_on_cpu(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network, and then moves it to the default device: some compute with values while they are built, which `meta` has not."""
    device = torch.get_default_device()
    with torch.device("cpu"):
        network = build()
    return network.to(device)
