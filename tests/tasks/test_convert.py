"""Published weights of others: networks that give what the originals give."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    MobileNetV1Config,
    MobileNetV1ForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2ForSemanticSegmentation,
)

from backbones import MobileNetV1, MobileNetV2
from heads import ClassifierHead, DeepLabV3, SigmoidLoss, SSDLite
from tasks.classify.model import Classifier
from tasks.convert import convert
from tasks.detect.model import Detector
from tasks.labels import COCO_IDS, VOC_MASK_CLASSES, coco_classes, imagenet_classes
from tasks.segment.model import Segmenter
from tests.tasks.foreign import (
    MMDetSSDLite,
    assert_equal,
    channels_last,
    converted,
    named_by,
    of_imagenet,
    of_tensorflow,
    pixels,
    randomise,
    scheme_of,
)

# Even and odd sides, of which TensorFlow pads some on one side only.
SIZES = [(96, 64), (97, 65)]
TF_SETTINGS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def check_classifier(model: Classifier, expected: Callable[[Tensor], Tensor], names: tuple[str, ...], sizes: Any = SIZES) -> None:
    for size in sizes:
        images = pixels(*size)
        assert_equal(model(images), expected(images))
    assert (model.class_names, model.size) == (names, (224, 224))


@pytest.mark.parametrize(("width", "ending"), [(1.0, ".pth"), (0.35, ".safetensors"), (1.4, ".pt")])
@torch.no_grad()
def test_torchvision(width: float, ending: str, tmp_path: Path) -> None:
    theirs = randomise(torchvision.models.mobilenet_v2(width_mult=width))
    file = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file(theirs.state_dict(), file)
    else:
        torch.save(theirs.state_dict(), file)
    names = torchvision.models.MobileNet_V2_Weights.DEFAULT.meta["categories"]
    check_classifier(converted(file, Classifier), lambda images: theirs(of_imagenet(images)), tuple(names))


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv2_035", "mobilenetv2_140"])
@torch.no_grad()
def test_timm(name: str, tmp_path: Path) -> None:
    theirs = randomise(timm.create_model(name, num_classes=3))
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, tmp_path / "timm.pth")
    model = converted(tmp_path / "timm.pth", Classifier)
    check_classifier(model, lambda images: theirs(of_imagenet(images)), ("class_0", "class_1", "class_2"))


@torch.no_grad()
def test_timm_mobilenet_v1(tmp_path: Path) -> None:
    theirs = randomise(timm.create_model("mobilenetv1_100", num_classes=3))
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    model = converted(tmp_path / "timm.safetensors", Classifier)
    # Unlike timm's MobileNetV2, its weights of MobileNetV1 take images in -1..1.
    check_classifier(model, lambda images: theirs(of_tensorflow(images)), ("class_0", "class_1", "class_2"))
    assert isinstance(model.backbone, MobileNetV1)


@pytest.mark.parametrize(("width", "classes"), [(1.0, 1001), (0.25, 5)])
@torch.no_grad()
def test_transformers_mobilenet_v1(width: float, classes: int, tmp_path: Path) -> None:
    theirs = randomise(MobileNetV1ForImageClassification(MobileNetV1Config(depth_multiplier=width, num_labels=classes)))
    theirs.save_pretrained(tmp_path)
    names = imagenet_classes(classes) or tuple(f"class_{number}" for number in range(classes))
    model = converted(tmp_path / "model.safetensors", Classifier)
    check_classifier(model, lambda images: theirs(of_tensorflow(images)).logits, names)


@pytest.mark.parametrize("scheme", ["Keras", "TensorFlow slim"])
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "separate"])
@torch.no_grad()
def test_names_of_mobilenet_v1(scheme: str, folded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = MobileNetV1(width_mult=0.5, padding="same", bn_eps=1e-3)
    original = randomise(Classifier(backbone, ClassifierHead, ["a", "b"], **TF_SETTINGS))
    arrays = named_by(scheme_of(scheme, "mobilenet_v1"), original, folded)
    np.savez(tmp_path / "v1.npz", **(arrays if folded else channels_last(arrays)))
    check_classifier(converted(tmp_path / "v1.npz", Classifier), original, ("class_0", "class_1"))
    assert f"{len(arrays)} tensors used, 0 not, 0 missing; the names are those of {scheme}" in capsys.readouterr().out


@pytest.mark.parametrize(("width", "classes"), [(1.0, 1001), (0.35, 1001), (1.4, 5)])
@torch.no_grad()
def test_transformers_classifier(width: float, classes: int, tmp_path: Path) -> None:
    config = MobileNetV2Config(depth_multiplier=width, num_labels=classes)
    theirs = randomise(MobileNetV2ForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    names = imagenet_classes(classes) or tuple(f"class_{number}" for number in range(classes))
    model = converted(tmp_path / "model.safetensors", Classifier)
    check_classifier(model, lambda images: theirs(of_tensorflow(images)).logits, names)


@pytest.mark.parametrize(("width", "classes"), [(1.0, 21), (0.5, 3)])
@torch.no_grad()
def test_transformers_segmenter(width: float, classes: int, tmp_path: Path) -> None:
    config = MobileNetV2Config(depth_multiplier=width, num_labels=classes, output_stride=16)
    theirs = randomise(MobileNetV2ForSemanticSegmentation(config))
    theirs.save_pretrained(tmp_path)
    model = converted(tmp_path / "model.safetensors", Segmenter)
    for size in SIZES:
        images = pixels(*size)
        cells = model.head(model.backbone(model.normalise(images)), size)
        assert_equal(cells, theirs(of_tensorflow(images)).logits)
    assert model.class_names == (VOC_MASK_CLASSES if classes == 21 else ("class_0", "class_1", "class_2"))
    assert model.size == (513, 513)
    assert model.head.align_corners


@pytest.mark.parametrize(("classes", "size"), [(80, (320, 320)), (3, (97, 160))])
@torch.no_grad()
def test_mmdetection(classes: int, size: tuple[int, int], tmp_path: Path) -> None:
    theirs = randomise(MMDetSSDLite(classes))
    meta = {"CLASSES": ("a", "b"), "config": "model = dict()", "epoch": 600}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, tmp_path / "ssdlite.pth")
    model = converted(tmp_path / "ssdlite.pth", Detector)
    images = pixels(*size)
    scores, deltas = theirs(of_imagenet(images))
    found = model(images)
    assert_equal(found.class_logits, scores[..., [classes, *range(classes)]])
    assert_equal(found.box_deltas, deltas)
    assert model.size == (320, 320)
    assert model.class_names == (coco_classes() if classes == 80 else ("class_1", "class_2", "class_3"))


def segmenter() -> Segmenter:
    """DeepLab's network as TensorFlow has it."""
    backbone = MobileNetV2(["layer18"], output_stride=16, padding="same", bn_eps=1e-3)
    head = partial(DeepLabV3, padding="same", align_corners=True)
    return randomise(Segmenter(backbone, head, VOC_MASK_CLASSES, **TF_SETTINGS))


