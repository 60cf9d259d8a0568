"""Runs trainings through Ray, on this machine or on a cluster whose machines see the same folders."""

import importlib
import os
import signal
from collections.abc import Callable
from typing import Any

from tasks.swap.plan import Run
from tasks.swap.records import place_of, read_json, write_json
from tasks.swap.runner import STOP_SECONDS, Work, execute

# Seconds between two looks at what Ray has finished.
LOOK_SECONDS = 2.0


def run_ray(works: list[Work], slots: list[str], address: str | None, on_end: Callable[[Run], None]) -> None:
    """Runs trainings as Ray's tasks, each with its CPU cores and, where there are devices, one GPU.

    Args:
        works: what to run, in order.
        slots: the CUDA device of each run that may go on at once on this machine; "" for the CPU.
        address: of a running cluster, or `auto`; None starts Ray on this machine, for as many runs at once as there are slots.
        on_end: called with each run that has ended, after its record is written.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    if not works:
        return
    ray = _import_ray()
    gpus, threads = 1 if any(slots) else 0, works[0].threads
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_worker_niceness", "0")  # as fast as without Ray
    own: dict[str, Any] = (
        {} if address else {"num_cpus": threads * len(slots), "num_gpus": gpus * len(set(slots)), "include_dashboard": False}
    )
    try:
        ray.init(address=address, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"ray_address {address}: {error}") from error
    signal.signal(signal.SIGTERM, handler)  # Ray's own would end this process before the runs have saved
    try:
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_execute_in)
        # With a GPU, Ray itself sets CUDA_VISIBLE_DEVICES.
        sent = [work._replace(device=None if gpus else "", root=work.root.resolve()) for work in works]
        _wait(ray, {remote.remote(work, os.getcwd()): work for work in sent}, on_end)
    finally:
        ray.shutdown()


def _wait(ray: Any, pending: dict[Any, Work], on_end: Callable[[Run], None]) -> None:
    try:
        while pending:
            ended, _ = ray.wait(list(pending), num_returns=1, timeout=LOOK_SECONDS)
            for reference in ended:
                work = pending.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:  # the machine or Ray's process is gone, not the training
                    path = place_of(work.root, work.run).record
                    write_json(path, read_json(path) | {"hash": work.run.hash, "state": "failed", "error": _last_line(error)})
                on_end(work.run)
    except BaseException:
        for reference in pending:
            ray.cancel(reference)  # raises KeyboardInterrupt there, which stops the process in order
        ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
        raise


def _last_line(error: Exception) -> str:
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]


def _execute_in(work: Work, folder: str) -> dict[str, Any]:
    """Runs in one of Ray's processes, in the folder of the experiment, to which data folders are relative."""
    os.chdir(folder)
    return execute(work)


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError("launcher ray needs Ray: pip install ray") from error
