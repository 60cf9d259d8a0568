"""The messy images as training sets of all three tasks: 58 of them, 7 broken, as Pillow says."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.classify.__main__ import main as classify
from tasks.detect.__main__ import main as detect
from tasks.images import read_image
from tasks.probe import probe, silenced
from tasks.segment.__main__ import main as segment
from tests.tasks import nursery

BROKEN = {
    "broken.png",
    "broken_data_stream.png",
    "decompression_bomb.gif",
    "png_decompression_dos.png",
    "truncated_image.png",
    "truncated_jpeg.jpg",
    "ultrahdr.jpg",
}


@pytest.fixture
def messy(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = shared / "data" / "messy"
    with (folder / "index.csv").open() as file:
        return [folder / row["category"] / row["file"] for row in csv.DictReader(file)]


def test_each_image_is_judged_as_reading_it_does(messy: list[Path]) -> None:
    assert len(messy) == 58
    for path in messy:
        with silenced():
            found = probe(str(path))
        assert (found.worst is not None) == (path.name in BROKEN), path
        if found.worst is None:
            assert read_image(path).shape[:2] == found.size
        else:
            assert found.worst.message.startswith(f"{path}: cannot be read as an image: ")
            with pytest.raises(ValueError, match="cannot be read as an image"):
                read_image(path)


def link(target: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, place)
    return place


def as_boxes(messy: list[Path], folder: Path) -> list[str]:
    for split, files in (("train", messy), ("val", messy[::4])):
        images, boxes = [], []
        for number, path in enumerate(files, start=1):
            place = link(path, folder / split / f"{number:02d}_{path.name}")
            images.append({"id": number, "file_name": place.name})
            boxes.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [0, 0, 40, 40]})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (folder / f"{split}.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    named = [f"--data.{s}_{what}={folder / s}{end}" for s in ("train", "val") for what, end in (("images", ""), ("annotations", ".json"))]
    return ["--data=tasks.detect.data.Coco", *named]


def as_masks(messy: list[Path], folder: Path) -> list[str]:
    for split, files in (("train", messy), ("val", messy[::4])):
        (folder / f"{split}_masks").mkdir(parents=True)
        for number, path in enumerate(files):
            place = link(path, folder / f"{split}_images" / f"{number:02d}_{path.name}")
            with Image.open(path) if path.name not in BROKEN else Image.new("L", (8, 8)) as image:
                width, height = image.size
            mask = np.full((height, width), number % 3, dtype=np.uint8)
            Image.fromarray(mask).save(folder / f"{split}_masks" / f"{place.stem}.png")
    named = [f"--data.{s}_{what}={folder / f'{s}_{what}'}" for s in ("train", "val") for what in ("images", "masks")]
    return ["--data=tasks.segment.data.Folders", "--data.class_names=[background, cat, dog]", *named]


def as_classes(messy: list[Path], folder: Path) -> list[str]:
    for split, files in (("train", messy), ("val", messy[::4])):
        for number, path in enumerate(files):
            link(path, folder / split / ("cat", "dog")[number % 2] / f"{number:02d}_{path.name}")
    return ["--data=tasks.classify.data.ImageFolder", f"--data.root={folder}"]


CASES = {"detect": (detect, as_boxes), "segment": (segment, as_masks), "classify": (classify, as_classes)}


def flags(task: str, messy: list[Path], folder: Path) -> list[str]:
    quick = [flag for flag in (*nursery.FLAGS, *nursery.OWN[task]) if "_images=" not in flag and "max_epochs" not in flag]
    return [*CASES[task][1](messy, folder / "data"), *quick, "--trainer.max_epochs=1", "--data.batch_size=8", f"--runs={folder / 'runs'}"]


@pytest.mark.parametrize("task", [pytest.param(task, marks=[] if task == "classify" else pytest.mark.slow) for task in CASES])
def test_training_leaves_the_broken_ones_out_and_lists_them_once(
    task: str, messy: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, args = CASES[task][0], flags(task, messy, tmp_path)
    main(["fit", *args, "--name=mine", "--data.on_fault=skip"])
    lost = sum(path.name in BROKEN for path in messy[::4])
    metrics: dict[str, Any] = json.loads((tmp_path / "runs" / task / "mine" / "metrics.json").read_text())
    assert (metrics["images"], metrics["images_left_out"]) == (15 - lost, lost)
    said = [record.getMessage() for record in caplog.records if "on_fault skip" in record.getMessage()]
    assert len(said) == 1 + (lost > 0)
    assert said[-1].startswith("on_fault skip leaves out 7 of the 58 images of the train split; ")
    assert not [path for path in tmp_path.glob("cache/mobiletap/checked/*.json") if not json.loads(path.read_text()) and lost]


@pytest.mark.parametrize("task", CASES)
def test_otherwise_the_first_one_is_named(task: str, messy: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: \S+: cannot be read as an image: \S") as stopped:
        CASES[task][0](["fit", *flags(task, messy, tmp_path), "--name=mine"])
    assert any(name in str(stopped.value) for name in BROKEN)
    assert "\n" not in str(stopped.value)
