"""How libraries name the convolutions of MobileNetV1: `stem`, `block1.depthwise`, `block1.pointwise`, ..., and `classifier`."""

from backbones.weights.names import HALVES, Scheme, keras, slim, wrapped

NETWORK = "mobilenet_v1"
BLOCKS = 13
# Blocks of each stage in timm (efficientnet.py, _gen_mobilenet_v1).
STAGES = (1, 2, 2, 6, 2)
BODY = ("stem", *(f"block{block}.{part}" for block in range(1, BLOCKS + 1) for part in ("depthwise", "pointwise")))


def _own() -> dict[str, tuple[str, str]]:
    table = {"stem": ("features.0.0", "features.0.1")}
    for block in range(1, BLOCKS + 1):
        for number, part in enumerate(("depthwise", "pointwise")):
            table[f"block{block}.{part}"] = (f"features.{block}.{number}.0", f"features.{block}.{number}.1")
    return table


def _timm() -> dict[str, tuple[str, str]]:
    table = {"stem": ("conv_stem", "bn1"), "classifier": ("classifier", "")}
    places = [(stage, place) for stage, count in enumerate(STAGES) for place in range(count)]
    for block, (stage, place) in enumerate(places, start=1):
        table[f"block{block}.depthwise"] = (f"blocks.{stage}.{place}.conv_dw", f"blocks.{stage}.{place}.bn1")
        table[f"block{block}.pointwise"] = (f"blocks.{stage}.{place}.conv_pw", f"blocks.{stage}.{place}.bn2")
    return table


def _transformers() -> dict[str, tuple[str, str]]:
    names = {key: f"mobilenet_v1.layer.{number}" for number, key in enumerate(BODY[1:])}
    names |= {"stem": "mobilenet_v1.conv_stem", "classifier": "classifier"}
    return wrapped(names, "convolution", "normalization", bare=["classifier"])


def _tensorflow() -> dict[str, tuple[str, str]]:
    scopes = {"stem": "MobilenetV1/Conv2d_0", "classifier": "MobilenetV1/Logits/Conv2d_1c_1x1"}
    for block in range(1, BLOCKS + 1):
        scopes |= {f"block{block}.{part}": f"MobilenetV1/Conv2d_{block}_{part}" for part in ("depthwise", "pointwise")}
    return {key: (scope, f"{scope}/BatchNorm") for key, scope in scopes.items()}


def _keras() -> dict[str, tuple[str, str]]:
    names = {"stem": "conv1", "classifier": "conv_preds"}
    for block in range(1, BLOCKS + 1):
        names |= {f"block{block}.depthwise": f"conv_dw_{block}", f"block{block}.pointwise": f"conv_pw_{block}"}
    return {key: (name, f"{name}_bn") for key, name in names.items()}


SCHEMES: tuple[Scheme, ...] = (
    Scheme("mobiletap", NETWORK, BODY, _own()),
    Scheme("timm", NETWORK, BODY, _timm(), expects=HALVES),
    Scheme("transformers", NETWORK, BODY, _transformers(), tensorflow=True, expects=HALVES),
    slim("TensorFlow slim", NETWORK, BODY, _tensorflow()),
    keras("Keras", NETWORK, BODY, _keras()),
)
