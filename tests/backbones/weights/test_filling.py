"""Filling backbones with weights: what is accepted, what is refused, what is said."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from backbones import MobileNetV1, MobileNetV2, NASNetA, Preprocessing, ShuffleNetV1
from backbones.weights import read_tensors, recognise
from tasks.classify.model import Classifier
from tasks.convert import convert
from tests.tasks.foreign import MMDetSSDLite, channels_last, named_by, randomise, scheme_of

TAPS = ["layer3"]


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {name: torch.rand_like(t) if t.is_floating_point() else t + 7 for name, t in MobileNetV2(TAPS).state_dict().items()}


def assert_loaded(backbone: MobileNetV2, tensors: dict[str, Tensor]) -> None:
    assert [name for name, t in backbone.state_dict().items() if not torch.equal(t, tensors[name])] == []


def test_safetensors(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "weights.safetensors")
    assert_loaded(MobileNetV2(TAPS, weights=str(tmp_path / "weights.safetensors")), tensors)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t, "epoch": 3}])
def test_torch_file(tmp_path: Path, tensors: dict[str, Tensor], wrap: Any) -> None:
    torch.save(wrap(tensors), tmp_path / "weights.pth")
    assert_loaded(MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth")), tensors)


def test_old_files_without_batch_counts_fit(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    kept = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "weights.pth")
    backbone = MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"))
    assert torch.equal(backbone.state_dict()["features.2.conv.3.running_var"], kept["features.2.conv.3.running_var"])


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.pth: no such weights file"):
        MobileNetV2(TAPS, weights=str(tmp_path / "nowhere.pth"))


def test_strict_refuses_what_is_missing_or_of_another_shape(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors["features.2.conv.3.bias"]
    tensors["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"2 of .* tensors do not fit") as refusal:
        MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"))
    assert "features.2.conv.3.bias (missing, wanted 24)" in str(refusal.value)
    assert "features.0.0.weight (16x3x3x3, wanted 32x3x3x3)" in str(refusal.value)


def test_non_strict_names_what_it_left_out(tmp_path: Path, tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    tensors["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    tensors["classifier.1.weight"] = torch.zeros(10, 24)
    torch.save(tensors, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        backbone = MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"), strict_weights=False)
    assert torch.equal(backbone.state_dict()["features.2.conv.3.bias"], tensors["features.2.conv.3.bias"])
    assert "features.0.0.weight (16x3x3x3, wanted 32x3x3x3)" in caplog.text
    assert "not used: features.0.0.weight, classifier.1.weight" in caplog.text


def test_non_strict_initialises_the_rest_as_without_weights(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors["features.2.conv.2.weight"]
    torch.save(tensors, tmp_path / "weights.pth")
    torch.manual_seed(3)
    fresh = MobileNetV2(TAPS)
    torch.manual_seed(3)
    loaded = MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"), strict_weights=False)
    assert torch.equal(loaded.state_dict()["features.2.conv.2.weight"], fresh.state_dict()["features.2.conv.2.weight"])


def test_a_file_in_which_nothing_fits_is_refused_though_not_strict(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="do not fit"):
        MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"), strict_weights=False)


def test_unused_weights_of_later_layers_are_named(tmp_path: Path, tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    torch.save(tensors, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        backbone = MobileNetV2(["layer3_expand"], weights=str(tmp_path / "weights.pth"))
    assert_loaded(backbone, tensors)
    assert "not used: features.2.conv.1.0.weight" in caplog.text


def test_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    published = torchvision.models.mobilenet_v2().state_dict()
    monkeypatch.setattr(torchvision.models.MobileNet_V2_Weights, "get_state_dict", lambda self, **kwargs: published)
    assert_loaded(MobileNetV2(TAPS, weights="imagenet"), published)


def test_published_weights_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(ValueError, match=r"weights 'imagenet': https://.*no route to host.*give the path of a local file"):
        MobileNetV2(TAPS, weights="imagenet")


def test_published_weights_of_mobilenet_v1_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, pretrained: bool) -> None:
        assert (name, pretrained) == ("mobilenetv1_100.ra4_e3600_r224_in1k", True)
        raise OSError("no route to host\nRetrying")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(ValueError, match=r"^weights 'imagenet': https://huggingface.* \(no route to host\); give the path of a local file"):
        MobileNetV1(weights="imagenet")


def test_published_weights_of_mobilenet_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = randomise(timm.create_model("mobilenetv1_100"))
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: theirs)
    backbone = MobileNetV1(weights="imagenet")
    assert torch.equal(backbone.state_dict()["features.13.1.1.running_var"], theirs.state_dict()["blocks.4.1.bn2.running_var"])
    assert backbone.expects == Preprocessing((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("network", [MobileNetV1, ShuffleNetV1, NASNetA])
def test_own_names_of_other_networks(network: Any, tmp_path: Path) -> None:
    """A backbone takes the checkpoint of a run of its own kind."""
    first = randomise(network(["layer4"]))
    torch.save({"state_dict": {f"model.backbone.{name}": value for name, value in first.state_dict().items()}}, tmp_path / "last.ckpt")
    second = network(["layer4"], weights=str(tmp_path / "last.ckpt"))
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())
    assert second.expects is None


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("mobilenetv1_100").state_dict(), tmp_path / "v1.pth")
    with pytest.raises(ValueError, match=r"v1\.pth: are those of mobilenet_v1 by the names of timm, not of mobilenet_v2"):
        MobileNetV2(weights=str(tmp_path / "v1.pth"))


def original(width: float = 0.35) -> Any:
    """A classifier of torchvision's, whose names are ours."""
    return randomise(torchvision.models.mobilenet_v2(width_mult=width, num_classes=2))


