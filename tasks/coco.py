"""Reading annotation files in COCO's format."""

import gc
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.faults import Fault, Faults, shown

# What entries need; ids are whole numbers of 64 bits.
NEEDED = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id", "bbox"), "categories": ("id", "name")}
LARGEST = 2**63 - 1
NUMBERS = {int, float}
AREAS, CROWDS = {int, float, type(None)}, {int, bool, type(None)}

Entry = dict[str, Any]
Finder = Callable[[Path, int, Entry], Fault | None]


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps Python from looking through millions of new objects for cycles again and again, which takes most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collection()
def read_coco(path: str | Path, faults: Faults | None = None) -> dict[str, Any]:
    """Reads a COCO annotation file and fills in what hand-made files leave out (`iscrowd` 0, `area` of the box, `info`).

    Objects are numbered anew; what the file calls them is returned as the list `annotation_ids`.

    Args:
        path: the JSON file.
        faults: takes note of what cannot be used, which is then left out; by default it raises.

    Raises:
        ValueError: the file does not exist, is not JSON, or lacks one of the three lists; with the policy `error`, an entry lacks
            something, has it in another type, names an unknown image or category, or shares its id.
    """
    path, faults = Path(path), faults or Faults()
    data = _load(path)
    for key in NEEDED:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise ValueError(f"{path}: has no list {key!r}; a COCO detection file holds images, annotations and categories")
    images, gone = _images(path, data["images"], faults)
    categories = _categories(path, data["categories"], faults)
    annotations = _annotations(path, data["annotations"], faults, {i["id"] for i in images}, {c["id"] for c in categories}, gone)
    numbers = []
    for number, annotation in enumerate(annotations, start=1):
        numbers.append(annotation.get("id", number))
        annotation["id"] = number  # pycocotools takes an object of id 0 for none, and objects that share an id for one
        annotation["iscrowd"] = annotation.get("iscrowd") or 0
        box = annotation["bbox"]
        annotation["area"] = box[2] * box[3] if annotation.get("area") is None else annotation["area"]
    _note_repeated(path, numbers, faults)
    data.setdefault("info", {})
    return {**data, "images": images, "annotations": annotations, "categories": categories, "annotation_ids": numbers}


