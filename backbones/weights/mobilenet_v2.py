"""How other libraries name the convolutions of MobileNetV2 and of the networks published with it.

Every convolution has a key: `stem`, `block1.depthwise`, `block1.project`, `block2.expand`, ..., `last` in the body; `classifier`;
`pooling`, `branch0`, `projection`, `logits` of DeepLabv3; `extra0.reduce`, `extra0.depthwise`, `extra0.expand`, `box0.depthwise`, `box0`,
`class0.depthwise`, `class0`, ... of SSDLite. A scheme says for a key how the convolution and its batch norm are called.
"""

from backbones.weights.names import HALVES, IMAGENET, Scheme, keras, slim, wrapped

NETWORK = "mobilenet_v2"
BLOCKS = 17
# Repeats of the paper's table 2.
REPEATS = (1, 2, 3, 4, 3, 3, 1)
# Extra layers of SSDLite by their channels, and its levels.
EXTRAS, LEVELS = (512, 256, 256, 128), 6


def _body() -> list[str]:
    """The keys of the body's convolutions, in order."""
    parts = [f"block{block}.{part}" for block in range(1, BLOCKS + 1) for part in ("expand", "depthwise", "project")]
    return ["stem", *parts[1:], "last"]


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


def _transformers() -> dict[str, tuple[str, str]]:
    names = {"stem": "mobilenet_v2.conv_stem.first_conv", "last": "mobilenet_v2.conv_1x1", "classifier": "classifier"}
    names |= {"block1.depthwise": "mobilenet_v2.conv_stem.conv_3x3", "block1.project": "mobilenet_v2.conv_stem.reduce_1x1"}
    for block in range(2, BLOCKS + 1):
        for key, part in (("expand", "expand_1x1"), ("depthwise", "conv_3x3"), ("project", "reduce_1x1")):
            names[f"block{block}.{key}"] = f"mobilenet_v2.layer.{block - 2}.{part}"
    names |= {"pooling": "segmentation_head.conv_pool", "branch0": "segmentation_head.conv_aspp"}
    names |= {"projection": "segmentation_head.conv_projection", "logits": "segmentation_head.classifier"}
    return wrapped(names, "convolution", "normalization", bare=["classifier"])


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
    return wrapped(names | last, "conv", "bn", bare=list(last))


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


BODY = tuple(_body())
SCHEMES: tuple[Scheme, ...] = (
    Scheme("torchvision", NETWORK, BODY, _torchvision()),
    Scheme("timm", NETWORK, BODY, _timm(), expects=IMAGENET),
    Scheme("transformers", NETWORK, BODY, _transformers(), tensorflow=True, expects=HALVES),
    Scheme("mmdetection", NETWORK, BODY, _mmdetection(), expects=IMAGENET),
    slim("TensorFlow Object Detection API", NETWORK, BODY, _object_detection()),
    slim("TensorFlow slim and research/deeplab", NETWORK, BODY, _tensorflow() | _deeplab()),
    # The files that Keras downloads have the names of its first releases.
    *(
        keras("Keras", NETWORK, BODY, table)
        for table in (_keras(), _keras(classifier="Logits"), _keras("mobl{0}_conv_{0}_{1}", "bn{0}_conv_{0}_bn_{1}", "Logits"))
    ),
)
