"""MobileNetV1 (Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications")."""

from collections.abc import Iterator, Sequence

from torch import nn

from backbones.base import Tap, select_taps
from backbones.chain import ChainBackbone
from backbones.layers import Layers, Padding, check_width
from backbones.mobilenet_v2 import initialise, make_divisible
from backbones.weights import load_weights

# Table 1 of the paper: output channels and stride of the 13 separable blocks. Of its last block it prints stride 2, but the sizes
# beside it are those of stride 1, as built by the authors (TensorFlow slim, mobilenet_v1.py).
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
STEM_CHANNELS = 32


def layer_channels(width_mult: float) -> list[int]:
    """Returns the output channels of the first convolution and of the 13 blocks."""
    return [make_divisible(channels * width_mult) for channels in (STEM_CHANNELS, *(channels for channels, _ in BLOCKS))]


class MobileNetV1(ChainBackbone):
    """MobileNetV1 as a feature extractor: depthwise and 1x1 convolutions in turn, without shortcuts.

    `layer1` is the first convolution, `layer2` to `layer14` the 13 blocks (TensorFlow's `Conv2d_0` to `Conv2d_13`). SSDLite uses `layer12`
    (512 channels, stride 16) and `layer14` (1024, stride 32), DeepLabv3 and classifiers `layer14`. Layers past the last tap are not there.

    Args:
        taps: names of the features to return; by default the head chooses.
        width_mult: multiplier of all channels, .25 to 1 in the paper, up to 10 here; rounded to multiples of 8.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        padding: `symmetric` as in timm, or `same` as in TensorFlow.
        bn_eps: batch-norm epsilon (timm 1e-5, TensorFlow 1e-3).
        bn_momentum: batch-norm momentum in torch's sense, the weight of the newest batch.
        weights: a local file of any kind and names that `tasks.convert` takes, a checkpoint of a run among them, or `imagenet` for timm's
            published weights. TensorFlow's and Keras's want `padding` same and `bn_eps` .001.
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
        built = list(_layers(width_mult, output_stride, Layers(padding, bn_eps, bn_momentum)))
        self.features = nn.Sequential(*(layer for layer, _ in built))
        self.taps = select_taps({f"layer{number}": tap for number, (_, tap) in enumerate(built, start=1)}, taps)
        self.cut()
        initialise(self)
        if weights is not None:
            self.expects = load_weights(self, weights, "mobilenet_v1", strict=strict_weights)
        self.freeze(frozen_layers, freeze_bn)


def _layers(width_mult: float, output_stride: int, layers: Layers) -> Iterator[tuple[nn.Module, Tap]]:
    """Yields the 14 layers, each with the tap that it offers."""
    channels = layer_channels(width_mult)
    stride, dilation = 2, 1
    yield layers.conv_bn_relu6(3, channels[0], 3, stride=2), Tap(channels[0], stride)
    for (_, step), in_channels, out_channels in zip(BLOCKS, channels, channels[1:], strict=False):
        # As in TensorFlow's slim, the block that loses its stride still works at the old dilation.
        block_dilation = dilation
        if stride * step > output_stride:
            step, dilation = 1, dilation * step
        stride *= step
        block = nn.Sequential(layers.depthwise(in_channels, step, block_dilation), layers.conv_bn_relu6(in_channels, out_channels))
        yield block, Tap(out_channels, stride)
