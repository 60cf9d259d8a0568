"""Finding the images and masks of a data set."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.coco import LARGEST, no_collection, positions, read_coco
from tasks.faults import Fault, Faults
from tasks.images import SUFFIXES
from tasks.labels import COCO_NAMES_OF_VOC, VOC_CLASSES, VOC_MASK_CLASSES
from tasks.segment.annotations.masks import CocoMasks, MaskFiles
from tasks.voc import read_split

log = logging.getLogger("lightning.pytorch")


def from_voc(root: str | Path, splits: Sequence[tuple[str, str]], class_names: Sequence[str]) -> MaskFiles:
    """Lists the segmentation images of a VOCdevkit.

    Args:
        root: the VOCdevkit folder.
        splits: (year, split) pairs, such as ("2012", "train_aug"), which are joined; those whose name ends in `_aug` take their masks from
            `SegmentationClassAug`, the others from `SegmentationClass`.
        class_names: the names of VOC's mask values.

    Raises:
        ValueError: a list or a folder is missing.
    """
    files: list[str] = []
    masks: list[str] = []
    for year, split in splits:
        folder, names = read_split(root, year, "Segmentation", split)
        mask_folder = folder / ("SegmentationClassAug" if split.endswith("_aug") else "SegmentationClass")
        if not mask_folder.is_dir():
            raise ValueError(f"{mask_folder}: no such folder, which holds the masks of {split}")
        files += [str(folder / "JPEGImages" / f"{name}.jpg") for name in names]
        masks += [str(mask_folder / f"{name}.png") for name in names]
    return MaskFiles(files, masks, class_names, Path(root))


def from_folders(images: str | Path, masks: str | Path, class_names: Sequence[str], faults: Faults | None = None) -> MaskFiles:
    """Pairs images and masks of the same name (without its ending).

    Args:
        images: folder of the images.
        masks: folder of the masks.
        class_names: the K names, background first.
        faults: takes note of what is wrong; by default it raises what cannot be used.

    Raises:
        ValueError: a folder is missing or empty; with the policy `error`, an image has no mask, or two files of a folder have the same
            name.
    """
    faults = faults or Faults()
    pictures, drawn = _by_name(Path(images), faults, lost=1), _by_name(Path(masks), faults, lost=0)
    alone = [str(path) for name, path in pictures.items() if name not in drawn]
    count = f"({len(alone)} of {len(pictures)} images have none)"
    said = (Fault("missing_mask", f"{file}: has no mask of the same name in {masks} {count}", file) for file in alone)
    faults.refuse("missing_mask", len(alone), said, images=len(alone))
    spare = [path for name, path in drawn.items() if name not in pictures]
    faults.note("unused_mask", len(spare), (Fault("unused_mask", f"{path}: has no image of the same name in {images}") for path in spare))
    pictures = {name: path for name, path in pictures.items() if name in drawn}
    return MaskFiles([str(p) for p in pictures.values()], [str(drawn[name]) for name in pictures], class_names, Path(images))


def _by_name(folder: Path, faults: Faults, lost: int) -> dict[str, Path]:
    """The images of a folder by their names without ending; of several of one name, the first, and so many images `lost`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else []):
        if path.suffix.lower() in SUFFIXES and found.setdefault(path.stem, path) != path:
            said = f"{path}: has the same name as {found[path.stem].name}; images and masks are paired by name"
            faults.refuse("duplicate_file_name", 1, [Fault("duplicate_file_name", said, str(path))], images=lost)
    if not found:
        raise ValueError(f"{folder}: {'holds no images' if folder.is_dir() else 'no such folder'}")
    return found


@no_collection()
def from_coco(path: str | Path, folder: str | Path, voc_labels: bool, min_pixels: int = 0, faults: Faults | None = None) -> CocoMasks:
    """Reads the masks of an annotation file in COCO's format.

    Args:
        path: the JSON file.
        folder: where its images are.
        voc_labels: VOC's 21 classes, by COCO's names or VOC's own, and other objects as background; otherwise background and all
            categories of the file, by ascending id.
        min_pixels: images with less area of those classes are left out.
        faults: takes note of what is wrong; by default it raises what cannot be used.

    Raises:
        ValueError: see `read_coco`; `folder` does not exist; the file has none of COCO's or VOC's names; or, with the policy `error`, an
            annotation has no segmentation, or an image no size.
    """
    path, folder, faults = Path(path), Path(folder), faults or Faults()
    data = read_coco(path, faults)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such image folder (of {path})")
    categories = {c["id"]: str(c["name"]) for c in sorted(data["categories"], key=lambda category: category["id"])}
    if voc_labels:
        class_names: tuple[str, ...] = VOC_MASK_CLASSES
        places = {name: label for names in (VOC_CLASSES, COCO_NAMES_OF_VOC) for label, name in enumerate(names, start=1)}
        labels = {number: places[name] for number, name in categories.items() if name in places}
        if not labels:
            raise ValueError(f"{path}: has no category with a name of COCO's, such as person; set voc_labels to false to take its own")
        if len(labels) < len(categories):
            log.info("%s: voc_labels is true: background are %d of its %d categories", path, len(categories) - len(labels), len(categories))
    else:
        class_names = ("background", *categories.values())
        labels = {number: label for label, number in enumerate(categories, start=1)}
    images = data["images"]
    sizes = np.array([(i.get("height") or 0, i.get("width") or 0) for i in images], dtype=np.int64).reshape(-1, 2)
    usable: NDArray[np.bool_] = np.min(sizes, axis=1, initial=1) > 0
    said = (
        Fault("broken_entry", f"{path}: image {images[i]['file_name']} has no height and width, in which its masks are drawn")
        for i in np.flatnonzero(~usable)
    )
    faults.refuse("broken_entry", int((~usable).sum()), said, images=int((~usable).sum()))
    annotations = [a for a in data["annotations"] if a["category_id"] in labels]
    ids = np.array([image["id"] for image in images], dtype=np.int64)
    owners = positions(ids, [a["image_id"] for a in annotations], f"{path}: an annotation has image_id")
    objects: list[list[Any]] = [[] for _ in images]
    areas = np.zeros(len(images))
    for owner, annotation in zip(owners.tolist(), annotations, strict=True):
        if not annotation.get("segmentation"):
            file = images[owner]["file_name"]
            message = f"{path}: an object in image {file} has no segmentation; masks need polygons or run lengths"
            name = data["annotation_ids"][annotation["id"] - 1]
            fault = Fault("missing_segmentation", message, str(folder / file), name)
            faults.refuse("missing_segmentation", 1, [fault], images=int(usable[owner]))
            usable[owner] = False  # without it the object would be background
        objects[owner].append([labels[annotation["category_id"]], annotation["iscrowd"], annotation.get("segmentation")])
        areas[owner] += 0 if annotation["iscrowd"] else min(annotation["area"], LARGEST)
    kept = np.flatnonzero((areas >= min_pixels) & usable)
    return CocoMasks(
        files=[str(folder / images[i]["file_name"]) for i in kept],
        sizes=sizes[kept],
        class_names=class_names,
        source=path,
        objects=[json.dumps(objects[i]).encode() for i in kept],
    )
