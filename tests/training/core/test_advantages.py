"""Advantages against plain loops in float64, and what padding, rejected rows and truncation must not change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.core.advantages import (
    AdvantageKind,
    Advantages,
    estimate_advantages,
    explained_variance,
    generalised_advantages,
    group_advantages,
    token_weights,
)
from training.core.masked import to_rows, whiten
from training.core.shaping import shape_rewards

NAN = float("nan")
GROUP_KINDS: tuple[AdvantageKind, ...] = ("rloo", "grpo", "dr-grpo")


def rollout(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and mask of responses of these lengths; nan outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(2, sum(lengths), dtype=torch.float64, generator=generator)
    (rewards, mask), (values, _) = to_rows(flat[0], lengths), to_rows(flat[1], lengths)
    return rewards.masked_fill(~mask, NAN), values.masked_fill(~mask, NAN), mask


def estimate(
    kind: AdvantageKind,
    rewards: torch.Tensor,
    mask: torch.Tensor,
    *,
    values: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
) -> Advantages:
    groups = torch.zeros(len(rewards), dtype=torch.long) if groups is None else groups
    return estimate_advantages(
        kind, rewards=rewards, mask=mask, groups=groups, values=values, gamma=gamma, gae_lambda=gae_lambda
    )


def loop(rewards: NDArray[np.float64], values: NDArray[np.float64], gamma: float, lam: float) -> list[float]:
    """Σ_l (γλ)^l δ_{t+l} of one response, term by term: the definition, not the recursion."""
    behind = np.append(values[1:], 0.0)
    delta = rewards + gamma * behind - values
    return [sum((gamma * lam) ** (k - t) * float(delta[k]) for k in range(t, len(delta))) for t in range(len(delta))]


# --- gae --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 2**20),
)
def test_gae_is_its_definition(lengths: list[int], gamma: float, lam: float, seed: int) -> None:
    rewards, values, mask = rollout(*lengths, seed=seed)
    found = generalised_advantages(rewards, values, mask, gamma=gamma, gae_lambda=lam)
    for row, length in enumerate(lengths):
        expected = loop(rewards[row, :length].numpy(), values[row, :length].numpy(), gamma, lam)
        assert found[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
        assert not found[row, length:].any()


def test_without_discount_the_advantage_is_return_less_value() -> None:
    rewards, values, mask = rollout(5, 3)
    raw = generalised_advantages(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    for row, length in enumerate((5, 3)):
        to_go = rewards[row, :length].flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(raw[row, :length], to_go - values[row, :length], rtol=0, atol=1e-12)


def test_returns_are_taken_before_whitening() -> None:
    rewards, values, mask = rollout(5, 3)
    found = estimate("gae", rewards, mask, values=values)
    raw = generalised_advantages(rewards, values, mask, gamma=1.0, gae_lambda=0.95)
    assert found.returns is not None
    torch.testing.assert_close(found.returns[mask], (raw + values)[mask], rtol=0, atol=0)
    assert not found.returns[~mask].any()
    assert found.advantages[mask].mean().item() == pytest.approx(0, abs=1e-12)
    assert found.advantages[mask].var(correction=0).item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found.advantages, whiten(raw, mask), rtol=0, atol=0)


def test_nothing_is_worth_anything_after_the_last_token() -> None:
    """verl bootstrapped from the value behind the terminal (#1850) and did not mask values before GAE (#50)."""
    rewards = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    values = torch.tensor([[0.5, 0.25, 100.0], [0.5, 0.75, 0.25]])
    found = generalised_advantages(rewards, values, mask, gamma=1.0, gae_lambda=0.0)
    # δ alone: the first row's last token has 2 − 0.25, not 2 + 100 − 0.25.
    assert found.tolist() == [[-0.25, 1.75, 0.0], [0.25, -0.5, 1.75]]


def test_a_truncated_response_is_terminal_too() -> None:
    """Cut off or ended, the mask ends where the tokens do: nothing but the penalty tells them apart."""
    scores, mask = torch.tensor([1.0, 1.0]), torch.tensor([[True, True, True], [True, True, True]])
    rewards = shape_rewards(scores, torch.zeros(2, 3), mask, kl_coefficient=0.1, kl_in_reward=True)
    values = torch.full((2, 3), 0.5)
    raw = generalised_advantages(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    assert torch.equal(raw[0], raw[1]) and raw[0, 2].item() == 0.5


@pytest.mark.parametrize("kind", ["gae", *GROUP_KINDS])
@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_changes_nothing(kind: AdvantageKind, left: bool) -> None:
    rewards, values, mask = rollout(5, 3, 4)
    garbage = torch.full((3, 2), 1e9, dtype=torch.float64)

    def widen(tensor: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return torch.cat([padding, tensor] if left else [tensor, padding], 1)

    wide = estimate(kind, widen(rewards, garbage), widen(mask, garbage < 0), values=widen(values, garbage))
    narrow = estimate(kind, rewards, mask, values=values)
    real = slice(2, None) if left else slice(0, 5)
    torch.testing.assert_close(wide.advantages[:, real], narrow.advantages, rtol=0, atol=1e-12)
    assert wide.advantages.isfinite().all()
    if narrow.returns is not None and wide.returns is not None:
        torch.testing.assert_close(wide.returns[:, real], narrow.returns, rtol=0, atol=1e-12)


def test_rows_keep_their_own_values_in_any_order() -> None:
    """verl paired the critic's masks and values with the wrong places (#1758) and the wrong rows (#1440)."""
    rewards, values, mask = rollout(5, 3, 4, 1)
    order = torch.tensor([2, 0, 3, 1])
    straight = estimate("gae", rewards, mask, values=values)
    permuted = estimate("gae", rewards[order], mask[order], values=values[order])
    torch.testing.assert_close(permuted.advantages, straight.advantages[order], rtol=0, atol=1e-12)
    assert straight.returns is not None and permuted.returns is not None
    torch.testing.assert_close(permuted.returns, straight.returns[order], rtol=0, atol=0)
    # A return needs its own value alone: at λ = 1 none of it is left, at λ = 0 no earlier one enters.
    changed = values.clone()
    changed[0, 0] += 10
    again = estimate("gae", rewards, mask, values=changed, gae_lambda=0.0)
    before = estimate("gae", rewards, mask, values=values, gae_lambda=0.0)
    assert again.returns is not None and before.returns is not None
    torch.testing.assert_close(again.returns, before.returns, rtol=0, atol=1e-12)


def test_gae_without_values_is_refused() -> None:
    rewards, _, mask = rollout(2)
    with pytest.raises(ValueError, match="gae needs values"):
        estimate("gae", rewards, mask)


# --- groups -----------------------------------------------------------------------------------------------------------

TOTALS = [3.0, -1.0, 0.5, 2.0, 2.0, -4.0, 1.0]
GROUPS = [5, 2, 5, 2, 5, 2, 2]


def by_loop(kind: AdvantageKind) -> list[float]:
    found = []
    for number, (total, group) in enumerate(zip(TOTALS, GROUPS, strict=True)):
        others = [t for i, (t, g) in enumerate(zip(TOTALS, GROUPS, strict=True)) if g == group and i != number]
        everyone = [*others, total]
        mean = sum(everyone) / len(everyone)
        if kind == "rloo":
            found.append(total - sum(others) / len(others))
        elif kind == "grpo":
            deviation = math.sqrt(sum((t - mean) ** 2 for t in everyone) / (len(everyone) - 1))
            found.append((total - mean) / (deviation + 1e-4))
        else:
            found.append(total - mean)
    return found


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_group_estimators_are_their_formulas(kind: AdvantageKind) -> None:
    totals = torch.tensor(TOTALS, dtype=torch.float64)
    found = group_advantages(kind, totals, torch.tensor(GROUPS), present=torch.ones(7, dtype=torch.bool))
    assert found.tolist() == pytest.approx(by_loop(kind), abs=1e-12)


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_every_token_of_a_response_has_the_advantage_of_its_summed_rewards(kind: AdvantageKind) -> None:
    rewards, _, mask = rollout(3, 1, 4)
    found = estimate(kind, rewards, mask)
    totals = torch.stack([row[real].sum() for row, real in zip(rewards, mask, strict=True)])
    alone = group_advantages(kind, totals, torch.zeros(3, dtype=torch.long), present=mask.any(1))
    for row, length in enumerate((3, 1, 4)):
        assert found.advantages[row, :length].tolist() == pytest.approx([alone[row].item()] * length, abs=1e-12)
        assert not found.advantages[row, length:].any()
    assert found.returns is None


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_rejected_rows_are_in_no_baseline(kind: AdvantageKind) -> None:
    """verl kept rejected responses, with nothing to train, in the mean of their group (#6375)."""
    rewards, _, mask = rollout(3, 2, 2)
    with_rejected = torch.cat([rewards, torch.full((2, 3), -1e6, dtype=torch.float64)])
    wide_mask = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)])
    found = estimate(kind, with_rejected, wide_mask, groups=torch.tensor([0, 0, 0, 0, 1]))
    torch.testing.assert_close(found.advantages[:3], estimate(kind, rewards, mask).advantages, rtol=0, atol=0)
    assert not found.advantages[3:].any()


