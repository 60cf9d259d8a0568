"""The command `check`: every fault of a data set, with counts, examples and a picture."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import TaskData, differing_classes
from tasks.fault_pictures import draw_faults
from tasks.faults import KINDS, NOTES, Fault, Faults
from tasks.files import write_whole
from tasks.readable import in_threads, inspect_all, stat_all
from tasks.report import print_cells

# Examples of each kind on the screen; check.json has more.
SHOWN_EXAMPLES = 2


class Table(NamedTuple):
    """Rows of a name and its values."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass
class Split:
    """What is found in a split.

    Attributes:
        name: `train` or `val`.
        annotations: see the task's `annotations`; None where they cannot be read.
        faults: what is wrong.
        sizes: (I, 2) int64 heights and widths of the images in pixels, 0 of those that cannot be read.
        usable: (I,) bool, whether an image can be used.
        counts: sums of what `inspect` counts; empty where it counts nothing.
    """

    name: str
    annotations: Any
    faults: Faults
    sizes: NDArray[np.int64]
    usable: NDArray[np.bool_]
    counts: NDArray[np.int64]


Describe = Callable[[Sequence[Split], TaskData, Any], list[Table]]


def check(data: TaskData, model: Any, folder: Path, describe: Describe) -> int:
    """Looks at everything in both splits, prints tables, and writes `check.json` and `pictures/faults.png`.

    Args:
        data: the data set.
        model: the training module of the config, whose weights do not matter.
        folder: where to write.
        describe: returns the tables of the task for the splits that can be read.

    Returns:
        How many faults there are.
    """
    data.policy = "report"
    data.prepare_data()
    splits = [examine(data, name) for name in ("train", "val")]
    both = Faults("report")
    known = [split for split in splits if split.annotations is not None]
    if len(known) == len(splits):
        differing_classes(splits[0].annotations, splits[1].annotations, both)
        _note_shared(splits[0].annotations.paths(), splits[1].annotations.paths(), both)
    tables = describe(known, data, model) if known else []
    collected = {**{split.name: split.faults for split in splits}, "both": both}
    total = sum(faults.total for faults in collected.values())
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    content = {
        "total": total,
        "faults": {name: faults.to_json() for name, faults in collected.items()},
        "tables": {table.title: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in tables},
    }
    write_whole(folder / "check.json", (json.dumps(content, indent=2) + "\n").encode())
    has_picture = draw_faults(collected, folder / "pictures" / "faults.png")
    for table in [*tables, *_fault_tables(collected)]:
        print_cells(*table)
    _print_examples(collected)
    _print_end(collected, total, folder, has_picture)
    return total


def examine(data: TaskData, name: str) -> Split:
    """Reads the annotations of a split and decodes all its images."""
    try:
        annotations = data.annotations(name)
    except (ValueError, OSError) as error:
        faults = data.faults.get(name) or Faults("report")
        faults.note("unreadable_annotations", 1, [Fault("unreadable_annotations", str(error))])
        return Split(name, None, faults, np.zeros((0, 2), np.int64), np.zeros(0, bool), np.zeros(0, np.int64))
    faults, sizes = data.faults[name], np.zeros((len(annotations), 2), np.int64)
    usable, counts = np.ones(len(annotations), bool), np.zeros(0, np.int64)
    for index, found in enumerate(inspect_all(annotations, f"reading the {name} split")):
        sizes[index], usable[index] = found.size, found.worst is None
        if found.counts is not None:
            counts = found.counts + (counts if len(counts) else 0)
        for fault in found.faults:
            faults.note(fault.kind, 1, [fault])
    return Split(name, annotations, faults, sizes, usable, counts)


def class_table(splits: Sequence[Split], unit: str, counts: Sequence[Sequence[int]]) -> Table:
    """Returns the table of classes, and takes note of those that training never sees.

    Args:
        splits: those that can be read.
        unit: what is counted.
        counts: for each split, of each class.
    """
    names = splits[0].annotations.class_names
    by_name = [dict(zip(split.annotations.class_names, row, strict=False)) for split, row in zip(splits, counts, strict=True)]
    if splits[0].name == "train":
        absent = [name for name in dict.fromkeys(names) if not by_name[0].get(name)]
        source = splits[0].annotations.source or "the training split"
        said = (Fault("class_without_images", f"{source}: no {unit} of {name} can be trained on") for name in absent)
        splits[0].faults.note("class_without_images", len(absent), said)
    rows = [(name, *(of.get(name, 0) for of in by_name)) for name in dict.fromkeys(n for of in by_name for n in of)]
    return Table(f"Classes ({unit})", ("class", *(split.name for split in splits)), rows)


def _note_shared(train: dict[str, NDArray[np.str_]], val: dict[str, NDArray[np.str_]], faults: Faults) -> None:
    """Takes note of validation images whose bytes are those of a training image."""
    if "image" not in train or "image" not in val:  # torchvision's data sets do not name their files
        return
    sizes = [stat_all(paths["image"])[:, 0] for paths in (train, val)]
    alike = np.intersect1d(sizes[0], sizes[1])
    alike = alike[alike > 0]
    chosen = [paths["image"][np.isin(size, alike)].tolist() for paths, size in zip((train, val), sizes, strict=True)]
    digests = [list(in_threads(lambda n, files=files: _digest(files[n]), len(files))) for files in chosen]  # type: ignore[misc]
    known = dict(zip(reversed(digests[0]), reversed(chosen[0]), strict=True))
    shared = [(file, known[digest]) for file, digest in zip(chosen[1], digests[1], strict=True) if digest in known]
    said = (Fault("shared_image", f"{file}: is the same file as {twin}, which is trained on", file) for file, twin in shared)
    faults.note("shared_image", len(shared), said)


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:  # said elsewhere
        return os.urandom(32)


def _fault_tables(collected: dict[str, Faults]) -> list[Table]:
    tables = []
    for title, wanted in (("Faults", False), ("Notes, which harm nothing", True)):
        kinds = [kind for kind in KINDS if (kind in NOTES) == wanted and any(kind in faults.counts for faults in collected.values())]
        rows = [(KINDS[kind], *(faults.counts[kind] for faults in collected.values())) for kind in kinds]
        tables += [Table(title, ("what", *collected), rows)] if rows else []
    return tables


def _print_examples(collected: dict[str, Faults]) -> None:
    for kind in KINDS:
        found = [fault for faults in collected.values() for fault in faults.examples.get(kind, ())]
        if found and kind not in NOTES:
            print(f"{KINDS[kind]}:")
            for fault in found[:SHOWN_EXAMPLES]:
                print(f"  {fault.message}")


def _print_end(collected: dict[str, Faults], total: int, folder: Path, has_picture: bool) -> None:
    if not total:
        print(f"no faults; the report is in {folder}")
        return
    kinds = {kind for faults in collected.values() for kind in faults.counts if kind not in NOTES}
    also = " and in pictures/faults.png" if has_picture else ""
    what = f"{total} faults of {len(kinds)} kinds" if len(kinds) > 1 else f"{total} {KINDS[min(kinds)]}"
    print(f"{what}, listed in {folder / 'check.json'}{also}")
