"""Win rates and the looks of answers, against loops, closed forms and data whose truth is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core import policy_statistics
from training.core.bootstrap import with_intervals
from training.core.policy_statistics import (
    PRIOR_DEVIATION,
    Answers,
    best_of_n_win_rate,
    compare_answers,
    describe_answers,
    distinct_share,
    fit_length_model,
    length_controlled_win_rate,
    number_groups,
    paired_difference,
    repetition,
    win_rate,
)


def answers(judge, tokens=None, **given):
    """(P, S) judge's scores and what else is said; the rest is plain."""
    judge = np.asarray(judge, np.float64)
    tokens = tokens or [[[1, 2, 3]] * judge.shape[1]] * judge.shape[0]
    plain = {name: np.zeros(judge.shape) for name in ("score", "kl", "kl_k3", "entropy")}
    characters = np.array([[3.0 * len(one) for one in responses] for responses in tokens])
    values = {"characters": characters, "ended": np.ones(judge.shape, bool), "rewards": {}, **plain, **given}
    return Answers(tokens=tokens, judge=judge, **values)


def figure(statistic, seed=1):
    return with_intervals(statistic, seed=seed)


# --- win rates -------------------------------------------------------------------------------------------------------


def test_the_win_rate_counts_all_pairs_of_a_prompt_and_ties_as_half():
    policy = np.array([[3.0, 1.0], [0.0, 5.0]])
    reference = np.array([[1.0, 2.0, 0.0], [5.0, 5.0, 9.0]])
    by_hand = []
    for mine, other in zip(policy, reference, strict=True):
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in mine for b in other]
        by_hand.append(sum(pairs) / len(pairs))
    assert by_hand == [(3 + 1.5) / 6, (0 + 0.5 + 0.5 + 0) / 6]
    found = figure(win_rate(policy, reference, np.array([0, 1])))
    assert found["value"] == pytest.approx(sum(by_hand) / 2)
    assert found["prompts"] == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=1, max_size=8))
def test_what_one_wins_the_other_loses(rows):
    scores = np.array(rows, np.float64)
    group = np.arange(len(rows))
    there, back = win_rate(scores[:, :2], scores[:, 2:], group), win_rate(scores[:, 2:], scores[:, :2], group)
    assert there.sums[:, 0] + back.sums[:, 0] == pytest.approx(1)


def test_the_interval_covers_a_half_where_the_policies_are_the_same():
    """95 % intervals over groups of two prompts that share their noise; of 200 sets, most must cover ½."""
    generator, covered = np.random.default_rng(3), 0
    for trial in range(200):
        shared = np.repeat(generator.normal(size=(40, 2)), 2, axis=0)
        judge = shared + 0.3 * generator.normal(size=(80, 2))
        found = figure(win_rate(judge[:, :1], judge[:, 1:], np.repeat(np.arange(40), 2)), seed=trial)
        covered += found["low"] <= 0.5 <= found["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_intervals_are_over_groups_and_not_over_prompts():
    generator = np.random.default_rng(0)
    judge = generator.normal(size=(10, 2)).repeat(10, axis=0)  # each prompt ten times over
    alone = figure(win_rate(judge[:, :1], judge[:, 1:], np.arange(100)))
    grouped = figure(win_rate(judge[:, :1], judge[:, 1:], np.arange(10).repeat(10)))
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])


# --- the length-controlled win rate ----------------------------------------------------------------------------------


def slope_of(a, b, won, slope, weight):
    """The derivative of the penalised log-likelihood, by a loop."""
    up = [-a / PRIOR_DEVIATION**2, -b / PRIOR_DEVIATION**2]
    for y, x, w in zip(won, slope, weight, strict=True):
        left = y - 1 / (1 + math.exp(-(a + b * x)))
        up[0] += w * left
        up[1] += w * left * x
    return up


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1, 1), st.integers(0, 50)), min_size=1, max_size=12)
)
def test_the_fit_is_where_the_slope_is_nothing(rows):
    """The function is strictly concave, so that this point is the maximum, whatever the data: separable ones too."""
    won, slope, weight = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    (a, b) = fit_length_model(won, slope, weight[None])[0]
    assert slope_of(a, b, won, slope, weight) == pytest.approx([0, 0], abs=1e-6)


def test_drawing_a_prompt_twice_is_having_it_twice():
    won, slope = np.array([1.0, 0, 1, 0.5]), np.array([0.3, -0.8, -0.1, 0.9])
    drawn = fit_length_model(won, slope, np.array([[2.0, 1, 0, 3], [1, 1, 1, 1]]))
    again = fit_length_model(won[[0, 0, 1, 3, 3, 3]], slope[[0, 0, 1, 3, 3, 3]], np.ones((1, 6)))
    assert drawn[0] == pytest.approx(again[0])


