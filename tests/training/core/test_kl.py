"""Estimates of the divergence against the sum over a vocabulary, and the controller against its closed form."""

import math

import pytest
import torch

from training.core.kl import KlController, KlKind, kl_estimate, kl_loss

VOCABULARY = 7


def distributions(seed: int, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and log-probabilities of a reference near it, in float64."""
    torch.manual_seed(seed)
    logits = torch.randn(VOCABULARY, dtype=torch.float64)
    reference = (logits + apart * torch.randn(VOCABULARY, dtype=torch.float64)).log_softmax(0)
    return logits.requires_grad_(), reference


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: KlKind) -> None:
    logits, reference = distributions(0)
    policy = logits.log_softmax(0).detach()
    exact = (policy.exp() * (policy - reference)).sum()
    assert (policy.exp() * kl_estimate(policy - reference, kind)).sum().item() == pytest.approx(exact.item(), abs=1e-12)


def test_estimates_of_one_token_are_those_of_the_formulas() -> None:
    x = torch.tensor([-1.5, 0.0, 0.3], dtype=torch.float64)
    assert kl_estimate(x, "k1").tolist() == x.tolist()
    assert kl_estimate(x, "k2").tolist() == pytest.approx([1.125, 0.0, 0.045], abs=1e-15)
    assert kl_estimate(x, "k3").tolist() == pytest.approx([math.exp(-v) - 1 + v for v in x.tolist()], abs=1e-15)


def test_k3_is_never_negative_and_never_infinite() -> None:
    """A negative divergence was what users saw of TRL (#925) and LLaMA-Factory (#664)."""
    x = torch.cat([torch.linspace(-1e-3, 1e-3, 201), torch.tensor([-200.0, 200.0, 1e-20])])
    k3 = kl_estimate(x, "k3")
    assert (k3 >= 0).all() and k3.isfinite().all()
    assert kl_estimate(torch.tensor(1e-3), "k3").item() == pytest.approx(4.998e-7, rel=1e-3)


def test_k1_is_refused_as_a_loss_because_it_penalises_nothing() -> None:
    logits, reference = distributions(1)
    policy = logits.log_softmax(0)
    estimates = kl_estimate(policy - reference, "k1")
    (gradient,) = torch.autograd.grad((policy.detach().exp() * estimates).sum(), logits)
    assert gradient.abs().max() < 1e-12
    with pytest.raises(ValueError, match="expectation over tokens sampled from the policy is zero"):
        kl_loss(policy - reference, "k1")


def test_k2_as_a_loss_has_the_gradient_of_the_divergence() -> None:
    logits, reference = distributions(2)
    policy = logits.log_softmax(0)
    sampled = policy.detach().exp()
    (gradient,) = torch.autograd.grad((sampled * kl_loss(policy - reference, "k2")).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    torch.testing.assert_close(gradient, exact, rtol=0, atol=1e-12)
    assert exact.abs().max() > 0.01


def test_k3_as_a_loss_has_the_gradient_of_the_divergence_the_other_way_round() -> None:
    logits, reference = distributions(3)
    policy = logits.log_softmax(0)
    sampled = policy.detach().exp()
    (gradient,) = torch.autograd.grad((sampled * kl_loss(policy - reference, "k3")).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad((reference.exp() * (reference - policy)).sum(), logits)
    torch.testing.assert_close(gradient, exact, rtol=0, atol=1e-12)
    assert exact.abs().max() > 0.01


def test_unknown_estimates_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown estimate"):
        kl_estimate(torch.zeros(1), "k4")  # type: ignore[arg-type]


# --- the controller ---------------------------------------------------------------------------------------------------


def test_a_fixed_coefficient_stays() -> None:
    controller = KlController(0.05)
    controller.update(1e3, 256)
    assert controller.coefficient == 0.05


@pytest.mark.parametrize(
    ("kl", "error"), [(6.0, 0.0), (6.6, 0.1), (5.7, -0.05), (60.0, 0.2), (0.0, -0.2), (-3.0, -0.2)]
)
def test_the_adaptive_coefficient_follows_ziegler(kl: float, error: float) -> None:
    controller = KlController(0.15, target=6.0, horizon=10_000)
    controller.update(kl, 512)
    assert controller.coefficient == pytest.approx(0.15 * (1 + error * 512 / 10_000), rel=1e-12)


def test_steps_of_the_controller_compound() -> None:
    controller = KlController(0.1, target=2.0, horizon=1000)
    for kl in (2.2, 1.9, 8.0):
        controller.update(kl, 100)
    assert controller.coefficient == pytest.approx(0.1 * (1 + 0.1 * 0.1) * (1 - 0.05 * 0.1) * (1 + 0.2 * 0.1))
    resumed = KlController(controller.coefficient, target=2.0, horizon=1000)
    controller.update(3.0, 100)
    resumed.update(3.0, 100)
    assert resumed.coefficient == controller.coefficient


def test_what_would_break_the_controller_is_refused() -> None:
    for coefficient, target, horizon in ((-0.1, None, 1.0), (math.nan, None, 1.0), (0.1, 0.0, 1.0), (0.1, 6.0, 0.0)):
        with pytest.raises(ValueError, match="must be"):
            KlController(coefficient, target, horizon)
    controller = KlController(0.1, target=6.0, horizon=100)
    with pytest.raises(ValueError, match="divergence of the rollout is nan"):
        controller.update(math.nan, 8)
    with pytest.raises(ValueError, match="too short for rollouts of 500"):
        controller.update(1.0, 500)
    assert controller.coefficient == 0.1
