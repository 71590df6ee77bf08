"""Where scores and penalties go in a response, and the scale that scores are brought to."""

import json
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core.shaping import RunningScale, clip_scores, penalise_missing_eos, shape_rewards

NAN = float("nan")
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
K1 = torch.tensor([[0.1, -0.2, 0.3, 0.4], [1.0, 2.0, NAN, 7.0], [NAN, NAN, NAN, NAN]])
SCORES = torch.tensor([5.0, -3.0, NAN])


def test_the_score_is_at_the_last_real_token_and_never_on_padding() -> None:
    """TRL adds it one place later: on padding, where whitening and GAE read something else (#3750)."""
    rewards = shape_rewards(SCORES, K1, MASK, kl_coefficient=0.5, kl_in_reward=True)
    expected = [[-0.05, 0.1, -0.15, 5 - 0.2], [-0.5, -3 - 1.0, 0.0, 0.0], [0.0] * 4]
    torch.testing.assert_close(rewards, torch.tensor(expected))


def test_a_full_response_has_its_score_at_its_end_and_a_row_without_tokens_nowhere() -> None:
    rewards = shape_rewards(SCORES, K1, MASK, kl_coefficient=0.0, kl_in_reward=True)
    assert rewards.tolist() == [[0.0, 0.0, 0.0, 5.0], [0.0, -3.0, 0.0, 0.0], [0.0] * 4]


def test_a_divergence_in_the_loss_is_not_in_the_reward_too() -> None:
    rewards = shape_rewards(SCORES, torch.full_like(K1, NAN), MASK, kl_coefficient=0.5, kl_in_reward=False)
    assert rewards.tolist() == [[0.0, 0.0, 0.0, 5.0], [0.0, -3.0, 0.0, 0.0], [0.0] * 4]


def test_the_penalty_for_a_missing_end_reaches_the_reward() -> None:
    """TRL's did nothing where the score lay on padding (#3750)."""
    scores = penalise_missing_eos(torch.tensor([5.0, -3.0]), torch.tensor([True, False]), penalty=1.5)
    assert scores.tolist() == [5.0, -4.5]
    rewards = shape_rewards(scores, K1[:2], MASK[:2], kl_coefficient=0.0, kl_in_reward=True)
    assert rewards.sum(1).tolist() == [5.0, -4.5]


def test_scores_are_clipped_on_both_sides() -> None:
    assert clip_scores(torch.tensor([-9.0, -2.0, 0.5, 7.0]), 5.0).tolist() == [-5.0, -2.0, 0.5, 5.0]


# --- normalising ------------------------------------------------------------------------------------------------------

batches = st.lists(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=0, max_size=6), min_size=1, max_size=5
)


@settings(max_examples=50, deadline=None)
@given(batches)
def test_the_running_scale_is_that_of_all_scores_at_once(parts: list[list[float]]) -> None:
    scale = RunningScale()
    for part in parts:
        scale.update(part)
    together = [score for part in parts for score in part]
    assert scale.count == len(together)
    if together:
        assert scale.mean == pytest.approx(statistics.fmean(together), abs=1e-10)
        assert scale.squares == pytest.approx(statistics.pvariance(together) * len(together), rel=1e-9, abs=1e-9)


def test_the_deviation_is_of_the_population_and_one_while_all_scores_are_equal() -> None:
    scale = RunningScale()
    assert scale.deviation == 1
    scale.update([2.5, 2.5])
    assert scale.deviation == 1
    scale.update([1.0, 4.0])
    assert scale.deviation == pytest.approx(statistics.pstdev([2.5, 2.5, 1.0, 4.0]))


def test_the_scale_survives_json_exactly() -> None:
    scale = RunningScale()
    scale.update([0.1, 0.7, 1e-3])
    again = RunningScale.from_state(json.loads(json.dumps(scale.state())))
    for one in (scale, again):
        one.update([3.3, -0.2])
    assert again == scale


def test_a_score_that_is_not_finite_is_refused_and_leaves_the_scale_as_it_was() -> None:
    scale = RunningScale()
    scale.update([1.0, 2.0])
    before = scale.state()
    with pytest.raises(ValueError, match="not a finite number"):
        scale.update([1.0, math.inf])
    assert scale.state() == before
