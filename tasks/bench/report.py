"""What a benchmark shows and writes: tables on screen and as Markdown, and JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from tasks.bench.race import Race, Time
from tasks.bench.roofline import Rates, least_seconds
from tasks.cost import report
from tasks.cost.latency import processor
from tasks.cost.report import Column, Row, Table

# Packages whose versions decide the figures, where they are installed.
PACKAGES = (
    *("torch", "torchvision", "numpy", "opencv-python-headless", "albumentations", "numba", "pycocotools", "faster-coco-eval"),
    *("torchmetrics", "segmentation-models-pytorch", "timm", "transformers", "onnxruntime", "openvino", "ai-edge-litert"),
)


class Result(NamedTuple):
    """A race, the times of its candidates, and what the machine reached when it began."""

    race: Race
    times: Mapping[str, Time]
    rates: Rates

    def least(self, name: str) -> float | None:
        """Seconds that a candidate needs at least, None where no limit is known."""
        return least_seconds(self.race.work[name], self.rates) if name in self.race.work else None


def show(result: Result) -> None:
    """Prints the table of a race."""
    report.show([table(result)])


def table(result: Result) -> Table:
    """Returns the table of a race."""
    race = result.race
    columns = (
        Column("", right=False),
        Column("median ms", _number),
        Column("quartiles", str),
        Column(f"{race.unit}/s", _number),
        Column(f"x {race.peer}", lambda value: f"{value:.2f}"),
        Column("of the limit", lambda value: f"{value:.0%}".replace("%", " %")),
    )
    rows = []
    for name, time in result.times.items():
        least = result.least(name)
        share = None if least is None else least / time.median
        spread = f"{_number(time.low * 1e3)} - {_number(time.high * 1e3)}"
        rows.append(Row((name, time.median * 1e3, spread, race.amount / time.median, time.ratio, share)))
    return Table("", race.title, columns, tuple(rows), (f"Equal: {race.equal}.",))


def conditions(result: Result, repeats: int) -> dict[str, object]:
    """Says on what a part was measured."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "GFLOP/s": {name: round(rate / 1e9) for name, rate in result.rates.flops.items()},
        "GB/s": round(result.rates.bytes / 1e9, 1),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def write(part: str, results: Sequence[Result], repeats: int, folder: str | Path) -> None:
    """Writes PART.md and PART.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = conditions(results[0], repeats)
    said = [f"{name}: {_flat(value)}" for name, value in known.items()]
    (folder / f"{part}.md").write_text("\n".join([*(report.markdown(table(result)) for result in results), "; ".join(said), ""]))
    races = [
        {
            **{key: getattr(result.race, key) for key in ("title", "unit", "amount", "peer", "equal")},
            "candidates": {name: time._asdict() | {"least": result.least(name)} for name, time in result.times.items()},
        }
        for result in results
    ]
    (folder / f"{part}.json").write_text(json.dumps({"part": part, "conditions": known, "races": races}, indent=1))
    print(f"written to {folder / part}.md and .json")


def _flat(value: object) -> object:
    return ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else value


def _number(value: float) -> str:
    """Three digits: 1,234 or 12.3 or 1.23."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
