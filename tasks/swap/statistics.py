"""Spread over seeds, paired comparison of backbones, and the Pareto front."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

# Probability below which chance alone is not believed.
LEVEL = 0.05


class Spread(NamedTuple):
    """Values of several seeds: mean, standard deviation (n - 1 in the denominator; None for one value), and the number of seeds."""

    mean: float
    deviation: float | None
    seeds: int


class Comparison(NamedTuple):
    """Two backbones over the seeds that both have.

    Attributes:
        first: name of a backbone.
        second: name of another.
        difference: first minus second, over the seeds.
        probability: of the paired t-test that both are equal (two-sided); None where it has no answer: for one seed, or where all
            differences are the same.
        corrected: the probability after Holm's correction for the number of pairs.
        larger_spread: the larger of the two standard deviations over the seeds; None for one seed.
    """

    first: str
    second: str
    difference: Spread
    probability: float | None
    corrected: float | None
    larger_spread: float | None


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and spread of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def compare(values: Mapping[str, Mapping[int, float]]) -> list[Comparison]:
    """Compares every pair of backbones over the same seeds.

    Args:
        values: the figure of each backbone by seed.

    Returns:
        A comparison for each pair with a seed in common; the better one first.
    """
    found = []
    for one, other in combinations(values, 2):
        shared = [seed for seed in values[one] if seed in values[other]]
        if shared:
            found.append(_pair(one, other, [values[one][seed] for seed in shared], [values[other][seed] for seed in shared]))
    corrected = holm([pair.probability for pair in found])
    return [pair._replace(corrected=probability) for pair, probability in zip(found, corrected, strict=True)]


def _pair(one: str, other: str, ones: list[float], others: list[float]) -> Comparison:
    if statistics.fmean(ones) < statistics.fmean(others):
        one, other, ones, others = other, one, others, ones
    difference = spread([a - b for a, b in zip(ones, others, strict=True)])
    deviations = [d for d in (spread(ones).deviation, spread(others).deviation) if d is not None]
    return Comparison(one, other, difference, t_test(difference), None, max(deviations, default=None))


def t_test(difference: Spread) -> float | None:
    """Returns the two-sided probability of Student's paired t-test; None for one pair or for differences that are all the same."""
    from scipy.stats import t

    # Differences of figures in 0..1 that are the same differ by rounding alone.
    if difference.deviation is None or difference.deviation < 1e-12:
        return None
    statistic = abs(difference.mean) / (difference.deviation / math.sqrt(difference.seeds))
    return float(2 * t.sf(statistic, difference.seeds - 1))


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Corrects probabilities for their number (Holm 1979, "A simple sequentially rejective multiple test procedure").

    Args:
        probabilities: of the tests; None for those without an answer, which do not count.

    Returns:
        The corrected ones, in the same order.
    """
    known = sorted((p, place) for place, p in enumerate(probabilities) if p is not None)
    corrected: list[float | None] = [None] * len(probabilities)
    highest = 0.0
    for rank, (probability, place) in enumerate(known):
        highest = max(highest, min(1.0, probability * (len(known) - rank)))
        corrected[place] = highest
    return corrected


def sentence(pair: Comparison, figure: str, pairs: int) -> str:
    """Says in words what a comparison of figures in 0..1 says; they are printed as percent.

    Args:
        pair: the comparison.
        figure: name of the figure.
        pairs: how many pairs were compared.
    """
    mean, deviation, seeds = pair.difference
    if mean == 0:
        return f"{figure}: {pair.first} and {pair.second} have the same mean (n = {seeds})"
    if deviation is None:
        return (
            f"{figure}: {pair.first} has {100 * mean:.1f} more than {pair.second} with one seed; "
            "nothing can be said of the difference, for another seed alone changes figures too"
        )
    test = ""
    if pair.probability is not None and pair.corrected is not None:
        test = f", paired t-test p = {_shown(pair.probability)}" + (f", {_shown(pair.corrected)} after Holm" if pairs > 1 else "")
    begin = f"{figure}: {pair.first} has {100 * mean:.1f} ± {100 * deviation:.1f} more than {pair.second} (n = {seeds}{test}): "
    if mean <= (pair.larger_spread or 0.0):
        return begin + "the difference does not exceed the seeds' spread"
    if pair.corrected is not None and pair.corrected < LEVEL:
        return begin + f"the difference exceeds the seeds' spread, and the test agrees at {LEVEL:g}"
    return begin + f"the difference exceeds the seeds' spread, but {seeds} seeds are too few for the test to agree at {LEVEL:g}"


def _shown(probability: float) -> str:
    return "< 0.001" if probability < 0.001 else f"{probability:.3f}"


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Returns the names of the points that no other beats.

    Args:
        points: cost (less is better) and score (more is better) by name.

    Returns:
        Those of which no other has both at least as good and one of them better, by rising cost.
    """

    def beaten(name: str) -> bool:
        cost, score = points[name]
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name])
