"""Batch norms folded into convolutions, and activations into the same operator, for inference."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from backbones.layers import Conv2d

# Names and arguments that torch's fused oneDNN operator gives to activations.
ACTIVATIONS: dict[type, tuple[str, list[float]]] = {nn.ReLU6: ("hardtanh", [0.0, 6.0]), nn.ReLU: ("relu", [])}


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in, and its activation done by the same operator where torch has one.

    Args:
        conv: the convolution.
        norm: the batch norm behind it, in evaluation mode.
        activation: what follows, or None.
    """

    def __init__(self, conv: Conv2d, norm: nn.BatchNorm2d | None, activation: nn.Module | None) -> None:
        super().__init__()
        weight, bias = conv.weight, conv.bias
        if norm is not None:
            weight, bias = fuse_conv_bn_weights(
                weight, bias, cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var), norm.eps, norm.weight, norm.bias
            )
        self.conv, self.activation = conv, activation
        self.conv.weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.operator = ACTIVATIONS.get(type(activation), ("none", []))
        # An odd zero is moved into the kernel, see `Conv2d.evenly_padded`.
        self.fusible = not conv.pads_asymmetrically or max(conv.dilation) == 1
        self.packed: Packed | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tensors in oneDNN's layout can neither be copied nor written.
        return self.__dict__ | {"packed": None}

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features."""
        conv = self.conv
        if not (self.fusible and _has_fused_operator(input)):
            output: Tensor = conv(input) if self.activation is None else self.activation(conv(input))
            return output
        weight, padding = self._pack(input)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups, *self.operator, ""
        )
        return found

    def plus(self, input: Tensor, other: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features, and adds others of the output's shape by the same operator; there must be no activation."""
        conv = self.conv
        if not (self.fusible and _has_fused_operator(input)):
            total: Tensor = conv(input) + other
            return total
        weight, padding = self._pack(input)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            input, other, weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups, "add", None, None, [], None
        )
        return found

    def _pack(self, input: Tensor) -> tuple[Tensor, list[int]]:
        """Weights in the order that oneDNN likes for such an input, and the padding that belongs to them; kept for the next one."""
        packed = self.packed
        if packed is None or packed.shape != input.shape:
            weight, padding = self.conv.evenly_padded(input.shape)
            layout = padding, self.conv.stride, self.conv.dilation, self.conv.groups, input.shape
            packed = self.packed = Packed(input.shape, torch.ops.mkldnn._reorder_convolution_weight(weight, *layout), padding)
        return packed.weight, packed.padding


class Packed(NamedTuple):
    """What a convolution needs for inputs of one shape.

    Attributes:
        shape: the shape.
        weight: weights in oneDNN's own layout.
        padding: zeros above and below, left and right.
    """

    shape: torch.Size
    weight: Tensor
    padding: list[int]


def fold(network: nn.Module) -> None:
    """Folds, in place, what stands one behind the other in a `nn.Sequential`: our convolution, a batch norm, ReLU or ReLU6.

    The places stay, so that layers can still be counted. Other layers, such as those of foreign networks, stay as they are. The network is
    for inference from then on.
    """
    for chain in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, layer in enumerate(chain):
            if not isinstance(layer, Conv2d):
                continue
            norm, behind = _at(chain, place + 1, nn.BatchNorm2d), place + 1
            if norm is not None:
                chain[behind], behind = nn.Identity(), behind + 1
            activation = _at(chain, behind, *ACTIVATIONS)
            if activation is not None:
                chain[behind] = nn.Identity()
            chain[place] = FoldedConv(layer, norm, activation)


def _at(chain: nn.Sequential, place: int, *classes: type[nn.Module]) -> Any:
    """The layer at a place if there is one of these classes."""
    return chain[place] if place < len(chain) and isinstance(chain[place], classes) else None


def _has_fused_operator(input: Tensor) -> bool:
    """Whether torch's fused operator, which is not a public one, is there and computes such features."""
    known = input.device.type == "cpu" and input.dtype in (torch.float32, torch.bfloat16) and not torch.is_autocast_enabled("cpu")
    return known and not torch.compiler.is_compiling() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
