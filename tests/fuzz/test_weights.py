"""Weights and checkpoints of damaged bytes, and with tensors that are missing, odd or too many."""

import copy
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from safetensors.torch import save
from torch import Tensor

from backbones import MobileNetV2
from backbones.weights import read_tensors
from heads import ClassifierHead, DeepLabV3, SSDLite
from tasks.checkpoint import METADATA
from tasks.classify.model import Classifier
from tasks.convert import convert
from tasks.detect.model import Detector
from tasks.model import TaskModel
from tasks.segment.model import Segmenter
from tests.fuzz.cases import damaged, spoiled
from tests.fuzz.fuzzer import Fuzzer

NAMES = ("a", "b", "c")


def models() -> dict[str, TaskModel]:
    """A small network of each task."""
    torch.manual_seed(0)
    small = partial(MobileNetV2, width_mult=0.05)
    return {
        "detect": Detector(small(["layer5", "layer8"]), partial(SSDLite, extra_channels=[8]), NAMES, (32, 32)),
        "segment": Segmenter(small(["layer5"]), partial(DeepLabV3, channels=8), NAMES, (33, 33)),
        "classify": Classifier(small(["layer4"]), ClassifierHead, NAMES, (32, 32)),
    }


def encoded(checkpoint: dict[str, Any], ending: str) -> bytes:
    """A checkpoint as the bytes of a file, whatever is in it."""
    content = io.BytesIO()
    if ending == ".safetensors":
        plain = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        return save(checkpoint["state_dict"], {METADATA: json.dumps(plain)})
    torch.save(checkpoint, content, _use_new_zipfile_serialization=ending != ".pt")
    return content.getvalue()


ODD_TENSORS = (
    lambda value: torch.full_like(value, float("nan")) if value.is_floating_point() else value,
    lambda value: torch.full_like(value, float("inf")) if value.is_floating_point() else value,
    lambda value: value.double(),
    lambda value: value.to(torch.int8),
    lambda value: value.to(torch.complex64),
    lambda value: value[None],
    lambda value: value.flatten()[:0],
    lambda value: torch.zeros(()),
    lambda value: value.to_sparse() if value.ndim else value,
)


@st.composite
def odd_tensors(draw: DrawFn, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors of which some are missing, odd, renamed or too many."""
    found = dict(tensors)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(found))) if found else "x"
        match draw(st.sampled_from(("drop", "odd", "odd", "rename", "add"))):
            case "drop":
                found.pop(name, None)
            case "odd" if name in found:
                found[name] = draw(st.sampled_from(ODD_TENSORS))(tensors.get(name, torch.ones(2)))
            case "rename" if name in found:
                found[draw(st.text(max_size=5))] = found.pop(name)
            case _:
                found[draw(st.text(max_size=5))] = torch.zeros(draw(st.integers(0, 3)))
    return found


@st.composite
def odd_checkpoints(draw: DrawFn, model: TaskModel) -> bytes:
    """Checkpoints whose description or weights are odd."""
    description: Any = model.describe()
    if draw(st.booleans()):
        description = draw(spoiled(description))
    weights: Any = draw(odd_tensors({f"model.{name}": value for name, value in model.state_dict().items()}))
    checkpoint = {model.kind: description, "state_dict": weights}
    if not draw(st.integers(0, 7)):
        checkpoint = draw(spoiled({model.kind: description, "state_dict": {}}))
    return encoded(copy.deepcopy(checkpoint), ".ckpt")


@pytest.mark.parametrize("task", ["detect", "segment", "classify"])
@pytest.mark.parametrize("kind", ["bytes.ckpt", "bytes.pt", "bytes.safetensors", "values.ckpt"])
def test_checkpoints(task: str, kind: str, fuzz: Fuzzer, tmp_path: Path) -> None:
    model, path = models()[task], tmp_path / kind
    taker, image = models()[task], np.zeros((20, 30, 3), dtype=np.uint8)

    def rebuild(content: bytes) -> None:
        path.write_bytes(content)
        rebuilt: Any = type(model).from_checkpoint(path)
        assert not any(value.isnan().any() for value in rebuilt.state_dict().values())
        if kind.startswith("bytes"):  # the type of every argument that a network is described by is not looked at
            rebuilt.predict(image)

    def start(content: bytes) -> None:
        path.write_bytes(content)
        taker.load_weights(path, strict=False)

    whole = encoded({model.kind: model.describe(), "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path.suffix)
    cases = damaged(whole) if kind.startswith("bytes") else odd_checkpoints(model)
    fuzz(rebuild, cases, [whole, b"", whole[:-1], whole[: len(whole) // 2]], kind, quick=5, slow=200)
    fuzz(start, cases, [whole], kind, quick=2, slow=100)


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".npz", ".h5", ".keras", ".tflite", ".ckpt.index"])
def test_foreign_bytes(ending: str, fuzz: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / f"weights{ending}"
    tensors = {name: value for name, value in MobileNetV2(["layer3"], 0.1).state_dict().items() if value.is_floating_point()}
    content = io.BytesIO()
    match ending:
        case ".npz":
            np.savez_compressed(content, **{name: value.numpy() for name, value in tensors.items()})
        case ".h5" | ".keras":
            h5py = pytest.importorskip("h5py")
            with h5py.File(content, "w") as file:
                for name, value in tensors.items():
                    file[name.replace(".", "/")] = value.numpy()
        case ".tflite" | ".ckpt.index":
            pytest.importorskip("tflite" if ending == ".tflite" else "tensorflow")
            content.write(b"\x1c\x00\x00\x00TFL3" + bytes(range(200)))
        case ".safetensors":
            content.write(save(tensors))
        case _:
            torch.save(tensors, content)

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        read_tensors(path)

    whole = content.getvalue()
    fuzz(read, damaged(whole), [whole, b"", whole[:-1], whole[:20]], path.name, quick=8, slow=400)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_converted_tensors(fuzz: Fuzzer, tmp_path: Path) -> None:
    import torchvision

    whole = torchvision.models.mobilenet_v2(width_mult=0.1, num_classes=3).state_dict()
    path = tmp_path / "weights.pth"

    def turn(tensors: dict[str, Tensor]) -> None:
        torch.save(tensors, path)
        convert(str(path), str(tmp_path / "out.ckpt"))
        Classifier.from_checkpoint(tmp_path / "out.ckpt")

    fuzz(turn, odd_tensors(whole), [whole, {}], path.name, quick=5, slow=300)
