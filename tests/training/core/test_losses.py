"""The pair loss against closed forms."""

import math

import pytest
import torch

from training.core.examples import Pair
from training.core.losses import pair_loss


def loss_of(scores: torch.Tensor, pairs: list[Pair]) -> torch.Tensor:
    columns = zip(*((p.first, p.second, p.outcome, p.weight) for p in pairs), strict=True)
    first, second, outcome, weight = (torch.tensor(column) for column in columns)
    return pair_loss(scores, first, second, outcome.to(scores.dtype), weight.to(scores.dtype))


def test_a_won_pair_costs_the_bradley_terry_log_probability() -> None:
    scores = torch.tensor([1.5, 0.2], dtype=torch.float64)
    assert loss_of(scores, [Pair(0, 1, 1.0, 1.0)]).item() == pytest.approx(
        -math.log(1 / (1 + math.exp(-1.3))), abs=1e-12
    )
    assert loss_of(scores, [Pair(1, 0, 1.0, 1.0)]).item() == pytest.approx(
        -math.log(1 / (1 + math.exp(1.3))), abs=1e-12
    )


def test_a_soft_tie_costs_least_at_equal_scores() -> None:
    tie = [Pair(0, 1, 0.5, 1.0)]
    equal = loss_of(torch.zeros(2, dtype=torch.float64), tie).item()
    assert equal == pytest.approx(math.log(2), abs=1e-12)
    apart = loss_of(torch.tensor([2.0, 0.0], dtype=torch.float64), tie).item()
    sigma = 1 / (1 + math.exp(-2))
    assert apart == pytest.approx(-0.5 * (math.log(sigma) + math.log(1 - sigma)), abs=1e-12)
    assert apart > equal


def test_weights_scale_and_pairs_add_up() -> None:
    scores = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64)
    pairs = [Pair(0, 1, 1.0, 0.25), Pair(2, 1, 1.0, 0.5), Pair(2, 0, 0.5, 0.25)]
    alone = [loss_of(scores, [Pair(p.first, p.second, p.outcome, 1.0)]).item() * p.weight for p in pairs]
    assert loss_of(scores, pairs).item() == pytest.approx(sum(alone), abs=1e-12)


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    pairs = [Pair(0, 1, 1.0, 0.3), Pair(2, 3, 0.5, 0.2), Pair(3, 1, 1.0, 0.5)]
    assert torch.autograd.gradcheck(lambda values: loss_of(values, pairs), (scores,))


def test_far_apart_scores_stay_finite() -> None:
    scores = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = loss_of(scores, [Pair(1, 0, 1.0, 1.0)])
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([1.0, -1.0])
