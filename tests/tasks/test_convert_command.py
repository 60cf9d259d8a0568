"""`python -m tasks.convert`: what it reports, what it refuses, and files that the other commands take as they are."""

import io
import json
import pickle
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import tasks.convert
from backbones import MobileNetV2
from heads import ClassifierHead, DeepLabV3
from tasks.classify.model import Classifier
from tasks.convert import convert
from tasks.detect.__main__ import main as detect
from tasks.detect.model import Detector
from tasks.images import read_image
from tasks.segment.__main__ import main as segment
from tasks.segment.model import Segmenter
from tasks.shapes import SHAPE_CLASSES
from tests.tasks.foreign import MMDetSSDLite, channels_last, named_by, randomise, scheme_of


class Bomb:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    """A classifier of three classes under torchvision's names."""
    return torchvision.models.mobilenet_v2(width_mult=0.35, num_classes=3).state_dict()


@pytest.fixture(scope="module")
def file(small: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "small.pth"
    torch.save(small, path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, args)])
    runpy.run_path(tasks.convert.__file__, run_name="__main__")


def test_every_tensor_is_reported(small: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(small | {"teacher.weight": torch.ones(2)}, tmp_path / "more.pth")
    convert(str(tmp_path / "more.pth"), str(tmp_path / "out.safetensors"), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "314 tensors used, 1 not, 0 missing; the names are those of torchvision"
    used = lines[1].removeprefix("used: ").split(", ")
    assert sorted(used) == sorted(small)
    assert lines[2] == "not used: teacher.weight"
    assert lines[3] == f"classifier of 3 classes written to {tmp_path / 'out.safetensors'}"


def test_partial_files_are_refused_unless_asked_for(
    small: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"features.18.0.weight": torch.ones(1280, 112, 3, 3)}
    torch.save({k: v for k, v in (small | changed).items() if k != "features.3.conv.2.weight"}, tmp_path / "part.pth")
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit, match=r"^error: .*part\.pth: has no tensor features\.3\.conv\.2\.weight \(and 1 more; --allow_partial"):
        run(monkeypatch, tmp_path / "part.pth", out)
    assert [path.name for path in tmp_path.iterdir()] == ["part.pth"]
    run(monkeypatch, tmp_path / "part.pth", out, "--allow_partial", "true")
    told = capsys.readouterr().out
    assert "312 tensors used, 1 not, 2 missing" in told
    assert (
        "left as initialised: has no tensor features.3.conv.2.weight, "
        "features.18.0.weight has shape (1280, 112, 3, 3); wanted (1280, 112, 1, 1)"
    ) in told
    loaded = Classifier.from_checkpoint(out).state_dict()
    assert torch.equal(loaded["backbone.features.4.conv.2.weight"], small["features.4.conv.2.weight"])
    assert loaded["backbone.features.18.0.weight"].std() > 0


def test_options(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    options = ["--class_names", tmp_path / "names.txt", "--size", "[160,128]", "--tensorflow", "true"]
    run(monkeypatch, file, tmp_path / "out.safetensors", *options)
    model = Classifier.from_checkpoint(tmp_path / "out.safetensors")
    assert (model.class_names, model.size) == (("ant", "bee", "cat"), (160, 128))
    arguments = model.describe()["backbone"]["init_args"]
    assert (arguments["padding"], arguments["bn_eps"], arguments["width_mult"]) == ("same", 1e-3, 0.35)
    assert model.mean.flatten().tolist() == model.std.flatten().tolist() == [0.5] * 3
    convert(str(file), str(tmp_path / "out.safetensors"))
    plain = Classifier.from_checkpoint(tmp_path / "out.safetensors")
    assert plain.describe()["backbone"]["init_args"]["padding"] == "symmetric"
    assert plain.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ant\nbee\n", "has 3 classes, but 2 class names"),
        (b"\xff\xfe", r"names\.txt: cannot be read as a text file"),
        (None, "No such file"),
    ],
)
def test_wrong_class_names(content: bytes | None, message: str, file: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        convert(str(file), str(tmp_path / "out.safetensors"), class_names=str(tmp_path / "names.txt"))
    assert not (tmp_path / "out.safetensors").exists()


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def of_torch(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def of_numpy(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def of_safetensors(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors)


def keras_arrays() -> dict[str, np.ndarray]:
    network = Classifier(MobileNetV2(["layer19"], 0.35), ClassifierHead, ["a", "b"])
    return channels_last(named_by(scheme_of("Keras"), network))


UNREADABLE = "cannot be read as weights"
REFUSED: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], bytes | None], str]] = {
    "absent": ("a.pth", lambda small, folder: None, "no such weights file"),
    "absent index": ("a.index", lambda small, folder: None, "no such weights file"),
    "empty pth": ("a.pth", lambda small, folder: b"", UNREADABLE),
    "empty safetensors": ("a.safetensors", lambda small, folder: b"", UNREADABLE),
    "empty npz": ("a.npz", lambda small, folder: b"", UNREADABLE),
    "no arrays": ("a.npz", lambda small, folder: of_numpy(), "holds no dictionary of tensors"),
    "cut pth": ("a.pth", lambda small, folder: truncated(of_torch(small)), UNREADABLE),
    "cut safetensors": ("a.safetensors", lambda small, folder: truncated(of_safetensors(small)), UNREADABLE),
    "cut npz": ("a.npz", lambda small, folder: truncated(of_numpy(**keras_arrays())), UNREADABLE),
    "noise": ("a.npz", lambda small, folder: b"PK\x03\x04 and no more", UNREADABLE),
    "other ending": ("a.pth", lambda small, folder: of_safetensors(small), UNREADABLE),
    "bomb in pth": ("a.pth", lambda small, folder: of_torch(small | {"x": Bomb(folder / "exploded")}), UNREADABLE),
    "bomb": ("a.ckpt", lambda small, folder: pickle.dumps(Bomb(folder / "exploded")), UNREADABLE),
    "bomb in npz": ("a.npz", lambda small, folder: of_numpy(x=np.array([Bomb(folder / "exploded")], dtype=object)), UNREADABLE),
    "bomb as safetensors": ("a.safetensors", lambda small, folder: pickle.dumps(Bomb(folder / "exploded")), UNREADABLE),
    "bomb as npz": ("a.npz", lambda small, folder: pickle.dumps(Bomb(folder / "exploded")), UNREADABLE),
    "resnet": (
        "a.pth",
        lambda small, folder: of_torch(torchvision.models.resnet18().state_dict()),
        "its 122 tensors are of no MobileNet under any known names; accepted: those of torchvision, timm, transformers, mmdetection",
    ),
    "mobilenet v3": (
        "a.pth",
        lambda small, folder: of_torch(torchvision.models.mobilenet_v3_small().state_dict()),
        "has the names of torchvision, but no head of a classifier",
    ),
    "width": (
        "a.pth",
        lambda small, folder: of_torch(small | {f"features.18.1.{part}": torch.ones(1312) for part in ("weight", "bias")}),
        "are those of no width multiplier of MobileNetV2",
    ),
    "other classes": (
        "a.pth",
        lambda small, folder: of_torch(small | {"classifier.1.weight": torch.ones(4, 1280)}),
        r"classifier\.1\.weight has shape \(4, 1280\); wanted \(3, 1280\)$",
    ),
    "backbone": (
        "a.safetensors",
        lambda small, folder: of_safetensors({k: v for k, v in small.items() if "classifier" not in k}),
        r"no head of .* a backbone alone is used as it is, by --model\.backbone\.weights",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_other_files_are_one_sentence(case: str, small: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, write, message = REFUSED[case]
    content = write(small, tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=rf"^error: .*{name}: .*{message}") as raised:
        run(monkeypatch, tmp_path / name, tmp_path / "out.safetensors")
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} <= {name}


def test_scalars_in_place_of_vectors_are_refused(tmp_path: Path) -> None:
    tensors = MMDetSSDLite(2).state_dict()
    save_file(tensors | {"bbox_head.reg_convs.2.1.bias": torch.ones(())}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"reg_convs\.2\.1\.bias has shape \(\); wanted \(24,\)"):
        convert(str(tmp_path / "a.safetensors"), str(tmp_path / "out.safetensors"))


def test_interrupted_writing_leaves_no_half_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    for name in ("out.safetensors", "out.ckpt"):
        with pytest.raises(SystemExit, match=r"^error: .*No space left"):
            run(monkeypatch, file, tmp_path / name)
    assert not list(tmp_path.iterdir())


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, size=(*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(colours).save(path)
    return path


def figures(runs: Path) -> dict[str, Any]:
    (path,) = runs.rglob("metrics.json")
    return json.loads(path.read_text())


def test_detector_runs_with_no_other_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": randomise(MMDetSSDLite(2)).state_dict()}, tmp_path / "foreign.pth")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    out = tmp_path / "out.safetensors"
    convert(str(tmp_path / "foreign.pth"), str(out), class_names=str(tmp_path / "names.txt"), size=(64, 96))
    picture(tmp_path / "coco/val2017/a.png")
    categories = [{"id": number, "name": name} for number, name in ((2, "cat"), (4, "dog"), (9, "bird"))]
    boxes = [{"image_id": 1, "category_id": category["id"], "bbox": [5, 5, 40, 30]} for category in categories]
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}], "annotations": boxes, "categories": categories}
    (tmp_path / "coco/annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"coco/annotations/instances_{split}2017.json").write_text(json.dumps(content))
    data = ["--data=tasks.detect.data.Coco", f"--data.root={tmp_path / 'coco'}", "--data.num_workers=0"]
    detect(["validate", f"--ckpt_path={out}", *data, f"--runs={tmp_path / 'runs'}", "--trainer.enable_progress_bar=false"])
    found = figures(tmp_path / "runs")
    assert found["classes_left_out"] == ["bird"]
    assert "COCO evaluation, 2 of 3 classes" in " ".join(capsys.readouterr().out.split())
    assert 0 <= found["val/AP"] <= 1
    detect(["predict", f"--ckpt_path={out}", f"--images={tmp_path / 'coco/val2017'}", f"--output={tmp_path / 'found'}"])
    (image,) = json.loads((tmp_path / "found/detections.json").read_text())
    assert {box["class_name"] for box in image["detections"]} <= {"dog", "cat"}
    expected = Detector.from_checkpoint(out).predict(tmp_path / "coco/val2017/a.png")
    best = [box["score"] for box in image["detections"][:3]]
    assert best == pytest.approx(expected.scores[:3].tolist(), abs=1e-3)  # further down, random boxes hang on the last bits


def test_segmenter_runs_with_no_other_flag(shapes_root: Path, tmp_path: Path) -> None:
    names = ("background", *SHAPE_CLASSES)
    head = partial(DeepLabV3, padding="same", align_corners=True)
    network = randomise(Segmenter(MobileNetV2(["layer18"], 0.35, 16, "same", 1e-3), head, names))
    np.savez(tmp_path / "foreign.npz", **named_by(scheme_of("TensorFlow slim"), network, folded=True))
    (tmp_path / "names.txt").write_text("\n".join(names))
    out = tmp_path / "out.safetensors"
    convert(str(tmp_path / "foreign.npz"), str(out), class_names=str(tmp_path / "names.txt"), size=(65, 65))
    data = ["--data=tasks.segment.data.Shapes", f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4"]
    flags = ["--data.num_workers=0", f"--runs={tmp_path / 'runs'}", "--trainer.enable_progress_bar=false"]
    segment(["validate", f"--ckpt_path={out}", *data, *flags])
    assert figures(tmp_path / "runs")["images"] == 4
    image = picture(tmp_path / "photos/a.png")
    segment(["predict", f"--ckpt_path={out}", f"--images={image}", f"--output={tmp_path / 'found'}"])
    assert Segmenter.from_checkpoint(out).predict(read_image(image)).shape == (40, 60)
    assert list((tmp_path / "found").iterdir())


def test_classifier_runs_with_no_other_flag(file: Path, tmp_path: Path) -> None:
    from tasks.classify.__main__ import main as classify

    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    out = tmp_path / "out.safetensors"
    convert(str(file), str(out), class_names=str(tmp_path / "names.txt"), size=(64, 64))
    for split in ("train", "val"):
        for name in ("ant", "bee", "cat"):
            picture(tmp_path / f"images/{split}/{name}/a.png")
    data = ["--data=tasks.classify.data.ImageFolder", f"--data.root={tmp_path / 'images'}", "--data.num_workers=0"]
    classify(["validate", f"--ckpt_path={out}", *data, f"--runs={tmp_path / 'runs'}", "--trainer.enable_progress_bar=false"])
    assert figures(tmp_path / "runs")["images"] == 3
    classify(["predict", f"--ckpt_path={out}", f"--images={tmp_path / 'images/val'}", f"--output={tmp_path / 'found'}"])
    assert len((tmp_path / "found/classes.csv").read_text().splitlines()) == 4


def test_file_without_a_run_needs_data(file: Path, tmp_path: Path) -> None:
    convert(str(file), str(tmp_path / "out.safetensors"))
    with pytest.raises(SystemExit, match=r"holds no detector; accepted"):
        detect(["validate", f"--ckpt_path={tmp_path / 'out.safetensors'}", "--data=tasks.detect.data.Voc"])
    with pytest.raises(SystemExit, match=r"out\.safetensors, which belongs to no run, needs --data, such as tasks\.detect\.data\.Voc"):
        detect(["validate", f"--ckpt_path={tmp_path / 'out.safetensors'}"])
    with pytest.raises(SystemExit, match=r"holds no state of a training run to continue; start from it by --model\.weights"):
        detect(["fit", f"--ckpt_path={tmp_path / 'out.safetensors'}"])
