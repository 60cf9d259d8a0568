"""From the names and layouts of other libraries to ours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones.weights.names import Names, Scheme

# A part of a network: what its parameters are called with, the module, and the keys of its convolutions in order.
Part = tuple[str, nn.Module, Sequence[str]]


class Translation(NamedTuple):
    """Tensors under our names.

    Attributes:
        tensors: by our parameter names, in our layout; shapes are not checked.
        used: foreign names that were used.
        unused: those that were not.
        missing: foreign names of what our network needs and the file has not.
        origins: for each of our names, the foreign one.
    """

    tensors: dict[str, Tensor]
    used: list[str]
    unused: list[str]
    missing: list[str]
    origins: dict[str, str]


class _Convolution(NamedTuple):
    name: str
    layer: nn.Conv2d | nn.Linear
    norm_name: str
    norm: nn.BatchNorm2d | None


def translate(
    parts: Sequence[Part], tensors: Mapping[str, Tensor], scheme: Scheme, rows: Mapping[str, Sequence[int]] | None = None
) -> Translation:
    """Finds the tensors of a network in a foreign file.

    Batch norms that the file has folded into its convolutions become the addition of the folded biases.

    Args:
        parts: the parts of the network.
        tensors: the file's tensors by name.
        scheme: how the file names things.
        rows: for keys whose outputs stand in another order in the file, or are too many: the wanted ones, in our order.
    """
    prefix = scheme.prefix(tensors) or ""
    channels_last = scheme.channels_last and not _looks_like_torch(scheme, prefix, tensors)
    found = Translation({}, [], [], [], {})
    for start, module, keys in parts:
        for key, convolution in zip(keys, _convolutions(module), strict=False):
            names = scheme.names(key, prefix, tensors)
            for own, foreign, value in _tensors_of(convolution, names, tensors, channels_last) if names else ():
                if value is None:
                    found.missing.append(foreign)
                    continue
                order = (rows or {}).get(key)
                # Where the file has too few rows, its shape is reported instead.
                picked = value[list(order)] if order and value.dim() and max(order) < len(value) else value
                found.tensors[start + own], found.origins[start + own] = picked.contiguous(), foreign
    used = dict.fromkeys(name for name in found.origins.values() if name in tensors)
    found.used.extend(used)
    found.unused.extend(name for name in tensors if name not in used)
    return found


def orient(weight: Tensor, layer: nn.Module, channels_last: bool) -> Tensor:
    """Brings a weight to torch's layout: (out, in, height, width), or (out, in) for a linear layer."""
    if weight.dim() == 4 and channels_last:
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
        weight = weight.permute(2, 3, 0, 1) if depthwise else weight.permute(3, 2, 0, 1)
    elif weight.dim() == 2 and channels_last:
        weight = weight.T
    return weight.flatten(1) if isinstance(layer, nn.Linear) and weight.shape[2:] == (1, 1) else weight


def _looks_like_torch(scheme: Scheme, prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the stem's weight lies as (out, 3, 3, 3), as in files that were laid out for torch under foreign names."""
    names = scheme.names("stem", prefix, tensors)
    return names is not None and names.weight in tensors and tensors[names.weight].shape[1:] == (3, 3, 3)


def _convolutions(module: nn.Module) -> Iterator[_Convolution]:
    """The convolutions and linear layers of a module in order, each with the batch norm that follows it."""
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    for (name, layer), (following, norm) in zip(layers, [*layers[1:], ("", None)], strict=True):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            yield _Convolution(name, layer, following, norm if isinstance(norm, nn.BatchNorm2d) else None)


def _tensors_of(
    convolution: _Convolution, names: Names, tensors: Mapping[str, Tensor], channels_last: bool
) -> Iterator[tuple[str, str, Tensor | None]]:
    """Yields our name, the foreign name and the value of each tensor of a convolution and of its batch norm."""
    name, layer, norm_name, norm = convolution
    weight = tensors.get(names.weight)
    yield f"{name}.weight", names.weight, None if weight is None else orient(weight.float(), layer, channels_last)
    bias = tensors.get(names.bias)
    if layer.bias is not None:
        yield f"{name}.bias", names.bias, None if bias is None else bias.float()
    if norm is None:
        return
    own = [f"{norm_name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    gamma, beta, mean, variance = (tensors.get(part) for part in names.norm)
    if mean is None and beta is None and bias is not None:
        one, zero = torch.ones(norm.num_features), torch.zeros(norm.num_features)
        # Under the root, exactly 1.
        folded = (one, bias.float(), zero, torch.full((norm.num_features,), 1 - norm.eps))
        yield from ((mine, names.bias, value) for mine, value in zip(own, folded, strict=True))
        return
    if gamma is None and beta is not None:  # TensorFlow's and Keras's scale=False
        gamma = torch.ones_like(beta)
    for mine, foreign, value in zip(own, names.norm, (gamma, beta, mean, variance), strict=True):
        yield mine, foreign, None if value is None else value.float()
    counter = names.norm[2].removesuffix("running_mean") + "num_batches_tracked"  # torch's own, which old files lack
    if counter in tensors:
        yield f"{norm_name}.num_batches_tracked", counter, tensors[counter]
