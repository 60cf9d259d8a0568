"""Google's published networks, converted: their known outputs, what they see on photos, and the scores that they reach."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tasks.classify.__main__ import main as classify
from tasks.classify.model import Classifier
from tasks.convert import convert
from tasks.detect.__main__ import main as detect
from tasks.detect.model import Detector
from tasks.labels import VOC_CLASSES, VOC_MASK_CLASSES
from tasks.segment.__main__ import main as segment
from tasks.segment.model import Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("google")


@pytest.fixture(scope="module")
def ssdlite(shared: Path, folder: Path) -> Path:
    convert(str(shared / "weights/coco/ssdlite_mobilenet_v2_21of91_folded.npz"), str(folder / "ssdlite.safetensors"))
    return folder / "ssdlite.safetensors"


@pytest.fixture(scope="module")
def classifier(shared: Path, folder: Path) -> Path:
    convert(str(shared / "weights/imagenet/mobilenet_v2_1.0_224.safetensors"), str(folder / "classifier.safetensors"))
    return folder / "classifier.safetensors"


@pytest.fixture(scope="module")
def deeplab(shared: Path, folder: Path) -> Path:
    convert(str(shared / "weights/voc/deeplabv3_mobilenet_v2_trainval_folded.npz"), str(folder / "deeplab.safetensors"))
    return folder / "deeplab.safetensors"


@pytest.mark.parametrize(
    ("file", "count", "scheme"),
    [
        ("coco/ssdlite_mobilenet_v2_21of91_folded.npz", 176, "TensorFlow Object Detection API"),
        ("voc/deeplabv3_mobilenet_v2_trainval_folded.npz", 110, "TensorFlow slim and research/deeplab"),
        ("imagenet/mobilenet_v2_1.0_224.safetensors", 314, "torchvision"),
        ("imagenet/mobilenet_v2_0.35_224_keras.npz", 262, "Keras, numbered layers"),
        ("imagenet/mobilenet_v1_0.25_224_keras.npz", 137, "Keras"),
    ],
)
def test_every_tensor_is_used(file: str, count: int, scheme: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(str(shared / "weights" / file), str(tmp_path / "out.safetensors"))
    assert f"{count} tensors used, 0 not, 0 missing; the names are those of {scheme}\n" in capsys.readouterr().out


@pytest.mark.parametrize("photo", ["pets", "bicycle"])
@torch.no_grad()
def test_ssdlite_gives_the_reference_outputs(photo: str, ssdlite: Path, shared: Path) -> None:
    with np.load(shared / f"weights/coco/reference_raw_{photo}.npz") as reference:
        expected = {name: torch.from_numpy(reference[name]) for name in reference}
    model = Detector.from_checkpoint(ssdlite)
    found = model(expected["input_nchw"] / 2 + 0.5)  # which was normalised
    assert_close(found.class_logits[0], expected["class_logits21"], rtol=0, atol=1e-3)
    assert_close(found.box_deltas[0], expected["box_encodings_yxhw"][:, [1, 0, 3, 2]], rtol=0, atol=1e-3)
    corners = found.anchors / 300
    sides = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
    assert_close(sides, expected["anchors_ycxchw"][:, [1, 0, 3, 2]].float(), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def seen(ssdlite: Path, shared: Path, folder: Path) -> dict[str, list[str]]:
    """What `predict` finds with a score above one half, by photo."""
    photos = [str(shared / "weights/photos" / name) for name in ("pets.jpg", "bicycle.jpg", "cat_720p.jpg")]
    detect(["predict", f"--ckpt_path={ssdlite}", f"--images={json.dumps(photos)}", f"--output={folder / 'seen'}"])
    found = json.loads((folder / "seen/detections.json").read_text())
    return {Path(image["picture"]).stem: sorted(b["class_name"] for b in image["detections"] if b["score"] > 0.5) for image in found}


def test_ssdlite_finds_dogs_cyclists_and_the_cat(seen: dict[str, list[str]]) -> None:
    assert seen["pets"] == ["dog", "dog"]
    assert set(seen["bicycle"]) == {"bicycle", "person"}
    assert seen["bicycle"].count("person") >= 2
    assert seen["cat_720p"] == ["cat"]


@pytest.mark.slow
def test_ssdlite_reaches_its_known_score(ssdlite: Path, shared: Path, tmp_path: Path) -> None:
    root = shared / "data/coco"
    data = ["--data=tasks.detect.data.Coco", f"--data.val_images={root / 'val'}", "--data.num_workers=2"]
    data += [f"--data.{split}_annotations={root / f'annotations/instances_{split}.json'}" for split in ("train", "val")]
    detect(["validate", f"--ckpt_path={ssdlite}", *data, f"--data.train_images={root / 'train'}", f"--runs={tmp_path}"])
    figures = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert figures["val/AP"] == pytest.approx(0.365, abs=0.002)
    assert figures["val/AP50"] == pytest.approx(0.544, abs=0.002)
    assert len(figures["classes_left_out"]) == 60


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_classifier_gives_the_published_vectors(number: int, classifier: Path, shared: Path) -> None:
    vectors = shared / "weights/imagenet/mobilenet_v2_1.0_224_vectors" / str(number)
    given, expected = (torch.from_numpy(np.load(vectors / f"{name}_0.npy")) for name in ("input", "output"))
    model = Classifier.from_checkpoint(classifier)
    found = model.head(model.backbone(given.permute(0, 3, 1, 2))).softmax(dim=1)
    assert found.argmax() == expected.argmax() == 738
    assert_close(found.view(-1), expected.view(-1), rtol=0, atol=3e-3)


def test_classifier_names_photos(classifier: Path, shared: Path, tmp_path: Path) -> None:
    best = {
        "cat_720p.jpg": "Egyptian cat",
        "grace_hopper.bmp": "military uniform",
        "bicycle.jpg": "mountain bike",
        "dog_segmentation.bmp": "Samoyed",
    }
    photos = [str(shared / "weights/photos" / name) for name in best]
    classify(["predict", f"--ckpt_path={classifier}", f"--images={json.dumps(photos)}", f"--output={tmp_path}"])
    with (tmp_path / "classes.csv").open(newline="") as file:
        assert {Path(row["file"]).name: row["class_1"] for row in csv.DictReader(file)} == best


def test_mobilenet_v1_names_photos(shared: Path, tmp_path: Path) -> None:
    convert(str(shared / "weights/imagenet/mobilenet_v1_0.25_224_keras.npz"), str(tmp_path / "v1.safetensors"))
    best = {"cat_720p.jpg": "tabby", "grace_hopper.bmp": "bow tie", "bicycle.jpg": "mountain bike", "dog_segmentation.bmp": "Samoyed"}
    photos = [str(shared / "weights/photos" / name) for name in best]
    classify(["predict", f"--ckpt_path={tmp_path / 'v1.safetensors'}", f"--images={json.dumps(photos)}", f"--output={tmp_path}"])
    with (tmp_path / "classes.csv").open(newline="") as file:
        assert {Path(row["file"]).name: row["class_1"] for row in csv.DictReader(file)} == best


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def test_deeplab_finds_the_bird(deeplab: Path, shared: Path) -> None:
    photos = shared / "weights/photos"
    found = Segmenter.from_checkpoint(deeplab).predict(photos / "bird_segmentation.bmp").numpy()
    mask = np.array(Image.open(photos / "bird_segmentation_mask.bmp"))  # 3 is the bird, 1 and 2 lie on its border
    assert overlap(found == VOC_MASK_CLASSES.index("bird"), mask > 0) > 0.9
    assert set(np.unique(found)) == {0, VOC_MASK_CLASSES.index("bird")}


def test_deeplab_finds_the_dog(deeplab: Path, shared: Path) -> None:
    photos = shared / "weights/photos"
    mask = np.array(Image.open(photos / "dog_segmentation_mask.bmp"))  # 0 is the dog, 1 the background, 2 the border (void)
    found = Segmenter.from_checkpoint(deeplab).predict(photos / "dog_segmentation.bmp").numpy()
    assert overlap((found == VOC_MASK_CLASSES.index("dog")) & (mask != 2), mask == 0) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "expected"), [([], 0.7480), (["--model.backbone.output_stride", "8"], 0.7638)], ids=["16", "8"])
def test_deeplab_reaches_its_known_score(deeplab: Path, shared: Path, tmp_path: Path, flags: list[str], expected: float) -> None:
    data = ["--data", "tasks.segment.data.Voc", "--data.root", str(shared / "data/VOCdevkit"), "--data.num_workers", "2"]
    segment(["validate", "--ckpt_path", str(deeplab), *data, "--data.batch_size", "8", *flags, "--runs", str(tmp_path)])
    figures = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert figures["images"] == 223
    assert figures["val/mIoU_present"] == pytest.approx(expected, abs=0.002)


def test_detector_has_the_classes_of_voc_by_the_names_of_coco(ssdlite: Path) -> None:
    names = Detector.from_checkpoint(ssdlite).class_names
    assert (len(names), names[0], names[-1]) == (20, "airplane", "tv")
    assert [a for a, b in zip(names, VOC_CLASSES, strict=True) if a == b][:4] == ["bicycle", "bird", "boat", "bottle"]
