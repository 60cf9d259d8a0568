"""How other libraries name the convolutions of MobileNetV2 and of the networks published with it.

Every convolution has a key: `stem`, `block1.depthwise`, `block1.project`, `block2.expand`, ..., `last` in the body; `classifier`;
`pooling`, `branch0`, `projection`, `logits` of DeepLabv3; `extra0.reduce`, `extra0.depthwise`, `extra0.expand`, `box0.depthwise`, `box0`,
`class0.depthwise`, `class0`, ... of SSDLite. A scheme says for a key how the convolution and its batch norm are called.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BLOCKS = 17
# Repeats of the paper's table 2.
REPEATS = (1, 2, 3, 4, 3, 3, 1)
# Extra layers of SSDLite by their channels, and its levels.
EXTRAS, LEVELS = (512, 256, 256, 128), 6


class Names(NamedTuple):
    """Tensor names of one convolution: its weight, its bias, and its batch norm's scale, shift, mean and variance."""

    weight: str
    bias: str
    norm: tuple[str, str, str, str]


@dataclass(frozen=True)
class Scheme:
    """One library's names.

    Attributes:
        name: the library, for messages.
        table: for every key, the names of the convolution and of its batch norm.
        weight: endings of convolution weights, one of which a file uses for each.
        bias: ending of biases.
        norm: endings of a batch norm's scale, shift, mean and variance.
        channels_last: whether weights lie as (height, width, in, out), as Keras and TensorFlow store them.
        tensorflow: whether the network was made for TensorFlow: SAME padding, batch-norm epsilon 1e-3 and images in -1..1.
    """

    name: str
    table: Mapping[str, tuple[str, str]]
    weight: tuple[str, ...] = (".weight",)
    bias: str = ".bias"
    norm: tuple[str, str, str, str] = (".weight", ".bias", ".running_mean", ".running_var")
    channels_last: bool = False
    tensorflow: bool = False

    def prefix(self, names: Iterable[str]) -> str | None:
        """What a file puts before all names, such as `module.`; None where the file has no such stem."""
        for ending in self.weight:
            stem = self.table["stem"][0] + ending
            for name in names:
                if name == stem or name.endswith(("." + stem, "/" + stem)):
                    return name.removesuffix(stem)
        return None

    def count(self, names: Mapping[str, object]) -> int:
        """How many of the scheme's convolutions a file has."""
        prefix = self.prefix(names) or ""
        return sum(prefix + conv + ending in names for conv, _ in self.table.values() for ending in self.weight)

    def names(self, key: str, prefix: str, known: Mapping[str, object]) -> Names | None:
        """Returns the names of a convolution's tensors, the weight's as the file has it; None for keys that the scheme has not."""
        if key not in self.table:
            return None
        conv, norm = (prefix + part for part in self.table[key])
        weights = [conv + ending for ending in self.weight]
        weight = next((name for name in weights if name in known), weights[0])
        gamma, beta, mean, variance = (norm + ending for ending in self.norm)
        return Names(weight, conv + self.bias, (gamma, beta, mean, variance))


def body_keys() -> list[str]:
    """The keys of the body's convolutions, in order."""
    parts = [f"block{block}.{part}" for block in range(1, BLOCKS + 1) for part in ("expand", "depthwise", "project")]
    return ["stem", *parts[1:], "last"]


def recognise(tensors: Mapping[str, object]) -> Scheme | None:
    """Returns the scheme of a file's names, None where it has no stem of MobileNetV2 under any known name."""
    if any(re.match(r"(.*/)?depthwise_conv2d(_\d+)?/", name) for name in tensors):
        return _keras_numbered(tensors)
    known = [scheme for scheme in SCHEMES if scheme.prefix(tensors) is not None]
    return max(known, key=lambda scheme: scheme.count(tensors), default=None)


def _blocks() -> list[tuple[int, int, int]]:
    """(block, stage, place in the stage), blocks counted from 1."""
    places = [(stage, place) for stage, count in enumerate(REPEATS) for place in range(count)]
    return [(block, *place) for block, place in enumerate(places, start=1)]


