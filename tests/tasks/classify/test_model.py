"""The plain classifier: inputs, the middle of an image, prediction, and files that rebuild it."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from heads import ClassifierHead
from tasks.classify.model import Classifier, central_window
from tasks.segment.model import Segmenter

NAMES = ("cat", "dog", "owl")


def make(**options: Any) -> Classifier:
    head = partial(ClassifierHead, dropout=0.1)
    classifier = Classifier(MobileNetV2(["layer4"], width_mult=0.35), head, NAMES, **{"size": (24, 32), **options}).eval()
    torch.nn.init.normal_(classifier.head.linear.weight)
    return classifier


@torch.no_grad()
def test_uint8_and_float_images_agree() -> None:
    classifier, images = make(), torch.randint(256, (2, 3, 24, 40), dtype=torch.uint8)
    logits = classifier(images)
    assert logits.shape == (2, 3)
    assert torch.equal(logits, classifier(images.float() / 255))


@pytest.mark.parametrize(
    ("image_size", "size", "crop", "window"),
    [
        ((100, 100), (8, 8), 1.0, (0.0, 0.0, 1.0, 1.0)),
        ((100, 200), (8, 8), 1.0, (0.25, 0.0, 0.75, 1.0)),
        ((200, 100), (8, 8), 0.5, (0.25, 0.375, 0.75, 0.625)),
        ((100, 100), (8, 16), 1.0, (0.0, 0.25, 1.0, 0.75)),
        ((256, 256), (224, 224), 0.875, (0.0625, 0.0625, 0.9375, 0.9375)),
    ],
)
def test_middle_of_images(image_size: tuple[int, int], size: tuple[int, int], crop: float, window: tuple[float, ...]) -> None:
    assert central_window(image_size, size, crop) == pytest.approx(window)


def test_probabilities_of_files_and_pixels_agree(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    classifier = make().train()
    found = classifier.predict(tmp_path / "a.png")
    assert found.shape == (3,)
    assert found.sum().item() == pytest.approx(1)
    assert torch.equal(found, classifier.predict(pixels))
    assert not classifier.training


def test_only_the_middle_is_looked_at() -> None:
    classifier, pixels = make(crop=0.5), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    changed = pixels.copy()
    changed[:12], changed[:, :16], changed[36:], changed[:, 48:] = 0, 0, 0, 0
    assert torch.equal(classifier.predict(pixels), classifier.predict(changed))
    with torch.no_grad():
        expected = classifier(torch.from_numpy(pixels[12:36, 16:48]).permute(2, 0, 1)[None]).softmax(dim=1)[0]
    torch.testing.assert_close(classifier.predict(pixels), expected, rtol=1e-4, atol=1e-5)


def test_file_rebuilds_the_classifier(tmp_path: Path) -> None:
    classifier = make(crop=0.6, mean=(0.5, 0.5, 0.5))
    classifier.save(tmp_path / "model.pt")
    again = Classifier.from_checkpoint(tmp_path / "model.pt")
    assert (again.class_names, again.size, again.crop, again.head.dropout.p) == (NAMES, (24, 32), 0.6, 0.1)
    images = torch.rand(2, 3, 24, 32)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))


def test_file_of_another_task_is_one_sentence(tmp_path: Path) -> None:
    make().save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: holds no segmenter; accepted: a run's checkpoint, or a file of Segmenter\.save"):
        Segmenter.from_checkpoint(tmp_path / "model.pt")


def test_missing_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"^nowhere\.jpg: cannot be read as an image: no such file"):
        make().predict("nowhere.jpg")


@pytest.mark.parametrize("pixels", [np.zeros((0, 4, 3), "u1"), np.zeros((4, 4), "u1"), np.zeros((4, 4, 3), "f4"), 3, None])
def test_pixels_of_another_kind_are_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"accepted: a file, or \(H, W, 3\) uint8 RGB pixels"):
        make().predict(pixels)


def test_checkpoints_that_hold_nan_are_refused(tmp_path: Path) -> None:
    classifier = make()
    torch.nn.init.constant_(classifier.head.linear.bias, torch.nan)
    classifier.save(tmp_path / "lost.ckpt")
    for take in (Classifier.from_checkpoint, make().load_weights):
        with pytest.raises(ValueError, match=r"lost\.ckpt: its head\.linear\.bias holds NaN, as after a failed training"):
            take(tmp_path / "lost.ckpt")


def test_input_that_is_not_possible_is_refused() -> None:
    for options, said in (({"size": (0, 4)}, "size"), ({"mean": [0.5]}, "mean"), ({"std": (1, 0, 1)}, "std")):
        with pytest.raises(ValueError, match=rf"{said} \[.*\] is not possible; accepted: "):
            make(**options)
