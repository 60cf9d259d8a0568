"""Reading weights: which files are accepted, how their names come out, and what is refused."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.weights import read_tensors


class Bomb:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.ckpt", "w.bin", "w", "w.safetensors", "w.SAFETENSORS", "w.npz"])
def test_tensors_come_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, **{key: value.numpy() for key, value in TENSORS.items()})
    elif name.lower().endswith("safetensors"):
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path)
    assert_same(read_tensors(path), TENSORS)
    assert_same(read_tensors(str(path)), TENSORS)


def test_state_dict_of_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "epoch": 3, "hyper": {"lr": 0.1}}, tmp_path / "w.ckpt")
    assert_same(read_tensors(tmp_path / "w.ckpt"), TENSORS)


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        ("Conv1|Conv1|kernel:0", "Conv1/kernel"),
        ("Conv1/Conv1/kernel:0", "Conv1/kernel"),
        ("bn_Conv1|bn_Conv1|moving_mean:0", "bn_Conv1/moving_mean"),
        ("features.0.0.weight", "features.0.0.weight"),
        ("MobilenetV2/Conv/weights", "MobilenetV2/Conv/weights"),
        ("FeatureExtractor/MobilenetV2/Conv/BatchNorm/gamma", "FeatureExtractor/MobilenetV2/Conv/BatchNorm/gamma"),
    ],
)
def test_names_in_npz(stored: str, plain: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{stored: np.ones(2)})
    assert list(read_tensors(tmp_path / "w.npz")) == [plain]


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": Bomb(tmp_path / "exploded")}, tmp_path / "weights.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    np.savez(tmp_path / "objects.npz", x=np.array([Bomb(tmp_path / "exploded")], dtype=object))
    for name in ("weights.pth", "plain.pth", "objects.npz"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.npz"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04cut"])
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as weights") as raised:
        read_tensors(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["weights.h5", "weights.tflite", "weights.keras"])
@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps([1])])
def test_broken_files_of_other_libraries_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    # Whether or not the package that reads them is installed.
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: (cannot be read as weights|reading it needs \w+; install)") as raised:
        read_tensors(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2), {}, {"state_dict": None}])
def test_files_of_other_things_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: holds no dictionary of tensors"):
        read_tensors(tmp_path / "weights.pth")


def test_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"one\.npz: cannot be read as weights"):
        read_tensors(tmp_path / "one.npz")


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.index", "model.ckpt", "."])
def test_absent_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such weights file"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("written", "asked", "package"),
    [
        ("w.h5", "w.h5", "h5py"),
        ("w.tflite", "w.tflite", "tflite"),
        ("model.ckpt.index", "model.ckpt", "tensorflow"),
        ("model.ckpt.index", "model.ckpt.index", "tensorflow"),
    ],
)
def test_missing_package_is_named_with_its_command(
    written: str, asked: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / written).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{asked}: reading it needs {package}; install it by: pip install 'mobiletap\[convert\]'$"):
        read_tensors(tmp_path / asked)


@pytest.mark.parametrize(("name", "odd"), [("a", torch.ones(2) * 1j), (1, torch.ones(2))])
def test_odd_tensors_are_refused_by_name(name: Any, odd: Tensor, tmp_path: Path) -> None:
    torch.save(TENSORS | {name: odd}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth: its tensor {name} is sparse, complex or without a name"):
        read_tensors(tmp_path / "weights.pth")
