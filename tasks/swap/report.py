"""Tables, files and pictures of an experiment."""

import csv
import io
from pathlib import Path
from typing import Any

from tasks.cost import report as tables
from tasks.cost.report import Column, Row, Table
from tasks.swap import pictures
from tasks.swap.notes import common_notes, task_notes
from tasks.swap.plan import Plan
from tasks.swap.records import write_json
from tasks.swap.results import FIGURES, Entry, as_plain, show_seconds
from tasks.swap.statistics import Spread

TITLES = {"detect": "Detection", "segment": "Segmentation", "classify": "Classification"}


def write_report(plan: Plan, found: dict[str, list[Entry]]) -> None:
    """Writes `table.md`, `table.csv`, `results.json` and `pictures/`, and prints the tables.

    Args:
        plan: the experiment.
        found: its results by task.
    """
    made = {task: make_table(plan, task, entries) for task, entries in found.items()}
    common = common_notes(found)
    notes = {task: list(table.remarks) for task, table in made.items()}
    write_json(plan.folder / "results.json", as_plain(plan, found) | {"notes": {"all": common, **notes}})
    (plan.folder / "table.csv").write_text(comma_separated(found), encoding="utf-8")
    drawn = {task: pictures.draw(plan, task, entries) for task, entries in found.items()}
    (plan.folder / "table.md").write_text(_markdown(plan, made, common, drawn), encoding="utf-8")
    tables.show(list(made.values()))
    for note in common:
        print(note)
    print(f"\ntables and pictures are in {plan.folder}")


def make_table(plan: Plan, task: str, entries: list[Entry]) -> Table:
    """Returns the table of a task in the form of the MobileNetV2 paper's tables 6 and 7, with the spread over the seeds."""
    columns = (
        Column("Network", right=False),
        *(Column(figure, show_figure) for figure in FIGURES[task]),
        Column("Params", show_millions),
        Column("MAdd", show_count),
        Column("CPU", lambda value: f"{value:.1f} ms"),
        Column("training", lambda value: show_seconds(value.mean)),
        Column("runs"),
    )
    rows = tuple(Row(_values(task, entry), tuple(_troubles(entry))) for entry in entries)
    return Table(task, TITLES[task], columns, rows, tuple(task_notes(plan, task, entries)))


def _values(task: str, entry: Entry) -> tuple[Any, ...]:
    cost, latency = entry.cost, entry.cost.latency.get("milliseconds")
    done = sum(result.state == "done" for result in entry.results)
    figures = (entry.spread(figure) for figure in FIGURES[task])
    counts = (cost.parameters, cost.multiply_adds, latency[0] if latency else None)
    return (entry.network.name, *figures, *counts, entry.seconds, f"{done} of {len(entry.results)}")


def _troubles(entry: Entry) -> list[str]:
    return [f"{entry.network.name}: {result.trouble}" for result in entry.results if result.trouble]


def show_figure(value: Spread) -> str:
    """Mean and spread of figures in 0..1, as percent: 53.9 ± 0.4."""
    return f"{100 * value.mean:.1f}" + (f" ± {100 * value.deviation:.1f}" if value.deviation is not None else "")


def show_millions(value: float) -> str:
    """1234567 as 1.23M."""
    return f"{value / 1e6:.2f}M"


def show_count(value: float) -> str:
    """1234567 as 1.2M, 1234567890 as 1.23B."""
    return f"{value / 1e9:.2f}B" if value >= 1e9 else f"{value / 1e6:.1f}M"


def comma_separated(found: dict[str, list[Entry]]) -> str:
    """Returns a row of unrounded numbers for every task and backbone, figures in 0..1, as CSV."""
    figures = list(dict.fromkeys(figure for task in found for figure in FIGURES[task]))
    rows = []
    for task, entries in found.items():
        for entry in entries:
            row: dict[str, Any] = {"task": task, "backbone": entry.network.name, "class_path": entry.network.class_path}
            for figure in figures:
                spread = entry.spread(figure) if figure in FIGURES[task] else None
                row |= {figure: spread and spread.mean, f"{figure}_deviation": spread and spread.deviation}
            rows.append(row | _counts(entry))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _counts(entry: Entry) -> dict[str, Any]:
    low_to_high = entry.cost.latency.get("milliseconds") or (None, None, None)
    return {
        "parameters": entry.cost.parameters,
        "backbone_parameters": entry.cost.backbone_parameters,
        "multiply_adds": entry.cost.multiply_adds,
        **dict(zip(("latency_ms", "latency_ms_25", "latency_ms_75"), low_to_high, strict=True)),
        "training_seconds": entry.seconds and entry.seconds.mean,
        "runs_done": sum(result.state == "done" for result in entry.results),
        "runs": len(entry.results),
        "hashes": " ".join(result.run.hash for result in entry.results),
        "troubles": " / ".join(_troubles(entry)),
    }


def _markdown(plan: Plan, made: dict[str, Table], common: list[str], drawn: dict[str, list[Path]]) -> str:
    parts = [f"# {plan.folder.name}: one backbone after the other", ""]
    for task, table in made.items():
        lines = tables.markdown(table._replace(remarks=()))
        parts += [lines, *(f"* {remark}" for remark in table.remarks), ""]
        parts += [line for path in drawn[task] for line in (f"![{path.stem}]({path.relative_to(plan.folder).as_posix()})", "")]
    return "\n".join([*parts, "## All tasks", "", *(f"* {note}" for note in common), ""])
