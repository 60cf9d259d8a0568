"""COCO's polygons and run lengths, drawn to masks."""

import json
import pickle
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.labels import COCO_NAMES_OF_VOC
from tasks.segment.annotations import CocoMasks, from_coco
from tasks.segment.polygons import draw

SIZE = (6, 8)
PERSON, CAT, DOG, KITE = 1, 17, 18, 38
LABELS = {CAT: 8, DOG: 12}
CATEGORIES = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}, {"id": KITE, "name": "kite"}]


def polygon(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Counts of pixels outside and inside a rectangle in turns, down the columns."""
    inside = np.zeros(size, dtype=bool)
    inside[top:bottom, left:right] = True
    counts = [len(list(run)) for _, run in groupby(inside.T.ravel())]
    return {"size": list(size), "counts": [0, *counts] if inside[0, 0] else counts}


def compressed(rectangle: tuple[int, int, int, int]) -> dict[str, Any]:
    from pycocotools import mask as rle

    inside = np.zeros(SIZE, dtype=np.uint8, order="F")
    inside[rectangle[1] : rectangle[3], rectangle[0] : rectangle[2]] = 1
    encoded = rle.encode(inside)
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


def annotate(category: int, segmentation: Any, image: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [0, 0, 2, 2], "segmentation": segmentation, **more}


def write_coco(folder: Path, annotations: Sequence[Any], **more: Any) -> Path:
    images = [{"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]} for number in (1, 2)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": CATEGORIES} | more))
    return path


def read(folder: Path, *annotations: Any, voc_labels: bool = True, min_pixels: int = 0, **more: Any) -> CocoMasks:
    return from_coco(write_coco(folder, annotations, **more), folder, voc_labels, min_pixels)


def rectangles(*parts: tuple[int, tuple[int, int, int, int]]) -> np.ndarray:
    """A mask in which later (value, rectangle) lie on earlier ones."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for value, (left, top, right, bottom) in parts:
        mask[top:bottom, left:right] = value
    return mask


BOX, OTHER = (1, 1, 5, 4), (3, 2, 8, 6)
BOTH = (3, 2, 5, 4)


def segmentation(kind: str, rectangle: tuple[int, int, int, int]) -> Any:
    return {"polygon": [polygon(*rectangle)], "run lengths": run_lengths(*rectangle), "compressed": compressed(rectangle)}[kind]


KINDS = ["polygon", "run lengths", "compressed"]


@pytest.mark.parametrize("rectangle", [BOX, OTHER, (0, 0, 1, 1), (7, 5, 8, 6), (0, 0, 8, 6)])
@pytest.mark.parametrize("kind", KINDS)
def test_rectangle_has_its_pixels(tmp_path: Path, kind: str, rectangle: tuple[int, int, int, int]) -> None:
    mask = read(tmp_path, annotate(DOG, segmentation(kind, rectangle))).mask(0)
    assert np.array_equal(mask, rectangles((12, rectangle)))
    assert mask.dtype == np.uint8


def test_polygon_beyond_the_image_is_cut_off() -> None:
    assert np.array_equal(
        draw([[polygon(-5, -5, 2, 3)], [polygon(6, 4, 30, 30)]], SIZE, "x"), rectangles((1, (0, 0, 2, 3)), (1, (6, 4, 8, 6)))
    )
    assert not draw([[polygon(20, 20, 30, 30)]], SIZE, "x").any()


def test_object_of_several_polygons_and_kinds() -> None:
    expected = rectangles((1, (0, 0, 2, 2)), (1, (3, 0, 5, 2)), (1, (0, 4, 8, 6))).astype(bool)
    parts = [[polygon(0, 0, 2, 2), polygon(3, 0, 5, 2)], run_lengths(0, 4, 6, 6), compressed((5, 4, 8, 6))]
    drawn = draw(parts, SIZE, "x")
    assert np.array_equal(drawn, expected)
    assert drawn.dtype == bool


def test_image_without_objects_is_background(tmp_path: Path) -> None:
    found = read(tmp_path, annotate(CAT, [polygon(*BOX)], image=2))
    assert not found.mask(0).any()
    assert found.mask(1).any()
    assert not read(tmp_path).mask(1).any()
    assert len(read(tmp_path, images=[])) == 0


def test_each_image_has_its_own_objects(tmp_path: Path) -> None:
    parts = [
        annotate(CAT, [polygon(*BOX)], image=2),
        annotate(DOG, run_lengths(*OTHER), image=1),
        annotate(CAT, [polygon(0, 0, 1, 1)], image=2),
    ]
    found = read(tmp_path, *parts)
    assert [Path(file).name for file in found.files] == ["1.png", "2.png"]
    assert np.array_equal(found.mask(0), rectangles((12, OTHER)))
    assert np.array_equal(found.mask(1), rectangles((8, BOX), (8, (0, 0, 1, 1))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [(CAT, DOG), (DOG, CAT)])
def test_overlap_of_two_classes_is_void(tmp_path: Path, kind: str, order: tuple[int, int]) -> None:
    mask = read(tmp_path, annotate(order[0], segmentation(kind, BOX)), annotate(order[1], segmentation(kind, OTHER))).mask(0)
    assert np.array_equal(mask, rectangles((LABELS[order[0]], BOX), (LABELS[order[1]], OTHER), (255, BOTH)))


def test_overlap_of_three_classes_stays_void(tmp_path: Path) -> None:
    parts = [annotate(category, [polygon(*BOX)]) for category in (CAT, DOG, KITE, CAT)]
    assert np.array_equal(read(tmp_path, *parts, voc_labels=False).mask(0), rectangles((255, BOX)))


def test_overlap_within_a_class_is_of_that_class(tmp_path: Path) -> None:
    mask = read(tmp_path, annotate(CAT, [polygon(*BOX)]), annotate(CAT, run_lengths(*OTHER))).mask(0)
    assert np.array_equal(mask, rectangles((8, BOX), (8, OTHER)))


@pytest.mark.parametrize("crowd", [CAT, DOG])
@pytest.mark.parametrize("first", [True, False])
def test_crowds_are_void_where_nothing_else_is(tmp_path: Path, crowd: int, first: bool) -> None:
    parts = [annotate(crowd, run_lengths(*OTHER), iscrowd=1), annotate(CAT, [polygon(*BOX)], iscrowd=0)]
    assert np.array_equal(read(tmp_path, *(parts if first else parts[::-1])).mask(0), rectangles((255, OTHER), (8, BOX)))


def test_other_categories_are_background(tmp_path: Path) -> None:
    kite = annotate(KITE, [polygon(*OTHER)])
    crowd = annotate(KITE, run_lengths(0, 0, 8, 6), iscrowd=1)
    assert np.array_equal(read(tmp_path, kite, crowd, annotate(CAT, [polygon(*BOX)])).mask(0), rectangles((8, BOX)))


def test_images_with_less_area_of_the_classes_are_left_out(tmp_path: Path) -> None:
    parts = [
        annotate(CAT, [polygon(*BOX)], area=5),
        annotate(DOG, [polygon(*BOX)], area=5),
        annotate(CAT, [polygon(*BOX)], image=2, area=9),
        annotate(DOG, run_lengths(*BOX), image=2, area=100, iscrowd=1),
        annotate(KITE, [polygon(*BOX)], image=2, area=100),
    ]
    kept = {least: [Path(f).stem for f in read(tmp_path, *parts, min_pixels=least).files] for least in (0, 9, 10, 11)}
    assert kept == {0: ["1", "2"], 9: ["1", "2"], 10: ["1"], 11: []}
    (mask,) = [read(tmp_path, *parts, min_pixels=10).mask(0)]
    assert np.array_equal(mask, rectangles((255, BOX)))


def test_kept_images_keep_their_own_masks_and_sizes(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.png", "height": 4 + n, "width": 8 + n} for n in (5, 3, 4)]
    parts = [annotate(CAT, [polygon(0, 0, n, 1)], image=n, area=n) for n in (3, 4, 5)]
    found = read(tmp_path, *parts, min_pixels=4, images=images)
    assert found.sizes.tolist() == [[9, 13], [8, 12]]
    assert [found.mask(n).shape for n in (0, 1)] == [(9, 13), (8, 12)]
    assert [int((found.mask(n) == 8).sum()) for n in (0, 1)] == [5, 4]


@pytest.mark.parametrize("more", [{}, {"segmentation": None}, {"segmentation": []}, {"segmentation": {}}])
def test_object_without_a_segmentation_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    bare = {"image_id": 2, "category_id": CAT, "bbox": [0, 0, 1, 1], "id": 77, **more}
    with pytest.raises(ValueError, match=r"instances\.json: an object in image 2\.png has no segmentation; masks need polygons or run"):
        read(tmp_path, annotate(CAT, [polygon(*BOX)]), bare)
    assert len(read(tmp_path, bare | {"category_id": KITE})) == 2  # objects of other categories need none


BROKEN = {
    "text": "abc",
    "number": 7,
    "flat list": polygon(*BOX),
    "list of nothing": [None],
    "texts": ["abc"],
    "one point": [[1, 1]],
    "empty polygon": [[]],
    "text in a polygon": [[1, 1, "x", 1, 4, 3]],
    "no counts": {"size": list(SIZE)},
    "no size": {"counts": [6, 3, 39]},
    "compressed without size": {"counts": "6230009"},
    "too many counts": {"size": list(SIZE), "counts": [6, 3, 400]},
    "negative counts": {"size": list(SIZE), "counts": [6, -3, 45]},
    "damaged counts": {"size": list(SIZE), "counts": "$$$"},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
def test_broken_segmentation_is_refused_with_its_image(tmp_path: Path, broken: Any) -> None:
    found = read(tmp_path, annotate(CAT, [polygon(*BOX)]), annotate(DOG, broken))
    with pytest.raises(ValueError, match=r"instances\.json: an object of .*1\.png has "):
        found.mask(0)


@pytest.mark.parametrize("packed", [True, False])
def test_run_lengths_of_another_size_are_refused(tmp_path: Path, packed: bool) -> None:
    other = compressed(BOX) | {"size": [8, 6]} if packed else run_lengths(*BOX, size=(8, 6))
    with pytest.raises(ValueError, match=r"an object of .*1\.png has run lengths that do not fill its 6 x 8 pixels$"):
        read(tmp_path, annotate(CAT, other)).mask(0)
    with pytest.raises(ValueError, match=r"has run lengths that do not fill its 6 x 8 pixels$"):
        read(tmp_path, annotate(CAT, run_lengths(*BOX)), annotate(CAT, other)).mask(0)


@pytest.mark.parametrize("counts", [[6, 3], [], ""], ids=str)
def test_run_lengths_that_end_too_early_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        draw([{"size": list(SIZE), "counts": counts}], SIZE, "x")


@pytest.mark.parametrize("broken", [None, float("nan"), 3e9])
def test_polygon_out_of_all_bounds_is_refused(broken: Any) -> None:
    with pytest.raises(ValueError, match=r"three or more points|neither polygons"):
        draw([[[1, 1, broken, 1, 4, 3]]], SIZE, "x")


def test_all_categories_are_classes_when_asked(tmp_path: Path) -> None:
    found = read(tmp_path, annotate(KITE, [polygon(*BOX)]), voc_labels=False)
    assert found.class_names == ("background", "cat", "dog", "kite")
    assert np.array_equal(found.mask(0), rectangles((3, BOX)))


def test_file_without_any_of_cocos_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: has no category with a name of COCO's, .*voc_labels"):
        read(tmp_path, categories=[{"id": 18, "name": "scratch"}])


def test_more_classes_than_a_mask_can_hold_are_refused(tmp_path: Path) -> None:
    categories = [{"id": number, "name": str(number)} for number in range(300)]
    with pytest.raises(ValueError, match=r"instances\.json: has 301 classes; accepted: up to 255"):
        read(tmp_path, categories=categories, voc_labels=False)


@pytest.mark.parametrize("lacking", ["height", "width"])
@pytest.mark.parametrize("value", [None, 0, "absent"])
def test_images_without_height_or_width_are_refused(tmp_path: Path, lacking: str, value: Any) -> None:
    image = {"id": 1, "file_name": "1.png", "height": 6, "width": 8}
    wrong = {key: v for key, v in (image | {lacking: value}).items() if v != "absent"}
    with pytest.raises(ValueError, match=r"instances\.json: image 1\.png has no height and width, in which its masks are drawn"):
        read(tmp_path, images=[wrong])


def test_unknown_image_and_missing_folder_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: an annotation has image_id 9, which is not in the file's list"):
        read(tmp_path, annotate(CAT, [polygon(*BOX)], image=9))
    with pytest.raises(ValueError, match=r"absent: no such image folder \(of .*instances\.json\)"):
        from_coco(write_coco(tmp_path, []), tmp_path / "absent", True)
    with pytest.raises(ValueError, match=r"absent\.json: no such annotation file"):
        from_coco(tmp_path / "absent.json", tmp_path, True)


def test_image_and_drawn_mask_are_read_together(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    found = read(tmp_path, annotate(CAT, [polygon(*BOX)]))
    image, mask = found.read(0)
    assert np.array_equal(image, pixels)
    assert np.array_equal(mask, rectangles((8, BOX)))
    assert found.origin(0) == str(tmp_path / "instances.json")
    Image.new("RGB", (9, 6)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: is 6 pixels high and 9 wide, but 6 and 8 in .*instances\.json"):
        found.check()


def test_drawn_masks_survive_pickling_to_workers(tmp_path: Path) -> None:
    found = read(tmp_path, annotate(CAT, [polygon(*BOX)], image=2), annotate(DOG, compressed(OTHER)))
    copy = pickle.loads(pickle.dumps(found))
    assert all(np.array_equal(found.mask(n), copy.mask(n)) for n in (0, 1))


def test_cocos_names_of_vocs_classes(shared: Path) -> None:
    data = json.loads((shared / "data" / "coco" / "annotations" / "instances_val.json").read_text())
    ids = {category["name"]: category["id"] for category in data["categories"]}
    assert [ids[name] for name in COCO_NAMES_OF_VOC] == [5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]


def test_every_real_coco_mask_is_drawn(shared: Path) -> None:
    folder = shared / "data" / "coco"
    found = from_coco(folder / "annotations" / "instances_val.json", folder / "val", True)
    assert len(found) == 206
    shares = np.zeros(256)
    for index in range(len(found)):
        mask = found.mask(index)
        assert mask.shape == tuple(found.sizes[index])
        shares += np.bincount(mask.ravel(), minlength=256) / mask.size / len(found)
    assert shares[21:255].sum() == 0
    assert shares[0] > 0.5
    assert 0 < shares[255] < 0.1
    assert shares[15] == shares[1:21].max()  # a person is in most images
    assert len(from_coco(folder / "annotations" / "instances_val.json", folder / "val", True, 1000)) < 206
    found.read(0)


def test_vocs_own_names_count_like_cocos(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "diningtable"}, {"id": 5, "name": "tv"}, {"id": 9, "name": "helmet"}]
    places = {3: (0, 0, 2, 2), 5: (2, 0, 4, 2), 9: (4, 0, 6, 2)}
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "1.png")
    found = read(tmp_path, *(annotate(number, [polygon(*place)]) for number, place in places.items()), categories=categories)
    assert set(np.unique(found.read(0)[1])) == {0, 11, 20}


def test_unknown_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: an annotation has category_id 99, which is not in the file's list"):
        read(tmp_path, annotate(99, [polygon(0, 0, 2, 2)]))
