"""PPO's losses by cases, in float64."""

import itertools
import math

import pytest
import torch

from training.core.policy_losses import clip_fraction, importance_weights, policy_loss, ratio_max, value_loss

CLIP = 0.2


def by_cases(ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Loss, its derivative by ln π, and whether the clipped term decided; from the figure of the paper."""
    if advantage > 0 and ratio > 1 + CLIP:
        return -(1 + CLIP) * advantage, 0.0, True
    if advantage < 0 and ratio < 1 - CLIP:
        return -(1 - CLIP) * advantage, 0.0, True
    return -ratio * advantage, -ratio * advantage, False


@pytest.mark.parametrize("weight", [None, 0.25])
def test_the_clipped_loss_and_its_gradient_by_cases(weight: float | None) -> None:
    cases = list(itertools.product([0.3, 0.79, 0.81, 1.0, 1.19, 1.21, 2.5], [1.7, -0.6, 0.0]))
    ratio, advantage = torch.tensor(cases, dtype=torch.float64).unbind(1)
    old = torch.linspace(-5, -0.1, len(cases), dtype=torch.float64)
    log_probs = (old + ratio.log()).requires_grad_()
    importance = None if weight is None else torch.full_like(ratio, weight)
    found = policy_loss(log_probs, old, advantage, clip=CLIP, importance=importance)
    found.per_token.sum().backward()  # type: ignore[no-untyped-call]
    loss, slope, clipped = zip(*(by_cases(*case) for case in cases), strict=True)
    scale = 1.0 if weight is None else weight
    assert found.per_token.tolist() == pytest.approx([scale * value for value in loss], abs=1e-12)
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([scale * value for value in slope], abs=1e-12)
    assert found.clipped.tolist() == list(clipped)
    assert found.ratio.tolist() == pytest.approx(ratio.tolist(), abs=1e-12)
    assert clip_fraction(found.clipped) == sum(clipped) / len(cases)
    assert ratio_max(found.ratio) == pytest.approx(2.5)


def test_gradients_of_both_losses_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    old, moved, advantage, returns = torch.randn(4, 12, dtype=torch.float64)
    inputs = (old + 0.4 * moved).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: policy_loss(x, old, advantage, clip=CLIP).per_token, (inputs,))
    assert torch.autograd.gradcheck(lambda x: value_loss(x, old, returns, clip=CLIP).per_token, (inputs,))


def test_before_the_first_update_the_ratio_is_one_and_the_gradient_that_of_the_policy_gradient() -> None:
    torch.manual_seed(1)
    logits = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    tokens, advantage = torch.randint(9, (5, 1)), torch.randn(5, dtype=torch.float64)
    log_probs = logits.log_softmax(-1).gather(1, tokens)[:, 0]
    found = policy_loss(log_probs, log_probs, advantage, clip=CLIP)
    (gradient,) = torch.autograd.grad(found.per_token.sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(-(advantage * log_probs).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)
    assert found.ratio.tolist() == [1.0] * 5 and not found.clipped.any()


def test_a_token_that_became_impossible_cannot_overflow_the_loss() -> None:
    log_probs = torch.tensor([0.0, -800.0, -90.0], requires_grad=True)
    old = torch.tensor([-800.0, 0.0, -90.0])
    found = policy_loss(log_probs, old, torch.tensor([-1.0, 1.0, 2.0]), clip=CLIP)
    found.per_token.sum().backward()  # type: ignore[no-untyped-call]
    assert found.per_token.tolist() == pytest.approx([math.exp(20), -math.exp(-20), -2.0], rel=1e-6)
    assert log_probs.grad is not None and log_probs.grad.tolist() == [0.0, 0.0, -2.0]


def test_half_precision_is_computed_in_float32() -> None:
    log_probs = torch.tensor([-1.0, -2.0], dtype=torch.bfloat16)
    found = policy_loss(log_probs, log_probs - 0.125, torch.ones(2), clip=CLIP)
    assert found.per_token.dtype == torch.float32
    assert found.ratio.tolist() == pytest.approx([math.exp(0.125)] * 2, rel=1e-6)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope", "clipped"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.9**2, -0.9, False),  # within the range
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, 0.0, True),  # towards the return, beyond the range: no further
        (1.5, 1.0, 1.0, 0.5 * 0.5**2, 0.5, False),  # away from the return: all of the way back counts
        (0.5, 1.0, 0.0, 0.5 * 0.8**2, 0.0, True),
    ],
)
def test_the_value_loss_by_cases(
    value: float, old: float, target: float, loss: float, slope: float, clipped: bool
) -> None:
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    old_values, returns = torch.tensor([[old], [target]], dtype=torch.float64)
    found = value_loss(values, old_values, returns, clip=CLIP)
    found.per_token.sum().backward()  # type: ignore[no-untyped-call]
    assert found.per_token.item() == pytest.approx(loss, abs=1e-12)
    assert values.grad is not None and values.grad.item() == pytest.approx(slope, abs=1e-12)
    assert found.clipped.item() is clipped
    free = value_loss(values.detach(), old_values, returns, clip=math.inf)
    assert free.per_token.item() == pytest.approx(0.5 * (value - target) ** 2)


# --- the sampler's log-probabilities ----------------------------------------------------------------------------------


def test_importance_weights_are_the_capped_ratio_of_trainer_to_sampler() -> None:
    trainer = torch.tensor([-1.0, -1.0, -1.0, 0.0], requires_grad=True)
    sampler = torch.tensor([-1.0, -0.5, -3.0, -500.0])
    found = importance_weights(trainer, sampler, cap=2.0)
    assert found.tolist() == pytest.approx([1.0, math.exp(-0.5), 2.0, 2.0])
    assert not found.requires_grad


def test_importance_weights_come_from_the_old_policy_and_stay_while_the_policy_moves() -> None:
    """slime (#179) took the current policy's log-probabilities, so that ρ entered twice from the second epoch on."""
    old, sampler, advantage = torch.tensor([-1.0]), torch.tensor([-1.3]), torch.tensor([-2.0])
    weight = importance_weights(old, sampler, cap=2.0)
    for moved in (0.0, -0.1, 0.4):
        log_probs = torch.tensor([-1.0 + moved], requires_grad=True)
        found = policy_loss(log_probs, old, advantage, clip=CLIP, importance=weight)
        assert found.per_token.item() == pytest.approx(2 * math.exp(0.3) * math.exp(moved), rel=1e-6)


def test_no_tokens_give_figures_that_are_numbers() -> None:
    nothing = torch.zeros(0)
    assert clip_fraction(nothing.bool()) == 0.0 and ratio_max(nothing) == 1.0
    assert policy_loss(nothing, nothing, nothing, clip=CLIP).per_token.sum().item() == 0
