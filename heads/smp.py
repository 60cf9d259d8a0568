"""Decoders of segmentation-models-pytorch (smp) on the taps of any backbone."""

import inspect
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from backbones import Tap
from backbones.norm import BatchNorm2d
from heads.base import SegmentationHead
from heads.taps import blocks, listed

# What in smp's architectures belongs to their decoders; the rest follows from the taps and the classes.
SETTINGS = ("decoder_", "psp_")


class Needs(NamedTuple):
    """What a decoder of smp needs.

    Attributes:
        reads: which of the strides 1, 2, 4, ... up to the coarsest must be there; the coarsest always must.
        doubles: whether it doubles maps from stride to stride, so that input sizes must be multiples of the coarsest stride.
        cells: least height and width of the coarsest map.
    """

    reads: slice
    doubles: bool = False
    cells: int = 1


ARCHITECTURES = {
    "Unet": Needs(slice(2, None)),
    "UnetPlusPlus": Needs(slice(1, None), doubles=True),
    "MAnet": Needs(slice(2, None), doubles=True),
    "Linknet": Needs(slice(1, None), doubles=True),
    "FPN": Needs(slice(-4, None), doubles=True),
    "PSPNet": Needs(slice(0)),
    "DeepLabV3": Needs(slice(0)),
    "DeepLabV3Plus": Needs(slice(2, 3), doubles=True),
    "PAN": Needs(slice(2, None), cells=8),  # it halves the coarsest map three times
    "UPerNet": Needs(slice(2, None)),
    "Segformer": Needs(slice(2, None)),
}