def _load(path: Path) -> Any:
    try:
        content = path.read_bytes()
        return json.loads(content)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such annotation file") from error
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ValueError(f"{path}: is not valid JSON: it is no text at line {line} column {column} ({error.reason})") from error
    except json.JSONDecodeError as error:
        ends = "; the file ends there" if error.pos >= len(error.doc.rstrip()) else ""
        raise ValueError(f"{path}: is not valid JSON: {error}{ends}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in thousands of lists
        raise ValueError(f"{path}: is not valid JSON: {error}") from error


def _images(path: Path, entries: list[Any], faults: Faults) -> tuple[list[Entry], set[int]]:
    """The images that can be used, and the ids of those that cannot."""
    good = [e for e in entries if type(e) is dict and _is_id(e.get("id")) and type(e.get("file_name")) is str and _has_size(e)]
    gone: set[int] = set()
    if len(good) < len(entries):
        bad = [fault for n, e in enumerate(entries) if (fault := _entry_fault(path, "images", n, e, _image_fault))]
        gone = {e["id"] for e in entries if type(e) is dict and _is_id(e.get("id"))} - {e["id"] for e in good}
        faults.refuse("broken_entry", len(bad), bad, images=len(bad))
    first: dict[int, Entry] = {}
    repeated = [e for e in good if first.setdefault(e["id"], e) is not e]
    if repeated:
        # Of images that share an id, nobody can say whose the boxes are; of one that is listed twice, everybody can.
        unclear = {e["id"] for e in repeated if e["file_name"] != first[e["id"]]["file_name"]}
        said = (_same_id(path, first[e["id"]]["file_name"], e["file_name"], e["id"]) for e in repeated)
        faults.refuse("duplicate_image_id", len(repeated), said, images=len(repeated) + len(unclear))
        good, gone = [e for n, e in first.items() if n not in unclear], gone | unclear
    again = _repeated(good, lambda e: e["file_name"])
    faults.note(
        "duplicate_file_name",
        len(again),
        (Fault("duplicate_file_name", f"{path}: image {e['file_name']} is listed more than once, again as id {e['id']}") for e in again),
    )
    return good, gone


def _same_id(path: Path, one: str, two: str, number: int) -> Fault:
    what = f"image {one} is listed more than once, with the id" if one == two else f"images {one} and {two} have the same id"
    return Fault("duplicate_image_id", f"{path}: {what} {number}", value=number)


def _categories(path: Path, entries: list[Any], faults: Faults) -> list[Entry]:
    good = [e for e in entries if type(e) is dict and _is_id(e.get("id")) and "name" in e]
    if len(good) < len(entries):
        bad = [fault for n, e in enumerate(entries) if (fault := _entry_fault(path, "categories", n, e))]
        faults.refuse("broken_entry", len(bad), bad)
    again = _repeated(good, lambda e: e["id"])
    faults.refuse(
        "duplicate_category_id",
        len(again),
        (Fault("duplicate_category_id", f"{path}: category {e['name']} has the id {e['id']}, which another one has") for e in again),
    )
    good = [e for e in good if not any(e is one for one in again)]
    again = _repeated(good, lambda e: str(e["name"]))
    faults.note(
        "duplicate_category_name",
        len(again),
        (Fault("duplicate_category_name", f"{path}: category {e['id']} has the name {e['name']}, which another one has") for e in again),
    )
    return good


def _annotations(path: Path, entries: list[Any], faults: Faults, images: set[int], categories: set[int], gone: set[int]) -> list[Entry]:
    """The objects that can be used; those of images that cannot go without a word."""
    good, bad = [], []
    for number, entry in enumerate(entries):
        try:
            usable = (
                type(entry["image_id"]) is type(entry["category_id"]) is int
                and entry["image_id"] in images
                and entry["category_id"] in categories
                and len(entry["bbox"]) == 4
                and type(entry["bbox"]) is list
                and NUMBERS.issuperset(map(type, entry["bbox"]))
                and type(entry.get("area")) in AREAS
                and type(entry.get("iscrowd")) in CROWDS
            )
        except (KeyError, TypeError, AttributeError):
            usable = False
        if usable:
            good.append(entry)
        else:
            bad.append(number)
    found = (_entry_fault(path, "annotations", number, entries[number], _annotation_fault(images, categories, gone)) for number in bad)
    for fault in found:
        if fault:
            faults.refuse(fault.kind, 1, [fault])
    return good


def _entry_fault(path: Path, part: str, number: int, entry: Any, more: Finder = lambda path, number, entry: None) -> Fault | None:
    """Says what is wrong with an entry of one of the lists; None where nothing is."""
    missing = [key for key in NEEDED[part] if not isinstance(entry, dict) or key not in entry]
    where = f"{path}: entry {number} of {part!r}"
    if missing:
        return Fault("broken_entry", f"{where} has no {missing[0]!r}", value=shown(entry))
    wrong = [key for key in NEEDED[part] if key.endswith("id") and not _is_id(entry[key])]
    if wrong:
        return Fault("broken_entry", f"{where} has {wrong[0]} {shown(entry[wrong[0]])}; accepted: whole numbers")
    return more(path, number, entry)


def _image_fault(path: Path, number: int, entry: Entry) -> Fault | None:
    if type(entry["file_name"]) is not str:
        return Fault("broken_entry", f"{path}: image {entry['id']} has file_name {shown(entry['file_name'])}; accepted: text")
    if not _has_size(entry):
        found = f"height {shown(entry.get('height'))} and width {shown(entry.get('width'))}"
        return Fault("broken_entry", f"{path}: image {shown(entry['file_name'])} has {found}; accepted: pixels, or nothing")
    return None


def _annotation_fault(images: set[int], categories: set[int], gone: set[int]) -> Finder:
    def find(path: Path, number: int, entry: Entry) -> Fault | None:
        name, box = entry.get("id", number + 1), entry["bbox"]
        if entry["image_id"] in gone:
            return None
        if entry["image_id"] not in images:
            said = f"{path}: an annotation has image_id {entry['image_id']}, which is not in the file's list (annotation {shown(name)})"
            return Fault("unknown_image", said, annotation=name, value=entry["image_id"])
        if entry["category_id"] not in categories:
            said = (
                f"{path}: an annotation has category_id {entry['category_id']}, which is not in the file's list (annotation {shown(name)})"
            )
            return Fault("unknown_category", said, annotation=name, value=entry["category_id"])
        if type(box) is not list or len(box) != 4 or not NUMBERS.issuperset(map(type, box)):
            said = f"{path}: annotation {shown(name)} has bbox {shown(box)}; accepted: [x, y, width, height]"
            return Fault("broken_box", said, annotation=name, value=shown(box))
        found = f"area {shown(entry.get('area'))} and iscrowd {shown(entry.get('iscrowd'))}"
        return Fault("broken_entry", f"{path}: annotation {shown(name)} has {found}; accepted: a number, and 0 or 1", annotation=name)

    return find


def _note_repeated(path: Path, numbers: list[Any], faults: Faults) -> None:
    """Takes note of objects that share an id, which does no harm here."""
    known = [number for number in numbers if type(number) is int]
    if len(set(known)) < len(known):
        again = _repeated(known, lambda number: number)
        said = (
            Fault("duplicate_annotation_id", f"{path}: more than one annotation has the id {number}", annotation=number) for number in again
        )
        faults.note("duplicate_annotation_id", len(again), said)


def _repeated(values: Iterable[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """The values whose key an earlier one has."""
    seen: set[Hashable] = set()
    return [value for value in values if key(value) in seen or seen.add(key(value))]  # type: ignore[func-returns-value]


def _is_id(value: Any) -> bool:
    return type(value) is int and -LARGEST <= value <= LARGEST


def _has_size(entry: Entry) -> bool:
    """Whether height and width are pixels, or left out."""
    return all(_is_side(entry.get(key) or 0) for key in ("height", "width"))


def _is_side(value: Any) -> bool:
    return type(value) in NUMBERS and 0 <= value < 2**31 and not math.isnan(value)


def box_array(annotations: list[Entry]) -> NDArray[np.float64]:
    """Returns the (M, 4) x, y, width, height of objects; numbers beyond what a float holds are infinite."""
    try:
        return np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    except OverflowError:
        limit = 2**1000
        clamped = [[v if type(v) is float or -limit < v < limit else math.inf for v in a["bbox"]] for a in annotations]
        return np.array(clamped, dtype=np.float64).reshape(-1, 4)


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
