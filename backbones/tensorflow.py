"""Weights of TensorFlow's MobileNetV2 networks whose batch norms were folded into the convolutions."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Arrays = Mapping[str, NDArray[np.float32]]


def body_scopes(layers: int) -> list[str]:
    """TensorFlow's scopes of the convolutions of MobileNetV2's first layers, in order.

    Args:
        layers: how many of the paper's 19 layers.
    """
    scopes = ["Conv", "expanded_conv/depthwise", "expanded_conv/project"]
    scopes += [f"expanded_conv_{block}/{part}" for block in range(1, 17) for part in ("expand", "depthwise", "project")]
    counts = [1, 2, *[3] * 16, 1]
    return [f"MobilenetV2/{scope}" for scope in [*scopes, "Conv_1"][: sum(counts[:layers])]]


@torch.no_grad()
def load_folded(modules: Iterable[nn.Module], scopes: Sequence[str], tensors: Arrays, source: str) -> list[str]:
    """Fills convolutions in order; their batch norms become the addition of the folded biases.

    Args:
        modules: what to fill, in the order of the scopes; batch norms follow their convolutions.
        scopes: TensorFlow's scope of each convolution.
        tensors: `scope/weights`, (out, in, height, width), and `scope/biases`.
        source: the file they come from, for messages.

    Returns:
        The names of the tensors that were not used.

    Raises:
        ValueError: a tensor is missing or has another shape, or the numbers of convolutions and scopes differ.
    """
    unused = dict.fromkeys(tensors)
    waiting = list(scopes)
    bias = None
    for module in modules:
        if isinstance(module, nn.Conv2d):
            if not waiting:
                raise ValueError(f"{source}: the network has more convolutions than the {len(scopes)} of the file's architecture")
            scope = waiting.pop(0)
            bias = _take(tensors, f"{scope}/biases", (module.out_channels,), source)
            module.weight.copy_(_take(tensors, f"{scope}/weights", module.weight.shape, source))
            unused.pop(f"{scope}/weights"), unused.pop(f"{scope}/biases")
            if module.bias is not None:
                module.bias.copy_(bias)
        elif isinstance(module, nn.BatchNorm2d) and bias is not None:
            module.reset_parameters()
            if module.running_var is not None:
                module.running_var.fill_(1 - module.eps)  # under the root, exactly 1
            module.bias.copy_(bias)
    if waiting:
        raise ValueError(f"{source}: the network has no convolution for {', '.join(waiting)}")
    return list(unused)


def _take(tensors: Arrays, name: str, shape: Sequence[int], source: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{source}: has no tensor {name}")
    if tensors[name].shape != tuple(shape):
        raise ValueError(f"{source}: {name} has shape {tuple(tensors[name].shape)}; wanted {tuple(shape)}")
    return torch.from_numpy(np.ascontiguousarray(tensors[name], dtype=np.float32))
