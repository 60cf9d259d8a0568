"""All known names of networks, and telling those of a file."""

import re
from collections.abc import Mapping

from backbones.weights import mobilenet_v1, mobilenet_v2
from backbones.weights.names import Scheme, keras

SCHEMES: tuple[Scheme, ...] = (*mobilenet_v2.SCHEMES, *mobilenet_v1.SCHEMES)


def recognise(tensors: Mapping[str, object]) -> Scheme | None:
    """Returns the scheme of a file's names, None where it has the stem of no known network under any known name."""
    if any(re.match(r"(.*/)?depthwise_conv2d(_\d+)?/", name) for name in tensors):
        return _keras_numbered(tensors)
    known = [scheme for scheme in SCHEMES if scheme.prefix(tensors) is not None]
    return max(known, key=lambda scheme: scheme.count(tensors), default=None)


def _keras_numbered(tensors: Mapping[str, object]) -> Scheme:
    """Keras's own numbering of nameless layers: the kinds of layer are counted apart, in the order of the network."""
    depthwise, others, norms, dense = (_numbered(tensors, kind) for kind in ("depthwise_conv2d", "conv2d", "batch_normalization", "dense"))
    # A block of MobileNetV2 has two other convolutions, one of MobileNetV1 a single one.
    network = mobilenet_v1 if len(others) < 2 * len(depthwise) else mobilenet_v2
    keys = [[key for key in network.BODY if key.endswith("depthwise") == wanted] for wanted in (True, False)]
    names = dict(zip(keys[0], depthwise, strict=False)) | dict(zip(keys[1], others, strict=False))
    table = {key: (names.get(key, key), norm) for key, norm in zip(network.BODY, [*norms, *network.BODY[len(norms) :]], strict=False)}
    last = [*others[len(keys[1]) :], *(dense or _numbered(tensors, "predictions"))]
    table |= {"classifier": (last[-1], "")} if last else {}
    return keras("Keras, numbered layers", network.NETWORK, network.BODY, table)


def _numbered(tensors: Mapping[str, object], kind: str) -> list[str]:
    found = {match[1]: int(match[2] or 0) for name in tensors if (match := re.match(rf"(?:.*/)?({kind}(?:_(\d+))?)/", name))}
    return sorted(found, key=lambda name: found[name])