def detector(classes: int) -> Detector:
    """SSDLite as TensorFlow has it."""
    backbone = MobileNetV2(padding="same", bn_eps=1e-3)
    head = partial(SSDLite, padding="same", class_loss=SigmoidLoss())
    return randomise(Detector(backbone, head, [f"class_{k}" for k in range(1, classes + 1)], (300, 300), **TF_SETTINGS))


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "separate"])
@torch.no_grad()
def test_deeplab(folded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = segmenter()
    arrays = named_by(scheme_of("TensorFlow slim"), original, folded)
    np.savez(tmp_path / "deeplab.npz", **(arrays if folded else channels_last(arrays)))
    model = converted(tmp_path / "deeplab.npz", Segmenter)
    assert f"{len(arrays)} tensors used, 0 not, 0 missing;" in capsys.readouterr().out
    images = pixels(65, 97)
    assert_equal(model(images), original(images))
    assert (model.class_names, model.size) == (VOC_MASK_CLASSES, (513, 513))


def as_published(arrays: dict[str, np.ndarray], columns: int) -> dict[str, np.ndarray]:
    """Box rows as y x h w, and 91 columns of classes, of which those without a class of COCO are noise."""
    found = dict(arrays)
    for name, value in arrays.items():
        if "/BoxEncodingPredictor/" in name:
            found[name] = value.reshape(-1, 4, *value.shape[1:])[:, [1, 0, 3, 2]].reshape(value.shape)
        elif "/ClassPredictor/" in name:
            own = value.reshape(-1, 81, *value.shape[1:])
            rows = np.random.default_rng(0).normal(size=(len(own), columns, *value.shape[1:])).astype(np.float32)
            rows[:, [0, *COCO_IDS]] = own
            found[name] = rows.reshape(-1, *value.shape[1:])
    return found


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "separate"])
@torch.no_grad()
def test_object_detection(folded: bool, tmp_path: Path) -> None:
    original = detector(80)
    arrays = as_published(named_by(scheme_of("TensorFlow Object"), original, folded), 91)
    np.savez(tmp_path / "ssdlite.npz", **(arrays if folded else channels_last(arrays)))
    model = converted(tmp_path / "ssdlite.npz", Detector)
    images = pixels(300, 300)
    found, expected = model(images), original(images)
    assert_equal(found.class_logits, expected.class_logits)
    assert_equal(found.box_deltas, expected.box_deltas)
    assert torch.equal(found.anchors, expected.anchors)
    assert (model.class_names, model.size) == (coco_classes(), (300, 300))
    assert isinstance(model.head.class_loss, SigmoidLoss)


