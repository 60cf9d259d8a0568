"""Files of strangers: no checkpoint, description or weights file runs code or fills the memory; one sentence names the file."""

import builtins
import copy
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from backbones.spec import DEEPEST
from backbones.weights import read_tensors
from heads import SSDLite
from tasks.checkpoint import load_checkpoint
from tasks.classify.__main__ import main as classify
from tasks.detect.__main__ import main as detect
from tasks.detect.model import Detector
from tests.tasks.nursery import FLAGS, OWN


class Bomb:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


def bomb(kind: str, marker: Path) -> Bomb:
    return Bomb(os.system, f"touch {marker}") if kind == "system" else Bomb(builtins.exec, f"import os; os.mkdir({str(marker)!r})")


def planted(path: Path, kind: str, form: str, marker: Path) -> str:
    """Writes a file that looks like a checkpoint and holds a bomb."""
    content = {"state_dict": {"model.backbone.weight": torch.zeros(1)}, "optimizer_states": [], "global_step": bomb(kind, marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return str(path)


@pytest.fixture
def marker(tmp_path: Path) -> Any:
    marker = tmp_path / "exploded"
    yield marker
    assert not marker.exists()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def refused(run: Callable[[], Any], name: str) -> str:
    with pytest.raises((SystemExit, ValueError)) as caught:
        run()
    message = str(caught.value.code if isinstance(caught.value, SystemExit) else caught.value)
    assert name in message
    assert "\n" not in message
    assert "weights_only" not in message  # torch's own message says how to run the code
    return message


def test_the_bombs_are_live(tmp_path: Path) -> None:
    for kind in ("system", "exec"):
        path = planted(tmp_path / "a.ckpt", kind, "zip", tmp_path / kind)
        torch.load(path, weights_only=False)
        assert (tmp_path / kind).exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("kind", ["system", "exec"])
def test_bombs_are_refused(kind: str, form: str, tmp_path: Path, marker: Path) -> None:
    for name in ("a.ckpt", "a.pth", "a.bin"):
        path = planted(tmp_path / name, kind, form, marker)
        for read in (load_checkpoint, read_tensors, Detector.from_checkpoint, lambda path: MobileNetV2(weights=path)):
            refused(lambda read=read, path=path: read(path), name)  # type: ignore[misc]
    for name in ("a.npz", "a.safetensors", "a.npy", "a.tflite", "a.h5", "a.keras"):
        path = planted(tmp_path / name, kind, form, marker)
        refused(lambda path=path: read_tensors(path), name)  # type: ignore[misc]


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_bombs_are_refused_by_every_flag_that_takes_a_file(form: str, shapes_root: Path, picture: Path, marker: Path) -> None:
    tmp_path = picture.parent
    path = planted(tmp_path / "bomb.ckpt", "system", form, marker)
    flags = [*FLAGS, *OWN["classify"], f"--data.root={shapes_root}", f"--runs={tmp_path}"]
    for args in (
        ["fit", *flags, f"--ckpt_path={path}"],
        ["validate", "--data=tasks.classify.data.Shapes", f"--ckpt_path={path}"],
        ["predict", f"--ckpt_path={path}", f"--images=[{picture}]"],
        ["fit", *flags, f"--model.weights={path}"],
        ["fit", *flags, f"--model.backbone.weights={path}"],
    ):
        refused(lambda args=args: classify(args), "bomb.ckpt")  # type: ignore[misc]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("safe") / "detector.pt"
    Detector(MobileNetV2(width_mult=0.35), SSDLite, ["a", "b"], (64, 64)).save(path)
    return load_checkpoint(path)


def nested(levels: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"class_path": "heads.multibox.FocalLoss", "init_args": {}}
    for _ in range(levels):
        spec = {"class_path": "heads.multibox.FocalLoss", "init_args": {"alpha": spec}}
    return spec


BACKBONE = ("backbone", "class_path")
CHANGES: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "function of Python": (BACKBONE, "os.system", "'os.system', which is not a part of a network"),
    "class of Python": (BACKBONE, "subprocess.Popen", "'subprocess.Popen', which is not a part of a network"),
    "built in": (BACKBONE, "builtins.exec", "'builtins.exec', which is not"),
    "module that opens a browser": (BACKBONE, "antigravity.Net", "'antigravity.Net', which is not"),
    "program": (BACKBONE, "pip.__main__.Net", "which is not a part of a network"),
    "no path": (BACKBONE, "../evil.Net", "which is not a part of a network"),
    "no text": (BACKBONE, 7, "names 7, which is not"),
    "module without such a class": (BACKBONE, "evil.Net", "but evil has no such class"),
    "inside a package": (BACKBONE, "wicked.inner.Net", "but wicked.inner has no such class"),
    "module that is no Python": (BACKBONE, "broken.Net", ""),
    "absent module": (BACKBONE, "absent.Net", "no module 'absent'"),
    "function of torch": (BACKBONE, "torch.hub.load", "which is not a Backbone"),
    "other class": (BACKBONE, "torch.nn.Linear", "which is not a Backbone"),
    "class of the wrong kind": (("head",), {"class_path": "backbones.mobilenet_v2.MobileNetV2", "init_args": {}}, "not a DetectionHead"),
    "head by name alone": (("head",), "os.system", "is not that of a detector"),
    "network inside": (
        ("backbone",),
        {"class_path": "backbones.module.ModuleBackbone", "init_args": {"network": "subprocess.Popen", "settings": {"args": "x"}}},
        "'subprocess.Popen', which is not",
    ),
    "nested part": (("head", "init_args", "class_loss"), {"class_path": "evil.Loss", "init_args": {}}, "evil has no such class"),
    "another way of nesting": (("head", "init_args", "class_loss"), {"class_path": "evil.Loss"}, "otherwise than by class_path"),
    "deep": (("head", "init_args", "class_loss"), nested(DEEPEST), "nested more than 16 deep"),
    "very deep": (("head", "init_args", "class_loss"), nested(100), "nested more than 16 deep"),
    "enormous": (("backbone", "init_args", "width_mult"), 1e9, "has the number 1000000000.0"),
    "no number": (("backbone", "init_args", "width_mult"), float("nan"), "has the number nan"),
    "large": (("backbone", "init_args", "width_mult"), 10, "its weights do not fit its own description"),
    "wide": (("head", "init_args", "extra_channels"), [10**6] * 8, "its weights do not fit its own description"),
    "wrong kind": (("backbone", "init_args", "width_mult"), [1], ""),
    "unknown argument": (("backbone", "init_args", "width"), 1, "MobileNetV2 cannot be built: TypeError"),
    "size": (("size",), [10**6, 10**6], "size [1000000, 1000000] is not possible"),
    "size of nothing": (("size",), [], ""),
    "tensor": (("size",), torch.zeros(2), "has a Tensor; accepted: plain values"),
    "no description": ((), 7, "holds no detector"),
    "description without a head": ((), {"backbone": {}}, "is not that of a detector"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_harmful_descriptions_are_refused(
    change: str, detector: dict[str, Any], picture: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explode = f"open({str(marker)!r}, 'w')\n"
    (tmp_path / "evil.py").write_text(explode)
    (tmp_path / "broken.py").write_text(explode + "class\n")
    (tmp_path / "wicked").mkdir()
    for name in ("__init__", "inner"):
        (tmp_path / f"wicked/{name}.py").write_text(explode)
    monkeypatch.syspath_prepend(str(tmp_path))
    place, value, sentence = CHANGES[change]
    content = copy.deepcopy(detector)
    owner = content
    for key in ("detector", *place)[:-1]:
        owner = owner[key]
    owner[("detector", *place)[-1]] = value
    torch.save(content, tmp_path / "odd.ckpt")
    for run in (
        lambda: Detector.from_checkpoint(tmp_path / "odd.ckpt"),
        lambda: detect(["validate", "--data=tasks.detect.data.Shapes", f"--ckpt_path={tmp_path / 'odd.ckpt'}"]),
        lambda: detect(["predict", f"--ckpt_path={tmp_path / 'odd.ckpt'}", f"--images=[{picture}]"]),
    ):
        assert sentence in refused(run, "odd.ckpt")
    assert {"antigravity", "evil", "wicked", "wicked.inner", "pip.__main__"}.isdisjoint(sys.modules)


def test_own_backbone_of_a_file_that_was_never_imported_is_rebuilt(detector: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "freshnet.py").write_text("from backbones import MobileNetV2\n\n\nclass FreshNet(MobileNetV2):\n    pass\n")
    content = copy.deepcopy(detector)
    content["detector"]["backbone"]["class_path"] = "freshnet.FreshNet"
    torch.save(content, tmp_path / "own.ckpt")
    sys.path.insert(0, str(tmp_path))
    try:
        assert type(Detector.from_checkpoint(tmp_path / "own.ckpt").backbone).__name__ == "FreshNet"
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["freshnet"]


def test_description_downloads_nothing(detector: dict[str, Any], tmp_path: Path) -> None:
    content = copy.deepcopy(detector)
    content["detector"]["backbone"]["init_args"]["weights"] = "/absent/weights.pth"
    torch.save(content, tmp_path / "a.ckpt")
    assert Detector.from_checkpoint(tmp_path / "a.ckpt").class_names == ("a", "b")


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        safetensors(b"no JSON"),
        safetensors(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        safetensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)),
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(4)),
        safetensors(json.dumps({"__metadata__": {"mobiletap": "no JSON"}}).encode()),
        safetensors(json.dumps({"__metadata__": {"mobiletap": "[" * 100_000}}).encode()),
        safetensors(json.dumps({"__metadata__": {"mobiletap": "[1]"}}).encode()),
    ],
    ids=["empty", "endless header", "long header", "no header", "enormous", "negative", "beyond", "no JSON", "deep JSON", "list"],
)
def test_damaged_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    for read in (load_checkpoint, read_tensors, Detector.from_checkpoint):
        refused(lambda read=read: read(tmp_path / "a.safetensors"), "a.safetensors")  # type: ignore[misc]


