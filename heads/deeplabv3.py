"""DeepLabv3 (Chen et al. 2017), its reduced form for mobile networks, and the decoder of DeepLabv3+ (Chen et al. 2018)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from backbones import Tap
from backbones.layers import Conv2d, Layers, Padding
from heads.base import SegmentationHead
from heads.taps import coarsest, listed

# Standard deviation of new weights of the last layer (research/deeplab model.py, get_branch_logits).
LOGITS_STD = 0.01
# Output stride at which atrous rates are given, as in DeepLabv3's paper, section 3.3.
RATES_STRIDE = 16
# Stride and reduced channels of the low-level features (DeepLabv3+, section 3.1 and table 1).
LOW_LEVEL_STRIDE, LOW_LEVEL_CHANNELS = 4, 48
# Stride of LR-ASPP's fine features (MobileNetV3, figure 10).
LRASPP_STRIDE = 8


class DeepLabV3(SegmentationHead):
    """Image pooling, a 1x1 branch and atrous branches on the coarsest tap, concatenated and projected.

    Without atrous branches this is the reduced head of the MobileNetV2 paper's Mobile DeepLabv3 (section 6.3). With `decoder` the result
    is refined on the features of stride 4, as in DeepLabv3+.

    Args:
        taps: the backbone's taps, finest first; the last one is scored. Of a backbone that was not told its taps, the last block (`layer18`
            of MobileNetV2, as in the paper), and for the decoder the last block of stride 4.
        num_classes: number of classes K, background included.
        atrous_rates: rates of the 3x3 branches at output stride 16 (6 12 18 in the paper); doubled at 8, halved at 32. None by default.
        separable: atrous branches and decoder of depthwise and 1x1 convolutions instead of full ones.
        decoder: refine the result on the first tap, which must have stride 4.
        channels: channels of all branches; 256 in the paper.
        dropout: share of the features that is dropped in training before the last layer; .1 in research/deeplab.
        align_corners: how logits are upsampled, see `SegmentationHead`; TensorFlow's DeepLab aligns.
        padding: `symmetric` or `same`, as in the backbone.
        bn_eps: batch-norm epsilon (1e-5 in research/deeplab).
        bn_momentum: batch-norm momentum in torch's sense (.0003 in research/deeplab, for runs of ten thousands of steps).

    Raises:
        ValueError: `num_classes` is not accepted, a rate is below 1, or the decoder finds no tap of stride 4.
    """

    def __init__(
        self,
        taps: Mapping[str, Tap],
        num_classes: int,
        atrous_rates: Sequence[int] = (),
        separable: bool = False,
        decoder: bool = False,
        channels: int = 256,
        dropout: float = 0.1,
        align_corners: bool = False,
        padding: Padding = "symmetric",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__(coarsest(taps, LOW_LEVEL_STRIDE if decoder else None), num_classes, align_corners)
        if any(rate < 1 for rate in atrous_rates):
            raise ValueError(f"atrous_rates {list(atrous_rates)} are not possible; accepted: whole numbers of at least 1")
        layers = Layers(padding, bn_eps, bn_momentum)
        (self.low_tap, low), (self.tap, deep) = _ends(self.taps)
        self.pooling = layers.conv_bn_relu(deep.channels, channels)
        rates = [max(rate * RATES_STRIDE // deep.stride, 1) for rate in atrous_rates]
        self.branches = nn.ModuleList([layers.conv_bn_relu(deep.channels, channels)])
        self.branches.extend(conv_3x3(deep.channels, channels, rate, separable, layers) for rate in rates)
        self.projection = layers.conv_bn_relu(channels * (len(self.branches) + 1), channels)
        self.decoder = None
        if decoder:
            if low.stride != LOW_LEVEL_STRIDE:
                raise ValueError(f"the decoder needs a first tap of stride {LOW_LEVEL_STRIDE}, such as layer4; given: {listed(taps)}")
            self.decoder = Decoder(low.channels, channels, separable, layers)
        self.dropout = nn.Dropout(dropout)
        self.logits = Conv2d(channels, num_classes, 1, bias=True)
        initialise(self, self.logits)

    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> Tensor:
        """Scores the cells of the coarsest tap, or of the finest with the decoder, see `SegmentationHead.forward`."""
        deep = features[self.tap]
        pooled = self.pooling(deep.mean(dim=(2, 3), keepdim=True))
        found = [pooled.expand(-1, -1, *deep.shape[2:]), *(branch(deep) for branch in self.branches)]
        projected = self.projection(torch.cat(found, dim=1))
        if self.decoder is not None:
            projected = self.decoder(self.upsample(projected, features[self.low_tap].shape[2:]), features[self.low_tap])
        logits: Tensor = self.logits(self.dropout(projected))
        return logits


class Decoder(nn.Module):
    """Joins features with low-level ones of reduced channels and refines them by two 3x3 convolutions (DeepLabv3+, section 3.1)."""

    def __init__(self, low_channels: int, channels: int, separable: bool, layers: Layers) -> None:
        super().__init__()
        self.reduction = layers.conv_bn_relu(low_channels, LOW_LEVEL_CHANNELS)
        self.refinement = nn.Sequential(
            conv_3x3(channels + LOW_LEVEL_CHANNELS, channels, 1, separable, layers), conv_3x3(channels, channels, 1, separable, layers)
        )

    def forward(self, upsampled: Tensor, low_level: Tensor) -> Tensor:
        """(B, C, H, W) upsampled and (B, C', H, W) low-level features -> (B, C, H, W)."""
        refined: Tensor = self.refinement(torch.cat([upsampled, self.reduction(low_level)], dim=1))
        return refined


class LRASPP(SegmentationHead):
    """Lite reduced ASPP, the head of MobileNetV3 (Howard et al. 2019, section 6.4, figure 10).

    The coarsest features are gated by their own average, brought to the first tap and scored together with it.

    Args:
        taps: the backbone's taps, finest first; the first and the last are used. Of a backbone that was not told its taps, the last block
            of stride 8, as in the paper, and the last block.
        num_classes: number of classes K, background included.
        channels: channels of the gated features; 128 in the paper.
        align_corners: how features and logits are upsampled, see `SegmentationHead`.
        padding: `symmetric` or `same`, as in the backbone.
        bn_eps: batch-norm epsilon.
        bn_momentum: batch-norm momentum in torch's sense.

    Raises:
        ValueError: `num_classes` is not accepted, or there is only one tap.
    """

    def __init__(
        self,
        taps: Mapping[str, Tap],
        num_classes: int,
        channels: int = 128,
        align_corners: bool = False,
        padding: Padding = "symmetric",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__(coarsest(taps, LRASPP_STRIDE), num_classes, align_corners)
        if len(self.taps) < 2:
            raise ValueError(f"LRASPP needs a fine and a coarse tap, such as layer7 and layer18; given: {listed(taps)}")
        (self.low_tap, low), (self.tap, deep) = _ends(self.taps)
        self.projection = Layers(padding, bn_eps, bn_momentum).conv_bn_relu(deep.channels, channels)
        self.gate = Conv2d(deep.channels, channels, 1)
        self.low_logits = Conv2d(low.channels, num_classes, 1, bias=True)
        self.deep_logits = Conv2d(channels, num_classes, 1, bias=True)
        initialise(self, self.low_logits, self.deep_logits)

    def forward(self, features: Mapping[str, Tensor], input_size: tuple[int, int]) -> Tensor:
        """Scores the cells of the first tap, see `SegmentationHead.forward`."""
        low, deep = features[self.low_tap], features[self.tap]
        gated = self.projection(deep) * self.gate(deep.mean(dim=(2, 3), keepdim=True)).sigmoid()
        logits: Tensor = self.low_logits(low) + self.deep_logits(self.upsample(gated, low.shape[2:]))
        return logits


def _ends(taps: Mapping[str, Tap]) -> tuple[tuple[str, Tap], tuple[str, Tap]]:
    """The first and the last tap, with their names."""
    named = list(taps.items())
    return named[0], named[-1]


def conv_3x3(in_channels: int, out_channels: int, dilation: int, separable: bool, layers: Layers) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU; separable ones have them after the depthwise part too (research/deeplab)."""
    if not separable:
        return layers.conv_bn_relu(in_channels, out_channels, 3, dilation)
    return nn.Sequential(
        layers.conv_bn_relu(in_channels, in_channels, 3, dilation, groups=in_channels), layers.conv_bn_relu(in_channels, out_channels)
    )


def initialise(head: nn.Module, *last: Conv2d) -> None:
    """He-normal convolutions (He et al. 2015) and small weights in the last ones, so that training starts from even scores."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    for layer in last:
        nn.init.normal_(layer.weight, std=LOGITS_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
