"""Intervals against exact bootstrap distributions: the binomial, and every draw of a few groups."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from training.core.bootstrap import Floats, Ints, correlation, mean, with_intervals


def interval(values: Floats, group: Ints, *, seed: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = with_intervals(mean(values, group, groups=int(group.max()) + 1), seed=seed)
    return found


def test_the_interval_is_that_of_the_exact_bootstrap_distribution() -> None:
    """With one pair a group, the bootstrap mean of n groups is Binomial(n, p) / n: its quantiles are known exactly."""
    count, right = 40, 26
    found = interval(np.array([1.0] * right + [0.0] * (count - right)), np.arange(count), seed=1)
    share = right / count
    chances = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    cumulative = np.cumsum(chances)
    low, high = (int(np.searchsorted(cumulative, q)) / count for q in (0.025, 0.975))
    assert found["value"] == pytest.approx(share)
    # 2,000 draws: the sample's quantile may be one step of 1/n beside the exact one
    assert found["low"] == pytest.approx(low, abs=1 / count + 1e-9)
    assert found["high"] == pytest.approx(high, abs=1 / count + 1e-9)


def test_the_width_is_that_of_the_analytic_standard_error() -> None:
    """Equal groups of four pairs that go together: the standard error is that of the group means, not √(pq/M)."""
    generator = np.random.default_rng(5)
    of_group = generator.normal(0.6, 0.2, size=300)
    found = interval(np.repeat(of_group, 4), np.repeat(np.arange(300), 4))
    half = 1.96 * of_group.std() / math.sqrt(300)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.06)


def test_groups_are_drawn_whole_however_many_pairs_they_hold() -> None:
    """Two groups, all pairs of one right: a draw holds 0, 1 or 2 of it, so the ends are 0 and 1 for any group size."""
    values = np.array([1.0] * 100 + [0.0] * 100)
    found = interval(values, np.repeat([0, 1], 100))
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert interval(values, np.arange(200))["low"] > 0.4


def test_unequal_groups_are_weighed_by_their_pairs() -> None:
    """Against all 5⁵ draws of five groups of unlike sizes: pairs right in a draw over pairs in it."""
    right, sizes = [1, 1, 12, 2, 5], [1, 2, 30, 2, 9]
    values = np.concatenate([[1.0] * r + [0.0] * (n - r) for r, n in zip(right, sizes, strict=True)])
    every = [
        sum(right[g] for g in draw) / sum(sizes[g] for g in draw) for draw in itertools.product(range(5), repeat=5)
    ]
    found = interval(values, np.repeat(np.arange(5), sizes))
    assert found["value"] == pytest.approx(21 / 44)
    assert found["low"] == pytest.approx(np.quantile(every, 0.025), abs=0.01)
    assert found["high"] == pytest.approx(np.quantile(every, 0.975), abs=0.03)


def test_all_figures_of_a_tree_see_the_same_draws() -> None:
    """So the interval of a difference is that of the pairs: of a column and itself it has no width."""
    values, groups = np.random.default_rng(0).normal(size=60), np.arange(60) // 2
    tree = {"a": mean(values, groups, groups=30), "b": [mean(values + 1, groups, groups=30)], "c": "kept"}
    found = with_intervals(tree, seed=3)
    assert found["b"][0]["low"] - found["a"]["low"] == pytest.approx(1)
    assert found["b"][0]["high"] - found["a"]["high"] == pytest.approx(1)
    assert found["c"] == "kept"


def test_what_stands_beside_a_figure_may_hold_figures() -> None:
    inner = mean(np.array([1.0, 0.0]), np.array([0, 1]), groups=2)
    outer = mean(np.array([1.0, 1.0]), np.array([0, 1]), groups=2, beside={"pairs": 2, "length": inner})
    found = with_intervals(outer, seed=0)
    assert (found["value"], found["pairs"], found["length"]["value"]) == (1.0, 2, 0.5)


def test_one_group_has_no_interval_and_nothing_has_no_value() -> None:
    alone = with_intervals(mean(np.array([1.0, 0.0]), np.array([1, 1]), groups=3), seed=3)
    assert alone == {"value": 0.5, "low": None, "high": None}
    for groups in (0, 2):
        nothing = with_intervals(mean(np.zeros(0), np.zeros(0, int), groups=groups), seed=0)
        assert nothing == {"value": None, "low": None, "high": None}


def test_a_figure_of_few_groups_leaves_out_the_draws_without_them() -> None:
    """Two of a thousand groups: many draws hold neither, and the ends are those of the draws that hold one."""
    found = with_intervals(mean(np.array([0.7, 0.8]), np.array([0, 1]), groups=1000), seed=0)
    assert (found["low"], found["high"]) == (pytest.approx(0.7), pytest.approx(0.8))


def test_correlation_is_that_of_numpy() -> None:
    generator = np.random.default_rng(2)
    first = generator.normal(size=200)
    second = first + generator.normal(size=200)
    first, second = first - first.mean(), second - second.mean()
    found = with_intervals(correlation(first, second, np.arange(200), groups=200), seed=0)
    assert found["value"] == pytest.approx(np.corrcoef(first, second)[0, 1])
    # Fisher: artanh r is about normal with standard error 1/√(n − 3)
    half = 1.96 / math.sqrt(197)
    assert found["low"] == pytest.approx(math.tanh(math.atanh(found["value"]) - half), abs=0.03)
    assert found["high"] == pytest.approx(math.tanh(math.atanh(found["value"]) + half), abs=0.03)
    flat = with_intervals(correlation(np.zeros(4), np.ones(4), np.arange(4), groups=4), seed=0)
    assert flat == {"value": None, "low": None, "high": None}
