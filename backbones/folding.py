"""Batch norms folded into convolutions, and activations into the same operator, for inference."""

from collections.abc import Callable
from typing import Any, cast

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
        self._forget()

    def _forget(self) -> None:
        self.made_for: Any = None
        self.run: Callable[[Tensor], Tensor] = self._plain
        self.run_plus: Callable[[Tensor, Tensor], Tensor] = self._plain_plus

    def __getstate__(self) -> dict[str, Any]:
        # Tensors in oneDNN's layout can neither be copied nor written.
        return {name: value for name, value in self.__dict__.items() if name not in ("run", "run_plus", "made_for")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features."""
        self._make_ready(input)
        return self.run(input)

    def plus(self, input: Tensor, other: Tensor) -> Tensor:
        """Convolves (B, C, H, W) features, and adds others of the output's shape by the same operator; there must be no activation."""
        self._make_ready(input)
        return self.run_plus(input, other)

    def _plain(self, input: Tensor) -> Tensor:
        output: Tensor = self.conv(input) if self.activation is None else self.activation(self.conv(input))
        return output

    def _plain_plus(self, input: Tensor, other: Tensor) -> Tensor:
        total: Tensor = self.conv(input) + other
        return total

    def _make_ready(self, input: Tensor) -> None:
        """Chooses how to compute such inputs, and packs the weights for them; kept for the next one."""
        made_for = input.shape, input.dtype, input.device, torch.is_autocast_enabled("cpu"), torch.compiler.is_compiling()
        if made_for == self.made_for:
            return
        self._forget()
        self.made_for = made_for
        if not (self.fusible and _has_fused_operator(input)):
            return
        conv, operator = self.conv, torch.ops.mkldnn._convolution_pointwise
        weight, padding = conv.evenly_padded(input.shape)
        layout = padding, conv.stride, conv.dilation, conv.groups
        packed, bias = torch.ops.mkldnn._reorder_convolution_weight(weight, *layout, input.shape), conv.bias
        fused, added, name, values = operator.default, operator.binary, *self.operator
        self.run = lambda input: fused(input, packed, bias, *layout, name, values, "")
        self.run_plus = lambda input, other: added(input, other, packed, bias, *layout, "add", None, None, [], None)


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
