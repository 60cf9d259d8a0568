"""Files that several tests run. Torch takes seconds for an export: it is done once a task, and the rest is made of that file."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tasks.detect.__main__ import main as detect
from tasks.export.command import export_graph
from tasks.export.files import convert_to_openvino
from tasks.export.graphs import SegmentationGraph
from tests.tasks.export import nets


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package)
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for number in range(4):
        pixels = nets.images_of(1, (80, 100))[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"photos/{number}.png")
    return folder / "photos"


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Path:
    """That of `nets.detector`, but for its size."""
    model = nets.detector()
    model.resize((64, 64))
    model.save(folder / "detector.safetensors")
    return folder / "detector.safetensors"


@pytest.fixture(scope="session")
def detector_onnx(checkpoint: Path, folder: Path, photos: Path) -> Path:
    height, width = nets.SIZE
    detect(
        ["export", f"--ckpt_path={checkpoint}", f"--output={folder / 'new/own.onnx'}", f"--images={photos}", f"--size=[{height}, {width}]"]
    )
    return folder / "new/own.onnx"


@pytest.fixture(scope="session")
def detector_xml(detector_onnx: Path, folder: Path) -> Path:
    shutil.copy(detector_onnx, folder / "own.onnx")
    return convert_to_openvino(folder / "own.onnx")


@pytest.fixture(scope="session")
def segmenter_onnx(folder: Path) -> Path:
    export_graph(SegmentationGraph(nets.segmenter()), str(folder / "segmenter.onnx"), "onnx")
    return folder / "segmenter.onnx"
