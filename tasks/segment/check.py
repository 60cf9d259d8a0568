"""What `check` says of masks: counts, classes, and whether 255 was meant for objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from heads import IGNORE_INDEX
from tasks.check import Split, Table, class_table
from tasks.data import TaskData
from tasks.faults import Fault, FaultError


def describe(splits: Sequence[Split], data: TaskData, model: Any) -> list[Table]:
    """Returns the tables of a segmentation data set, see `tasks.check.check`."""
    counts = [np.pad(split.counts, (0, 256 - len(split.counts))) for split in splits]
    for split, values in zip(splits, counts, strict=True):
        try:
            split.annotations.check_convention(set(np.flatnonzero(values).tolist()))
        except FaultError as error:
            split.faults.note(error.kind, 1, [Fault(error.kind, str(error))])
    rows = [
        ("images", *(len(split.annotations) for split in splits)),
        ("images that cannot be used", *(int((~split.usable).sum()) for split in splits)),
        ("pixels of masks", *(int(values.sum()) for values in counts)),
        ("share of void pixels", *(round(float(values[IGNORE_INDEX] / max(values.sum(), 1)), 4) for values in counts)),
    ]
    by_class = [values[: len(s.annotations.class_names)].tolist() for values, s in zip(counts, splits, strict=True)]
    return [Table("Data set", ("count of", *(split.name for split in splits)), rows), class_table(splits, "pixels", by_class)]