def test_with_equal_lengths_it_is_the_win_rate_but_for_the_prior():
    judge = np.array([[1.0, 0.0]] * 300 + [[0.0, 1.0]] * 100)
    found = figure(length_controlled_win_rate(judge[:, :1], judge[:, 1:], np.zeros((400, 1, 1)), np.arange(400)))
    assert found["value"] == pytest.approx(0.75, abs=0.001)
    assert found["longer"] == 0.5
    plain = figure(win_rate(judge[:, :1], judge[:, 1:], np.arange(400)))
    # The same draws: the same interval, nearly.
    assert (found["low"], found["high"]) == pytest.approx((plain["low"], plain["high"]), abs=0.002)


def make_judged(generator, prompts, *, worth, length):
    """A judge that sees worth and length: P(win) = σ(worth + length · Δ / 50); the policy is longer on average."""
    gap = generator.normal(40, 50, size=prompts)
    won = generator.uniform(size=prompts) < 1 / (1 + np.exp(-(worth + length * gap / 50)))
    return won.astype(np.float64)[:, None], np.full((prompts, 1), 0.5), gap[:, None, None]


@pytest.mark.parametrize(("worth", "length", "truth"), [(0, 0, 0.5), (0, 1.5, 0.5), (0.8, 1.5, 0.69), (-0.5, 1, 0.378)])
def test_it_finds_the_win_rate_at_equal_lengths(worth, length, truth):
    policy, reference, gap = make_judged(np.random.default_rng(8), 800, worth=worth, length=length)
    found = figure(length_controlled_win_rate(policy, reference, gap, np.arange(800)))
    assert found["low"] - 0.02 <= truth <= found["high"] + 0.02
    plain = figure(win_rate(policy, reference, np.arange(800)))["value"]
    if length:
        assert plain > found["value"] + 0.08, "the longer answers had won for their length"


def test_it_is_finite_where_everything_wins_and_where_length_tells_all():
    ones, group = np.ones((50, 1)), np.arange(50)
    gap = np.linspace(-20, 30, 50)[:, None, None]
    everything = figure(length_controlled_win_rate(ones, 0 * ones, gap, group))
    assert 0.95 < everything["value"] < 1
    by_length = np.where(gap[:, 0] > 0, 1.0, -1.0)
    found = figure(length_controlled_win_rate(by_length, 0 * ones, gap, group))
    assert 0.3 < found["value"] < 0.7
    assert all(math.isfinite(found[end]) for end in ("low", "high"))


def test_how_often_the_policys_answer_is_longer_stands_beside_it():
    gap = np.array([[[5.0, 0.0]], [[-1.0, 2.0]]])
    found = figure(length_controlled_win_rate(np.ones((2, 1)), np.zeros((2, 2)), gap, np.arange(2)))
    assert found["longer"] == (1 + 0.5 + 0 + 1) / 4


def test_a_prompt_counts_once_however_many_responses_it_has():
    policy, reference, gap = make_judged(np.random.default_rng(2), 30, worth=0, length=1)
    once = figure(length_controlled_win_rate(policy, reference, gap, np.arange(30)))
    doubled = (policy.repeat(2, axis=1), reference.repeat(3, axis=1), gap.repeat(2, axis=1).repeat(3, axis=2))
    assert figure(length_controlled_win_rate(*doubled, np.arange(30))) == pytest.approx(once)


def test_draws_are_the_same_whatever_is_held_at_once(monkeypatch):
    policy, reference, gap = make_judged(np.random.default_rng(2), 30, worth=0, length=1)
    whole = figure(length_controlled_win_rate(policy, reference, gap, np.arange(30)))
    monkeypatch.setattr(policy_statistics, "VALUES_AT_ONCE", 1000)
    assert figure(length_controlled_win_rate(policy, reference, gap, np.arange(30))) == pytest.approx(whole)


# --- best of n -------------------------------------------------------------------------------------------------------


def test_the_best_of_four_by_a_perfect_score_wins_four_of_five():
    """Of five equal samples the fifth is best in one of five; choosing blindly gives a half."""
    generator = np.random.default_rng(4)
    judge = generator.normal(size=(20000, 5))
    group = np.arange(20000) % 50
    by_judge = figure(best_of_n_win_rate(judge[:, :4], judge[:, :4], judge[:, 4:], group))
    assert by_judge["value"] == pytest.approx(0.8, abs=0.01)
    assert by_judge["n"] == 4 and by_judge["kl"] == pytest.approx(math.log(4) - 0.75)
    blind = figure(best_of_n_win_rate(generator.normal(size=(20000, 4)), judge[:, :4], judge[:, 4:], group))
    assert blind["value"] == pytest.approx(0.5, abs=0.01)


def test_the_chosen_one_has_the_highest_score_and_equal_ones_share():
    score = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0]])
    judge = np.array([[9.0, 0.0, 9.0], [9.0, 0.0, 9.0]])
    found = best_of_n_win_rate(score, judge, np.full((2, 1), 5.0), np.array([0, 1]))
    assert found.sums[:, 0].tolist() == [0.0, 0.5]


