"""The over-optimisation alarm: what raises it, what does not, how often noise does, and which step is kept."""

import json
import math

import numpy as np
import pytest

from training.core.overoptimisation import Evaluation, OveroptimisationAlarm, normal_deviate

PROMPTS = 40


def course(alarm, points):
    """Feed (score, judge, length, kl) per step, constant over prompts but for a fixed spread; return the reasons."""
    spread = np.linspace(-1, 1, PROMPTS)
    wobble = 0.2 * np.sin(np.arange(PROMPTS) * 7.0)
    reasons = []
    for step, (score, judge, length, kl) in enumerate(points):
        judged = None if judge is None else judge + spread + wobble * step
        reasons.append(alarm.observe(Evaluation(10 * step, score + spread, judged, length, kl)))
    return reasons


def test_a_reward_that_only_counts_length_raises_it():
    """Score = length / 10; the judge likes 40 tokens best and nothing beyond."""
    lengths = [20, 24, 28, 33, 40, 48, 60, 75]
    alarm = OveroptimisationAlarm()
    course(alarm, [(one / 10, -(((one - 40) / 15) ** 2), one, one / 8) for one in lengths])
    assert alarm.suspect is not None
    # 33 tokens are more than half as many again as 20.
    assert alarm.suspect["step"] == 30
    assert "33.0 tokens" in alarm.suspect["reasons"][0] and "+65 %" in alarm.suspect["reasons"][0]
    assert alarm.best_step == 20, "the last step before the alarm was the best so far"


def test_a_judge_that_falls_while_the_score_rises_raises_it_though_lengths_stay():
    alarm = OveroptimisationAlarm()
    reasons = course(alarm, [(0, 0, 30, 0), (1, 0.5, 30, 2), (2, 1, 31, 4), (3, 0.7, 31, 8), (4, 0.2, 30, 12)])
    assert reasons[:3] == [[], [], []] and len(reasons[3]) == 1
    assert "lower than at step 20" in reasons[3][0] and "training score is 1.000 higher" in reasons[3][0]
    assert reasons[4] == [], "a kind of sign is told once"
    assert alarm.suspect["step"] == 30
    assert alarm.best_step == 20


def test_the_judge_is_compared_with_the_best_evaluation_and_not_with_the_start():
    """Still far above the start, but well below its best."""
    alarm = OveroptimisationAlarm()
    assert course(alarm, [(0, 0, 30, 0), (1, 3, 30, 2), (2, 2, 30, 4)])[2] != []


def test_a_score_that_falls_with_the_judge_is_no_over_optimisation():
    alarm = OveroptimisationAlarm()
    course(alarm, [(0, 0, 30, 0), (1, 1, 30, 2), (0.5, 0.2, 30, 4)])
    assert alarm.suspect is None


def test_an_honest_improvement_does_not_raise_it():
    alarm = OveroptimisationAlarm(kl_target=6)
    course(alarm, [(step, step * 0.3, 30 + step, step) for step in range(11)])
    assert alarm.suspect is None
    assert alarm.best_step == 100


def test_kl_beyond_three_times_its_target_raises_it_and_without_target_never_does():
    points = [(0, None, 30, 0), (1, None, 30, 17.9), (2, None, 30, 18.1)]
    alarm = OveroptimisationAlarm(kl_target=6)
    assert [len(reasons) for reasons in course(alarm, points)] == [0, 0, 1]
    assert "18.1 nats, 3.0 times its target" in alarm.suspect["reasons"][0]
    free = OveroptimisationAlarm()
    course(free, points)
    assert free.suspect is None


def test_length_is_compared_with_the_start_at_exactly_half_as_long_again():
    alarm = OveroptimisationAlarm()
    assert [len(one) for one in course(alarm, [(0, None, 20, 0), (1, None, 29.9, 1), (2, None, 30, 1)])] == [0, 0, 1]


def test_kinds_add_up_and_suspicion_stays():
    alarm = OveroptimisationAlarm(kl_target=1)
    course(alarm, [(0, None, 20, 0), (1, None, 40, 0), (2, None, 20, 5), (3, None, 20, 0)])
    assert alarm.suspect["step"] == 10
    assert len(alarm.suspect["reasons"]) == 2
    assert "step 10" in alarm.suspect["reasons"][0] and "step 20" in alarm.suspect["reasons"][1]


def test_without_a_judge_the_best_step_has_the_highest_score_less_its_kl():
    alarm = OveroptimisationAlarm(kl_coefficient=0.1)
    course(alarm, [(0, None, 20, 0), (1, None, 20, 5), (1.2, None, 20, 9), (1.0, None, 20, 5)])
    # 0, 0.5, 0.3, 0.5: the first of equals.
    assert alarm.best_step == 10


