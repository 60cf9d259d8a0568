"""What the runs of a plan have left, put together."""

from typing import Any, NamedTuple

from tasks.swap.costs import Cost
from tasks.swap.plan import Network, Plan, Run
from tasks.swap.records import State, place_of, read_json, state_of
from tasks.swap.statistics import Comparison, Spread, compare, spread

# The figures of each task that tables show; the first one picks best.ckpt, and is drawn and compared.
FIGURES = {"detect": ("AP", "AP50"), "segment": ("mIoU",), "classify": ("top1", "top5")}


class Result(NamedTuple):
    """A run and what is known of it.

    Attributes:
        run: the run.
        state: how far it is.
        record: what was noted of its process.
        metrics: its metrics.json, where it is done.
    """

    run: Run
    state: State
    record: dict[str, Any]
    metrics: dict[str, Any]

    def figure(self, name: str) -> float | None:
        """Returns a figure, such as AP; None where the run is not done or the figure not defined."""
        value = self.metrics.get(f"val/{name}")
        return float(value) if isinstance(value, int | float) and value >= 0 else None

    @property
    def trouble(self) -> str:
        """Why it has no figures; empty where it has."""
        reasons = {
            "failed": f"failed: {self.record.get('error')}",
            "changed": "has other settings in this plan than when it ran",
            "unfinished": "is not finished",
            "missing": "has not run yet",
        }
        return f"seed {self.run.seed} {reasons[self.state]}" if self.state in reasons else ""


class Entry(NamedTuple):
    """A backbone in a task.

    Attributes:
        network: the backbone.
        results: one a seed.
        cost: what its network costs.
    """

    network: Network
    results: tuple[Result, ...]
    cost: Cost

    def by_seed(self, figure: str) -> dict[int, float]:
        """Returns a figure of each seed that has it."""
        return {result.run.seed: value for result in self.results if (value := result.figure(figure)) is not None}

    def spread(self, figure: str) -> Spread | None:
        """Returns mean and spread of a figure over the seeds; None where no seed has it."""
        values = list(self.by_seed(figure).values())
        return spread(values) if values else None

    @property
    def seconds(self) -> Spread | None:
        """Time of a run, start and evaluation included."""
        values = [float(result.record["seconds"]) for result in self.results if result.state == "done"]
        return spread(values) if values else None


def collect(plan: Plan, costs: dict[tuple[str, str], Cost]) -> dict[str, list[Entry]]:
    """Reads what the runs have left.

    Returns:
        The backbones of each task, in the order of the plan.
    """
    found: dict[str, list[Entry]] = {}
    for task in plan.tasks:
        for network in plan.networks:
            runs = [run for run in plan.runs if (run.task, run.backbone) == (task, network.name)]
            found.setdefault(task, []).append(Entry(network, tuple(_result(plan, run) for run in runs), costs[task, network.name]))
    return found


def _result(plan: Plan, run: Run) -> Result:
    place, state = place_of(plan.folder, run), state_of(plan.folder, run)
    record = read_json(place.record) if state != "changed" else {}
    return Result(run, state, record, read_json(place.folder / "metrics.json") if state == "done" else {})


def comparisons(task: str, entries: list[Entry]) -> list[Comparison]:
    """Compares every pair of backbones of a task by its first figure."""
    figure = FIGURES[task][0]
    return compare({entry.network.name: entry.by_seed(figure) for entry in entries})


def as_plain(plan: Plan, found: dict[str, list[Entry]]) -> dict[str, Any]:
    """Returns everything as plain values, for results.json."""
    tasks = {
        task: {
            "figures": list(FIGURES[task]),
            "backbones": [_plain_entry(task, entry) for entry in entries],
            "comparisons": [{**pair._asdict(), "difference": pair.difference._asdict()} for pair in comparisons(task, entries)],
        }
        for task, entries in found.items()
    }
    return {"name": plan.folder.name, "tasks": tasks}


def _plain_entry(task: str, entry: Entry) -> dict[str, Any]:
    figures = {name: found._asdict() if (found := entry.spread(name)) else None for name in FIGURES[task]}
    runs = [
        {"seed": r.run.seed, "hash": r.run.hash, "state": r.state, "trouble": r.trouble, "metrics": r.metrics, "record": r.record}
        for r in entry.results
    ]
    return {**entry.network._asdict(), **figures, "cost": entry.cost._asdict(), "runs": runs}


def show_seconds(value: float) -> str:
    """42 s, 3.5 min, 2.5 h."""
    if value < 60:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"
