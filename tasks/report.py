"""What the reports of all tasks share: metrics.json and tables on screen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


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
