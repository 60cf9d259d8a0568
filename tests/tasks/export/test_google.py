"""What Google's networks keep of their scores with whole numbers of 8 bits."""

import json
from pathlib import Path

import pytest

from tasks.convert import convert
from tasks.detect.__main__ import main as detect
from tasks.segment.__main__ import main as segment

pytestmark = pytest.mark.slow


def figures_of(runs: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(next(runs.rglob("metrics.json")).read_text())
    return found


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_ssdlite_loses_at_most_a_point(ending: str, shared: Path, folder: Path) -> None:
    root, checkpoint, file = shared / "data/coco", folder / "ssdlite.safetensors", folder / f"ssdlite{ending}"
    convert(str(shared / "weights/coco/ssdlite_mobilenet_v2_21of91_folded.npz"), str(checkpoint))
    form = "onnx" if ending == ".onnx" else "openvino"
    detect(
        ["export", f"--ckpt_path={checkpoint}", f"--output={file}", f"--format={form}", f"--images={root / 'train'}", "--precision=int8"]
    )
    data = ["--data=tasks.detect.data.Coco", f"--data.train_images={root / 'train'}", f"--data.val_images={root / 'val'}"]
    data += [f"--data.{split}_annotations={root / f'annotations/instances_{split}.json'}" for split in ("train", "val")]
    detect(["validate", f"--ckpt_path={checkpoint}", *data, f"--model.engine={file}", f"--runs={folder / ending}"])
    assert figures_of(folder / ending)["val/AP"] > 0.365 - 0.01


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_deeplab_loses_at_most_a_point(ending: str, shared: Path, folder: Path) -> None:
    root, checkpoint, file = shared / "data/VOCdevkit", folder / "deeplab.safetensors", folder / f"deeplab{ending}"
    convert(str(shared / "weights/voc/deeplabv3_mobilenet_v2_trainval_folded.npz"), str(checkpoint))
    names = (root / "VOC2012/ImageSets/Segmentation/train.txt").read_text().split()
    images = json.dumps([str(root / f"VOC2012/JPEGImages/{name}.jpg") for name in names])
    form = "onnx" if ending == ".onnx" else "openvino"
    flags = [f"--ckpt_path={checkpoint}", f"--output={file}", f"--format={form}", "--precision=int8"]
    segment(["export", *flags, f"--images={images}"])
    data = ["--data=tasks.segment.data.Voc", f"--data.root={root}", "--data.batch_size=8"]
    segment(["validate", f"--ckpt_path={checkpoint}", *data, f"--model.engine={file}", f"--runs={folder / f'deeplab{ending}-runs'}"])
    assert figures_of(folder / f"deeplab{ending}-runs")["val/mIoU_present"] > 0.748 - 0.01