def _torchvision() -> dict[str, tuple[str, str]]:
    table = {"stem": ("features.0.0", "features.0.1"), "last": ("features.18.0", "features.18.1"), "classifier": ("classifier.1", "")}
    for block in range(1, BLOCKS + 1):
        first = int(block > 1)
        table[f"block{block}.expand"] = (f"features.{block}.conv.0.0", f"features.{block}.conv.0.1")
        table[f"block{block}.depthwise"] = (f"features.{block}.conv.{first}.0", f"features.{block}.conv.{first}.1")
        table[f"block{block}.project"] = (f"features.{block}.conv.{first + 1}", f"features.{block}.conv.{first + 2}")
    del table["block1.expand"]
    return table


def _timm() -> dict[str, tuple[str, str]]:
    table = {"stem": ("conv_stem", "bn1"), "last": ("conv_head", "bn2"), "classifier": ("classifier", "")}
    for block, stage, place in _blocks():
        parts = ("conv_dw", "conv_pw") if block == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        keys = ("depthwise", "project") if block == 1 else ("expand", "depthwise", "project")
        for number, (key, part) in enumerate(zip(keys, parts, strict=True), start=1):
            table[f"block{block}.{key}"] = (f"blocks.{stage}.{place}.{part}", f"blocks.{stage}.{place}.bn{number}")
    return table


