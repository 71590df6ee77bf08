"""Held-out figures against closed forms: the bootstrap against the exact binomial, temperature and ECE by hand."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from training.core.evaluation import (
    bootstrap_means,
    correctness,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    kendall_tau_b,
    log_loss,
    pair_table,
)
from training.core.examples import Example, JudgedRanking, Pair
from training.core.records import Message, Response


def example(texts: Sequence[str], tiers: Sequence[Sequence[int]], *, group: str = "g") -> Example:
    pairs = tuple(
        Pair(first, second, 1.0, 1.0)
        for place, tier in enumerate(tiers)
        for later in tiers[place + 1 :]
        for first in tier
        for second in later
    )
    ranking = JudgedRanking(tuple(map(tuple, tiers)), 1.0, pairs)
    return Example((Message("user", "?"),), tuple(map(Response, texts)), group, (ranking,), pairs)


def test_accuracy_counts_pairs_and_gives_equal_scores_one_half() -> None:
    data = [example(["aa", "a", "aaa"], [[0], [1], [2]]), example(["b", "bb"], [[1], [0]], group="h")]
    section = evaluate(data, [[3.0, 1.0, 1.0], [0.0, -1.0]], seed=0)
    # right: 0>1, 0>2; equal: 1=2; wrong: the pair of the second prompt
    assert section["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert (section["accuracy"]["pairs"], section["accuracy"]["prompts"]) == (4, 2)
    # longer wins: 0>1 yes, 0>2 no, 1>2 no, second prompt yes
    assert section["length_baseline"]["value"] == pytest.approx(2 / 4)


def test_without_pairs_every_figure_is_none() -> None:
    for data in ([], [example(["a", "b"], [[0, 1]])]):
        section = evaluate(data, [[1.0, 2.0]] * len(data), seed=0)
        assert section["accuracy"] == {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}
        assert section["log_loss"] is section["ece"] is section["temperature"] is section["kendall_tau_b"] is None


def test_the_interval_is_that_of_the_exact_bootstrap_distribution() -> None:
    """With one pair a group, the bootstrap mean of n groups is Binomial(n, p) / n: its quantiles are known exactly."""
    count, right = 40, 26
    values = np.array([1.0] * right + [0.0] * (count - right))
    (interval,) = bootstrap_means([values], np.arange(count), seed=1)
    share = right / count
    chances = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    cumulative = np.cumsum(chances)
    low, high = (int(np.searchsorted(cumulative, q)) / count for q in (0.025, 0.975))
    assert interval.value == pytest.approx(share)
    # 2,000 draws: the sample's quantile may be one step of 1/n beside the exact one
    assert interval.low == pytest.approx(low, abs=1 / count + 1e-9)
    assert interval.high == pytest.approx(high, abs=1 / count + 1e-9)


def test_groups_are_drawn_whole_however_many_pairs_they_hold() -> None:
    """Two groups, all pairs of one right: a draw holds 0, 1 or 2 of it, so the ends are 0 and 1 for any group size."""
    values = np.array([1.0] * 100 + [0.0] * 100)
    groups = np.array([0] * 100 + [1] * 100)
    (interval,) = bootstrap_means([values], groups, seed=0)
    assert (interval.low, interval.high) == (0.0, 1.0)
    (by_pair,) = bootstrap_means([values], np.arange(200), seed=0)
    assert by_pair.low is not None
    assert by_pair.low > 0.4


def test_unequal_groups_are_weighed_by_their_pairs() -> None:
    """Against all 5⁵ draws of five groups of unlike sizes: pairs right in a draw over pairs in it."""
    right, sizes = [1, 1, 12, 2, 5], [1, 2, 30, 2, 9]
    values = np.concatenate([[1.0] * r + [0.0] * (n - r) for r, n in zip(right, sizes, strict=True)])
    groups = np.repeat(np.arange(5), sizes)
    every = [
        sum(right[g] for g in draw) / sum(sizes[g] for g in draw) for draw in itertools.product(range(5), repeat=5)
    ]
    (interval,) = bootstrap_means([values], groups, seed=0)
    assert interval.value == pytest.approx(21 / 44)
    assert interval.low == pytest.approx(np.quantile(every, 0.025), abs=0.01)
    assert interval.high == pytest.approx(np.quantile(every, 0.975), abs=0.03)


def test_both_intervals_see_the_same_draws_and_one_group_has_none() -> None:
    values, groups = np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.array([0, 1, 2, 3, 4])
    first, second = bootstrap_means([values, values], groups, seed=3)
    assert first == second
    (alone,) = bootstrap_means([values], np.zeros(5, int), seed=3)
    assert (alone.value, alone.low, alone.high) == (0.6, None, None)


def test_log_loss_and_ece_by_hand() -> None:
    margin = np.array([2.0, -1.0, 0.5])
    sigma = 1 / (1 + np.exp(-margin))
    assert log_loss(margin) == pytest.approx(-np.log(sigma).mean())
    confidence = 1 / (1 + np.exp(-np.abs(margin)))  # 0.881, 0.731, 0.622: three bins of one pair each
    expected = (abs(1 - confidence[0]) + abs(0 - confidence[1]) + abs(1 - confidence[2])) / 3
    assert expected_calibration_error(margin) == pytest.approx(expected)


def test_calibrated_margins_have_no_calibration_error() -> None:
    margin = np.array([math.log(3)] * 3 + [-math.log(3)])  # σ = 0.75, and 3 of 4 are right
    assert expected_calibration_error(margin) == pytest.approx(0, abs=1e-12)
    assert fit_temperature(margin) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("size", "right"), [(1.0, 3), (5.0, 3), (0.2, 4)])
def test_the_temperature_is_the_margin_over_the_log_odds(size: float, right: int) -> None:
    margin = np.array([size] * right + [-size] * (5 - right))
    assert fit_temperature(margin) == pytest.approx(size / math.log(right / (5 - right)), rel=1e-9)


def test_no_temperature_fits_pairs_that_are_all_right_or_mostly_wrong() -> None:
    assert fit_temperature(np.array([1.0, 2.0])) is None
    assert fit_temperature(np.array([1.0, -1.0, -1.0])) is None


def test_tau_b_of_known_cases() -> None:
    assert kendall_tau_b([1, 2, 3], [1, 2, 3]) == 1
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1
    # three pairs agree, one does not, and one is tied on either side
    assert kendall_tau_b([1, 2, 2, 3], [1, 3, 2, 2]) == pytest.approx((3 - 1) / math.sqrt(5 * 5))
    assert kendall_tau_b([1, 1], [1, 2]) is None


def test_tau_counts_ties_in_the_human_ranking() -> None:
    data = [example(["a", "b", "c"], [[0, 1], [2]])]
    section = evaluate(data, [[2.0, 1.0, 0.0]], seed=0)
    assert section["kendall_tau_b"] == pytest.approx(2 / math.sqrt(3 * 2))


def test_margins_are_winner_minus_loser() -> None:
    table = pair_table([example(["a", "bbb"], [[1], [0]])], [[0.25, 1.0]])
    assert table.margin.tolist() == [0.75]
    assert table.length_margin.tolist() == [2]
    assert correctness(np.array([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]