# --- differences and looks -------------------------------------------------------------------------------------------


def test_differences_are_of_the_means_of_each_prompt():
    found = figure(paired_difference(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([[1.0], [1.0]]), np.array([0, 1])))
    assert found["value"] == ((2 - 1) + (5 - 1)) / 2
    assert (found["low"], found["high"]) == (1, 4)


def test_distinct_n_is_of_all_responses_together():
    responses = [[1, 2, 1, 2], [1, 2, 3], [7], []]
    assert distinct_share(responses, 1) == 4 / 8
    assert distinct_share(responses, 2) == len({(1, 2), (2, 1), (2, 3)}) / 5
    assert distinct_share(responses, 3) == 3 / 3
    assert distinct_share([[1], []], 2) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 5))
def test_repetition_against_a_loop(response, n):
    seen, repeated, places = [], 0, range(len(response) - n + 1)
    for place in places:
        gram = response[place : place + n]
        repeated += gram in seen
        seen.append(gram)
    assert repetition(response, n) == pytest.approx(repeated / len(places) if len(places) > 0 else 0)


def test_the_figures_of_one_policy_by_hand():
    found = answers(
        [[1.0, 2.0], [4.0, 5.0]],
        tokens=[[[1, 1, 1, 1, 1, 1], [2]], [[3, 4], [5]]],
        score=np.array([[1.0, 0.0], [0.0, 1.0]]),
        rewards={"model": np.array([[2.0, 0.0], [0.0, 2.0]])},
        ended=np.array([[False, True], [True, True]]),
        kl=np.array([[6.0, 0.0], [2.0, 0.0]]),
        kl_k3=np.array([[3.0, 0.0], [2.0, 0.0]]),
        entropy=np.array([[10.0, 0.0], [5.0, 5.0]]),
    )
    described = describe_answers(found)
    json.dumps(described, allow_nan=False)
    assert described.pop("reward") == {"model": 1.0}
    assert described == pytest.approx(
        {
            "score": 0.5,
            "judge": 3.0,
            "length_mean": 2.5,
            "eos_rate": 0.75,
            "distinct_1": 5 / 10,
            "distinct_2": 2 / 6,
            "distinct_3": 1 / 4,
            "repetition": (2 / 3) / 4,  # three 4-grams, all the same, in one of four
            "kl": 2.0,
            "kl_k3": 5 / 10,
            "entropy": 20 / 10,
        }
    )


def test_a_policy_that_says_nothing_has_no_figures_by_token():
    described = describe_answers(answers([[0.0]], tokens=[[[]]]))
    assert described["kl_k3"] is None and described["distinct_1"] is None and described["repetition"] == 0


def test_the_whole_comparison():
    generator = np.random.default_rng(6)
    before = answers(generator.normal(size=(60, 1)), rewards={"format": np.zeros((60, 1))})
    after = answers(
        generator.normal(2, 1, size=(60, 2)), tokens=[[[1, 2, 3, 4]] * 2] * 60, rewards={"format": np.ones((60, 2))}
    )
    candidates = answers(generator.normal(size=(60, 4)), score=generator.normal(size=(60, 4)))
    groups = [f"g{number // 2}" for number in range(60)]
    found = compare_answers(before, after, groups, seed=5, candidates=candidates)
    json.dumps(found, allow_nan=False)
    assert found["win_rate"]["prompts"] == 60
    assert 0.5 < found["win_rate"]["low"] < found["win_rate"]["value"] < found["win_rate"]["high"]
    # A score of chance chooses blindly: four standard errors about a half.
    assert found["best_of_4"]["value"] == pytest.approx(0.5, abs=0.26)
    # All the policy's answers are longer, so length may explain all of it.
    assert found["length_controlled_win_rate"]["longer"] == 1
    assert found["length_controlled_win_rate"]["value"] < found["win_rate"]["value"]
    assert found["change"]["length_mean"]["value"] == 1
    assert found["change"]["judge"]["low"] > 1
    assert found["change"]["reward/format"]["value"] == 1
    assert found == compare_answers(before, after, groups, seed=5, candidates=candidates)


def test_without_a_judge_nothing_is_said_of_wins():
    plain = replace(answers(np.zeros((4, 1))), judge=None)
    found = compare_answers(plain, plain, list("abcd"), seed=1, candidates=plain)
    assert found["win_rate"] is None and found["length_controlled_win_rate"] is None and found["best_of_1"] is None
    assert "judge" not in found["change"] and found["change"]["score"]["value"] == 0
    assert describe_answers(plain)["judge"] is None


@pytest.mark.parametrize("groups", [[], list("abc")])
def test_answers_to_other_prompts_do_not_compare(groups):
    with pytest.raises(ValueError, match="prompts"):
        compare_answers(answers(np.zeros((2, 1))), answers(np.zeros((2, 1))), groups, seed=1)


def test_groups_are_numbered_without_gaps():
    assert number_groups(["b", "a", "b"]).tolist() == [1, 0, 1]
