"""Best-of-n against the mean over every subset, and closed forms of known orders."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.training.core.judged import example, random_split, ranking
from training.core.best_of_n import best_of_n, expected_standing, standings
from training.core.bootstrap import with_intervals
from training.core.examples import Example
from training.core.judgements import read_judgements


def curve(data: list[Example], scores: list[list[float]]) -> dict[str, Any]:
    found: dict[str, Any] = with_intervals(best_of_n(read_judgements(data, scores)), seed=0)
    return found


def by_every_subset(by: list[float], standing: list[float], n: int) -> float:
    """The mean over all subsets of n of the mean standing of their largest members."""
    picks = []
    for subset in itertools.combinations(range(len(by)), n):
        largest = [one for one in subset if by[one] == max(by[other] for other in subset)]
        picks.append(sum(standing[one] for one in largest) / len(largest))
    return sum(picks) / len(picks)


def test_the_curve_is_the_mean_over_every_subset() -> None:
    generator = np.random.default_rng(1)
    for count in (2, 3, 5, 7):
        by = generator.integers(0, 4, size=(3, count)).astype(float)  # equal values among them
        standing = generator.random((3, count))
        found = expected_standing(by, standing, count)
        for row in range(3):
            expected = [by_every_subset(by[row].tolist(), standing[row].tolist(), n + 1) for n in range(count)]
            assert found[row].tolist() == pytest.approx(expected)


def test_standings_are_shares_of_the_others_beaten() -> None:
    assert standings(np.array([[0, 1, 1, 2]])).tolist() == [[1.0, 0.5, 0.5, 0.0]]
    assert standings(np.array([[0, 0, 0]])).tolist() == [[0.5, 0.5, 0.5]]


def test_a_perfect_order_is_the_oracle_and_a_reversed_one_its_mirror() -> None:
    """Without ties the best of n of K stands at (n/(n+1) · (K+1) − 1) / (K − 1): the largest of n of 1 … K."""
    data = [example([1, 2, 3, 4, 5], [[4], [2], [0], [1], [3]])]
    found = curve(data, [[3.0, 2.0, 4.0, 1.0, 5.0]])
    expected = [(n / (n + 1) * 6 - 1) / 4 for n in range(1, 6)]
    assert [point["model"]["value"] for point in found["points"]] == pytest.approx(expected)
    assert [point["oracle"]["value"] for point in found["points"]] == pytest.approx(expected)
    worst = curve(data, [[-3.0, -2.0, -4.0, -1.0, -5.0]])
    assert [point["model"]["value"] for point in worst["points"]] == pytest.approx([1 - one for one in expected])
    longest = [by_every_subset([1, 2, 3, 4, 5], [0.5, 0.25, 0.75, 0.0, 1.0], n) for n in range(1, 6)]
    assert [point["longest"]["value"] for point in found["points"]] == pytest.approx(longest)
    assert found["points"][4]["against_longest"]["value"] == pytest.approx(expected[4] - longest[4])


def test_all_points_are_over_the_rankings_that_reach_the_end() -> None:
    """Sizes 2, 3, 3, 4: at least half placed 3, so N = 3 and three rankings count; every curve begins at ½."""
    sizes = [2, 3, 3, 4]
    data = [example([1] * size, [[place] for place in range(size)], group=size) for size in sizes]
    found = curve(data, [[float(-place) for place in range(size)] for size in sizes])
    assert (found["placed"], found["rankings"], [point["n"] for point in found["points"]]) == (3, 3, [1, 2, 3])
    for name in ("model", "longest", "oracle"):
        assert found["points"][0][name]["value"] == pytest.approx(0.5)
    # equal lengths: the longest is any of them
    assert found["points"][2]["longest"]["value"] == pytest.approx(0.5)
    # two rankings of three (always the first) and one of four: the largest of 3 of 4 is 15/4, standing (15/4 − 1)/3
    assert found["points"][2]["model"]["value"] == pytest.approx((1 + 1 + 11 / 12) / 3)


def test_unranked_responses_lose_to_what_is_placed_and_stand_alike() -> None:
    """One of three is placed: it stands at 1, the others at ¼, whichever of them the scores prefer."""
    data = [example([1, 1, 1], ranking([[2]], unranked=[0, 1])), example([1, 1, 1], ranking([], unranked=[0, 1, 2]))]
    for scores in ([2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0]):
        found = with_intervals(best_of_n(read_judgements(data, [scores, [0.0] * 3], below=True)), seed=0)
        assert (found["placed"], found["rankings"]) == (3, 1)
        # it is the highest of all pairs and the three, or only where the highest is not drawn
        expected = [0.5, (1 + 1 + 1 / 4) / 3, 1.0] if scores[2] == 3 else [0.5, (1 + 1 / 4 + 1 / 4) / 3, 1 / 4]
        assert [point["model"]["value"] for point in found["points"]] == pytest.approx(expected)
    assert curve(data, [[1.0, 2.0, 3.0], [0.0] * 3])["points"] == []


def test_the_oracle_is_never_below_and_without_rankings_there_is_no_curve() -> None:
    data, scores = random_split(30, seed=2)
    for point in curve(data, scores)["points"]:
        assert point["oracle"]["value"] >= max(point["model"]["value"], point["longest"]["value"]) - 1e-12
    assert curve([example([1, 2], [[0]])], [[0.0, 1.0]]) == {"placed": None, "rankings": 0, "points": []}
