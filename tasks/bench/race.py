"""Timing several ways to do the same in turns, so that what else the machine does falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.bench.roofline import Work

# Seconds before each turn: threads of ONNX Runtime and OpenMP keep a core busy for a while after their work.
PAUSE = 0.1


def nothing(name: str) -> None:
    """Prepares no candidate."""


class Race(NamedTuple):
    """Ways to do the same.

    Attributes:
        title: what is done.
        unit: what a second is counted in: images, detections, ...
        amount: how many of them one call does.
        peer: the name of the candidate that the others are compared with.
        candidates: what to call, by name.
        equal: what was seen to be equal in the results of the candidates, before any of them was timed.
        work: what candidates must do at least in one call, by name; of others no limit is known.
        prepare: is called with the name of a candidate right before each of its turns, outside the measured time.
        warm_up: turns before the measured ones, in which kernels are chosen and caches filled; 0 where the comparison was one.
    """

    title: str
    unit: str
    amount: float
    peer: str
    candidates: Mapping[str, Callable[[], Any]]
    equal: str
    work: Mapping[str, Sequence[Work]] = {}
    prepare: Callable[[str], None] = nothing
    warm_up: int = 1


class Time(NamedTuple):
    """Seconds of a call: the median, the quartiles, and the median of the ratios of the peer's time to it, turn by turn."""

    median: float
    low: float
    high: float
    ratio: float


def run(race: Race, repeats: int, announce: Callable[[str], None] = nothing) -> dict[str, Time]:
    """Times all candidates, one after the other, again and again.

    Args:
        race: the candidates.
        repeats: measured turns.
        announce: is told the candidate that is about to run.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats} is not possible; accepted: at least 1")
    seconds: dict[str, list[float]] = {name: [] for name in race.candidates}
    for turn in range(race.warm_up + repeats):
        for name, call in race.candidates.items():
            announce(name)
            time.sleep(PAUSE)
            race.prepare(name)
            began = time.perf_counter()
            call()
            if turn >= race.warm_up:
                seconds[name].append(time.perf_counter() - began)
    peer = seconds[race.peer]
    return {name: _summary(own, [theirs / mine for mine, theirs in zip(own, peer, strict=True)]) for name, own in seconds.items()}


def _summary(seconds: list[float], ratios: list[float]) -> Time:
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Time(quartiles[1], quartiles[0], quartiles[2], statistics.median(ratios))
