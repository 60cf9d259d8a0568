"""Batch norms folded into convolutions, for inference."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from backbones.layers import Conv2d

ACTIVATIONS = (nn.ReLU6, nn.ReLU)


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in, and with the activation behind it.

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

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features."""
        conv = self.conv
        if tuple(input.shape[2:]) == (1, 1) and conv.groups == conv.in_channels == conv.out_channels:
            # Only the middle of the kernel sees the one pixel. oneDNN's graphs fail at such convolutions, and err in products with sums.
            seen = conv.weight[:, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2, None, None]
            bias = input.new_zeros(1) if conv.bias is None else conv.bias[:, None, None]
            output = torch.addcmul(bias, input, seen)
        elif max(conv.dilation) == 1:  # an odd zero is moved into the kernel
            weight, padding = conv.evenly_padded(input.shape)
            output = F.conv2d(input, weight, conv.bias, conv.stride, padding, 1, conv.groups)
        else:
            output = conv(input)
        return output if self.activation is None else cast(Tensor, self.activation(output))


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
