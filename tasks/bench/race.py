"""Timing several ways to do the same in turns, so that what else the machine does falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Race(NamedTuple):
    """Ways to do the same.

    Attributes:
        title: what is done.
        unit: what a second is counted in: images, detections, ...
        amount: how many of them one call does.
        peer: the name of the candidate that the others are compared with.
        candidates: what to call, by name.
        equal: what was seen to be equal in the results of the candidates, before any of them was timed.
    """

    title: str
    unit: str
    amount: float
    peer: str
    candidates: Mapping[str, Callable[[], Any]]
    equal: str


class Time(NamedTuple):
    """Seconds of a call: the median, the quartiles, and the median of the ratios of the peer's time to it, turn by turn."""

    median: float
    low: float
    high: float
    ratio: float


def run(race: Race, repeats: int, warm_up: int = 2, announce: Callable[[str], None] = lambda name: None) -> dict[str, Time]:
    """Times all candidates, one after the other, again and again.

    Args:
        race: the candidates.
        repeats: measured turns.
        warm_up: turns before, in which kernels are chosen and caches filled.
        announce: is told the candidate that is about to run.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats} is not possible; accepted: at least 1")
    seconds: dict[str, list[float]] = {name: [] for name in race.candidates}
    for turn in range(warm_up + repeats):
        for name, call in race.candidates.items():
            announce(name)
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    peer = seconds[race.peer]
    return {name: _summary(own, [theirs / mine for mine, theirs in zip(own, peer, strict=True)]) for name, own in seconds.items()}


def _summary(seconds: list[float], ratios: list[float]) -> Time:
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Time(quartiles[1], quartiles[0], quartiles[2], statistics.median(ratios))
