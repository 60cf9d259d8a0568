"""The plain detector: inputs, prediction, and files that rebuild it."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from heads import SSD, AnchorRule, Detections, FocalLoss, SSDLite, Suppression
from tasks.checkpoint import load_checkpoint
from tasks.detect.model import Detector
from tasks.images import read_image, resize_image

NAMES = ("cat", "dog", "owl")


def make(head: Any = SSDLite, **options: Any) -> Detector:
    backbone = MobileNetV2(taps=("layer8_expand", "layer15_expand"), width_mult=0.35)
    return Detector(backbone, partial(head, extra_channels=(32, 32)), NAMES, (64, 96), **options).eval()


@pytest.fixture
def detector() -> Detector:
    return make()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(50, 120, 3), dtype=np.uint8)


def assert_equal(first: Detections, second: Detections) -> None:
    assert len(first.scores) > 0
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_uint8_and_float_images_agree(detector: Detector) -> None:
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    whole, shares = detector(images), detector(images.float() / 255)
    assert torch.equal(whole.class_logits, shares.class_logits)
    assert torch.equal(whole.box_deltas, shares.box_deltas)
    assert whole.input_size == (64, 96)


def test_mean_and_deviation_are_taken_out() -> None:
    plain, shifted = make(mean=(0, 0, 0), std=(1, 1, 1)), make(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2))
    shifted.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.5, 0.25, 2)))
    assert torch.allclose(shifted(images).class_logits, plain((images - mean) / std).class_logits, atol=1e-5)


def test_file_and_pixels_give_the_same_detections(detector: Detector, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    of_pixels = detector.predict(pixels)
    assert_equal(of_pixels, detector.predict(tmp_path / "a.png"))
    assert_equal(of_pixels, detector.predict(str(tmp_path / "a.png")))


def test_images_one_after_the_other_give_what_each_alone_gives(detector: Detector, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels[::2]).save(tmp_path / "half.png")
    images = [pixels, tmp_path / "half.png", str(tmp_path / "half.png"), pixels[:, ::-1]]
    for found, image in zip(detector.predict_each(images), images, strict=True):
        assert_equal(found, detector.predict(image))


def test_an_unreadable_image_among_others_is_named(detector: Detector, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^absent\.jpg: is one image; accepted: several, or predict for one$"):
        next(detector.predict_each("absent.jpg"))
    found = detector.predict_each([pixels, "absent.jpg", pixels])
    next(found)
    with pytest.raises(ValueError, match=r"^absent\.jpg: cannot be read as an image: no such file$"):
        next(found)


def test_boxes_are_in_pixels_of_the_original(detector: Detector, pixels: np.ndarray) -> None:
    found = detector.predict(pixels)
    resized = torch.from_numpy(resize_image(pixels, (64, 96))).permute(2, 0, 1)[None]
    inside = detector.detect(resized, torch.tensor([[64, 96]]))[0]
    assert torch.allclose(found.boxes, inside.boxes * torch.tensor([120 / 96, 50 / 64, 120 / 96, 50 / 64]), atol=1e-4)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([120, 50, 120, 50])).all()
    assert found.boxes[:, 2].max() > 100
    assert (found.scores.diff() <= 0).all()
    assert set(found.labels.tolist()) <= {1, 2, 3}


def test_file_is_turned_as_exif_says(detector: Detector, pixels: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (120, 50, 3)
    assert_equal(detector.predict(tmp_path / "turned.png"), detector.predict(np.rot90(pixels, -1)))


def test_unreadable_picture_is_named(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jpg: cannot be read as an image"):
        detector.predict(tmp_path / "absent.jpg")


def test_predicting_leaves_evaluation_mode_and_no_gradient(detector: Detector, pixels: np.ndarray) -> None:
    found = detector.train().predict(pixels)
    assert not detector.training
    assert not found.boxes.requires_grad
    assert_equal(found, detector.predict(pixels))


@pytest.mark.parametrize(
    "head",
    [
        SSDLite,
        SSD,
        partial(SSDLite, class_loss=FocalLoss(), suppression=Suppression(score_threshold=0.001, max_detections=7)),
        partial(SSDLite, anchors=AnchorRule(min_scale=0.1, reduce_first=False), bn_eps=1e-5),
        partial(SSDLite, anchors="torchvision"),
    ],
    ids=["ssdlite", "ssd", "focal", "anchors", "preset"],
)
def test_saved_detector_is_rebuilt(head: Any, pixels: np.ndarray, tmp_path: Path) -> None:
    saved = make(head, mean=(0.5, 0.5, 0.4), std=(0.2, 0.2, 0.3))
    saved.save(tmp_path / "detector.pt")
    rebuilt = Detector.from_checkpoint(tmp_path / "detector.pt")
    assert_equal(rebuilt.predict(pixels), saved.predict(pixels))
    assert rebuilt.describe() == saved.describe()
    assert (rebuilt.class_names, rebuilt.size, rebuilt.training) == (NAMES, (64, 96), False)
    assert type(rebuilt.head) is type(saved.head)


def test_description_holds_names_size_and_parts(detector: Detector) -> None:
    described = detector.describe()
    assert described["class_names"] == ["cat", "dog", "owl"]
    assert described["size"] == [64, 96]
    assert described["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert described["backbone"]["class_path"] == "backbones.mobilenet_v2.MobileNetV2"
    assert described["backbone"]["init_args"]["width_mult"] == 0.35
    assert described["head"]["init_args"]["extra_channels"] == [32, 32]
    assert {"taps", "num_classes"}.isdisjoint(described["head"]["init_args"])


def test_checkpoint_of_a_training_run_is_read(detector: Detector, pixels: np.ndarray, tmp_path: Path) -> None:
    weights = {f"model.{name}": value for name, value in detector.state_dict().items()}
    torch.save({"detector": detector.describe(), "state_dict": weights, "epoch": 3, "optimizer_states": [{}]}, tmp_path / "run.ckpt")
    assert_equal(Detector.from_checkpoint(tmp_path / "run.ckpt").predict(pixels), detector.predict(pixels))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(detector: Detector, tmp_path: Path) -> None:
    torch.save({"detector": detector.describe(), "state_dict": {}, "extra": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    for name in ("bomb.pt", "bomb.pkl"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a checkpoint of tensors and plain values"):
            Detector.from_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "torch.nn.Linear", "heads.SSDLite", "absent.Module", "Nothing"])
def test_description_that_names_no_backbone_is_refused(detector: Detector, tmp_path: Path, path: str) -> None:
    described = detector.describe() | {"backbone": {"class_path": path, "init_args": {}}}
    torch.save({"detector": described, "state_dict": {}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=path):
        Detector.from_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file_is_named(detector: Detector, tmp_path: Path, share: float) -> None:
    detector.save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.pt: cannot be read as a checkpoint .* is it damaged"):
        Detector.from_checkpoint(tmp_path / "cut.pt")


def test_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.ckpt", tmp_path):
        with pytest.raises(ValueError, match="no such checkpoint"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "holds no detector"),
        ({"weight": torch.ones(1)}, "holds no detector"),
        ([1, 2], "holds a list, not a checkpoint"),
        (torch.ones(2), "holds a Tensor, not a checkpoint"),
    ],
)
def test_file_of_something_else_is_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt: {message}"):
        Detector.from_checkpoint(tmp_path / "other.pt")


def test_weights_of_another_architecture_are_named(detector: Detector, tmp_path: Path) -> None:
    for name, weights in (("empty.pt", {}), ("other.pt", make(SSD).state_dict())):
        torch.save({"detector": detector.describe(), "state_dict": weights}, tmp_path / name)
        with pytest.raises(ValueError, match=name):
            Detector.from_checkpoint(tmp_path / name)


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_normalised_alike_in_any_order_of_memory(detector: Detector, size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected = (images.float() / 255 - detector.mean) / detector.std
    assert torch.equal(detector.normalise(images), expected)
    assert torch.equal(detector.normalise(turned), expected)
    assert torch.equal(images, turned)  # left as they are


def test_model_in_float64_normalises_to_it(detector: Detector) -> None:
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    detector = detector.double()
    expected = detector.normalise(images)
    assert expected.dtype == torch.float64
    assert torch.equal(detector.normalise(images.contiguous(memory_format=torch.channels_last)), expected)
