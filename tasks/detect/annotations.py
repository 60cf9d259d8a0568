"""Boxes of a data set in packed arrays, read from COCO JSON or VOC XML."""

import json
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.labels import VOC_CLASSES

log = logging.getLogger("lightning.pytorch")


@dataclass(frozen=True)
class BoxAnnotations:
    """Annotations of I images and M boxes; arrays instead of objects, so that loader workers share them without copies.

    Attributes:
        files: (I,) image paths.
        image_ids: (I,) int64 ids in the annotation file.
        sizes: (I, 2) int64 heights and widths in pixels, 0 where the annotations do not say.
        offsets: (I + 1,) int64; boxes `offsets[i]` to `offsets[i + 1]` belong to image i.
        boxes: (M, 4) float32 x1 y1 x2 y2 in pixels.
        labels: (M,) int64 in 1..K.
        ignored: (M,) bool; crowds of COCO and `difficult` objects of VOC, which neither train nor count in evaluation.
        class_names: the K names.
        category_ids: the K ids that the annotation file gives to the classes.
        source: the COCO annotation file, where there is one.
    """

    files: NDArray[np.str_]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    source: Path | None = None

    def __len__(self) -> int:
        return len(self.files)

    def of_image(self, index: int) -> slice:
        """The rows of image `index` in `boxes`, `labels` and `ignored`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def image_of_boxes(self) -> NDArray[np.int64]:
        """(M,) the image index of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def read_coco(path: str | Path) -> dict[str, Any]:
    """Reads a COCO annotation file and fills in what hand-made files leave out (`iscrowd` 0, `area` of the box, `info`).

    Raises:
        ValueError: the file does not exist, is not JSON, or lacks one of the three lists.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such annotation file") from error
    except ValueError as error:
        raise ValueError(f"{path}: is not valid JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise ValueError(f"{path}: has no list {key!r}; a COCO detection file holds images, annotations and categories")
    found: dict[str, Any] = data
    found.setdefault("info", {})
    _require(path, data)
    for number, annotation in enumerate(data["annotations"], start=1):
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
            raise ValueError(f"{path}: annotation {annotation.get('id', number)} has bbox {box}; accepted: [x, y, width, height]")
        annotation["id"] = number  # pycocotools takes an object of id 0 for none, and objects that share an id for one
        annotation["iscrowd"] = annotation.get("iscrowd") or 0
        annotation["area"] = box[2] * box[3] if annotation.get("area") is None else annotation["area"]
    return found


def _require(path: Path, data: dict[str, Any]) -> None:
    needed = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id", "bbox"), "categories": ("id", "name")}
    for part, keys in needed.items():
        for number, entry in enumerate(data[part]):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise ValueError(f"{path}: entry {number} of {part!r} has no {missing[0]!r}")
            wrong = [key for key in keys if key.endswith("id") and not isinstance(entry[key], int)]
            if wrong:
                raise ValueError(f"{path}: entry {number} of {part!r} has {wrong[0]} {entry[wrong[0]]!r}; accepted: whole numbers")


def from_coco(path: str | Path, folder: str | Path) -> BoxAnnotations:
    """Packs a COCO annotation file; categories are numbered by ascending id.

    Args:
        path: the JSON file.
        folder: where its images are.

    Raises:
        ValueError: see `read_coco`; an annotation names an unknown image or category; or `folder` does not exist.
    """
    path, folder = Path(path), Path(folder)
    data = read_coco(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such image folder (of {path})")
    images, annotations = data["images"], data["annotations"]
    categories = sorted(data["categories"], key=lambda category: category["id"])
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    category_ids = np.array([category["id"] for category in categories], dtype=np.int64)
    image_of = _lookup(image_ids, [a["image_id"] for a in annotations], f"{path}: an annotation has image_id")
    label_of = _lookup(category_ids, [a["category_id"] for a in annotations], f"{path}: an annotation has category_id")
    corners = np.array([a["bbox"] for a in annotations], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return _pack(
        files=[str(folder / image["file_name"]) for image in images],
        image_ids=image_ids,
        sizes=np.array([(i.get("height") or 0, i.get("width") or 0) for i in images], dtype=np.int64).reshape(-1, 2),
        image_of=image_of,
        boxes=corners,
        labels=label_of + 1,
        ignored=np.array([a["iscrowd"] for a in annotations], dtype=bool),
        class_names=tuple(str(category["name"]) for category in categories),
        category_ids=tuple(category_ids.tolist()),
        source=path,
    )


def from_voc(root: str | Path, splits: Sequence[tuple[str, str]]) -> BoxAnnotations:
    """Packs the boxes of a VOCdevkit.

    The 1-based inclusive pixels of VOC become continuous coordinates: a box over the first pixel is 0 0 1 1.

    Args:
        root: the VOCdevkit folder.
        splits: (year, split) pairs, such as ("2007", "trainval"), which are joined.

    Raises:
        ValueError: a file is missing or not as VOC writes it, or an object has an unknown class.
    """
    files: list[str] = []
    sizes, image_of, boxes, labels, ignored = [], [], [], [], []
    for year, split in splits:
        folder = Path(root) / f"VOC{year}"
        list_file = folder / "ImageSets" / "Main" / f"{split}.txt"
        if not list_file.is_file():
            raise ValueError(f"{list_file}: no such file; root must be a VOCdevkit folder that holds VOC{year}")
        for line in list_file.read_text().splitlines():
            if not line.strip():
                continue
            name = line.split()[0]
            tree = _parse_voc(folder / "Annotations" / f"{name}.xml")
            sizes.append(tree[0])
            for box, label, difficult in tree[1]:
                image_of.append(len(files))
                boxes.append(box)
                labels.append(label)
                ignored.append(difficult)
            files.append(str(folder / "JPEGImages" / f"{name}.jpg"))
    return _pack(
        files=files,
        image_ids=np.arange(1, len(files) + 1),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        image_of=np.array(image_of, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        ignored=np.array(ignored, dtype=bool),
        class_names=VOC_CLASSES,
        category_ids=tuple(range(1, len(VOC_CLASSES) + 1)),
    )


def _parse_voc(path: Path) -> tuple[tuple[int, int], list[tuple[list[float], int, bool]]]:
    try:
        tree = ElementTree.parse(path).getroot()
        size = (int(tree.findtext("size/height", "0")), int(tree.findtext("size/width", "0")))
        objects = []
        for item in tree.iter("object"):
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
            label = VOC_CLASSES.index(item.findtext("name", "")) + 1
            objects.append(([x1 - 1, y1 - 1, x2, y2], label, item.findtext("difficult", "0").strip() == "1"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such annotation file") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: is not a VOC annotation with VOC's 20 classes: {error}") from error
    return size, objects


def _lookup(known: NDArray[np.int64], wanted: list[int], where: str) -> NDArray[np.int64]:
    """Returns the position of each wanted id among the known ones."""
    values, order = np.array(wanted, dtype=np.int64), np.argsort(known)
    if not len(values):
        return values
    place = np.searchsorted(known, values, sorter=order).clip(max=max(len(known) - 1, 0))
    found = order[place] if len(known) else place
    unknown = values[known[found] != values] if len(known) else values
    if len(unknown):
        raise ValueError(f"{where} {unknown[0]}, which is not in the file's list")
    return found


def _pack(image_of: NDArray[np.int64], **arrays: Any) -> BoxAnnotations:
    """Sorts boxes by image, clips them to it, and drops and counts those of which nothing is left."""
    order = np.argsort(image_of, kind="stable")
    image_of, boxes = image_of[order], arrays["boxes"][order]
    limits = np.where(arrays["sizes"] > 0, arrays["sizes"], np.iinfo(np.int32).max)[image_of][:, [1, 0, 1, 0]]
    boxes = np.clip(boxes, 0, limits).astype(np.float32)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not kept.all():
        first = arrays["files"][image_of[~kept][0]]
        log.warning("%d of %d boxes are empty or outside their image and are dropped, the first in %s", (~kept).sum(), len(kept), first)
    counts = np.bincount(image_of[kept], minlength=len(arrays["files"]))
    arrays |= {
        "files": np.array(arrays["files"], dtype=np.str_),
        "boxes": boxes[kept],
        "labels": arrays["labels"][order][kept],
        "ignored": arrays["ignored"][order][kept],
        "offsets": np.concatenate([[0], np.cumsum(counts)]),
    }
    return BoxAnnotations(**arrays)
