"""NASNet-A (Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition")."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.base import Tap, select_taps
from backbones.chain import ChainBackbone
from backbones.layers import Conv2d, Layers, Padding
from backbones.mobilenet_v2 import initialise
from backbones.norm import BatchNorm2d
from backbones.weights import load_weights

# Channels at the end by filters of a cell of the first stage: the last stage has four times as many filters, and joins six states.
PENULTIMATE_RATIO = 24
# Cells halve the resolution twice before the first stage, with a fourth and a half of its filters (TensorFlow slim, nasnet.py).
STEM_DIVISOR = 4


class Pool(nn.Module):
    """3x3 pooling whose output is ceil(input / stride); what lies beyond the border is no part of an average.

    Args:
        average: average pooling, else the maximum.
        stride: 1 or 2.
        padding: `symmetric` or `same`, see `backbones.layers.Conv2d`.
    """

    def __init__(self, average: bool, stride: int, padding: Padding) -> None:
        super().__init__()
        self.average, self.stride, self.same = average, stride, padding == "same" and stride > 1

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        # TensorFlow pads even sizes at their end only, where ceil_mode lets a window end early.
        height, width = (0 if self.same and size % 2 == 0 else 1 for size in features.shape[-2:])
        if self.average:
            return F.avg_pool2d(features, 3, self.stride, (height, width), self.same, count_include_pad=False)
        return F.max_pool2d(features, 3, self.stride, (height, width), ceil_mode=self.same)


class FactorizedReduction(nn.Module):
    """Every second cell, beside every second cell of the map moved by one, each through a 1x1 convolution; then a batch norm."""

    def __init__(self, in_channels: int, out_channels: int, layers: Layers) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = Conv2d(in_channels, half, 1)
        self.odd = Conv2d(in_channels, out_channels - half, 1)
        self.norm = BatchNorm2d(out_channels, eps=layers.bn_eps, momentum=layers.bn_momentum)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / 2), ceil(W / 2))."""
        features = features.relu()
        height, width = features.shape[-2:]
        moved = F.pad(features[..., 1::2, 1::2], (0, width % 2, 0, height % 2))
        normalised: Tensor = self.norm(torch.cat([self.even(features[..., ::2, ::2]), self.odd(moved)], dim=1))
        return normalised


class NormalCell(nn.Module):
    """The cell that keeps the resolution (paper, figure 4, left).

    Args:
        channels: of its input, of what went before it, and its filters.
        halves: whether what went before has twice its resolution.
        layers: builds its layers.
    """

    def __init__(self, channels: tuple[int, int, int], halves: bool, layers: Layers) -> None:
        super().__init__()
        in_channels, before, filters = channels
        self.previous = _previous(before, filters, halves, layers)
        self.current = nn.Sequential(nn.ReLU(), *layers.conv_bn(in_channels, filters))
        self.left_0, self.right_0 = (_separable(filters, filters, kernel, 1, layers) for kernel in (5, 3))
        self.left_1, self.right_1 = (_separable(filters, filters, kernel, 1, layers) for kernel in (5, 3))
        self.left_4 = _separable(filters, filters, 3, 1, layers)
        self.average = Pool(True, 1, layers.padding)

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """(B, C, H, W) features and what went before them -> (B, 6 filters, H, W)."""
        h, p = self.current(features), self.previous(before)
        average = self.average(p)
        blocks = [
            self.left_0(h) + self.right_0(p),
            self.left_1(p) + self.right_1(p),
            self.average(h) + p,
            average + average,
            self.left_4(h) + h,
        ]
        return torch.cat([p, *blocks], dim=1)


class ReductionCell(nn.Module):
    """The cell that halves the resolution (paper, figure 4, right).

    Args:
        channels: of its input, of what went before it (0 where nothing did), and its filters.
        halves: whether what went before has twice the resolution of its input.
        layers: builds its layers.
    """

    def __init__(self, channels: tuple[int, int, int], halves: bool, layers: Layers) -> None:
        super().__init__()
        in_channels, before, filters = channels
        self.previous = _previous(before, filters, halves, layers) if before else nn.Identity()
        self.current = nn.Sequential(nn.ReLU(), *layers.conv_bn(in_channels, filters))
        second = filters if before else in_channels
        self.left_0, self.right_0 = _separable(filters, filters, 5, 2, layers), _separable(second, filters, 7, 2, layers)
        self.right_1, self.right_2 = (_separable(second, filters, kernel, 2, layers) for kernel in (7, 5))
        self.left_4 = _separable(filters, filters, 3, 1, layers)
        self.maximum, self.halved = Pool(False, 2, layers.padding), Pool(True, 2, layers.padding)
        self.average = Pool(True, 1, layers.padding)

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """(B, C, H, W) features and what went before them -> (B, 4 filters, ceil(H / 2), ceil(W / 2))."""
        h, p = self.current(features), self.previous(before)
        maximum = self.maximum(h)
        first = self.left_0(h) + self.right_0(p)
        second = maximum + self.right_1(p)
        third = self.halved(h) + self.right_2(p)
        return torch.cat([second, third, self.average(first) + second, self.left_4(first) + maximum], dim=1)


