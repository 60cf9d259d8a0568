"""Spread, paired comparison and the Pareto front."""

import math

import pytest
from scipy.stats import ttest_rel

from tasks.swap.statistics import Spread, compare, holm, pareto, sentence, spread


def test_spread_of_known_values() -> None:
    assert spread([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == Spread(5.0, math.sqrt(32 / 7), 8)
    assert spread([3.0]) == Spread(3.0, None, 1)


def test_comparison_is_the_paired_t_test_over_shared_seeds() -> None:
    ones, others = [0.50, 0.54, 0.52, 0.57], [0.49, 0.51, 0.50, 0.52]
    values = {"one": dict(enumerate(ones)), "other": {**dict(enumerate(others)), 9: 0.9}}
    (pair,) = compare(values)
    assert (pair.first, pair.second, pair.difference.seeds) == ("one", "other", 4)
    assert pair.probability == pytest.approx(ttest_rel(ones, others).pvalue)
    assert pair.corrected == pair.probability
    assert pair.difference.mean == pytest.approx(0.0275)
    (swapped,) = compare(dict(reversed(values.items())))
    assert swapped == pair  # the better one first


def test_holm_corrects_the_example_of_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


def test_one_seed_says_nothing() -> None:
    (pair,) = compare({"a": {0: 0.5}, "b": {0: 0.4}})
    assert (pair.probability, pair.corrected, pair.larger_spread) == (None, None, None)
    assert "nothing can be said" in sentence(pair, "AP", 1)
    assert compare({"a": {0: 0.5}, "b": {1: 0.4}}) == []


def test_words_follow_the_numbers() -> None:
    (clear,) = compare({"a": {0: 0.50, 1: 0.52, 2: 0.51}, "b": {0: 0.40, 1: 0.41, 2: 0.42}})
    assert "a has 10.0 ± 1.0 more than b (n = 3, paired t-test p = 0.003)" in sentence(clear, "AP", 1)
    assert "exceeds the seeds' spread, and the test agrees" in sentence(clear, "AP", 1)
    assert "after Holm" in sentence(clear, "AP", 3)
    (few,) = compare({"a": {0: 0.50, 1: 0.58}, "b": {0: 0.40, 1: 0.41}})
    assert "too few" in sentence(few, "AP", 1)
    (noise,) = compare({"a": {0: 0.50, 1: 0.40}, "b": {0: 0.40, 1: 0.48}})
    assert "does not exceed" in sentence(noise, "AP", 1)
    (same,) = compare({"a": {0: 0.5, 1: 0.4}, "b": {0: 0.5, 1: 0.4}})
    assert same.probability is None
    assert "the same mean" in sentence(same, "AP", 1)
    (shifted,) = compare({"a": {0: 0.7, 1: 0.6}, "b": {0: 0.5, 1: 0.4}})
    assert shifted.probability is None
    assert "more than b (n = 2):" in sentence(shifted, "AP", 1)


def test_nothing_beats_the_front_and_the_front_beats_the_rest() -> None:
    points = {str(n): ((n * 37 % 101) / 10, (n * 61 % 97) / 10) for n in range(60)}
    front = pareto(points)

    def beats(one: str, other: str) -> bool:
        (cost, score), (other_cost, other_score) = points[one], points[other]
        return cost <= other_cost and score >= other_score and points[one] != points[other]

    assert front == sorted(front, key=lambda name: points[name])
    assert [points[name][1] for name in front] == sorted(points[name][1] for name in front)
    assert not any(beats(one, other) for one in points for other in front)
    assert all(any(beats(one, other) for one in front) for other in points if other not in front)


def test_equal_points_share_the_front() -> None:
    assert pareto({"a": (1.0, 2.0), "b": (1.0, 2.0), "c": (1.0, 1.0)}) == ["a", "b"]
    assert pareto({}) == []
