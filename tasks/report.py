"""What the reports of all tasks share: metrics.json and tables on screen."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_metrics(folder: Path, figures: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """Writes `metrics.json` and makes its folder.

    Args:
        folder: where to write.
        figures: results, written as `val/...`.
        facts: what else the file should say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {f"val/{name}": round(value, 6) for name, value in figures.items()}
    (folder / "metrics.json").write_text(json.dumps(rounded | dict(facts), indent=2) + "\n")


def write_confusion(folder: Path, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Writes (K, K) counts by true and predicted class as `confusion.csv`."""
    with (folder / "confusion.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true / predicted", *names])
        writer.writerows([name, *counts] for name, counts in zip(names, confusion.tolist(), strict=True))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints rows of a name and figures; -1 stands for what is undefined."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for name, *values in rows:
        table.add_row(name, *("-" if value < 0 else f"{value:.3f}" for value in values))
    Console().print(table)


def print_cells(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints rows of a name and values: whole numbers, shares with three digits, and text."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for name, *values in rows:
        table.add_row(str(name), *(_cell(value) for value in values))
    Console().print(table)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
