"""`python -m tasks.convert`: published weights of others to files that `validate`, `test` and `predict` take."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jsonargparse import auto_cli
from torch import Tensor

from backbones import Backbone, MobileNetV1, MobileNetV2, Preprocessing, mobilenet_v1, mobilenet_v2
from backbones.weights import HALVES, IMAGENET, SCHEMES, Scheme, fill, read_tensors, recognise, translate
from heads import ClassifierHead, DeepLabV3, SigmoidLoss, SoftmaxLoss, SSDLite, Suppression
from tasks.command import run_command
from tasks.labels import COCO_IDS, COCO_NAMES_OF_VOC, VOC_MASK_CLASSES, coco_classes, imagenet_classes
from tasks.model import TaskModel

# Width multipliers that were published, then all others in steps of .05.
WIDTHS = (1.0, 0.35, 0.5, 0.75, 1.3, 1.4, *(step / 20 for step in range(2, 41)))
# Batch-norm epsilon of TensorFlow's networks.
TF_EPS = 1e-3
# ImageNet's classes and a background, as TensorFlow's slim counts them.
TF_CLASSES = 1001

HEAD_KEYS = {
    "classifier": ("classifier",),
    "logits": ("pooling", "branch0", "projection", "logits"),
    "class0": (
        *(f"extra{number}.{part}" for number in range(4) for part in ("reduce", "depthwise", "expand")),
        *(f"{kind}{level}{part}" for kind in ("box", "class") for level in range(6) for part in (".depthwise", "")),
    ),
}


class Foreign(NamedTuple):
    """A file of foreign weights: where it lies, its tensors, and how they are named."""

    source: str
    tensors: Mapping[str, Tensor]
    scheme: Scheme

    def channels(self, key: str) -> int | None:
        """Output channels of a convolution, None where the file has neither a bias nor a batch norm for it."""
        names = self.scheme.names(key, self.scheme.prefix(self.tensors) or "", self.tensors)
        found = [self.tensors[name] for name in (names.bias, names.norm[1]) if name in self.tensors] if names else []
        return len(found[0]) if found and found[0].dim() == 1 else None


class Body(NamedTuple):
    """A backbone that published networks have: its class, the channels of its layers by width, and the last convolution of each layer."""

    build: type[MobileNetV1] | type[MobileNetV2]
    channels: Callable[[float], list[int]]
    layers: Sequence[str]


BODIES: Mapping[str, Body] = {
    "mobilenet_v2": Body(MobileNetV2, mobilenet_v2.layer_channels, ["stem", *(f"block{block}.project" for block in range(1, 18)), "last"]),
    "mobilenet_v1": Body(MobileNetV1, mobilenet_v1.layer_channels, ["stem", *(f"block{block}.pointwise" for block in range(1, 14))]),
}


class Network(NamedTuple):
    """Our network for a file, and the rows of its convolutions where the file has them in another order (see `translate`)."""

    model: TaskModel
    head: str
    rows: Mapping[str, Sequence[int]]


def convert(
    source: str,
    output: str,
    class_names: str | None = None,
    size: tuple[int, int] | None = None,
    tensorflow: bool | None = None,
    allow_partial: bool = False,
    verbose: bool = False,
) -> None:
    """Converts published weights to a file that holds its architecture, preprocessing and class names.

    The kind of file and the names in it are recognised: classifiers of MobileNetV2 and MobileNetV1 of torchvision, timm, transformers,
    Keras and TensorFlow's slim; Mobile DeepLabv3 of research/deeplab and transformers; SSDLite of TensorFlow's Object Detection API and
    mmdetection; with batch norms or with these folded. No code from the file is run.

    Args:
        source: .pth, .safetensors, .npz, Keras .h5 or .keras, .tflite, or the path of a TensorFlow checkpoint (`model.ckpt`).
        output: the file to write, for `--ckpt_path` of `validate`, `test` and `predict`; .safetensors, or .ckpt in torch's format.
        class_names: a text file of one class name a line, if not ImageNet's, COCO's or VOC's.
        size: height and width of the network's input in pixels, if not 224 (classifiers), 300 (SSDLite of TensorFlow), 320 (of
            mmdetection) or 513 (DeepLabv3).
        tensorflow: whether the network was trained in TensorFlow (SAME padding, images in -1..1), whatever its names; by default told by
            the names, and by 1001 classes, of which the first is the background.
        allow_partial: go on where tensors are missing or have another shape, and leave those as initialised.
        verbose: name the used tensors too.

    Raises:
        ValueError: the file cannot be read, its names are of no known kind, or (unless `allow_partial`) a tensor is missing or has
            another shape.
    """
    tensors = read_tensors(source)
    scheme = recognise(tensors)
    if scheme is None:
        known = ", ".join(dict.fromkeys(scheme.name for scheme in SCHEMES))
        raise ValueError(f"{source}: its {len(tensors)} tensors are of no MobileNet under any known names; accepted: those of {known}")
    if tensorflow is None:
        tensorflow = scheme.tensorflow or Foreign(source, tensors, scheme).channels("classifier") == TF_CLASSES
    scheme = replace(scheme, tensorflow=tensorflow, expects=HALVES if tensorflow else scheme.expects)
    network = build(Foreign(source, tensors, scheme), _read_names(class_names), size)
    parts = [("backbone.", network.model.backbone, scheme.body), ("head.", network.model.head, HEAD_KEYS[network.head])]
    found = translate(parts, tensors, scheme, network.rows)
    wanted = network.model.state_dict()
    misfits = [name for name, value in found.tensors.items() if value.shape != wanted[name].shape]
    problems = [f"has no tensor {name}" for name in found.missing]
    problems += [
        f"{found.origins[name]} has shape {tuple(found.tensors[name].shape)}; wanted {tuple(wanted[name].shape)}" for name in misfits
    ]
    if problems and not allow_partial:
        more = f" (and {len(problems) - 1} more; --allow_partial true leaves these as initialised)" if len(problems) > 1 else ""
        raise ValueError(f"{source}: {problems[0]}{more}")
    fill(network.model, {name: value for name, value in found.tensors.items() if name not in misfits}, source, strict=not problems)
    network.model.save(output)
    refused = {found.origins[name] for name in misfits}
    used = [name for name in found.used if name not in refused]
    _report(scheme, used, [*found.unused, *refused], problems, verbose)
    print(f"{network.model.kind} of {len(network.model.class_names)} classes written to {output}")


def build(file: Foreign, class_names: Sequence[str] | None, size: tuple[int, int] | None) -> Network:
    """Builds the network that a file is of, with new weights.

    Raises:
        ValueError: the file has no head that we know, its channels are of no width multiplier, or the number of class names is wrong.
    """
    makers = {"class0": _detector, "logits": _segmenter, "classifier": _classifier}
    for key, maker in makers.items():
        if (outputs := file.channels(key)) is not None:
            return maker(file, outputs, class_names, size)
    raise ValueError(
        f"{file.source}: has the names of {file.scheme.name}, but no head of a classifier, SSDLite or DeepLabv3; "
        "a backbone alone is used as it is, by --model.backbone.weights"
    )


def _detector(file: Foreign, outputs: int, class_names: Sequence[str] | None, size: tuple[int, int] | None) -> Network:
    from tasks.detect.model import Detector

    anchors, own_size = ((3, 6, 6, 6, 6, 6), 300) if file.scheme.tensorflow else ((6,) * 6, 320)
    columns = outputs // anchors[0]
    if file.scheme.tensorflow:
        known: Mapping[int, Sequence[str]] = {91: coco_classes(), 81: coco_classes(), 21: COCO_NAMES_OF_VOC}
        kept = [0, *COCO_IDS] if columns == 91 else list(range(columns))  # COCO's ids have gaps
        box = [1, 0, 3, 2]  # y x h w
        head = partial(SSDLite, padding="same", class_loss=SigmoidLoss(), suppression=Suppression(score_threshold=1e-8))
        taps = ["layer15_expand", "layer19"]
    else:
        known, kept, box = {81: coco_classes()}, [columns - 1, *range(columns - 1)], [0, 1, 2, 3]  # the background is last
        head = partial(SSDLite, class_loss=SoftmaxLoss(), anchors="mmdet", suppression=Suppression(0.02, 0.45, 200, 200))
        taps = ["layer14", "layer19"]
    names = class_names or known.get(columns) or [f"class_{number}" for number in range(1, len(kept))]
    rows = {f"class{level}": _repeat(kept, columns, count) for level, count in enumerate(anchors)}
    rows |= {f"box{level}": _repeat(box, 4, count) for level, count in enumerate(anchors)}
    backbone = _backbone(file, taps, 32, eps=1e-3)
    _check_names(file, names, len(kept) - 1)
    return Network(Detector(backbone, head, names, size or (own_size, own_size), *_colours(file)), "class0", rows)


def _segmenter(file: Foreign, outputs: int, class_names: Sequence[str] | None, size: tuple[int, int] | None) -> Network:
    from tasks.segment.model import Segmenter

    names = class_names or (VOC_MASK_CLASSES if outputs == len(VOC_MASK_CLASSES) else _numbered(outputs))
    _check_names(file, names, outputs)
    head = partial(DeepLabV3, padding="same", align_corners=True)
    return Network(Segmenter(_backbone(file, ["layer18"], 16), head, names, size or (513, 513), *_colours(file)), "logits", {})


def _classifier(file: Foreign, outputs: int, class_names: Sequence[str] | None, size: tuple[int, int] | None) -> Network:
    from tasks.classify.model import CROP, Classifier

    names = class_names or imagenet_classes(outputs) or _numbered(outputs)
    _check_names(file, names, outputs)
    backbone = _backbone(file, None, 32)
    crop = 1.0 if file.scheme.tensorflow else CROP  # TensorFlow Lite's label_image looks at the whole image
    classifier = Classifier(backbone, ClassifierHead, names, size or (224, 224), *_colours(file), crop)
    return Network(classifier, "classifier", {})


def _backbone(file: Foreign, taps: Sequence[str] | None, output_stride: int, eps: float = 1e-5) -> Backbone:
    """The body of the file's width, with the settings of the file's library."""
    body = BODIES[file.scheme.network]
    channels = {place: count for place, key in enumerate(body.layers) if (count := file.channels(key)) is not None}
    for width in WIDTHS:
        own = body.channels(width)
        if all(own[place] == count for place, count in channels.items()):
            if file.scheme.tensorflow:
                return body.build(taps, width, output_stride, "same", TF_EPS)
            return body.build(taps, width, output_stride, bn_eps=eps)
    known = f"those of no width multiplier of {body.build.__name__}"
    raise ValueError(f"{file.source}: the layers' channels {list(channels.values())} are {known}")


def _colours(file: Foreign) -> Preprocessing:
    return file.scheme.expects or IMAGENET


def _repeat(order: Sequence[int], columns: int, anchors: int) -> list[int]:
    """The order of all anchors' rows, from that of one anchor's."""
    return [anchor * columns + row for anchor in range(anchors) for row in order]


def _numbered(count: int) -> list[str]:
    return [f"class_{number}" for number in range(count)]


def _check_names(file: Foreign, names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise ValueError(f"{file.source}: has {count} classes, but {len(names)} class names were given")


def _read_names(path: str | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a text file of class names: {error}") from error


def _report(scheme: Scheme, used: Sequence[str], unused: Sequence[str], problems: Sequence[str], verbose: bool) -> None:
    print(f"{len(used)} tensors used, {len(unused)} not, {len(problems)} missing; the names are those of {scheme.name}")
    for title, names in (("used", used if verbose else []), ("not used", unused), ("left as initialised", problems)):
        if names:
            print(f"{title}: {', '.join(names)}")


if __name__ == "__main__":
    run_command(lambda: auto_cli(convert, prog="python -m tasks.convert"))
