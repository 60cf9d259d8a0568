"""Convolution blocks shared by backbones and heads."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.depthwise import Depthwise
from backbones.loops import type_from_loops
from backbones.norm import BatchNorm2d, ConvNormAct

Padding = Literal["symmetric", "same"]

# Seven times the widest that was published; it takes gigabytes.
WIDEST = 10.0


def check_width(width_mult: float) -> None:
    """Refuses a width multiplier that no memory holds.

    Raises:
        ValueError: it is not over 0 to 10.
    """
    if not 0 < width_mult <= WIDEST:
        raise ValueError(f"width_mult {width_mult} is not possible; accepted: over 0 to {WIDEST:g}")


class Conv2d(nn.Conv2d):
    """A convolution whose output is ceil(input / stride), padded evenly or as TensorFlow does.

    With padding `symmetric`, (kernel - 1) / 2 * dilation zeros stand on every side (torchvision, timm). With `same`, TensorFlow's
    SAME rule, the total depends on the input size, and an odd zero goes to the bottom and the right.

    Raises:
        ValueError: `padding_rule` is neither of the two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding_rule: Padding = "symmetric",
    ) -> None:
        if padding_rule not in ("symmetric", "same"):
            raise ValueError(f"padding {padding_rule!r} is unknown; accepted: 'symmetric', 'same'")
        padding = (kernel_size - 1) // 2 * dilation
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.pads_asymmetrically = padding_rule == "same" and stride > 1 and kernel_size > 1
        # On CPUs oneDNN's backward pass of these convolutions takes many times as long as that of others, most of all in bfloat16.
        self.is_slow_backward = groups > 1 and (stride > 1 or dilation > 1)
        self.has_loops = self.is_slow_backward and groups == in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features."""
        if not (self.is_slow_backward and input.device.type == "cpu" and torch.is_grad_enabled()):
            return self._convolve(input)
        has_loops = self.has_loops and self.bias is None and self.weight.dtype == torch.float32
        dtype = type_from_loops(input) if has_loops else None
        if dtype is not None:
            before = [self._padding(size, axis)[0] for axis, size in enumerate(input.shape[-2:])]
            size = [self._size(size, axis) for axis, size in enumerate(input.shape[-2:])]
            return cast(Tensor, Depthwise.apply(input.to(dtype), self.weight, self.stride[0], self.dilation[0], before, size))  # type: ignore[no-untyped-call]
        if not torch.is_autocast_enabled("cpu"):
            return self._convolve(input)
        with torch.autocast("cpu", enabled=False):
            return self._convolve(input.float())

    def _convolve(self, input: Tensor) -> Tensor:
        # oneDNN's bfloat16 backward pass leaves gradients of weights unset where an input smaller than the stride gives them padding only.
        fits = min(input.shape[-2:]) >= self.stride[0]
        if fits and not self.pads_asymmetrically:
            return super().forward(input)
        sides = [self._padding(size, axis) for axis, size in enumerate(input.shape[-2:])]
        if fits and all(before == after for before, after in sides):  # copies nothing
            even = [before for before, _ in sides]
            return F.conv2d(input, self.weight, self.bias, self.stride, even, self.dilation, self.groups)
        return F.conv2d(self.padded(input), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def padded(self, input: Tensor) -> Tensor:
        """Pads (B, C, H, W) features by the layer's rule."""
        (top, bottom), (left, right) = (self._padding(size, axis) for axis, size in enumerate(input.shape[-2:]))
        return F.pad(input, (left, right, top, bottom))

    def evenly_padded(self, shape: torch.Size) -> tuple[Tensor, list[int]]:
        """Returns weights and even padding (rows, columns) that convolve (B, C, H, W) inputs of a shape by the layer's rule.

        Where an odd zero goes to the bottom or the right, the kernel gets a row or column of zeros in front, which sees the zero that an
        even padding adds there: much cheaper than a padded copy of the input. For kernels without dilation.
        """
        sides = [self._padding(int(size), axis) for axis, size in enumerate(shape[-2:])]  # tracers hand tensors over
        odd = [after - before for before, after in sides]
        weight = F.pad(self.weight, (odd[1], 0, odd[0], 0)).contiguous(memory_format=torch.channels_last) if any(odd) else self.weight
        return weight, [after for _, after in sides]

    def _size(self, size: int, axis: int) -> int:
        """Rows or columns of the output."""
        reach = (self.kernel_size[axis] - 1) * self.dilation[axis]
        return (size + sum(self._padding(size, axis)) - reach - 1) // self.stride[axis] + 1

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        stride, reach = self.stride[axis], (self.kernel_size[axis] - 1) * self.dilation[axis]
        if not self.pads_asymmetrically:
            return reach // 2, reach // 2
        total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class Layers:
    """Builds the blocks of one network, which share padding and batch-norm settings.

    Attributes:
        padding: `symmetric` or `same`, see `Conv2d`.
        bn_eps: epsilon of every batch norm.
        bn_momentum: momentum of every batch norm, in torch's sense (the weight of the newest batch).

    Raises:
        ValueError: `bn_eps` is not over 0 to 1, or `bn_momentum` not 0 to 1.
    """

    padding: Padding = "symmetric"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.bn_eps <= 1 and 0 <= self.bn_momentum <= 1):
            raise ValueError(f"bn_eps {self.bn_eps}, bn_momentum {self.bn_momentum} are not possible; accepted: over 0 to 1, and 0 to 1")

    def conv_bn(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> tuple[Conv2d, BatchNorm2d]:
        """Convolution and batch norm, linear."""
        conv = Conv2d(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_rule=self.padding)
        return conv, BatchNorm2d(out_channels, eps=self.bn_eps, momentum=self.bn_momentum)

    def conv_bn_relu6(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> ConvNormAct:
        """Convolution, batch norm and ReLU6."""
        return ConvNormAct(*self.conv_bn(in_channels, out_channels, kernel_size, stride, dilation, groups), nn.ReLU6(inplace=True))

    def conv_bn_relu(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1) -> ConvNormAct:
        """Convolution, batch norm and ReLU."""
        return ConvNormAct(*self.conv_bn(in_channels, out_channels, kernel_size, 1, dilation, groups), nn.ReLU(inplace=True))

    def depthwise(self, channels: int, stride: int = 1, dilation: int = 1) -> ConvNormAct:
        """3x3 depthwise convolution, batch norm and ReLU6."""
        return self.conv_bn_relu6(channels, channels, 3, stride, dilation, groups=channels)


def slow_in_float32(network: nn.Module) -> None:
    """Makes a foreign network's grouped convolutions leave bfloat16 autocast on CPUs where they are slow in it, see `Conv2d`.

    Hooks do it, so that parameters keep their names and copies of the network work.
    """
    for conv in network.modules():
        if (
            isinstance(conv, nn.Conv2d)
            and conv.groups > 1
            and max(*conv.stride, *conv.dilation, *(side - 2 for side in conv.kernel_size)) > 1
        ):
            conv.register_forward_pre_hook(_leave_autocast)
            conv.register_forward_hook(_return_to_autocast, always_call=True)


def _leave_autocast(conv: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    conv.was_left = inputs[0].device.type == "cpu" and torch.is_autocast_enabled("cpu")  # type: ignore[assignment]
    if not conv.was_left:
        return None
    torch.set_autocast_enabled("cpu", False)
    return (inputs[0].float(),)


def _return_to_autocast(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if conv.was_left:
        torch.set_autocast_enabled("cpu", True)
