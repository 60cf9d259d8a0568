"""What `check` says of images with classes: counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.check import Split, Table, class_table
from tasks.data import TaskData


def describe(splits: Sequence[Split], data: TaskData, model: Any) -> list[Table]:
    """Returns the tables of a classification data set, see `tasks.check.check`."""
    rows = [
        ("images", *(len(split.annotations) for split in splits)),
        ("images that cannot be used", *(int((~split.usable).sum()) for split in splits)),
    ]
    by_class = [_of_class(split) for split in splits]
    return [Table("Data set", ("count of", *(split.name for split in splits)), rows), class_table(splits, "images", by_class)]


def _of_class(split: Split) -> list[int]:
    labels, count = split.annotations.labels_of(), len(split.annotations.class_names)
    found = np.pad(split.counts, (0, count - len(split.counts))) if labels is None else np.bincount(labels[split.usable], minlength=count)
    return [int(number) for number in found]
