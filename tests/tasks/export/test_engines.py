"""Exported files compute what the torch model computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import MobileNetV2
from heads import LRASPP, DeepLabV3, SSDLite
from tasks.detect.model import Detector
from tasks.export.engines import load_engine
from tasks.export.files import write_onnx, write_openvino
from tasks.export.graphs import DetectionGraph, SegmentationGraph
from tasks.segment.model import Segmenter

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

Write = Callable[..., None]
FORMATS = {".onnx": write_onnx, ".xml": write_openvino}


def settle(model: torch.nn.Module) -> None:
    """Gives batch norms statistics and heads scores that differ, as of a trained network."""
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "class_layers" in name and value.ndim > 1:
            value.mul_(8)
    model.eval()


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    made = Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat", "dog"), size=(96, 128))
    settle(made)
    return made


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    made = Segmenter(MobileNetV2(width_mult=0.35, output_stride=16), DeepLabV3, ("background", "cat", "dog"), size=(65, 97))
    settle(made)
    with torch.no_grad():  # else one class wins everywhere
        made.head.logits.bias -= made(images_of(4, (65, 97))).mean((0, 2, 3))
    return made


def images_of(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Coloured patches, channels last in memory."""
    patches = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8)
    return torch.nn.functional.interpolate(patches, size, mode="nearest").contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("exported") / f"detector{request.param}"
    FORMATS[request.param](DetectionGraph(detector), (images_of(2, (96, 128)).permute(0, 2, 3, 1),), path)
    return path


@pytest.mark.parametrize("count", [1, 3])
def test_detector_computes_the_same(exported: Path, detector: Detector, count: int) -> None:
    fast, images = Detector.from_exported(exported, threads=1), images_of(count, (96, 128))
    with torch.no_grad():
        ours, theirs = detector(images), fast(images)
    assert torch.equal(ours.anchors, theirs.anchors)
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
    assert fast.class_names == ("cat", "dog")
    assert ours.class_logits.std() > 0.1


def test_exported_detector_predicts_the_same(exported: Path, detector: Detector) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (140, 90, 3), dtype=np.uint8)
    ours, theirs = detector.predict(photo), Detector.from_exported(exported, threads=1).predict(photo)
    assert len(ours.scores) == len(theirs.scores) > 20
    assert torch.allclose(ours.scores, theirs.scores, atol=1e-5)
    assert torch.allclose(ours.boxes, theirs.boxes, atol=0.01)


@pytest.mark.parametrize("ending", FORMATS)
def test_segmenter_computes_the_same_beside_padding(ending: str, segmenter: Segmenter, tmp_path: Path) -> None:
    graph = SegmentationGraph(segmenter)
    FORMATS[ending](graph, (images_of(2, (65, 97)).permute(0, 2, 3, 1), torch.tensor([[65, 97]] * 2)), tmp_path / f"s{ending}")
    fast = Segmenter.from_exported(tmp_path / f"s{ending}", threads=1)
    images = [images_of(1, size)[0] for size in ((65, 97), (40, 90), (200, 130))]
    for ours, theirs in zip(segmenter.segment(images), fast.segment(images), strict=True):
        assert (ours != theirs).float().mean() < 1e-3
        assert len(ours.unique()) > 1


def test_graph_that_ends_in_detections(detector: Detector, tmp_path: Path) -> None:
    image = images_of(1, (96, 128))
    write_onnx(DetectionGraph(detector, "detections"), (image.permute(0, 2, 3, 1),), tmp_path / "d.onnx")
    boxes, scores, labels = load_engine(tmp_path / "d.onnx", threads=1)(image.permute(0, 2, 3, 1).contiguous().numpy())
    (found,) = detector.detect(image, torch.tensor([[96, 128]]))
    assert np.allclose(found.scores, scores, atol=1e-5)
    assert np.allclose(found.boxes, boxes, atol=0.01)
    assert np.array_equal(found.labels, labels)
    assert len(scores) > 20


def test_graph_that_ends_in_labels(tmp_path: Path) -> None:
    model = Segmenter(MobileNetV2(width_mult=0.35, output_stride=16), LRASPP, ("background", "cat"), size=(65, 65))
    settle(model)
    images, sizes = images_of(2, (65, 65)), torch.tensor([[65, 65]] * 2)
    write_onnx(SegmentationGraph(model, "labels"), (images.permute(0, 2, 3, 1), sizes), tmp_path / "s.onnx")
    (labels,) = load_engine(tmp_path / "s.onnx", threads=1)(images.permute(0, 2, 3, 1).contiguous().numpy(), sizes.numpy())
    with torch.no_grad():
        assert (model(images).argmax(1).numpy() != labels).mean() < 1e-3
    assert labels.dtype == np.uint8


def test_other_models_and_files_are_refused(exported: Path, detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no segmenter"):
        Segmenter.from_exported(exported)
    other = Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat", "cow"), size=(96, 128))
    with pytest.raises(ValueError, match="exported from another detector; differing: class_names"):
        other.run_by(load_engine(exported))
    with pytest.raises(ValueError, match="accepted by an exported file: uint8"):
        Detector.from_exported(exported)(torch.rand(1, 3, 96, 128))
    broken = tmp_path / exported.name
    broken.write_bytes(b"\x08\x01 nothing")
    with pytest.raises(ValueError, match="cannot be read by"):
        load_engine(broken)
    with pytest.raises(ValueError, match="no such exported file"):
        load_engine(tmp_path / "absent.onnx")
