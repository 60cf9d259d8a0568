"""Boxes of a data set in packed arrays, read from COCO JSON or VOC XML."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.coco import box_array, no_collection, positions, read_coco
from tasks.detect.judge import BOX_FAULTS, FARTHEST, box_fault, judge_boxes, limits_of
from tasks.faults import Fault, FaultError, Faults, shown
from tasks.labels import VOC_CLASSES
from tasks.probe import Inspection, probe
from tasks.voc import read_split


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

    def select(self, kept: NDArray[np.int64]) -> "BoxAnnotations":
        """Returns the annotations of some images, given by their ascending indices."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[kept] = True
        rows = chosen[self.image_of_boxes()]
        return replace(
            self,
            files=self.files[kept],
            image_ids=self.image_ids[kept],
            sizes=self.sizes[kept],
            offsets=np.concatenate([[0], np.cumsum(np.diff(self.offsets)[kept])]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            ignored=self.ignored[rows],
        )

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """The files that reading needs."""
        return {"image": self.files}

    def facts(self) -> bytes:
        """The sizes, which images must have."""
        return self.sizes.tobytes()

    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Finds what is wrong with image `index`, and with its boxes where only the image gives its size; see `tasks.probe.probe`."""
        height, width = self.sizes[index].tolist()
        found = probe(str(self.files[index]), decode, (height, width), str(self.source or "its annotations"))
        if 0 in (height, width) and 0 not in found.size:
            boxes = self.boxes[self.of_image(index)]
            judged = judge_boxes(boxes, limits_of(np.repeat([found.size], len(boxes), axis=0)))
            kinds = ["", *BOX_FAULTS]
            found.faults.extend(
                box_fault(kinds[judged[n]], str(self.files[index]), boxes[n], boxes[n], None) for n in np.flatnonzero(judged)
            )
        return found

    def image_of_boxes(self) -> NDArray[np.int64]:
        """(M,) the image index of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


@no_collection()
def from_coco(path: str | Path, folder: str | Path, classes: Sequence[str] | None = None, faults: Faults | None = None) -> BoxAnnotations:
    """Packs a COCO annotation file; categories are numbered by ascending id.

    Args:
        path: the JSON file.
        folder: where its images are.
        classes: names of the classes to keep, in the order of their labels; objects of others are left out, their images are kept.
        faults: takes note of what is wrong; by default it raises what cannot be used.

    Raises:
        ValueError: see `read_coco`; `folder` does not exist; or a class is not in the file.
    """
    path, folder, faults = Path(path), Path(folder), faults or Faults()
    data = read_coco(path, faults)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such image folder (of {path})")
    images, annotations = data["images"], data["annotations"]
    categories = sorted(data["categories"], key=lambda category: category["id"])
    left_out: tuple[str, ...] = ()
    if classes is not None:
        categories, left_out = _subset(categories, classes, path)
        kept = {category["id"] for category in categories}
        annotations = [annotation for annotation in annotations if annotation["category_id"] in kept]
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    category_ids = np.array([category["id"] for category in categories], dtype=np.int64)
    found = box_array(annotations)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = found.astype(np.float32)
        corners[:, 2:] += corners[:, :2]
    return _pack(
        image_of=positions(image_ids, [a["image_id"] for a in annotations], f"{path}: an annotation has image_id"),
        faults=faults,
        name_of=lambda row: data["annotation_ids"][annotations[row]["id"] - 1],
        found=found,
        files=[str(folder / image["file_name"]) for image in images],
        image_ids=image_ids,
        sizes=np.array([(i.get("height") or 0, i.get("width") or 0) for i in images], dtype=np.int64).reshape(-1, 2),
        boxes=corners,
        labels=positions(category_ids, [a["category_id"] for a in annotations], f"{path}: an annotation has category_id") + 1,
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


def from_voc(root: str | Path, splits: Sequence[tuple[str, str]], faults: Faults | None = None) -> BoxAnnotations:
    """Packs the boxes of a VOCdevkit.

    The 1-based inclusive pixels of VOC become continuous coordinates: a box over the first pixel is 0 0 1 1.

    Args:
        root: the VOCdevkit folder.
        splits: (year, split) pairs, such as ("2007", "trainval"), which are joined.
        faults: takes note of what is wrong; by default it raises what cannot be used.

    Raises:
        ValueError: a list is missing; with the policy `error`, a file is missing or not as VOC writes it, or an object has an unknown
            class.
    """
    faults = faults or Faults()
    files: list[str] = []
    sizes, image_of, boxes, labels, ignored = [], [], [], [], []
    for year, split in splits:
        folder, names = read_split(root, year, "Main", split)
        for name in names:
            file = str(folder / "JPEGImages" / f"{name}.jpg")
            try:
                size, objects = _parse_voc(folder / "Annotations" / f"{name}.xml", file, faults)
            except FaultError as error:
                faults.refuse(error.kind, 1, [Fault(error.kind, str(error), file)], images=1)
                continue
            sizes.append(size)
            for box, label, difficult in objects:
                image_of.append(len(files))
                boxes.append(box)
                labels.append(label)
                ignored.append(difficult)
            files.append(file)
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = found.astype(np.float32)
    return _pack(
        image_of=np.array(image_of, dtype=np.int64),
        faults=faults,
        name_of=lambda row: None,
        found=found,
        files=files,
        image_ids=np.arange(1, len(files) + 1),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        boxes=corners,
        labels=np.array(labels, dtype=np.int64),
        ignored=np.array(ignored, dtype=bool),
        class_names=VOC_CLASSES,
        category_ids=tuple(range(1, len(VOC_CLASSES) + 1)),
    )


VocObject = tuple[list[float], int, bool]


def _parse_voc(path: Path, file: str, faults: Faults) -> tuple[tuple[int, int], list[VocObject]]:
    wrong = f"{path}: is not a VOC annotation with VOC's 20 classes"
    try:
        tree = ElementTree.parse(path).getroot()
        height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
        if min(height, width) < 0 or max(height, width) > FARTHEST:
            raise ValueError(f"it gives a size of {height} x {width} pixels")
    except FileNotFoundError as error:
        raise FaultError(f"{path}: no such annotation file", "missing_annotation") from error
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        raise FaultError(f"{wrong}: {error}", "broken_annotation") from error
    objects = []
    for item in tree.iter("object"):
        try:
            objects.append(_voc_object(item))
        except FaultError as error:
            faults.refuse(error.kind, 1, [Fault(error.kind, f"{wrong}: {error}", file)])
    return (height, width), objects


def _voc_object(item: ElementTree.Element) -> VocObject:
    name = item.findtext("name", "").strip()
    if name not in VOC_CLASSES:
        raise FaultError(f"an object has the class {shown(name)}", "unknown_category")
    corners = [item.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(corner) for corner in corners)
    except ValueError as error:
        raise FaultError(f"a {name} has the corners {shown(corners)}", "broken_box") from error
    return [x1 - 1, y1 - 1, x2, y2], VOC_CLASSES.index(name) + 1, item.findtext("difficult", "0").strip() == "1"


def _pack(
    image_of: NDArray[np.int64], faults: Faults, name_of: Callable[[int], Any], found: NDArray[np.float64], **arrays: Any
) -> BoxAnnotations:
    """Sorts boxes by image, clips them to it, and drops and counts those of which nothing is left."""
    order = np.argsort(image_of, kind="stable")
    image_of, boxes = image_of[order], arrays["boxes"][order]
    limits = limits_of(arrays["sizes"][image_of])
    judged = judge_boxes(boxes, limits)
    for number, kind in enumerate(BOX_FAULTS, start=1):
        rows = np.flatnonzero(judged == number)
        examples = (box_fault(kind, arrays["files"][image_of[n]], found[order[n]], boxes[n], name_of(int(order[n]))) for n in rows)
        faults.note(kind, len(rows), examples)
    kept = np.isin(judged, (0, len(BOX_FAULTS)))
    if not kept.all():
        first = arrays["files"][image_of[~kept][0]]
        what = "are empty, outside their image or no numbers and are dropped"
        faults.warn("%d of %d boxes %s, the first in %s", (~kept).sum(), len(kept), what, first)
    counts = np.bincount(image_of[kept], minlength=len(arrays["files"]))
    arrays |= {
        "files": np.array(arrays["files"], dtype=np.str_),
        "boxes": np.clip(boxes[kept], 0, limits[kept]).astype(np.float32),
        "labels": arrays["labels"][order][kept],
        "ignored": arrays["ignored"][order][kept],
        "offsets": np.concatenate([[0], np.cumsum(counts)]),
    }
    return BoxAnnotations(**arrays)
