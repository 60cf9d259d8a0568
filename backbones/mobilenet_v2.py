"""MobileNetV2 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks")."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from backbones.base import Tap, select_taps
from backbones.chain import ChainBackbone
from backbones.layers import Layers, Padding, check_width
from backbones.weights import load_weights

# Table 2 of the paper: expansion t, output channels c, repeats n, stride s of the first repeat.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor`, never below 90 % of `channels` (the rounding of torchvision, timm and TensorFlow)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def layer_channels(width_mult: float) -> list[int]:
    """Returns the output channels of the 19 layers of the paper's table 2."""
    blocks = [make_divisible(channels * width_mult) for _, channels, repeats, _ in STAGES for _ in range(repeats)]
    return [make_divisible(STEM_CHANNELS * width_mult), *blocks, make_divisible(LAST_CHANNELS * max(1.0, width_mult))]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, with a shortcut where the shapes allow it (paper, figure 4b).

    Submodules are named as in torchvision.
    """

    def __init__(self, channels: tuple[int, int], expansion: int, stride: int, dilation: int, layers: Layers) -> None:
        super().__init__()
        in_channels, out_channels = channels
        hidden = in_channels * expansion
        blocks: list[nn.Module] = [layers.conv_bn_relu6(in_channels, hidden)] if expansion > 1 else []
        blocks += [layers.depthwise(hidden, stride, dilation), *layers.conv_bn(hidden, out_channels)]
        self.conv = nn.Sequential(*blocks)
        self.expansion_blocks = len(blocks) - 3
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def expand(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, t C, H, W), the expansion tap."""
        for block in list(self.conv)[: self.expansion_blocks]:
            features = block(features)
        return features

    def reduce(self, features: Tensor, expanded: Tensor) -> Tensor:
        """The rest of the block: (B, t C, H, W) -> (B, C', H / stride, W / stride)."""
        *blocks, projection, norm = list(self.conv)[self.expansion_blocks :]
        for block in blocks:
            expanded = block(expanded)
        projected: Tensor = norm(projection(expanded))
        return features + projected if self.has_shortcut else projected

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        return self.reduce(features, self.expand(features))


class MobileNetV2(ChainBackbone):
    """MobileNetV2 as a feature extractor; taps keep the paper's layer numbers.

    `layer1` is the first convolution, `layer2` to `layer18` the 17 blocks, `layer19` the last 1x1 convolution; `layer3_expand` to
    `layer18_expand` are the expanded features inside the blocks. SSDLite uses `layer15_expand` and `layer19`, DeepLabv3 `layer18`.
    Layers past the last tap are not there. Parameters are named as in torchvision.

    Args:
        taps: names of the features to return; by default the head chooses.
        width_mult: multiplier of all channels, 0.35 to 1.4 in the paper, up to 10 here; the last layer keeps at least 1280.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        padding: `symmetric` as in torchvision and timm, or `same` as in TensorFlow.
        bn_eps: batch-norm epsilon (torchvision 1e-5, TensorFlow 1e-3).
        bn_momentum: batch-norm momentum in torch's sense, the weight of the newest batch.
        weights: a local file of any kind and names that `tasks.convert` takes, a checkpoint of a run among them, or `imagenet` for
            torchvision's published weights. TensorFlow's want `padding` same and `bn_eps` .001.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        frozen_layers: how many layers, from the first, are not trained at all.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: an argument is out of range, or `weights` cannot be used.
    """

    def __init__(
        self,
        taps: Sequence[str] | None = None,
        width_mult: float = 1.0,
        output_stride: int = 32,
        padding: Padding = "symmetric",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        weights: str | None = None,
        strict_weights: bool = True,
        frozen_layers: int = 0,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride {output_stride} is not possible; accepted: 8, 16, 32")
        check_width(width_mult)
        offered: dict[str, Tap] = {}
        built: list[nn.Module] = []
        for layer, names in _layers(width_mult, output_stride, Layers(padding, bn_eps, bn_momentum)):
            built.append(layer)
            offered |= names
        self.taps = select_taps(offered, taps)
        self.features = nn.Sequential(*built)
        self.cut()
        initialise(self)
        if weights is not None:
            self.expects = load_weights(self, weights, "mobilenet_v2", strict=strict_weights)
        self.freeze(frozen_layers, freeze_bn)

    def cut(self) -> None:
        """Drops the layers behind the last tap, and of its block what comes after an expansion."""
        last = list(self.taps)[-1]
        self.features = self.features[: int(last.removeprefix("layer").removesuffix("_expand"))]
        if last.endswith("_expand"):
            block = cast(InvertedResidual, self.features[-1])
            block.conv = block.conv[: block.expansion_blocks]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features of (B, 3, H, W) images, see `Backbone.forward`."""
        features, found = images, {}
        for number, layer in enumerate(self.features, start=1):
            if (name := f"layer{number}_expand") in self.taps:
                block = cast(InvertedResidual, layer)
                found[name] = expanded = block.expand(features)
                if len(found) == len(self.taps):
                    break
                features = block.reduce(features, expanded)
            else:
                features = layer(features)
            if (name := f"layer{number}") in self.taps:
                found[name] = features
        return found


def _layers(width_mult: float, output_stride: int, layers: Layers) -> Iterator[tuple[nn.Module, dict[str, Tap]]]:
    """Yields the 19 layers of the paper's table 2, each with the taps that it offers."""
    channels = layer_channels(width_mult)
    number, stride, dilation = 1, 2, 1
    yield layers.conv_bn_relu6(3, channels[0], 3, stride=2), {"layer1": Tap(channels[0], stride)}
    for expansion, _, repeats, first_stride in STAGES:
        for repeat in range(repeats):
            number += 1
            in_channels, out_channels = channels[number - 2 : number]
            step = first_stride if repeat == 0 else 1
            # As in TensorFlow's DeepLab, the block that loses its stride still works at the old dilation.
            block_dilation = dilation
            if stride * step > output_stride:
                step, dilation = 1, dilation * step
            block = InvertedResidual((in_channels, out_channels), expansion, step, block_dilation, layers)
            names = {f"layer{number}_expand": Tap(in_channels * expansion, stride, block=False)} if expansion > 1 else {}
            stride *= step
            yield block, names | {f"layer{number}": Tap(out_channels, stride)}
    yield layers.conv_bn_relu6(*channels[-2:]), {f"layer{number + 1}": Tap(channels[-1], stride, block=False)}


def initialise(module: nn.Module) -> None:
    """He-normal convolutions by fan-out and unit batch norms, torchvision's initialisation of MobileNetV2."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
