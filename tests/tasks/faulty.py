"""Data sets with one or more of each fault, written where a test wants them, and what `check` must count in them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (40, 60)
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]

# Ways to spoil an image file, by the kind of fault that each makes.
SPOILERS: dict[str, Callable[[Path], object]] = {
    "missing_image": lambda path: path.unlink(missing_ok=True),
    "empty_image": lambda path: path.write_bytes(b""),
    "not_an_image": lambda path: path.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "truncated_image": lambda path: path.write_bytes(picture(path, 1).read_bytes()[:-400]),
    "broken_image": lambda path: path.write_bytes(_torn(picture(path, 2))),
    "huge_image": lambda path: path.write_bytes(_bomb()),
}


def picture(path: Path, seed: int, size: tuple[int, int] = SIZE, kind: str | None = None) -> Path:
    """Writes noise; no two seeds give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=kind)
    return path


def _torn(path: Path) -> bytes:
    """A PNG whose pixels are overwritten."""
    Image.open(path).save(path, "PNG")
    content = path.read_bytes()
    return content[:200] + b"\0" * 100 + content[300:]


def _bomb() -> bytes:
    """A GIF of few bytes and 65535 x 65535 pixels."""
    return b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x08\x00;"


def write_coco(folder: Path, split: str, images: list[Any], boxes: list[Any], categories: list[Any] = CATEGORIES) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))


def coco_flags(folder: Path) -> list[str]:
    """The command line's words for such a data set."""
    named = [
        f"--data.{split}_{what}={folder / split}{end}"
        for split in ("train", "val")
        for what, end in (("images", ""), ("annotations", ".json"))
    ]
    return [*named, "--data.num_workers=0"]


def image(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1], **more}


