"""The subcommand `export`: what it writes, what it refuses, and that the other subcommands run it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.detect.__main__ import main as detect
from tasks.detect.model import Detector
from tasks.export import command
from tasks.export.command import compare, export_graph
from tasks.export.differences import differences
from tasks.export.engines import load_engine
from tasks.export.files import convert_to_openvino
from tasks.export.graphs import DetectionGraph, SegmentationGraph
from tasks.export.quantize import quantize_onnx
from tasks.shapes import SHAPE_CLASSES
from tests.tasks.export import nets


def test_export_writes_one_file(detector_onnx: Path) -> None:
    assert [path.name for path in detector_onnx.parent.iterdir()] == ["own.onnx"]
    assert load_engine(detector_onnx).metadata["model"]["size"] == list(nets.SIZE)
    assert load_engine(detector_onnx).metadata["model"]["class_names"] == list(SHAPE_CLASSES)


def test_predict_runs_an_exported_file(detector_onnx: Path, photos: Path, tmp_path: Path) -> None:
    flags = [f"--ckpt_path={detector_onnx}", f"--images={photos}", f"--output={tmp_path}"]
    detect(["predict", *flags, "--score_threshold=0"])
    found = json.loads((tmp_path / "detections.json").read_text())
    assert [len(image["detections"]) > 10 for image in found] == [True] * 4
    with pytest.raises(SystemExit, match="device 'cuda' cannot be used by the exported file"):
        detect(["predict", *flags, "--device=cuda"])


def test_validate_runs_an_exported_file(detector_onnx: Path, checkpoint: Path, shapes_root: Path, tmp_path: Path) -> None:
    data = ["--data=Shapes", f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4", "--data.num_workers=0"]
    flags = [f"--ckpt_path={checkpoint}", *data, "--data.size=[64,96]", "--trainer.enable_progress_bar=false"]
    figures = {}
    for name, more in {"torch": [], "onnx": [f"--model.engine={detector_onnx}"]}.items():
        detect(["validate", *flags, f"--runs={tmp_path / name}", *more])
        figures[name] = json.loads(next((tmp_path / name).rglob("metrics.json")).read_text())
    assert [found["engine"] for found in figures.values()] == [None, str(detector_onnx)]
    ours, theirs = ({key: value for key, value in found.items() if key.startswith("val/")} for found in figures.values())
    assert theirs == pytest.approx(ours, rel=1e-3)
    with pytest.raises(SystemExit, match=r"own\.onnx: was exported from another detector; differing: size"):
        detect(["validate", *flags, f"--model.engine={detector_onnx}", "--data.size=[64,64]"])


def test_exported_file_is_not_trained(detector_onnx: Path, shapes_root: Path, tmp_path: Path) -> None:
    data = [f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4", "--data.num_workers=0"]
    with pytest.raises(SystemExit, match=r"model\.engine .*own\.onnx cannot be trained; accepted by validate and test"):
        detect(["fit", *data, f"--runs={tmp_path}", f"--model.engine={detector_onnx}"])


@pytest.mark.slow
def test_detections_and_labels_in_the_graph(folder: Path) -> None:
    detector, segmenter, image = nets.detector(), nets.segmenter(), nets.images_of(1)
    export_graph(DetectionGraph(detector, "detections"), str(folder / "d.onnx"), "onnx")
    boxes, scores, labels = load_engine(folder / "d.onnx", threads=1)(image.permute(0, 2, 3, 1).contiguous().numpy())
    (found,) = detector.detect(image, torch.tensor([nets.SIZE]))
    assert differences(["boxes", "scores", "labels"], [part.numpy() for part in found], (boxes, scores, labels)) == {"detections": 0}
    assert len(scores) > 20
    export_graph(SegmentationGraph(segmenter, "labels"), str(folder / "s.onnx"), "onnx")
    (classes,) = load_engine(folder / "s.onnx", threads=1)(image.permute(0, 2, 3, 1).contiguous().numpy(), np.array([nets.SIZE]))
    assert (segmenter(image).argmax(1).numpy() != classes).mean() < 1e-3
    assert classes.dtype == np.uint8


def test_int8_is_near(detector_onnx: Path, tmp_path: Path) -> None:
    graph = DetectionGraph(nets.detector())
    inputs = [(image[None].permute(0, 2, 3, 1),) for image in nets.images_of(8)]
    shutil.copy(detector_onnx, tmp_path / "small.onnx")
    quantize_onnx(tmp_path / "small.onnx", inputs)
    worst = compare(graph, inputs, tmp_path / "small.onnx")
    assert worst["anchors"] == 0
    assert 1e-4 < worst["class_logits"] < 0.5
    path = convert_to_openvino(tmp_path / "small.onnx")
    assert 1e-4 < compare(graph, inputs, path)["class_logits"] < 0.5
    assert Detector.from_exported(path).class_names == SHAPE_CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_command(form: command.Format, folder: Path, photos: Path) -> None:
    path = folder / f"small{command.ENDINGS[form]}"
    assert 1e-4 < export_graph(DetectionGraph(nets.detector()), str(path), form, [str(photos)], "int8")["class_logits"] < 0.5


def test_file_that_computes_something_else_is_not_written(detector_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.onnx").write_text("of before")
    monkeypatch.setattr(command, "write_onnx", lambda graph, inputs, path: shutil.copy(detector_onnx, path))
    other = nets.detector()
    other.mean += 0.5
    with pytest.raises(ValueError, match=r"would compute something else than the checkpoint .* and was not written"):
        export_graph(DetectionGraph(other), str(tmp_path / "there.onnx"), "onnx")
    assert (tmp_path / "there.onnx").read_text() == "of before"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output=x.xml"], "output x.xml has the ending '.xml'; accepted for format onnx: .onnx"),
        (["--output=x.onnx", "--precision=int8"], "precision int8 needs --images"),
        (["--output=x.onnx", "--images=nowhere"], "images 'nowhere' matches no image"),
        (["--output=x.onnx", "--size=[0, 8]"], "size [0, 8] is not possible"),
        (["--output=x.onnx", "--outputs=labels"], "'raw', 'decoded', 'detections'"),
    ],
)
def test_user_errors_are_one_sentence(flags: list[str], said: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        detect(["export", f"--ckpt_path={checkpoint}", *flags])
    assert said in f"{stopped.value}{capsys.readouterr().err}"


def test_absent_runtime_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"openvino is not installed; pip install 'mobiletap\[export\]' brings it"):
        export_graph(DetectionGraph(nets.detector()), str(tmp_path / "x.xml"), "openvino")


def test_differences_of_detections_ignore_their_order() -> None:
    boxes, scores, labels = np.array([[0, 0, 9, 9], [1, 1, 5, 5]], np.float32), np.array([0.9, 0.8], np.float32), np.array([1, 2])
    names = ["boxes", "scores", "labels"]
    assert differences(names, (boxes, scores, labels), (boxes[::-1], scores[::-1], labels[::-1])) == {"detections": 0}
    assert differences(names, (boxes, scores, labels), (boxes[:1], scores[:1], labels[:1])) == {"detections": 1 / 3}
    assert differences(names, (boxes[:0], scores[:0], labels[:0]), (boxes[:0], scores[:0], labels[:0])) == {"detections": 0}
    assert differences(["logits"], [np.array([1.0, 4.0])], [np.array([1.0, 3.0])]) == {"logits": 0.25}
    assert differences(["logits"], [np.array([1.0])], [np.array([np.nan])]) == {"logits": float("inf")}
    assert differences(["labels"], [np.array([1, 2])], [np.array([1, 3])]) == {"labels": 0.5}