def _wrapped(names: Mapping[str, str], conv: str, norm: str, bare: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A table of convolutions and norms in a common wrapper; `bare` keys have none."""
    return {key: (name if key in bare else f"{name}.{conv}", f"{name}.{norm}") for key, name in names.items()}


def _transformers() -> dict[str, tuple[str, str]]:
    names = {"stem": "mobilenet_v2.conv_stem.first_conv", "last": "mobilenet_v2.conv_1x1", "classifier": "classifier"}
    names |= {"block1.depthwise": "mobilenet_v2.conv_stem.conv_3x3", "block1.project": "mobilenet_v2.conv_stem.reduce_1x1"}
    for block in range(2, BLOCKS + 1):
        for key, part in (("expand", "expand_1x1"), ("depthwise", "conv_3x3"), ("project", "reduce_1x1")):
            names[f"block{block}.{key}"] = f"mobilenet_v2.layer.{block - 2}.{part}"
    names |= {"pooling": "segmentation_head.conv_pool", "branch0": "segmentation_head.conv_aspp"}
    names |= {"projection": "segmentation_head.conv_projection", "logits": "segmentation_head.classifier"}
    return _wrapped(names, "convolution", "normalization", bare=["classifier"])


def _mmdetection() -> dict[str, tuple[str, str]]:
    names = {"stem": "backbone.conv1", "last": "backbone.conv2"}
    for block, stage, place in _blocks():
        for key, part in (("expand", "expand_conv"), ("depthwise", "depthwise_conv"), ("project", "linear_conv")):
            names[f"block{block}.{key}"] = f"backbone.layer{stage + 1}.{place}.{part}"
    for number in range(len(EXTRAS)):
        for key, part in (("reduce", "0"), ("depthwise", "1.depthwise_conv"), ("expand", "1.pointwise_conv")):
            names[f"extra{number}.{key}"] = f"neck.extra_layers.{number}.{part}"
    last = {}
    for level in range(LEVELS):
        for key, part in (("box", "reg_convs"), ("class", "cls_convs")):
            names[f"{key}{level}.depthwise"] = f"bbox_head.{part}.{level}.0"
            last[f"{key}{level}"] = f"bbox_head.{part}.{level}.1"
    return _wrapped(names | last, "conv", "bn", bare=list(last))


def _tensorflow() -> dict[str, tuple[str, str]]:
    scopes = {"stem": "MobilenetV2/Conv", "last": "MobilenetV2/Conv_1", "classifier": "MobilenetV2/Logits/Conv2d_1c_1x1"}
    for block in range(1, BLOCKS + 1):
        scope = "MobilenetV2/expanded_conv" + (f"_{block - 1}" if block > 1 else "")
        scopes |= {f"block{block}.{part}": f"{scope}/{part}" for part in ("expand", "depthwise", "project")}
    for number, channels in enumerate(EXTRAS):
        scopes[f"extra{number}.reduce"] = f"MobilenetV2/layer_19_1_Conv2d_{number + 2}_1x1_{channels // 2}"
        scopes[f"extra{number}.depthwise"] = f"MobilenetV2/layer_19_2_Conv2d_{number + 2}_3x3_s2_{channels}_depthwise"
        scopes[f"extra{number}.expand"] = f"MobilenetV2/layer_19_2_Conv2d_{number + 2}_3x3_s2_{channels}"
    return {key: (scope, f"{scope}/BatchNorm") for key, scope in scopes.items()}


def _deeplab() -> dict[str, tuple[str, str]]:
    scopes = {"pooling": "image_pooling", "branch0": "aspp0", "projection": "concat_projection", "logits": "logits/semantic"}
    return {key: (scope, f"{scope}/BatchNorm") for key, scope in scopes.items()}


def _object_detection() -> dict[str, tuple[str, str]]:
    table = {key: (f"FeatureExtractor/{conv}", f"FeatureExtractor/{norm}") for key, (conv, norm) in _tensorflow().items()}
    for level in range(LEVELS):
        for key, part in (("box", "BoxEncodingPredictor"), ("class", "ClassPredictor")):
            for ending, suffix in ((".depthwise", "_depthwise"), ("", "")):
                scope = f"BoxPredictor_{level}/{part}{suffix}"
                table[f"{key}{level}{ending}"] = (scope, f"{scope}/BatchNorm")
    return table


def _keras(numbered: str = "block_{0}_{1}", norm: str = "block_{0}_{1}_BN", classifier: str = "predictions") -> dict[str, tuple[str, str]]:
    table = {"stem": ("Conv1", "bn_Conv1"), "last": ("Conv_1", "Conv_1_bn"), "classifier": (classifier, "")}
    for block in range(BLOCKS):
        for part in ("expand", "depthwise", "project"):
            names = (numbered.format(block, part), norm.format(block, part))
            table[f"block{block + 1}.{part}"] = (names[0].replace("block_0", "expanded_conv"), names[1].replace("block_0", "expanded_conv"))
    return table


_TF_NORM = ("/gamma", "/beta", "/moving_mean", "/moving_variance")
_TF_WEIGHTS = ("/weights", "/depthwise_weights")
_KERAS_WEIGHTS = ("/kernel", "/depthwise_kernel")

SCHEMES: tuple[Scheme, ...] = (
    Scheme("torchvision", _torchvision()),
    Scheme("timm", _timm()),
    Scheme("transformers", _transformers(), tensorflow=True),
    Scheme("mmdetection", _mmdetection()),
    Scheme("TensorFlow Object Detection API", _object_detection(), _TF_WEIGHTS, "/biases", _TF_NORM, True, True),
    Scheme("TensorFlow slim and research/deeplab", _tensorflow() | _deeplab(), _TF_WEIGHTS, "/biases", _TF_NORM, True, True),
    *(
        Scheme("Keras", table, _KERAS_WEIGHTS, "/bias", _TF_NORM, True, True)
        # The files that Keras downloads have the names of its first releases.
        for table in (_keras(), _keras(classifier="Logits"), _keras("mobl{0}_conv_{0}_{1}", "bn{0}_conv_{0}_bn_{1}", "Logits"))
    ),
)


def _keras_numbered(tensors: Mapping[str, object]) -> Scheme:
    """Keras's own numbering of nameless layers: the kinds of layer are counted apart, in the order of the network."""
    keys = body_keys()
    depthwise = [key for key in keys if key.endswith("depthwise")]
    others = [key for key in keys if not key.endswith("depthwise")]
    names = {
        **dict(zip(others, _numbered(tensors, "conv2d"), strict=False)),
        **dict(zip(depthwise, _numbered(tensors, "depthwise_conv2d"), strict=False)),
    }
    norms = dict(zip(keys, _numbered(tensors, "batch_normalization"), strict=False))
    table = {key: (names.get(key, key), norms.get(key, key)) for key in keys}
    dense = _numbered(tensors, "dense") or _numbered(tensors, "predictions")
    table |= {"classifier": (dense[-1], "")} if dense else {}
    return Scheme("Keras, numbered layers", table, _KERAS_WEIGHTS, "/bias", _TF_NORM, True, True)


def _numbered(tensors: Mapping[str, object], kind: str) -> list[str]:
    found = {match[1]: int(match[2] or 0) for name in tensors if (match := re.match(rf"(?:.*/)?({kind}(?:_(\d+))?)/", name))}
    return sorted(found, key=lambda name: found[name])
