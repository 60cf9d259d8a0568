"""Networks of timm as backbones."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from backbones.base import Preprocessing
from backbones.foreign import ForeignBackbone, build_on_cpu
from backbones.layout import expansions, finest_first
from backbones.names import near


class TimmBackbone(ForeignBackbone):
    """Any network of timm that gives feature maps, by timm's name.

    Taps have timm's own names, such as `blocks.4` or `stages.3`: one for each stride from 2 to 32. Where inverted residuals halve the
    resolution, their expanded features are offered too, by the name of the module that makes them (`blocks.5.0.bn1`).
    `timm.list_models()` lists the names.

    Args:
        name: timm's name, such as mobilenetv3_small_100 or mobilenetv4_conv_small.e2400_r224_in1k.
        taps: names of the features to return; by default the head chooses.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        pretrained: load timm's published weights, which are downloaded once.
        weights: a local file with timm's names, or a checkpoint of a run.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        settings: further arguments of timm's `create_model`, such as drop_path_rate, or img_size and dynamic_img_size of transformers.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: timm does not know the name or refuses a setting, the network gives no maps, or weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        taps: Sequence[str] | None = None,
        output_stride: int = 32,
        pretrained: bool = False,
        weights: str | None = None,
        strict_weights: bool = True,
        settings: dict[str, Any] | None = None,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.inside: tuple[str, ...] = ()
        self.network = create(name, pretrained, settings or {})
        info: Any = self.network.feature_info
        self.names = list(info.module_name())
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).upper().endswith("NHWC")
        blocks = self.measure()
        inner = expansions(self.layers(), blocks)
        self.inside = tuple(inner)
        self.settle(finest_first(blocks | inner), taps, output_stride, freeze_bn)
        of_timm = self.load(weights, strict_weights) if weights is not None else pretrained
        if of_timm:
            config: Any = self.network.pretrained_cfg
            self.expects = Preprocessing(tuple(config["mean"]), tuple(config["std"]))

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Returns timm's features, and the expanded ones that are wanted, of (B, 3, H, W) images."""
        found: dict[str, Tensor] = {}
        handles = [self.network.get_submodule(name).register_forward_hook(keeper(found, name)) for name in self.inside]
        try:
            maps = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        return dict(zip(self.names, maps, strict=True)) | found

    def cut(self) -> None:
        """Drops the layers that no tap needs."""
        self.inside = tuple(name for name in self.inside if name in self.taps)
        super().cut()


def keeper(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    """Returns a hook that puts a module's output into `found`."""

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[name] = output

    return keep


def create(name: str, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    """Builds timm's feature extractor.

    Raises:
        ValueError: timm does not know the name, cannot download the weights, or refuses.
    """
    import timm  # half a second and more

    if not timm.is_model(name):
        raise ValueError(f"timm has no network {name!r}; {near(name.partition('.')[0], timm.list_models())}")
    try:
        return build_on_cpu(lambda: timm.create_model(name, features_only=True, pretrained=pretrained, **settings))
    except Exception as error:  # timm's networks raise all kinds of error, and so do the libraries that download
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = "; give a local file as weights instead of pretrained where it cannot be downloaded" if pretrained else ""
        raise ValueError(f"timm's {name} cannot be built as a backbone with settings {settings}: {reason}{hint}") from error
