"""Exported files compute what the torch model computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.detect.model import Detector
from tasks.export.engines import load_engine
from tasks.segment.model import Segmenter
from tasks.shapes import SHAPE_CLASSES
from tests.tasks.export import nets


@pytest.fixture(params=["detector_onnx", "detector_xml"])
def exported(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("count", [1, 3])
def test_detector_computes_the_same(exported: Path, count: int) -> None:
    detector, fast, images = nets.detector(), Detector.from_exported(exported, threads=1), nets.images_of(count)
    with torch.no_grad():
        ours, theirs = detector(images), fast(images)
    assert torch.equal(ours.anchors, theirs.anchors)
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
    assert fast.class_names == SHAPE_CLASSES
    assert ours.class_logits.std() > 0.1


def test_exported_detector_predicts_the_same(exported: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (140, 90, 3), dtype=np.uint8)
    ours, theirs = nets.detector().predict(photo), Detector.from_exported(exported, threads=1).predict(photo)
    assert len(ours.scores) == len(theirs.scores) > 20
    assert torch.allclose(ours.scores, theirs.scores, atol=1e-5)
    assert torch.allclose(ours.boxes, theirs.boxes, atol=0.01)


def test_segmenter_computes_the_same_beside_padding(segmenter_onnx: Path) -> None:
    segmenter, fast = nets.segmenter(), Segmenter.from_exported(segmenter_onnx, threads=1)
    images = [nets.images_of(1, size)[0] for size in (nets.SIZE, (40, 90), (200, 130))]
    for ours, theirs in zip(segmenter.segment(images), fast.segment(images), strict=True):
        assert (ours != theirs).float().mean() < 1e-3
        assert len(ours.unique()) > 1
    batch = nets.images_of(2)
    assert torch.allclose(segmenter(batch), fast(batch), rtol=1e-4, atol=1e-5)


def test_torch_keeps_to_one_thread_beside_an_engine(segmenter_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []
    fast = Segmenter.from_exported(segmenter_onnx)
    run = type(fast.engine).__call__
    monkeypatch.setattr(type(fast.engine), "__call__", lambda *inputs: seen.append(torch.get_num_threads()) or run(*inputs))
    try:
        torch.set_num_threads(2)
        fast.predict(np.zeros((40, 90, 3), np.uint8))
        assert (seen, torch.get_num_threads()) == ([1], 2)
        monkeypatch.setattr(type(fast.engine), "__call__", lambda *inputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fast.predict(np.zeros((40, 90, 3), np.uint8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_results_stay_when_the_next_image_is_seen(exported: Path) -> None:
    fast, images = Detector.from_exported(exported, threads=1), nets.images_of(2)
    first = fast(images[:1])
    kept = first.class_logits.clone()
    assert not torch.equal(fast(images[1:]).class_logits, kept)
    assert torch.equal(first.class_logits, kept)


def test_other_models_are_refused(detector_onnx: Path) -> None:
    with pytest.raises(ValueError, match="holds no segmenter"):
        Segmenter.from_exported(detector_onnx)
    with pytest.raises(ValueError, match="exported from another detector; differing: class_names"):
        nets.detector((*SHAPE_CLASSES[:4], "cow")).run_by(load_engine(detector_onnx))


def test_what_a_file_cannot_do_is_refused(detector_onnx: Path, segmenter_onnx: Path, tmp_path: Path) -> None:
    detector, segmenter = Detector.from_exported(detector_onnx), Segmenter.from_exported(segmenter_onnx)
    with pytest.raises(ValueError, match="accepted by an exported file: uint8"):
        detector(torch.rand(1, 3, *nets.SIZE))
    with pytest.raises(ValueError, match=r"images are \[64, 64\] .* accepted by the exported file: \[64, 96\]"):
        detector(nets.images_of(1, (64, 64)))
    with pytest.raises(ValueError, match="no weights of its own"):
        detector.save(tmp_path / "copy.safetensors")
    with pytest.raises(ValueError, match="looks at whole images once"):
        segmenter.set_looks(flip=True)
    with pytest.raises(ValueError, match="'bf16' is not possible with ONNX Runtime"):
        Detector.from_exported(detector_onnx, precision="bf16")


def test_broken_files_are_refused(exported: Path, tmp_path: Path) -> None:
    broken = tmp_path / exported.name
    broken.write_bytes(b"\x08\x01 nothing")
    with pytest.raises(ValueError, match="cannot be read by"):
        load_engine(broken)
    with pytest.raises(ValueError, match="no such exported file"):
        load_engine(tmp_path / "absent.onnx")


def test_file_that_describes_more_than_it_holds_is_refused(detector_onnx: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(detector_onnx)
    (entry,) = graph.metadata_props
    entry.value = entry.value.replace('"extra_channels": [16]', '"extra_channels": [4096, 4096]')
    onnx.save(graph, tmp_path / "large.onnx")
    with pytest.raises(ValueError, match=r"large\.onnx: describes [\d,]+ parameters, but has [\d,]+ bytes"):
        Detector.from_exported(tmp_path / "large.onnx")
    entry.value = "[]"
    onnx.save(graph, tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match="does not say what it holds"):
        Detector.from_exported(tmp_path / "odd.onnx")
