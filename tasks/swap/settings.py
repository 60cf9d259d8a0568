"""What an experiment file says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse.typing import register_type

from tasks.cost.latency import Precision


class Plain:
    """A mapping of plain values that is kept as it is written: class paths in it are not looked into.

    Args:
        values: the mapping.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values = dict(values or {})

    def __repr__(self) -> str:
        return repr(self.values)


def read_plain(value: Any) -> Plain:
    """Reads a mapping from an experiment file or from the command line.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, Plain):
        return value
    if isinstance(value, str):
        value = yaml.safe_load(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{value} is not possible; accepted: a mapping in one piece, such as '{{trainer.max_epochs: 2}}'")
    return Plain(value)


# Without this, jsonargparse would add every default of the classes named in a mapping, and hashes would change with them.
register_type(Plain, lambda plain: plain.values, read_plain)


@dataclass
class TaskSettings:
    """One task of an experiment.

    Args:
        config: an ordinary config of the task, relative to the experiment file or to the working directory; empty leaves the task out.
        overrides: values by dotted key of that config, the same for every backbone.
    """

    config: str = ""
    overrides: Plain = field(default_factory=Plain)


@dataclass
class Tasks:
    """The tasks that every backbone is trained for.

    Args:
        detect: detection of boxes.
        segment: semantic segmentation.
        classify: classification.
    """

    detect: TaskSettings = field(default_factory=TaskSettings)
    segment: TaskSettings = field(default_factory=TaskSettings)
    classify: TaskSettings = field(default_factory=TaskSettings)


@dataclass
class Timing:
    """How latency is measured after the runs: one image a run, one network after the other.

    Args:
        threads: of the CPU.
        repeats: number of measured runs; 0 measures nothing.
        precision: `32` for float32, `bf16` for bfloat16 where autocast allows it.
    """

    threads: int = 1
    repeats: int = 20
    precision: Precision = "32"
