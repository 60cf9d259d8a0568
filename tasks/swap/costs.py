"""Parameters, multiply-adds, taps and latency of the networks of a plan."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tasks.cost.count import parts, trace
from tasks.cost.latency import Settings, conditions, measure
from tasks.swap.check import build
from tasks.swap.plan import Plan, Run
from tasks.swap.records import read_json, write_json
from tasks.swap.settings import Timing

# Share of the CPUs that others may use before a note says that latency was not measured on a quiet machine.
QUIET = 0.05


class Cost(NamedTuple):
    """What a network costs and how it is put together.

    Attributes:
        parameters: of backbone and head.
        backbone_parameters: of the backbone alone.
        multiply_adds: of one image.
        size: height and width of its input in pixels.
        taps: (channels, stride) of the features that the head reads, by name.
        anchors: number of default boxes; None without such.
        latency: milliseconds (median, first and last quartile), the conditions, and the share of the CPUs that others used meanwhile;
            empty where it was not measured.
    """

    parameters: int
    backbone_parameters: int
    multiply_adds: int
    size: tuple[int, int]
    taps: dict[str, tuple[int, int]]
    anchors: int | None
    latency: dict[str, Any]


def first_runs(plan: Plan) -> list[Run]:
    """Returns one run of every task and backbone."""
    return list({(run.task, run.backbone): run for run in reversed(plan.runs)}.values())[::-1]


def count(plan: Plan, timing: Timing) -> dict[tuple[str, str], Cost]:
    """Counts every network of a plan, without memory, and takes over the latency that was measured before.

    Returns:
        The cost by task and backbone.

    Raises:
        ValueError: a network cannot be built.
    """
    known = read_json(_file(plan))
    found = {}
    for run in first_runs(plan):
        entry = known.get(f"{run.task}_{run.backbone}", {})
        fits = entry.get("of") == _hash(run) and entry.get("timing") == vars(timing)
        found[run.task, run.backbone] = _count(run, entry if fits else {})
    return found


def _count(run: Run, latency: dict[str, Any]) -> Cost:
    model = build(run).model
    traced = trace(model, model.size)
    counted = {part.name: part for part in parts(traced)}
    taps = {name: (tap.channels, tap.stride) for name, tap in model.backbone.taps.items() if name in traced.taps}
    with torch.no_grad():
        predictions: Any = model(torch.empty(1, 3, *model.size, device="meta"))
    anchors = len(predictions.anchors) if hasattr(predictions, "anchors") else None
    whole = counted["whole"]
    return Cost(whole.parameters, counted["backbone"].parameters, whole.multiply_adds, model.size, taps, anchors, latency)


def measure_all(plan: Plan, timing: Timing) -> None:
    """Measures what is not measured yet, one network after the other, and keeps it beside the runs."""
    if timing.repeats < 1:
        return
    known, settings = read_json(_file(plan)), Settings(timing.repeats, 1, timing.precision, timing.threads)
    for run in first_runs(plan):
        key = f"{run.task}_{run.backbone}"
        if known.get(key, {}).get("of") == _hash(run) and known[key].get("timing") == vars(timing):
            continue
        busy = busy_share()
        model = build(run, "cpu").model
        took = measure(model, model.size, {"whole": [""]}, settings)["whole"]
        known[key] = {
            "of": _hash(run),
            "timing": vars(timing),
            "milliseconds": [round(value, 3) for value in took],
            "conditions": conditions(settings),
            "busy": None if busy is None else round(busy, 3),
        }
        write_json(_file(plan), known)


def _file(plan: Plan) -> Path:
    return plan.folder / "latency.json"


def _hash(run: Run) -> str:
    return run._replace(config=run.config | {"seed_everything": None}).hash


def busy_share(seconds: float = 1.0) -> float | None:
    """Returns the share of all CPUs, in 0..1, that was in use during some seconds in which this process slept; None off Linux."""
    before = _cpu_times()
    time.sleep(seconds if before else 0)
    after = _cpu_times()
    if before is None or after is None or after[1] == before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _cpu_times() -> tuple[int, int] | None:
    """Idle and all ticks since the start of the machine (proc(5), /proc/stat)."""
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return ticks[3] + ticks[4], sum(ticks)