@pytest.mark.parametrize("kind", ["gae", *GROUP_KINDS])
def test_a_row_without_tokens_poisons_nothing(kind: AdvantageKind) -> None:
    rewards, values, mask = rollout(3, 0, 2)
    found = estimate(kind, rewards, mask, values=values)
    assert found.advantages.isfinite().all() and not found.advantages[1].any()
    assert found.advantages[0].any()
    nothing = estimate(kind, rewards, torch.zeros_like(mask), values=values)
    assert not nothing.advantages.any()


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_a_group_of_one_is_refused(kind: AdvantageKind) -> None:
    rewards, _, mask = rollout(3, 2, 0)
    with pytest.raises(ValueError, match="a group of one has nothing to be compared with"):
        estimate(kind, rewards, mask, groups=torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_a_group_that_agrees_gives_no_signal(kind: AdvantageKind) -> None:
    mask = torch.ones(4, 2, dtype=torch.bool)
    rewards = torch.tensor([[0.1, 0.2]] * 4)
    assert estimate(kind, rewards, mask).advantages.abs().max() < 1e-3


def test_unknown_estimators_are_refused() -> None:
    rewards, _, mask = rollout(3, 2)
    with pytest.raises(ValueError, match="unknown estimator"):
        estimate("ppo", rewards, mask)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown estimator"):
        token_weights("ppo", mask, max_length=3)  # type: ignore[arg-type]


# --- weights and figures ----------------------------------------------------------------------------------------------


def test_token_weights_are_those_of_the_papers() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    by_token, by_response, by_limit = (token_weights(kind, mask, max_length=8) for kind in ("gae", "grpo", "dr-grpo"))
    assert by_token.tolist() == [pytest.approx([0.2] * 4), pytest.approx([0.2, 0, 0, 0]), [0.0] * 4]
    assert by_response.tolist() == [pytest.approx([0.125] * 4), pytest.approx([0.5, 0, 0, 0]), [0.0] * 4]
    assert by_limit.tolist() == [pytest.approx([1 / 16] * 4), pytest.approx([1 / 16, 0, 0, 0]), [0.0] * 4]
    assert torch.equal(by_token, token_weights("rloo", mask, max_length=8))
    assert not token_weights("grpo", torch.zeros_like(mask), max_length=8).any()


def test_micro_batches_add_up_to_the_mean_over_all_tokens() -> None:
    """TRL averages micro-batches, and once accumulated none but the last (#583)."""
    loss, _, mask = rollout(6, 1, 3)
    weights = token_weights("gae", mask, max_length=6)
    parts = [(loss[rows][mask[rows]] * weights[rows][mask[rows]]).sum().item() for rows in ([0], [1, 2])]
    assert sum(parts) == pytest.approx(loss[mask].mean().item(), abs=1e-6)


def test_the_explained_variance_of_a_perfect_a_constant_and_a_wrong_critic() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0], [5.0, NAN, NAN]])
    mask = ~returns.isnan()
    assert explained_variance(returns.nan_to_num(1e9) + 0.5, returns, mask) == pytest.approx(1)
    assert explained_variance(torch.full_like(returns, 0.7), returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones_like(returns), mask) is None
    assert explained_variance(returns, returns, torch.zeros_like(mask)) is None
