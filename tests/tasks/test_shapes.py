"""The built-in data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tasks import shapes
from tasks.detect.annotations import from_coco
from tasks.shapes import SHAPE_CLASSES, default_root, draw_picture, ensure_shape_folders, ensure_shapes


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(shapes_root: Path) -> Path:
    return ensure_shapes(shapes_root, 48, 4)


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "annotations" / "instances_train.json").read_text())


def test_same_bytes_in_two_folders(tmp_path: Path) -> None:
    first, second = (files_of(ensure_shapes(tmp_path / name, 3, 2)) for name in "ab")
    assert first == second
    assert len(first) == 3 + 2 + 2


def test_seed_and_split_draw_other_pictures(tmp_path: Path) -> None:
    first, second = (files_of(ensure_shapes(tmp_path, 1, 1, seed)) for seed in (0, 1))
    pictures = [part[f"{split}/000000.jpg"] for part in (first, second) for split in ("train", "val")]
    assert len(set(pictures)) == 4


def test_more_pictures_begin_with_the_same(tmp_path: Path) -> None:
    few, more = files_of(ensure_shapes(tmp_path, 1, 1)), files_of(ensure_shapes(tmp_path, 2, 1))
    assert few["train/000000.jpg"] == more["train/000000.jpg"]


def test_every_class_empty_pictures_and_both_sizes_are_there(data: dict[str, Any]) -> None:
    assert {a["category_id"] for a in data["annotations"]} == {1, 2, 3, 4, 5}
    assert [c["name"] for c in data["categories"]] == list(SHAPE_CLASSES)
    assert 0 < len({i["id"] for i in data["images"]} - {a["image_id"] for a in data["annotations"]}) < 16
    areas = [a["area"] for a in data["annotations"]]
    assert min(areas) < 32**2
    assert max(areas) > 96**2


def test_boxes_and_areas_are_those_of_the_masks(data: dict[str, Any]) -> None:
    for annotation in data["annotations"]:
        pixels = rle.decode(annotation["segmentation"])
        rows, columns = np.nonzero(pixels)
        left, top, width, height = annotation["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation["area"] == pixels.sum() >= 40
    assert len({a["id"] for a in data["annotations"]}) == len(data["annotations"]) > 48


def test_masks_of_a_picture_do_not_overlap_and_have_its_size() -> None:
    for seed in range(20):
        picture, objects = draw_picture(np.random.default_rng(seed))
        assert 160 <= min(picture.size) <= max(picture.size) <= 256
        assert all(mask.shape == (picture.height, picture.width) for _, mask in objects)
        assert sum((mask.astype(int) for _, mask in objects), np.zeros(1)).max() <= 1


def test_pictures_have_the_annotated_sizes(folder: Path, data: dict[str, Any]) -> None:
    for image in data["images"]:
        with Image.open(folder / "train" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


def test_coco_reader_reads_them(folder: Path, data: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    read = from_coco(folder / "annotations" / "instances_train.json", folder / "train")
    assert (len(read), len(read.boxes)) == (48, len(data["annotations"]))
    assert read.class_names == SHAPE_CLASSES
    assert not caplog.records


def test_second_call_draws_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "draw_picture", lambda rng: pytest.fail("drawn again"))
    assert ensure_shapes(folder.parent, 48, 4) == folder


def test_interrupted_drawing_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = files_of(ensure_shapes(tmp_path / "whole", 3, 1))
    drawn = 0

    def interrupted(rng: np.random.Generator) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 3:
            raise KeyboardInterrupt
        return draw_picture(rng)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensure_shapes(tmp_path / "cut", 3, 1)
    assert files_of(ensure_shapes(tmp_path / "cut", 3, 1)) == whole


def test_drawing_keeps_its_pictures() -> None:
    # Of version 1; whoever changes them changes the version.
    drawn = [draw_picture(np.random.default_rng((0, 0, number))) for number in range(4)]
    assert [picture.size for picture, _ in drawn] == [(242, 221), (246, 203), (181, 220), (230, 234)]
    assert [[kind for kind, _ in objects] for _, objects in drawn] == [[4, 4], [4], [4, 0], [3, 0, 0]]
    areas = [mask.sum() for _, objects in drawn for _, mask in objects]
    assert areas == pytest.approx([1585, 3865, 2037, 1885, 2924, 5212, 8610, 3081], abs=30)


@pytest.mark.parametrize("kind", range(len(SHAPE_CLASSES)))
def test_one_shape_is_near_the_middle(kind: int) -> None:
    for seed in range(20):
        picture, objects = draw_picture(np.random.default_rng(seed), kind)
        ((found, mask),) = objects
        assert found == kind
        rows, columns = np.nonzero(mask)
        offset = np.abs([rows.mean() - picture.height / 2, columns.mean() - picture.width / 2])
        assert (offset < 0.25 * min(picture.size)).all()
        assert len(rows) > 500


def test_folders_hold_each_class(tmp_path: Path) -> None:
    folder = ensure_shape_folders(tmp_path, 12, 3)
    names = {split: [path.parent.name for path in sorted((folder / split).rglob("*.jpg"))] for split in ("train", "val")}
    assert {name: names["train"].count(name) for name in SHAPE_CLASSES} == {"circle": 3, "square": 3, "triangle": 2, "star": 2, "cross": 2}
    assert sorted(names["val"]) == sorted(SHAPE_CLASSES[:3])
    for split in ("train", "val"):  # also where no picture is in them
        assert {path.name for path in (folder / split).iterdir()} == set(SHAPE_CLASSES)
    again = files_of(ensure_shape_folders(tmp_path / "again", 12, 3))
    assert files_of(folder) == again
    assert len(set(again.values())) == 15


def test_folders_are_drawn_once_and_interrupted_drawing_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = files_of(ensure_shape_folders(tmp_path / "whole", 3, 1))

    def interrupted(rng: np.random.Generator, kind: int) -> Any:
        if kind == 2:
            raise KeyboardInterrupt
        return draw_picture(rng, kind)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensure_shape_folders(tmp_path / "cut", 3, 1)
    assert files_of(ensure_shape_folders(tmp_path / "cut", 3, 1)) == whole
    monkeypatch.setattr(shapes, "draw_picture", lambda rng, kind: pytest.fail("drawn again"))
    ensure_shape_folders(tmp_path / "cut", 3, 1)


def test_default_folder_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_root() == Path("/cache/mobiletap/shapes")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache/mobiletap/shapes"
