"""Reading annotation files in COCO's format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def positions(known: NDArray[np.int64], wanted: list[int], where: str) -> NDArray[np.int64]:
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


def coco_sources(
    root: Path, train_images: str | None, train_annotations: str | None, val_images: str | None, val_annotations: str | None
) -> dict[str, tuple[Path, Path]]:
    """Returns the image folder and annotation file of each split; COCO 2017's in `root` where none is given."""
    return {
        "train": (Path(train_images or root / "train2017"), Path(train_annotations or root / "annotations/instances_train2017.json")),
        "val": (Path(val_images or root / "val2017"), Path(val_annotations or root / "annotations/instances_val2017.json")),
    }