def test_files_that_unpack_to_a_flood_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(10_000_000)}}, tmp_path / "stored.ckpt")
    with zipfile.ZipFile(tmp_path / "stored.ckpt") as stored, zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000_000))
    assert max(path.stat().st_size for path in (tmp_path / "a.ckpt", tmp_path / "a.npz")) < 1_000_000
    refused(lambda: load_checkpoint(tmp_path / "a.ckpt"), "a.ckpt")
    assert "its archive is compressed" in refused(lambda: read_tensors(tmp_path / "a.ckpt"), "a.ckpt")
    assert "over 100 times its size" in refused(lambda: read_tensors(tmp_path / "a.npz"), "a.npz")


def test_datasets_of_h5_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kernel", (10**6, 10**6), "f4", chunks=(100, 100))  # of which nothing is stored
    assert "over 100 times its size" in refused(lambda: read_tensors(tmp_path / "a.h5"), "a.h5")


def test_offsets_outside_a_tflite_file_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    noise = np.random.default_rng(0)
    for number in range(50):
        content = bytearray(struct.pack("<I", (24, 0, 2**31 - 1, 2**32 - 1)[number % 4]) + b"TFL3" + noise.bytes(2000))
        (tmp_path / "a.tflite").write_bytes(content)
        refused(lambda: read_tensors(tmp_path / "a.tflite"), "a.tflite")


RISKY = re.compile(
    r"torch\.load\(|np\.load\(|pickle\.loads?\(|yaml\.(unsafe_|full_)?load\(|(?<![.\w])(eval|exec)\(|os\.system|joblib|marshal|shelve"
)


def test_nothing_else_reads_files_that_could_run_code() -> None:
    """Every loader that could run code from a file stands in one of two functions, with that switched off."""
    root = Path(__file__).resolve().parents[2]
    found = []
    for folder in ("backbones", "heads", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            for line in path.read_text().splitlines():
                if RISKY.search(line):
                    found.append(f"{path.relative_to(root).as_posix()}: {line.partition('  #')[0].strip()}")
    assert found == [
        'backbones/weights/files.py: return torch.load(file, map_location="cpu", weights_only=True)',
        'backbones/weights/files.py: with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:',
    ]
