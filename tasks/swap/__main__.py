"""`python -m tasks.swap`: what backbones do for detection, segmentation and classification, under equal terms."""

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from jsonargparse import ArgumentParser

from tasks.arguments import NO_TEXT, TOO_DEEP, value_of
from tasks.cli import CONFIGS
from tasks.command import run_command
from tasks.swap.check import check_plan
from tasks.swap.cluster import run_ray
from tasks.swap.costs import count, measure_all
from tasks.swap.plan import Plan, make_plan
from tasks.swap.progress import Progress
from tasks.swap.records import check_foreign, state_of
from tasks.swap.report import write_report
from tasks.swap.results import collect
from tasks.swap.runner import Work, run_local
from tasks.swap.settings import Plain, Tasks, Timing

DEFAULT = CONFIGS / "swap" / "shapes.yaml"


def swap(
    name: str,
    tasks: Tasks,
    backbones: list[str | Plain],
    seeds: list[int],
    jobs: int | None = None,
    devices: Literal["auto", "cpu"] | list[int] = "auto",
    latency: Timing = Timing(),
    runs: str = "runs",
    launcher: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
) -> None:
    """Trains every backbone for every task with every seed, and compares them.

    Finished runs are skipped when the command is given again, and an unfinished one continues.

    Args:
        name: of the experiment, and of its folder under `<runs>/swap`.
        tasks: ordinary configs of the tasks, and what to change in them.
        backbones: class paths such as backbones.MobileNetV2, or mappings of `class_path` and, where wanted, `name`, `init_args` and
            `overrides` (values by dotted key of every task's config, for this backbone alone). Each replaces the config's own backbone.
        seeds: one run of each backbone and task for each seed.
        jobs: runs at once, among which CPU cores are shared out; by default one, or one a device.
        devices: numbers of the CUDA devices, among which runs are shared out; `auto` for all there are; `cpu`.
        latency: how it is measured when all runs are done, one network after the other.
        runs: folder of the runs of all tasks.
        launcher: `local` for this machine; `ray` for Ray, on this machine or a cluster that shares its folders (`pip install ray`).
        ray_address: of a running Ray cluster, or `auto`; by default Ray is started on this machine.
        retry_failed: run what failed before again.
        report_only: run nothing and measure nothing; make tables and pictures of what is there.

    Raises:
        ValueError: the experiment cannot be run as it is; all that is wrong is said, a line each.
    """
    if latency.threads < 1 or latency.repeats < 0:
        raise ValueError(f"latency.threads {latency.threads}, repeats {latency.repeats} are not possible; accepted: from 1, from 0")
    plan = make_plan(name, tasks, backbones, seeds, runs)
    if ray_address is not None and launcher != "ray":
        raise ValueError(f"ray_address {ray_address} has no use with launcher {launcher}; accepted: launcher ray")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs {jobs} is not possible; accepted: at least 1")
    if report_only:
        failed = report(plan, latency)
    else:
        plan.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(plan.folder / ".lock", timeout=0):
                train(plan, _slots(devices, jobs), retry_failed, launcher, ray_address)
                measure_all(plan, latency)
                failed = report(plan, latency)
        except Timeout:
            raise ValueError(f"{plan.folder}: an experiment of this name is running; wait for it, or give this one another name") from None
    if failed:
        sys.exit(f"error: {failed} of {len(plan.runs)} runs failed; the table says why, and --retry_failed true runs them again")


def report(plan: Plan, latency: Timing) -> int:
    """Makes tables and pictures of what is there.

    Returns:
        The number of failed runs.
    """
    found = collect(plan, count(plan, latency))
    write_report(plan, found)
    return sum(result.state == "failed" for entries in found.values() for entry in entries for result in entry.results)


def train(plan: Plan, slots: list[str], retry_failed: bool, launcher: str = "local", ray_address: str | None = None) -> None:
    """Runs what is not done yet.

    Args:
        plan: all runs.
        slots: the CUDA device of each run that may go on at once, "" for the CPU.
        retry_failed: run what failed before again.
        launcher: `local` or `ray`.
        ray_address: of a running Ray cluster; None starts Ray on this machine.

    Raises:
        ValueError: the plan cannot be run.
    """
    states = {run.key: state_of(plan.folder, run) for run in plan.runs}
    waiting = [run for run in plan.runs if states[run.key] != "done" and (retry_failed or states[run.key] != "failed")]
    if waiting:
        check_plan(plan)
        check_foreign(plan)
    works = [Work(run, plan.folder, _threads(len(slots)), None, len(slots)) for run in waiting]
    with Progress(plan, works, len(slots)) as progress:
        for run in waiting:
            if states[run.key] == "changed":
                progress.say(f"{run.key}: its settings have changed since it ran; it runs anew, and what it left is kept in replaced")
        if launcher == "ray":
            run_ray(works, slots, ray_address, progress.ended_run)
        else:
            run_local(works, slots, progress.started, progress.ended, progress.look)


def _slots(devices: Literal["auto", "cpu"] | list[int], jobs: int | None) -> list[str]:
    """The CUDA device of each run that may go on at once, "" for the CPU."""
    import torch

    there = torch.cuda.device_count()
    numbers = list(devices) if isinstance(devices, list) else list(range(there if devices == "auto" else 0))
    if any(number not in range(there) for number in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"devices {devices} are not possible; accepted: auto, cpu, or different numbers below {there}, the devices there are"
        )
    # This process itself may see a choice of the devices only.
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = [visible[number] if visible else str(number) for number in numbers] or [""]
    return [name for name, _ in zip(itertools.cycle(names), range(jobs or len(names)), strict=False)]


def _threads(slots: int) -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdecimal() else max(1, cores // slots)


def make_parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = ArgumentParser(prog="python -m tasks.swap", description=(swap.__doc__ or "").splitlines()[0])
    parser.add_argument("-c", "--config", action="config", help=f"Experiment file; by default {DEFAULT.name} of the project.")
    parser.add_function_arguments(swap)
    return parser


def read_settings(args: list[str]) -> dict[str, Any]:
    """Parses a command line to the arguments of `swap`.

    Raises:
        ValueError: a file of it contains itself, or has null for a mapping.
    """
    parser = make_parser()
    try:
        parsed = parser.parse_args(args)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{value_of(list(args), '--config')}: {NO_TEXT}: {error}") from error
    files = [Path(str(path)) for path in parsed.pop("config") or []]
    try:
        settings: dict[str, Any] = vars(parser.instantiate_classes(parsed))
    except TypeError as error:  # which the parser lets through
        raise ValueError("a task of the experiment, or latency, is null; accepted: a mapping, or nothing") from error
    for task in vars(settings["tasks"]).values():
        found = [str(file.parent / task.config) for file in files if task.config and (file.parent / task.config).is_file()]
        task.config = found[-1] if found else task.config
    return settings


def command(args: list[str]) -> None:
    """Reads the command line and runs it; SIGTERM ends it as Ctrl-C does, with exit code 130."""
    if not any(arg in ("-c", "--config") or arg.startswith("--config=") for arg in args):
        args = ["--config", str(DEFAULT), *args]
    settings = read_settings(args)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        swap(**settings)
    except KeyboardInterrupt:
        print("stopped: the runs that went on have saved where they are; the same command continues them", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run_command(lambda: command(list(sys.argv[1:] if args is None else args)))


if __name__ == "__main__":
    main()