@pytest.mark.parametrize(("width", "norms"), [(1.0, True), (0.35, True), (1.0, False)], ids=["1", "0.35", "without scales"])
@torch.no_grad()
def test_keras_names(width: float, norms: bool, tmp_path: Path) -> None:
    backbone = MobileNetV2(["layer19"], width, padding="same", bn_eps=1e-3)
    original = randomise(Classifier(backbone, ClassifierHead, ["a", "b"], **TF_SETTINGS))
    arrays = channels_last(named_by(scheme_of("Keras"), original))
    if not norms:  # Keras's scale=False
        arrays = {name: np.ones_like(value) if name.endswith("/gamma") else value for name, value in arrays.items()}
        for layer in original.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.fill_(1)
        arrays = {name: value for name, value in arrays.items() if not name.endswith("/gamma")}
    doubled = {f"{name.split('/')[0]}|{name.replace('/', '|')}:0": value for name, value in arrays.items()}
    np.savez(tmp_path / "keras.npz", **doubled)
    check_classifier(converted(tmp_path / "keras.npz", Classifier), original, ("class_0", "class_1"))


# Layers as the file mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5 has them, and as the code that came with it.
FIRST_RELEASES = [
    (r"^expanded_conv_(.*)_BN/", r"bn0_conv_0_bn_\1/"),
    (r"^block_(\d+)_(.*)_BN/", r"bn\1_conv_\1_bn_\2/"),
    (r"^expanded_conv_", "mobl0_conv_0_"),
    (r"^block_(\d+)_", r"mobl\1_conv_\1_"),
    ("^predictions/", "Logits/"),
]


@pytest.mark.parametrize("renames", [FIRST_RELEASES, FIRST_RELEASES[-1:]], ids=["weights", "code"])
@torch.no_grad()
def test_names_of_keras_first_releases(renames: list[tuple[str, str]], tmp_path: Path) -> None:
    backbone = MobileNetV2(["layer19"], 0.35, padding="same", bn_eps=1e-3)
    original = randomise(Classifier(backbone, ClassifierHead, ["a", "b"], **TF_SETTINGS))
    arrays = {}
    for name, value in channels_last(named_by(scheme_of("Keras"), original)).items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        arrays[f"{name.split('/')[0]}/{name}:0"] = value
    assert ("mobl0_conv_0_project/mobl0_conv_0_project/kernel:0" in arrays) == (len(renames) > 1)
    assert "Logits/Logits/bias:0" in arrays
    np.savez(tmp_path / "keras.npz", **arrays)
    check_classifier(converted(tmp_path / "keras.npz", Classifier), original, ("class_0", "class_1"))


@torch.no_grad()
def test_converting_again_changes_nothing(tmp_path: Path) -> None:
    torch.save(torchvision.models.mobilenet_v2(width_mult=0.35).state_dict(), tmp_path / "a.pth")
    convert(str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors"))
    convert(str(tmp_path / "a.pth"), str(tmp_path / "new/folder/b.ckpt"))
    first, second = (Classifier.from_checkpoint(tmp_path / name) for name in ("b.safetensors", "new/folder/b.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert first.describe() == second.describe()