def test_few_prompts_are_no_ground_to_hear_a_judge():
    alarm = OveroptimisationAlarm()
    alarm.observe(Evaluation(0, [0] * 7, [5, 6, 5, 6, 5, 6, 5], 20, 0))
    assert alarm.observe(Evaluation(1, [1] * 7, [0] * 7, 20, 0)) == []


def test_rounding_is_no_fall_however_sure():
    alarm = OveroptimisationAlarm()
    judge = np.linspace(-1, 1, 20)
    alarm.observe(Evaluation(0, [0] * 20, judge, 20, 0))
    assert alarm.observe(Evaluation(1, [1] * 20, judge - 1e-6, 20, 0)) == []
    assert "over a hundred standard errors" in alarm.observe(Evaluation(2, [1] * 20, judge - 0.25, 20, 0))[0]


def test_equal_falls_have_no_error_and_are_heard():
    alarm = OveroptimisationAlarm()
    alarm.observe(Evaluation(0, [0] * 20, [0, 1] * 10, 20, 0))
    assert "over a hundred" in alarm.observe(Evaluation(1, [1] * 20, [-1, 0] * 10, 20, 0))[0]


@pytest.mark.parametrize(("prompts", "evaluations", "at_most"), [(40, 1, 0.035), (40, 20, 0.075), (8, 20, 0.075)])
def test_noise_alone_seldom_raises_it(prompts, evaluations, at_most):
    """The rate stated: fresh noise in score and judge at every evaluation, the score drifting up, nothing else."""
    generator = np.random.default_rng(11)
    raised, runs = 0, 300
    for _ in range(runs):
        alarm = OveroptimisationAlarm()
        for step in range(evaluations + 1):
            score, judge = generator.normal(size=(2, prompts))
            alarm.observe(Evaluation(step, score + 0.1 * step, judge, 20, 1))
        raised += alarm.suspect is not None
    assert raised / runs <= at_most


def test_a_fall_of_two_standard_errors_is_found_where_there_is_one():
    """Power: a true fall of five standard errors after a true rise is nearly always heard."""
    generator = np.random.default_rng(5)
    heard = 0
    for _ in range(100):
        alarm = OveroptimisationAlarm()
        for step, mean in enumerate((0, 0.5, 1, 1.5, 1.5, 0.4)):
            judge = mean + generator.normal(size=40)
            alarm.observe(Evaluation(step, [float(step)] * 40, judge, 20, 1))
        heard += alarm.suspect is not None
    assert heard >= 80


def test_the_state_goes_through_json_and_on_as_if_nothing_had_been():
    points = [(0, 0, 30, 0), (1, 0.5, 30, 2), (2, 1, 31, 4), (3, 0.4, 46, 8), (4, 2, 31, 30)]
    straight, first = (OveroptimisationAlarm(kl_target=5) for _ in range(2))
    course(straight, points)
    spread, wobble = np.linspace(-1, 1, PROMPTS), 0.2 * np.sin(np.arange(PROMPTS) * 7.0)
    for step, (score, judge, length, kl) in enumerate(points):
        resumed = OveroptimisationAlarm(kl_target=5)
        resumed.load(json.loads(json.dumps(first.state())))
        resumed.observe(Evaluation(10 * step, score + spread, judge + spread + wobble * step, length, kl))
        first = resumed
    assert first.state() == straight.state()
    assert len(first.suspect["reasons"]) == 3


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (Evaluation(1, [1.0, math.nan], [0, 0], 5, 0), "not finite"),
        (Evaluation(1, [], [], 5, 0), "no figures"),
        (Evaluation(1, [1, 2], [0, 0], math.inf, 0), "not finite"),
        (Evaluation(1, [1, 2], [0], 5, 0), "1 judge scores of 2"),
        (Evaluation(0, [1, 2], [0, 0], 5, 0), "after step 0"),
        (Evaluation(1, [1, 2, 3], [0, 0, 0], 5, 0), "same prompts"),
        (Evaluation(1, [1, 2], None, 5, 0), "all with a judge"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, why):
    alarm = OveroptimisationAlarm()
    alarm.observe(Evaluation(0, [0, 0], [0, 0], 5, 0))
    with pytest.raises(ValueError, match=why):
        alarm.observe(second)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(5, 2.5706), (7, 2.3646), (12, 2.1788), (30, 2.0423), (100, 1.9840)],  # tables of Student's t at 97.5 %
)
def test_students_t_becomes_a_normal_deviate(degrees, quantile):
    assert normal_deviate(quantile, degrees=degrees) == pytest.approx(1.95996, abs=0.01)
    assert normal_deviate(-quantile, degrees=degrees) == pytest.approx(-1.95996, abs=0.01)
