"""ShuffleNet (Zhang et al. 2018, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices")."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.base import Tap, select_taps
from backbones.chain import ChainBackbone
from backbones.layers import Layers
from backbones.mobilenet_v2 import initialise
from backbones.weights import load_weights

# Table 1 of the paper: channels of stage 2 by number of groups, doubled in each later stage; units of stages 2 to 4.
STAGE_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
UNITS = (4, 8, 4)
# Channels of the first convolution by width. That of 1.5 is not 36: with 24, as in the authors' code (megvii-model/ShuffleNet-Series), the
# network has the 292 M multiply-adds of the paper's table 5.
STEM_CHANNELS = {0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}
# Bottleneck channels by output channels (paper, section 3.3).
BOTTLENECK = 4


def shuffle(features: Tensor, groups: int) -> Tensor:
    """Transposes channels as a (groups, C / groups) matrix (paper, section 3.1): (B, C, H, W) -> (B, C, H, W)."""
    batch, channels, height, width = features.shape
    return features.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(features.shape)


class ShuffleUnit(nn.Module):
    """1x1 by groups, shuffle, 3x3 depthwise, 1x1 by groups (paper, figure 2).

    Its first 1x1 convolution in stage 2 has no groups. What goes in is added, or in the first unit of a stage average-pooled and put before
    the result.
    """

    def __init__(self, channels: tuple[int, int], groups: int, first_groups: int, stride: int, dilation: int, layers: Layers) -> None:
        super().__init__()
        in_channels, out_channels = channels
        self.groups, self.stride, self.dilation = groups, stride, dilation
        self.joins = in_channels != out_channels
        inner = _up(out_channels / BOTTLENECK, groups)
        self.reduce = layers.conv_bn_relu(in_channels, inner, groups=first_groups)
        self.depthwise = nn.Sequential(*layers.conv_bn(inner, inner, 3, stride, dilation, groups=inner))
        self.expand = nn.Sequential(*layers.conv_bn(inner, out_channels - in_channels * self.joins, groups=groups))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        found = self.expand(self.depthwise(shuffle(self.reduce(features), self.groups)))
        return torch.cat([self.pool(features), found.relu()], dim=1) if self.joins else (features + found).relu()

    def pool(self, features: Tensor) -> Tensor:
        """3x3 average pooling at the unit's stride and dilation; zeros beyond the border count."""
        if self.dilation == 1:
            return F.avg_pool2d(features, 3, self.stride, 1)
        kernel = features.new_full((features.shape[1], 1, 3, 3), 1 / 9)
        return F.conv2d(features, kernel, None, self.stride, self.dilation, self.dilation, features.shape[1])


class ShuffleNetV1(ChainBackbone):
    """ShuffleNet as a feature extractor: units of grouped 1x1 convolutions that a shuffle of channels connects.

    `layer1` is the first convolution, `layer2` the max pooling behind it, `layer3` to `layer6`, `layer7` to `layer14` and `layer15` to
    `layer18` the units of stages 2, 3 and 4. Layers past the last tap are not there.

    Args:
        taps: names of the features to return; by default the head chooses.
        width_mult: multiplier of all channels: .5, 1, 1.5 or 2.
        groups: groups of the 1x1 convolutions: 1, 2, 3, 4 or 8; more of them have more channels at about the same cost.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        bn_eps: batch-norm epsilon.
        bn_momentum: batch-norm momentum in torch's sense, the weight of the newest batch.
        weights: a local file with our names, such as the checkpoint of a run; nobody publishes weights that could be downloaded.
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
        groups: int = 3,
        output_stride: int = 32,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        weights: str | None = None,
        strict_weights: bool = True,
        frozen_layers: int = 0,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        for name, value, accepted in (
            ("output_stride", output_stride, (8, 16, 32)),
            ("width_mult", width_mult, STEM_CHANNELS),
            ("groups", groups, STAGE_CHANNELS),
        ):
            if value not in accepted:
                raise ValueError(f"{name} {value} is not possible; accepted: {', '.join(map(str, accepted))}")
        built = list(_layers(width_mult, groups, output_stride, Layers(bn_eps=bn_eps, bn_momentum=bn_momentum)))
        self.features = nn.Sequential(*(layer for layer, _ in built))
        self.taps = select_taps({f"layer{number}": tap for number, (_, tap) in enumerate(built, start=1)}, taps)
        self.cut()
        initialise(self)
        if weights is not None:
            self.expects = load_weights(self, weights, "shufflenet_v1", strict=strict_weights)
        self.freeze(frozen_layers, freeze_bn)


def _layers(width_mult: float, groups: int, output_stride: int, layers: Layers) -> Iterator[tuple[nn.Module, Tap]]:
    """Yields the 18 layers of the paper's table 1, each with the tap that it offers."""
    channels = _up(STEM_CHANNELS[width_mult], groups)
    yield nn.Sequential(*layers.conv_bn(3, channels, 3, 2), nn.ReLU(inplace=True)), Tap(channels, 2)
    yield nn.MaxPool2d(3, 2, 1), Tap(channels, 4)
    stride, dilation, out_channels = 4, 1, int(STAGE_CHANNELS[groups] * width_mult)
    first_groups = 1
    for units in UNITS:
        for unit in range(units):
            step = 1 if unit else 2
            # As in TensorFlow's DeepLab, the unit that loses its stride still works at the old dilation.
            unit_dilation = dilation
            if stride * step > output_stride:
                step, dilation = 1, dilation * step
            stride *= step
            yield ShuffleUnit((channels, out_channels), groups, first_groups, step, unit_dilation, layers), Tap(out_channels, stride)
            channels, first_groups = out_channels, groups
        out_channels *= 2


def _up(channels: float, divisor: int) -> int:
    """The next multiple of `divisor`."""
    return -int(-channels // divisor) * divisor