def box(number: int, owner: int, xywh: Any, category: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": owner, "category_id": category, "bbox": xywh, **more}


def write_faulty_boxes(folder: Path) -> dict[str, dict[str, int]]:
    """Writes a COCO data set with every fault of boxes and images; returns what `check` must count in each split."""
    images = [image(n, f"{n}.jpg") for n in range(1, 7)]
    for n in range(1, 7):
        picture(folder / "train" / f"{n}.jpg", n)
    for n, (kind, spoil) in enumerate(SPOILERS.items(), start=20):
        spoil(picture(folder / "train" / f"{kind}.jpg", n))
        images.append(image(n, f"{kind}.jpg"))
    images += [image(30, "30.jpg"), image(31, "31.jpg"), image(32, "32.jpg", height=None, width=None)]
    picture(folder / "train" / "30.jpg", 30, (41, 60))
    picture(folder / "train" / "31.jpg", 31, kind="PNG")
    picture(folder / "train" / "32.jpg", 32)
    # Broken entries of images; the object of the second goes with it.
    images += [{"id": 40}, image(41, "41.jpg", height="high"), image("x", "42.jpg"), "43.jpg"]  # type: ignore[arg-type]
    images += [image(6, "6.jpg"), image(5, "other.jpg"), image(50, "4.jpg")]  # twice listed, an id twice, a file twice
    whole = [0, 0, 30, 20]
    boxes = [box(1, 1, whole), box(2, 2, [10, 10, 20, 20]), box(3, 41, whole), box(4, 5, whole), box(5, 6, whole)]
    boxes += [box(10, 1, [float("nan"), 0, 5, 5]), box(11, 1, [0, 0, float("inf"), 5]), box(12, 1, [0, 0, 10**400, 5])]
    boxes += [box(13, 1, [0, 0, 2e5, 5]), box(14, 1, [20, 20, -5, 5]), box(15, 2, [20, 20, 5, -5]), box(16, 2, [3, 3, 0, 5])]
    boxes += [box(17, 2, [60, 5, 9, 9]), box(18, 3, [-9, 0, 5, 5]), box(19, 3, [50, 30, 20, 20]), box(20, 3, [-2, -2, 10, 10])]
    boxes += [box(21, 3, [-0.4, 0, 10, 10]), box(22, 32, [50, 30, 20, 20]), box(23, 32, [5, 5, 5, 5])]
    boxes += [box(24, 4, [1, 2, 3]), box(25, 4, "1 2 3 4"), box(26, 4, [1, 2, None, 4]), {"id": 27, "image_id": 4}, 28]  # type: ignore[list-item]
    boxes += [box(30, 999, whole), box(31, 4, whole, 7), box(32, 4, whole, 8), box(1, 4, whole), box(33, 4, whole, area="large")]
    categories = [*CATEGORIES, {"id": 2, "name": "cow"}, {"id": 3, "name": "dog"}, {"name": "hen"}, {"id": 4, "name": "horse"}]
    write_coco(folder, "train", images, boxes, categories)

    (folder / "val").mkdir()
    shutil.copy(folder / "train" / "1.jpg", folder / "val")
    picture(folder / "val" / "61.jpg", 61)
    write_coco(folder, "val", [image(1, "1.jpg"), image(2, "61.jpg")], [box(1, 1, whole), box(2, 2, whole, 2)])
    train = dict.fromkeys(SPOILERS, 1) | {
        "wrong_size": 1,
        "broken_entry": 8,  # four images, three objects, a category
        "duplicate_image_id": 2,
        "duplicate_category_id": 1,
        "duplicate_category_name": 1,
        "duplicate_annotation_id": 1,
        "duplicate_file_name": 1,
        "unknown_image": 1,
        "unknown_category": 2,
        "broken_box": 3,
        "box_not_finite": 3,
        "box_huge": 1,
        "box_reversed": 2,
        "box_empty": 1,
        "box_outside": 2,
        "box_beyond": 3,
        "wrong_ending": 1,
        "class_without_images": 2,
    }
    return {"train": train, "val": {}, "both": {"differing_classes": 1, "shared_image": 1}}


def write_faulty_masks(folder: Path) -> dict[str, dict[str, int]]:
    """Writes folders of images and masks with every fault of masks; the classes are background, cat and dog."""
    masks, images = folder / "train_masks", folder / "train_images"
    masks.mkdir(parents=True)
    good = np.array([[0, 1], [2, 255]], dtype=np.uint8).repeat(20, 0).repeat(30, 1)

    def pair(name: str, seed: int, mask: np.ndarray | bytes | None) -> None:
        picture(images / f"{name}.jpg", seed)
        if isinstance(mask, bytes):
            (masks / f"{name}.png").write_bytes(mask)
        elif mask is not None:
            Image.fromarray(mask).save(masks / f"{name}.png")

    for n in range(4):
        pair(f"good{n}", n, good)
    whole = (masks / "good0.png").read_bytes()
    pair("absent", 10, None)
    pair("empty", 11, b"")
    pair("cut", 12, whole[:-30])
    pair("text", 13, b"mask")
    pair("colours", 14, np.stack([good] * 3, axis=-1))
    pair("values", 15, np.where(good == 2, 77, good))
    pair("scaled", 16, good * 100)
    pair("deep", 17, good.astype(np.uint16) * 256)
    pair("small", 18, good[:20])
    for n, (kind, spoil) in enumerate(SPOILERS.items(), start=20):
        if kind != "missing_image":
            pair(kind, n, good)
            spoil(images / f"{kind}.jpg")
    Image.fromarray(good).save(masks / "spare.png")
    picture(images / "good0.png", 0)  # beside good0.jpg
    for n in (30, 31):
        picture(folder / "val_images" / f"{n}.jpg", n)
        (folder / "val_masks").mkdir(exist_ok=True)
        Image.fromarray(np.where(good > 0, 255, 0).astype(np.uint8)).save(folder / "val_masks" / f"{n}.png")
    train = dict.fromkeys(set(SPOILERS) - {"missing_image"}, 1) | {
        "missing_mask": 1,
        "broken_mask": 3,
        "colour_mask": 1,
        "mask_values": 3,
        "mask_size": 1,
        "duplicate_file_name": 1,
        "unused_mask": 1,
    }
    return {"train": train, "val": {"mask_convention": 1}, "both": {}}


def mask_flags(folder: Path) -> list[str]:
    """The command line's words for such a data set."""
    named = [f"--data.{split}_{what}={folder / f'{split}_{what}'}" for split in ("train", "val") for what in ("images", "masks")]
    return ["--data=tasks.segment.data.Folders", "--data.class_names=[background, cat, dog]", *named, "--data.num_workers=0"]


def write_faulty_polygons(folder: Path) -> dict[str, dict[str, int]]:
    """Writes a COCO data set with every fault of segmentations."""
    for n in range(1, 9):
        picture(folder / "train" / f"{n}.jpg", n)
    square, whole = [5, 5, 20, 5, 20, 20, 5, 20], [0, 0, 30, 20]
    area = SIZE[0] * SIZE[1]
    parts: list[tuple[int, Any]] = [
        (1, [square]),
        (1, {"size": list(SIZE), "counts": [100, 50, area - 150]}),
        (2, [[1, 2, 3, 4]]),  # two points
        (2, [[1, 2, 3, 4, 5, 6, 7]]),  # half a point
        (2, [[1, 2, "3", 4, 5, "six"]]),
        (2, [[1e9, 1, 2, 3, 4, 5]]),
        (3, {"size": list(SIZE), "counts": [100, 50]}),
        (3, {"size": [9, 9], "counts": [81]}),
        (4, {"size": list(SIZE), "counts": "~"}),
        (4, {"counts": [area]}),
        (5, []),
        (5, None),
        (6, [square]),
    ]
    boxes = [box(n, owner, whole, 1 + n % 2, segmentation=part) for n, (owner, part) in enumerate(parts, start=1)]
    images = [image(n, f"{n}.jpg") for n in range(1, 8)]
    images[6] |= {"height": 41}
    write_coco(folder, "train", [*images, {"id": 8, "file_name": "8.jpg"}], boxes)
    picture(folder / "val" / "30.jpg", 30)
    write_coco(folder, "val", [image(1, "30.jpg")], [box(1, 1, whole, segmentation=[square])])
    train = {"broken_polygon": 4, "broken_run_lengths": 4, "missing_segmentation": 2, "broken_entry": 1, "wrong_size": 1}
    return {"train": train, "val": {}, "both": {}}


def write_faulty_folders(folder: Path) -> dict[str, dict[str, int]]:
    """Writes folders of classes with every fault of images."""
    for n, name in enumerate(("cat", "dog", "hen")):
        picture(folder / "train" / name / "good.jpg", n)
    for n, name in enumerate(("cat", "dog", "cow"), start=10):
        picture(folder / "val" / name / "good.jpg", n)
    for n, (kind, spoil) in enumerate(SPOILERS.items(), start=20):
        if kind != "missing_image":  # whose folder would not list it
            spoil(picture(folder / "train" / "dog" / f"{kind}.jpg", n))
    picture(folder / "train" / "cat" / "ending.jpg", 30, kind="GIF")
    (folder / "train" / "ox").mkdir()
    shutil.copy(folder / "train" / "hen" / "good.jpg", folder / "val" / "cow" / "hen.jpg")
    train = dict.fromkeys(set(SPOILERS) - {"missing_image"}, 1) | {"wrong_ending": 1, "class_without_images": 1}
    return {"train": train, "val": {}, "both": {"differing_classes": 3, "shared_image": 1}}
