"""Boxes of a data set in packed arrays, read from COCO JSON or VOC XML."""

import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.coco import positions, read_coco
from tasks.labels import VOC_CLASSES
from tasks.voc import read_split

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
        left_out: names of the classes in that file that are neither trained nor evaluated.
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
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def of_image(self, index: int) -> slice:
        """The rows of image `index` in `boxes`, `labels` and `ignored`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def image_of_boxes(self) -> NDArray[np.int64]:
        """(M,) the image index of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def from_coco(path: str | Path, folder: str | Path, classes: Sequence[str] | None = None) -> BoxAnnotations:
    """Packs a COCO annotation file; categories are numbered by ascending id.

    Args:
        path: the JSON file.
        folder: where its images are.
        classes: names of the classes to keep, in the order of their labels; objects of others are left out, their images are kept.

    Raises:
        ValueError: see `read_coco`; an annotation names an unknown image or category; `folder` does not exist; or a class is not in the
            file.
    """
    path, folder = Path(path), Path(folder)
    data = read_coco(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such image folder (of {path})")
    images, annotations = data["images"], data["annotations"]
    categories = sorted(data["categories"], key=lambda category: category["id"])
    left_out: tuple[str, ...] = ()
    if classes is not None:
        categories, left_out = _subset(categories, classes, path)
        kept = {category["id"] for category in categories}
        unused = {category["id"] for category in data["categories"]} - kept
        annotations = [annotation for annotation in annotations if annotation["category_id"] not in unused]
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    category_ids = np.array([category["id"] for category in categories], dtype=np.int64)
    image_of = positions(image_ids, [a["image_id"] for a in annotations], f"{path}: an annotation has image_id")
    label_of = positions(category_ids, [a["category_id"] for a in annotations], f"{path}: an annotation has category_id")
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
        left_out=left_out,
    )


def _subset(categories: list[dict[str, Any]], classes: Sequence[str], path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The categories of the wanted names, in their order, and the names of the others."""
    by_name = {str(category["name"]): category for category in categories}
    unknown = [name for name in classes if name not in by_name]
    if unknown or not classes or len(set(classes)) < len(classes):
        what = f"has no class {unknown[0]!r}" if unknown else f"classes {list(classes)} are none or not distinct"
        raise ValueError(f"{path}: {what}; accepted: some of {', '.join(by_name)}")
    return [by_name[name] for name in classes], tuple(name for name in by_name if name not in classes)


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
        folder, names = read_split(root, year, "Main", split)
        for name in names:
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