def write_torchvision(folder: Path) -> Path:
    torch.save(original().state_dict(), folder / "w.pth")
    return folder / "w.pth"


def write_timm(folder: Path) -> Path:
    save_file(randomise(timm.create_model("mobilenetv2_035", num_classes=2)).state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"


def write_transformers(folder: Path) -> Path:
    config = MobileNetV2Config(depth_multiplier=0.35, num_labels=2)
    randomise(MobileNetV2ForImageClassification(config)).save_pretrained(folder)
    return folder / "model.safetensors"


def write_converted(folder: Path) -> Path:
    convert(str(write_torchvision(folder)), str(folder / "converted.safetensors"))
    return folder / "converted.safetensors"


def write_checkpoint(folder: Path) -> Path:
    weights = {f"model.backbone.{name}": value for name, value in original().state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 1, "classifier": {"class_names": ["a"]}}, folder / "last.ckpt")
    return folder / "last.ckpt"


def write_npz(scheme: str, folded: bool, folder: Path) -> Path:
    convert(str(write_torchvision(folder)), str(folder / "converted.safetensors"))
    arrays = named_by(scheme_of(scheme), Classifier.from_checkpoint(folder / "converted.safetensors"), folded)
    np.savez(folder / "w.npz", **(arrays if folded else channels_last(arrays)))
    return folder / "w.npz"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "torchvision": write_torchvision,
    "timm": write_timm,
    "transformers": write_transformers,
    "converted": write_converted,
    "checkpoint": write_checkpoint,
    "keras": partial(write_npz, "Keras", False),
    "slim": partial(write_npz, "TensorFlow slim", False),
    "folded": partial(write_npz, "TensorFlow slim", True),
}


@pytest.mark.parametrize("kind", list(WRITERS))
@torch.no_grad()
def test_backbone_takes_each_kind(kind: str, tmp_path: Path) -> None:
    """The whole body comes out the same as through the converted file, and a part of it too."""
    file = WRITERS[kind](tmp_path)
    source = file
    if kind not in ("converted", "checkpoint"):
        convert(str(file), str(tmp_path / "whole.safetensors"))
        source = tmp_path / "whole.safetensors"
    wanted = {name.removeprefix("model.backbone."): value for name, value in read_tensors(source).items()}
    for taps in (["layer19"], ["layer15_expand"]):
        backbone = MobileNetV2(taps, 0.35, bn_eps=1e-3, weights=str(file))
        for name, value in backbone.state_dict().items():
            assert name.endswith("num_batches_tracked") or torch.equal(value, wanted[name]), name


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_weights_of_tensorflow_tell_what_suits_them(padding: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "lightning.pytorch"):
        MobileNetV2(width_mult=0.35, padding=padding, weights=str(write_transformers(tmp_path)))
    assert ("padding 'same', bn_eps 0.001" in caplog.text) == (padding == "symmetric")


def test_backbone_of_a_detector(tmp_path: Path) -> None:
    theirs = randomise(MMDetSSDLite(2))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    backbone = MobileNetV2(weights=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.state_dict()["features.18.1.running_var"], theirs.backbone.conv2.bn.running_var)
    assert torch.equal(backbone.state_dict()["features.1.conv.0.0.weight"], theirs.backbone.layer1[0].depthwise_conv.conv.weight)


def test_another_width_is_refused(tmp_path: Path) -> None:
    file = write_timm(tmp_path)
    with pytest.raises(ValueError, match=r"tensors do not fit: features\.0\.0\.weight \(16x3x3x3, wanted 32x3x3x3\)"):
        MobileNetV2(["layer19"], 1.0, weights=str(file))


@pytest.mark.parametrize("names", [["conv1.weight", "layer1.0.conv1.weight"], ["features.0.weight"], ["stem"]])
def test_unknown_names_have_no_scheme(names: list[str]) -> None:
    assert recognise(dict.fromkeys(names)) is None


def test_tensors_that_hold_nan_are_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    name = "features.0.1.running_var"
    torch.save(tensors | {name: torch.full_like(tensors[name], torch.nan)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth: 1 tensors hold NaN, as after a failed training, the first is {name}"):
        MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"))
