"""Reading COCO JSON and VOC XML."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.coco import read_coco
from tasks.detect.annotations import BoxAnnotations, from_coco, from_voc
from tasks.labels import VOC_CLASSES

IMAGES = [
    {"id": 20, "file_name": "b.jpg", "width": 100, "height": 80},
    {"id": 3, "file_name": "a.jpg", "width": 50, "height": 60},
    {"id": 7, "file_name": "empty.jpg", "width": 30, "height": 40},
]
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]


def box(image: int, category: int, xywh: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": xywh, **more}


def write(folder: Path, boxes: list[Any], **more: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": IMAGES, "annotations": boxes, "categories": CATEGORIES} | more))
    return path


def read(folder: Path, *annotations: Any, **more: Any) -> BoxAnnotations:
    return from_coco(write(folder, list(annotations), **more), folder)


def test_categories_are_numbered_by_ascending_id(tmp_path: Path) -> None:
    found = read(tmp_path, box(3, 90, [0, 0, 5, 5]), box(3, 1, [0, 0, 6, 6]), box(3, 13, [0, 0, 7, 7]))
    assert found.class_names == ("person", "stop sign", "toothbrush")
    assert found.category_ids == (1, 13, 90)
    assert found.labels.tolist() == [3, 1, 2]
    assert found.labels.dtype == np.int64


def test_images_keep_their_order_and_their_boxes(tmp_path: Path) -> None:
    found = read(tmp_path, box(3, 1, [1, 2, 3, 4]), box(20, 1, [5, 6, 7, 8]), box(3, 13, [0, 0, 9, 9]))
    assert [Path(file).name for file in found.files] == ["b.jpg", "a.jpg", "empty.jpg"]
    assert found.image_ids.tolist() == [20, 3, 7]
    assert found.sizes.tolist() == [[80, 100], [60, 50], [40, 30]]
    assert found.offsets.tolist() == [0, 1, 3, 3]
    assert found.boxes[found.of_image(0)].tolist() == [[5, 6, 12, 14]]
    assert found.boxes[found.of_image(1)].tolist() == [[1, 2, 4, 6], [0, 0, 9, 9]]
    assert found.boxes[found.of_image(2)].shape == (0, 4)
    assert found.image_of_boxes().tolist() == [0, 1, 1]
    assert len(found) == 3


def test_crowds_are_ignored(tmp_path: Path) -> None:
    found = read(tmp_path, box(3, 1, [0, 0, 5, 5], iscrowd=1), box(3, 1, [0, 0, 6, 6], iscrowd=0), box(3, 1, [0, 0, 7, 7]))
    assert found.ignored.tolist() == [True, False, False]


def test_what_hand_made_files_leave_out_is_filled_in(tmp_path: Path) -> None:
    given = box(3, 1, [0, 0, 4, 4], id=2, area=5, iscrowd=1)
    data = read_coco(write(tmp_path, [box(3, 1, [0, 0, 4, 2.5]), given]))
    assert data["info"] == {}
    assert {key: data["annotations"][0][key] for key in ("id", "iscrowd", "area")} == {"id": 1, "iscrowd": 0, "area": 10}
    assert data["annotations"][1] == given


def test_sizes_may_be_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 1, [0, 0, 5000, 5]), images=[{"id": 1, "file_name": "a.jpg"}])
    assert found.sizes.tolist() == [[0, 0]]
    assert found.boxes.tolist() == [[0, 0, 5000, 5]]


def test_boxes_are_clipped_to_their_image(tmp_path: Path) -> None:
    found = read(tmp_path, box(3, 1, [-5, -5, 20, 20]), box(3, 1, [40, 50, 30, 30]))
    assert found.boxes.tolist() == [[0, 0, 15, 15], [40, 50, 50, 60]]
    assert found.boxes.dtype == np.float32


def test_degenerate_boxes_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [[1, 1, 0, 5], [1, 1, 5, -2], [60, 5, 10, 10], [-9, 0, 5, 5], [float("nan"), 0, 5, 5]]
    with caplog.at_level(logging.WARNING, "lightning.pytorch"):
        found = read(tmp_path, *(box(3, 13, xywh) for xywh in bad), box(20, 1, [0, 0, 5, 5]), box(3, 90, [1, 1, 2, 2]))
    assert found.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 3, 3]]
    assert found.labels.tolist() == [1, 3]
    assert found.offsets.tolist() == [0, 1, 2, 2]
    (record,) = caplog.records
    assert "5 of 7 boxes" in record.getMessage()
    assert "a.jpg" in record.getMessage()


def test_good_boxes_are_not_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lightning.pytorch"):
        found = read(tmp_path, box(3, 1, [0, 0, 50, 60]))
    assert len(found.boxes) == 1
    assert not caplog.records


def test_no_annotations_and_no_images(tmp_path: Path) -> None:
    without_boxes = read(tmp_path)
    assert (len(without_boxes), without_boxes.boxes.shape, without_boxes.offsets.tolist()) == (3, (0, 4), [0, 0, 0, 0])
    without_images = read(tmp_path, images=[])
    assert (len(without_images), without_images.sizes.shape, without_images.offsets.tolist()) == (0, (0, 2), [0])


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json: no such annotation file"):
        read_coco(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="absent: no such image folder"):
        from_coco(write(tmp_path, []), tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"<annotation/>"])
def test_file_that_is_not_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json: is not valid JSON"):
        read_coco(tmp_path / "bad.json")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_list_is_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, [], **{key: None})
    with pytest.raises(ValueError, match=f"has no list '{key}'"):
        read_coco(path)


def test_list_instead_of_a_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="has no list 'images'"):
        read_coco(tmp_path / "results.json")


@pytest.mark.parametrize(
    "xywh", [None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1 2 3 4", {"x": 1}, [1, 2, None, 4], [1, 2, "3", 4], [1, 2, [3], 4]]
)
def test_bad_bbox_is_refused_with_its_annotation(tmp_path: Path, xywh: Any) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: annotation 17 has bbox"):
        read(tmp_path, box(3, 1, [0, 0, 1, 1], id=16), box(3, 1, xywh, id=17))


@pytest.mark.parametrize("more", [{"annotations": [box(3, 2, [0, 0, 1, 1])]}, {"categories": [], "annotations": [box(3, 2, [0, 0, 1, 1])]}])
def test_unknown_category_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: an annotation has category_id 2, which is not"):
        from_coco(write(tmp_path, [], **more), tmp_path)


def test_unknown_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: an annotation has image_id 4, which is not"):
        read(tmp_path, box(3, 1, [0, 0, 1, 1]), box(4, 1, [0, 0, 1, 1]))


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": [{"bbox": [0, 0, 1, 1], "category_id": 1}]},
        {"annotations": [{"bbox": [0, 0, 1, 1], "image_id": 3}]},
        {"annotations": [7]},
        {"images": [{"id": 3}]},
        {"images": [{"file_name": "a.jpg"}]},
        {"categories": [{"id": 1}]},
        {"categories": [{"name": "person"}]},
    ],
    ids=str,
)
def test_missing_key_is_a_value_error_that_names_the_file(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"instances\.json"):
        from_coco(write(tmp_path, [], **more), tmp_path)


def test_real_coco_subset(shared: Path) -> None:
    folder = shared / "data" / "coco"
    found = from_coco(folder / "annotations" / "instances_val.json", folder / "val")
    assert (len(found), len(found.boxes), len(found.class_names)) == (206, 1786, 80)
    assert found.category_ids[-1] == 90
    assert found.class_names[0] == "person"
    assert 0 < found.ignored.sum() < 50
    assert all(Path(file).is_file() for file in found.files)
    train = from_coco(folder / "annotations" / "instances_train.json", folder / "train")
    assert (len(train), len(train.boxes)) == (843, 7541)
    assert train.class_names == found.class_names


def voc_object(name: str, corners: tuple[object, ...], difficult: object = 0) -> str:
    values = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    bndbox = "".join(f"<{key}>{value}</{key}>" for key, value in values)
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{bndbox}</bndbox></object>"


def write_voc(root: Path, year: str, split: str, images: dict[str, str], listed: str | None = None) -> None:
    folder = root / f"VOC{year}"
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(listed or "\n".join(images) + "\n")
    for name, objects in images.items():
        xml = f"<annotation><size><width>50</width><height>40</height><depth>3</depth></size>{objects}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(xml)


def test_first_voc_pixel_is_the_first_unit(tmp_path: Path) -> None:
    write_voc(tmp_path, "2007", "train", {"a": voc_object("person", (1, 1, 1, 1)) + voc_object("cat", (11, 6, 50, 40))})
    found = from_voc(tmp_path, [("2007", "train")])
    assert found.boxes.tolist() == [[0, 0, 1, 1], [10, 5, 50, 40]]
    assert found.labels.tolist() == [15, 8]
    assert found.sizes.tolist() == [[40, 50]]
    assert found.files.tolist() == [str(tmp_path / "VOC2007" / "JPEGImages" / "a.jpg")]
    assert found.class_names == VOC_CLASSES
    assert len(VOC_CLASSES) == 20


def test_voc_difficult_objects_are_ignored(tmp_path: Path) -> None:
    objects = voc_object("dog", (1, 1, 9, 9), 1) + voc_object("dog", (1, 1, 9, 9), 0) + voc_object("dog", ("1.5", 1, 9, 9), "")
    write_voc(tmp_path, "2012", "val", {"a": objects.replace("<difficult></difficult>", "")})
    found = from_voc(tmp_path, [("2012", "val")])
    assert found.ignored.tolist() == [True, False, False]
    assert found.boxes[2].tolist() == [0.5, 0, 9, 9]


def test_parts_of_voc_objects_are_no_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part></object>"
    write_voc(tmp_path, "2007", "train", {"a": voc_object("person", (1, 1, 9, 9)).replace("</object>", part)})
    assert from_voc(tmp_path, [("2007", "train")]).boxes.tolist() == [[0, 0, 9, 9]]


def test_voc_years_are_joined_and_empty_images_kept(tmp_path: Path) -> None:
    write_voc(tmp_path, "2007", "trainval", {"000001": voc_object("bus", (1, 1, 9, 9)), "000002": ""})
    write_voc(tmp_path, "2012", "trainval", {"2008_1": voc_object("car", (1, 1, 9, 9)) * 2}, listed="2008_1  -1\n\n")
    found = from_voc(tmp_path, [("2007", "trainval"), ("2012", "trainval")])
    assert [Path(file).stem for file in found.files] == ["000001", "000002", "2008_1"]
    assert found.offsets.tolist() == [0, 1, 1, 3]
    assert found.labels.tolist() == [6, 7, 7]
    assert found.image_ids.tolist() == [1, 2, 3]
    assert found.source is None


def test_missing_voc_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.txt: no such file; root must be a VOCdevkit"):
        from_voc(tmp_path, [("2007", "train")])
    write_voc(tmp_path, "2007", "train", {}, listed="absent\n")
    with pytest.raises(ValueError, match=r"absent\.xml: no such annotation file"):
        from_voc(tmp_path, [("2007", "train")])


@pytest.mark.parametrize(
    "objects",
    [
        voc_object("unicorn", (1, 1, 2, 2)),
        voc_object("cat", (1, "", 2, 2)),
        "<object><name>cat</name></object>",
        "<object>",
        "<object><name>cat</name><bndbox><xmin>a</xmin></bndbox></object>",
    ],
)
def test_broken_voc_file_is_named(tmp_path: Path, objects: str) -> None:
    write_voc(tmp_path, "2007", "train", {"bad": objects})
    with pytest.raises(ValueError, match=r"bad\.xml: is not a VOC annotation"):
        from_voc(tmp_path, [("2007", "train")])


def test_real_voc_subset(shared: Path) -> None:
    train, val = (from_voc(shared / "data" / "VOCdevkit", [("2012", split)]) for split in ("train", "val"))
    assert (len(train), len(val)) == (1437, 223)
    assert set(np.unique(val.labels)) <= set(range(1, 21))
    assert 0 < val.ignored.sum() < len(val.boxes) / 2
    assert (val.boxes >= 0).all()
    assert all(Path(file).is_file() for file in val.files)