class SmpDecoder(SegmentationHead):
    """A decoder of segmentation-models-pytorch, with that package's last layer.

    Logits have the decoder's own resolution, or the input's where maps had to be padded.

    Args:
        taps: the backbone's taps, finest first; of taps with equal stride the last is used, or the last block where the backbone was not
            told its taps. Strides are powers of two.
        num_classes: number of classes K, background included.
        architecture: smp's name of the decoder: Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, PAN, UPerNet or
            Segformer.
        settings: arguments of smp's class that begin with `decoder_` or `psp_`, such as `decoder_channels`. Where a list of
            `decoder_channels` has a default, it is cut at its coarse end to the strides that there are.
        align_corners: how logits are upsampled, see `SegmentationHead`; smp aligns.

    Raises:
        ValueError: `num_classes`, `architecture` or `settings` are not accepted, or taps of some strides are missing.
    """

    def __init__(
        self,
        taps: Mapping[str, Tap],
        num_classes: int,
        architecture: str = "Unet",
        settings: dict[str, Any] | None = None,
        align_corners: bool = False,
    ) -> None:
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {architecture!r} is unknown; accepted: {', '.join(ARCHITECTURES)}")
        levels = find_levels(taps, architecture)
        super().__init__({name: taps[name] for name in levels.values() if name}, num_classes, align_corners)
        self.needs, self.levels = ARCHITECTURES[architecture], levels
        channels = [self.taps[name].channels if name else 0 for name in self.levels.values()]
        try:
            self.decoder, self.segmentation_head = build(architecture, channels, num_classes, settings or {})
        except (ValueError, TypeError) as error:  # TypeError: settings of another kind
            raise ValueError(f"smp's {architecture} cannot be built on strides up to {max(self.levels)}: {error}") from error

    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> Tensor:
        """Scores cells of the decoder's finest map, or pixels, see `SegmentationHead.forward`."""
        height, width = (self.padded(size) for size in input_size)
        like, maps = features[next(reversed(self.taps))], []
        for stride, name in self.levels.items():
            size = -(-height // stride), -(-width // stride)
            maps.append(fit(features[name], size) if name else like.new_empty(len(like), 0, *size))
        logits: Tensor = self.segmentation_head(self.decoder(maps))
        if (height, width) == tuple(input_size):
            return logits
        return self.upsample(logits, (height, width))[..., : input_size[0], : input_size[1]]

    def padded(self, size: int) -> int:
        """Returns the number of pixels to which one side of the input is filled up."""
        coarsest = max(self.levels)
        multiple = -(-size // coarsest) * coarsest if self.needs.doubles else size
        return max(multiple, coarsest * self.needs.cells)


class TapEncoder(nn.Module):
    """Tells smp's architectures about taps in the place of an encoder; never run.

    Args:
        out_channels: channels at strides 1, 2, 4, ...; 0 where there is no tap.
        depth: not used, follows from the channels.
        output_stride: not used.
    """

    def __init__(self, out_channels: Sequence[int], depth: int, output_stride: int) -> None:
        super().__init__()
        self.out_channels = list(out_channels)

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Does nothing: images do not come here."""

    def make_dilated(self, output_stride: int) -> None:
        """Does nothing: the backbone has its output stride already."""


@contextmanager
def offered_encoder(channels: Sequence[int]) -> Iterator[str]:
    """Yields the name under which smp finds a `TapEncoder` of these channels meanwhile; its classes take names only."""
    from segmentation_models_pytorch.encoders import encoders

    name = f"taps-{uuid.uuid4().hex}"  # its own name, for the sake of threads
    encoders[name] = {"encoder": TapEncoder, "pretrained_settings": {}, "params": {"out_channels": list(channels)}}
    try:
        yield name
    finally:
        del encoders[name]


def find_levels(taps: Mapping[str, Tap], architecture: str) -> dict[int, str | None]:
    """Returns the tap to use of each stride 1, 2, 4, ... up to the coarsest; None where there is none and none is needed.

    Raises:
        ValueError: a stride is not a power of two, or a needed one is missing.
    """
    found = blocks(taps)
    strides = [2**power for power in range(max(found).bit_length())]
    if not set(found) <= set(strides):
        raise ValueError(f"strides {', '.join(map(str, found))} are not possible; accepted: powers of two")
    if missing := [stride for stride in strides[ARCHITECTURES[architecture].reads] if stride not in found]:
        raise ValueError(f"{architecture} needs taps of strides {', '.join(map(str, missing))} too; given: {listed(taps)}")
    return {stride: found.get(stride) for stride in strides}


def build(architecture: str, channels: Sequence[int], num_classes: int, settings: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Builds smp's decoder and last layer for features of these channels at strides 1, 2, 4, ...

    Raises:
        ValueError: a setting is not accepted, or smp refuses.
    """
    import segmentation_models_pytorch as smp  # it imports timm: half a second and more

    cls, depth = getattr(smp, architecture), len(channels) - 1
    parameters = inspect.signature(cls.__init__).parameters
    accepted = [name for name in parameters if name.startswith(SETTINGS)]
    if unknown := [name for name in settings if name not in accepted]:
        raise ValueError(f"settings {', '.join(unknown)} are unknown; accepted: {', '.join(accepted) or 'none'}")
    # Logits are upsampled here, not by smp, so that align_corners holds.
    given = {"encoder_output_stride": 2**depth, "upsampling": 1}
    if "decoder_channels" in parameters and isinstance(default := parameters["decoder_channels"].default, Sequence):
        given["decoder_channels"] = default[-depth:]
    arguments = {name: value for name, value in given.items() if name in parameters} | dict(settings)
    with offered_encoder(channels) as name:
        model = cls(encoder_name=name, encoder_weights=None, encoder_depth=depth, classes=num_classes, **arguments)
    return accept_single_values(model.decoder), model.segmentation_head


def accept_single_values(module: nn.Module) -> nn.Module:
    """Replaces new batch norms by those that also train on a single value a channel, see `backbones.norm.BatchNorm2d`."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d and child.track_running_stats:
            setattr(module, name, BatchNorm2d(child.num_features, child.eps, child.momentum, child.affine))
        else:
            accept_single_values(child)
    return module


def fit(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeats the last row and column of (B, C, H, W) features up to this height and width."""
    bottom, right = size[0] - features.shape[-2], size[1] - features.shape[-1]
    return F.pad(features, (0, right, 0, bottom), mode="replicate") if bottom or right else features