class NASNetA(ChainBackbone):
    """NASNet-A as a feature extractor; by default the mobile one, 4 @ 1056.

    `layer1` is the first convolution, `layer2` and `layer3` are reduction cells, then come `repeats` normal cells, a reduction cell,
    `repeats` normal cells, a reduction cell and `repeats` normal cells: `layer4` to `layer17` in the mobile network. Taps have passed the
    ReLU that each cell begins with. Layers past the last tap are not there.

    Args:
        taps: names of the features to return; by default the head chooses.
        repeats: normal cells of each stage, N in the paper.
        penultimate_channels: channels of the last cell, P in the paper; a multiple of 96.
        stem_channels: channels of the first convolution, 32 in the mobile network, 96 in NASNet-A (6 @ 4032).
        skip_reduction: give the cell behind a reduction cell the input of the cell before the reduction, as NASNet-A (6 @ 4032) has it.
        output_stride: 32; cells have no dilations.
        padding: `symmetric`, or `same` as in TensorFlow, which however does not pad the first convolution.
        bn_eps: batch-norm epsilon (1e-3 in TensorFlow).
        weights: a local file with our names, such as the checkpoint of a run.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        frozen_layers: how many layers, from the first, are not trained at all.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: an argument is out of range, or `weights` cannot be used.
    """

    def __init__(
        self,
        taps: Sequence[str] | None = None,
        repeats: int = 4,
        penultimate_channels: int = 1056,
        stem_channels: int = 32,
        skip_reduction: bool = False,
        output_stride: int = 32,
        padding: Padding = "symmetric",
        bn_eps: float = 1e-3,
        weights: str | None = None,
        strict_weights: bool = True,
        frozen_layers: int = 0,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise ValueError(f"output_stride {output_stride} is not possible; accepted: 32, for cells have no dilations")
        unit = PENULTIMATE_RATIO * STEM_DIVISOR
        if penultimate_channels < unit or penultimate_channels % unit:
            raise ValueError(f"penultimate_channels {penultimate_channels} is not possible; accepted: multiples of {unit}")
        if repeats < 1:
            raise ValueError(f"repeats {repeats} is not possible; accepted: 1 or more cells")
        built = list(_build(repeats, penultimate_channels // PENULTIMATE_RATIO, stem_channels, skip_reduction, Layers(padding, bn_eps)))
        self.features = nn.Sequential(*(item.layer for item in built))
        self.back = [item.back for item in built]
        self.taps = select_taps({f"layer{number}": item.tap for number, item in enumerate(built, start=1)}, taps)
        self.cut()
        initialise(self)
        if weights is not None:
            self.expects = load_weights(self, weights, "nasnet_a", strict=strict_weights)
        self.freeze(frozen_layers, freeze_bn)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the tapped features of (B, 3, H, W) images, see `Backbone.forward`."""
        outputs, found = [self.features[0](images)], {}
        for cell, back in zip(self.features[1:], self.back[1:], strict=False):
            outputs.append(cell(outputs[-1], outputs[-back]))
        for number, features in enumerate(outputs, start=1):
            if (name := f"layer{number}") in self.taps:
                found[name] = features.relu()
        return found


class _Built(NamedTuple):
    layer: nn.Module
    tap: Tap
    back: int  # how many layers before it the one lies whose output it takes too


def _build(repeats: int, filters: int, stem_channels: int, skip_reduction: bool, layers: Layers) -> Iterator[_Built]:
    """Yields the layers in order."""
    taps = [Tap(stem_channels, 2)]
    yield _Built(nn.Sequential(*layers.conv_bn(3, stem_channels, 3, 2)), taps[0], 0)
    stages = [(filters // 4, 0), (filters // 2, 0), *((filters * 2**stage, repeats) for stage in range(3))]
    for stage, (width, cells) in enumerate(stages):
        if stage != 2:  # the first stage of normal cells follows the stem
            before = taps[-2] if stage else None
            channels = (taps[-1].channels, before.channels if before else 0, width)
            halves = before is not None and before.stride < taps[-1].stride
            taps.append(Tap(4 * width, 2 * taps[-1].stride))
            yield _Built(ReductionCell(channels, halves, layers), taps[-1], 2 if stage else 1)
        for cell in range(cells):
            back = 3 if skip_reduction and stage > 2 and cell == 0 else 2
            before = taps[-back]
            channels = (taps[-1].channels, before.channels, width)
            taps.append(Tap(6 * width, taps[-1].stride))
            yield _Built(NormalCell(channels, before.stride < taps[-1].stride, layers), taps[-1], back)


def _previous(in_channels: int, filters: int, halves: bool, layers: Layers) -> nn.Module:
    """Brings what went before a cell to its filters and resolution."""
    if halves:
        return FactorizedReduction(in_channels, filters, layers)
    return nn.Sequential(nn.ReLU(), *layers.conv_bn(in_channels, filters))


def _separable(in_channels: int, out_channels: int, kernel_size: int, stride: int, layers: Layers) -> nn.Sequential:
    """Twice: ReLU, depthwise, 1x1, batch norm (paper, appendix A.4); the first has the stride."""
    built: list[nn.Module] = []
    for channels, step in ((in_channels, stride), (out_channels, 1)):
        depthwise = Conv2d(channels, channels, kernel_size, step, groups=channels, padding_rule=layers.padding)
        built += [nn.ReLU(), depthwise, *layers.conv_bn(channels, out_channels)]
    return nn.Sequential(*built)
