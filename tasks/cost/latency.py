"""Latency of a model and its parts on the CPU."""

import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from tasks.model import TaskModel

Precision = Literal["32", "bf16"]

# Runs before the measured ones: the first ones choose kernels and fill caches.
WARM_UP = 3


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        repeats: number of measured runs.
        batch_size: images a run.
        precision: `32` for float32, `bf16` for bfloat16 where autocast allows it.
        threads: by default as many as torch takes.
    """

    repeats: int = 20
    batch_size: int = 1
    precision: Precision = "32"
    threads: int | None = None


class Latency(NamedTuple):
    """Milliseconds: the median, and the quarters of the repeats that were faster than `low` and slower than `high`."""

    median: float
    low: float
    high: float


def measure(model: TaskModel, size: Sequence[int], parts: Mapping[str, Sequence[str]], settings: Settings) -> dict[str, Latency]:
    """Times a model and its parts, all within the same runs.

    Args:
        model: the model, on the CPU.
        size: height and width of the input in pixels.
        parts: names of the modules of each part; "" is the whole model.
        settings: how to measure.

    Returns:
        The latency of each part.

    Raises:
        ValueError: a setting is below 1.
    """
    repeats, batch_size, precision, threads = settings
    threads = torch.get_num_threads() if threads is None else threads
    if min(repeats, batch_size, threads) < 1:
        raise ValueError(f"repeats {repeats}, batch_size {batch_size} and threads {threads} are not possible; accepted: at least 1 of each")
    model = model.eval().to(memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, *size).contiguous(memory_format=torch.channels_last)
    clock = _Clock(model, parts)
    runs = []
    try:
        for _ in range(WARM_UP + repeats):
            clock.spent = dict.fromkeys(parts, 0.0)
            with _use_threads(threads), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                model(images)
            runs.append(clock.spent)
    finally:
        clock.remove()
    return {name: _summary([run[name] * 1000 for run in runs[WARM_UP:]]) for name in parts}


class _Clock:
    """Adds up the time between the beginning and the end of modules."""

    def __init__(self, model: nn.Module, parts: Mapping[str, Sequence[str]]) -> None:
        self.spent: dict[str, float] = {}
        self.began: dict[str, float] = {}
        self.handles = []
        for part, names in parts.items():
            for name in names:
                module = model.get_submodule(name)
                self.handles.append(module.register_forward_pre_hook(lambda *_, part=part: self._begin(part)))
                self.handles.append(module.register_forward_hook(lambda *_, part=part: self._end(part)))

    def _begin(self, part: str) -> None:
        self.began[part] = time.perf_counter()

    def _end(self, part: str) -> None:
        self.spent[part] += time.perf_counter() - self.began[part]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _summary(milliseconds: list[float]) -> Latency:
    if len(milliseconds) == 1:
        return Latency(*milliseconds * 3)
    low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Latency(median, low, high)


@contextmanager
def _use_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def conditions(settings: Settings) -> str:
    """Says how latency was measured."""
    repeats, batch_size, precision, threads = settings
    threads = threads or torch.get_num_threads()
    kind = "float32" if precision == "32" else "bfloat16 where autocast allows it"
    batch = "1 image" if batch_size == 1 else f"{batch_size} images"
    return (
        f"Latency: median of {repeats} runs after {WARM_UP} others, with the quartiles; {processor()}, {threads} "
        f"{'thread' if threads == 1 else 'threads'} of {os.cpu_count()}, {kind}, {batch} "
        f"a run, channels last, torch {torch.__version__}. Non-maximum suppression and drawing are not in it."
    )


def processor() -> str:
    """Returns the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
