"""Encoders of segmentation-models-pytorch (smp) as backbones."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from backbones.base import Preprocessing
from backbones.foreign import ForeignBackbone, build_on_cpu
from backbones.names import near


class SmpBackbone(ForeignBackbone):
    """Any encoder of segmentation-models-pytorch that gives feature maps, by smp's name.

    Taps are `stage1` to `stage5`, of strides 2 to 32; encoders that begin at stride 4 have no `stage1`. `tu-` before a name of timm takes
    timm's network. `segmentation_models_pytorch.encoders.get_encoder_names()` lists the names.

    Args:
        name: smp's name, such as efficientnet-b0, mobilenet_v2 or mit_b0.
        taps: names of the features to return; by default the head chooses.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        weights: smp's name of published weights, such as imagenet, which are downloaded once; or a local file with smp's names, or a
            checkpoint of a run.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        settings: further arguments of smp's `get_encoder`.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: smp does not know the name or refuses a setting, or weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        taps: Sequence[str] | None = None,
        output_stride: int = 32,
        weights: str | None = None,
        strict_weights: bool = True,
        settings: dict[str, Any] | None = None,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        published = weights if weights in published_weights(name) else None
        self.network = create(name, published, settings or {})
        self.settle(self.measure(), taps, output_stride, freeze_bn)
        if weights is not None and published is None:
            self.load(weights, strict_weights)
        if published is not None:
            self.expects = preprocessing(name, published)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the encoder's features of (B, 3, H, W) images without those of no channels that stand for missing stages."""
        stages = enumerate(self.network(images)[1:], start=1)  # the first are the images
        return {f"stage{number}": features for number, features in stages if features.shape[1]}


def published_weights(name: str) -> list[str]:
    """Returns the names of the weights that smp publishes for an encoder.

    Raises:
        ValueError: smp does not know the encoder.
    """
    from segmentation_models_pytorch import encoders  # it imports timm: half a second and more

    if name.startswith("tu-") or encoders.is_equivalent_to_timm_universal(name):
        return ["imagenet"]  # timm's default weights
    if name not in encoders.encoders:
        raise ValueError(f"smp has no encoder {name!r}; {near(name, encoders.get_encoder_names())}")
    return list(encoders.encoders[name]["pretrained_settings"])


def create(name: str, weights: str | None, settings: dict[str, Any]) -> nn.Module:
    """Builds smp's encoder.

    Raises:
        ValueError: smp refuses, or cannot download the weights.
    """
    from segmentation_models_pytorch import encoders

    of_timm = name.startswith("tu-") or encoders.is_equivalent_to_timm_universal(name)
    given: Any = True if weights and of_timm else weights
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of names that begin with timm-
            return build_on_cpu(lambda: encoders.get_encoder(name, weights=given, **settings))
    except Exception as error:  # smp's encoders raise all kinds of error, and so do the libraries that download
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = f"; give a local file as weights instead of {weights} where it cannot be downloaded" if weights else ""
        raise ValueError(f"smp's {name} cannot be built with settings {settings}: {reason}{hint}") from error


def preprocessing(name: str, weights: str) -> Preprocessing | None:
    """Returns how images were normalised where published weights were trained; None where they did not lie in 0..1."""
    from segmentation_models_pytorch import encoders

    known = encoders.get_preprocessing_params(name, weights)
    if known["input_space"] != "RGB" or list(known["input_range"]) != [0, 1]:
        return None
    return Preprocessing(tuple(known["mean"]), tuple(known["std"]))
