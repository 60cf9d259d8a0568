"""Reading weights: what is accepted, what is refused, what is said."""

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from backbones import MobileNetV2
from backbones.weights import read_tensors

TAPS = ["layer3"]


class Bomb:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {name: torch.rand_like(t) if t.is_floating_point() else t + 7 for name, t in MobileNetV2(TAPS).state_dict().items()}


def assert_loaded(backbone: MobileNetV2, tensors: dict[str, Tensor]) -> None:
    assert [name for name, t in backbone.state_dict().items() if not torch.equal(t, tensors[name])] == []


def test_safetensors(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "weights.safetensors")
    assert_loaded(MobileNetV2(TAPS, weights=str(tmp_path / "weights.safetensors")), tensors)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}])
def test_torch_file(tmp_path: Path, tensors: dict[str, Tensor], wrap: Any) -> None:
    torch.save(wrap(tensors), tmp_path / "weights.pth")
    assert_loaded(MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth")), tensors)


def test_old_files_without_batch_counts_fit(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    kept = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "weights.pth")
    backbone = MobileNetV2(TAPS, weights=str(tmp_path / "weights.pth"))
    assert torch.equal(backbone.state_dict()["features.2.conv.3.running_var"], kept["features.2.conv.3.running_var"])


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": Bomb(tmp_path / "exploded")}, tmp_path / "weights.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for name in ("weights.pth", "plain.pth"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04cut"])
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_files_of_other_things_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: holds no dictionary of tensors"):
        read_tensors(tmp_path / "weights.pth")


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
