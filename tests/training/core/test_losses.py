"""The losses of pairs that have no model of ties, and centring, against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from training.core.losses import Pairs, centring, pairwise_loss

NO_THRESHOLDS = torch.zeros(0)


def pairs_of(*rows: tuple[float, ...]) -> Pairs:
    """Rows of first, second, outcome, weight and, if any, margin."""
    padded = [row + (0.0,) * (5 - len(row)) for row in rows]
    first, second, outcome, weight, margin = torch.tensor(padded, dtype=torch.float64).unbind(1)
    return Pairs(first.long(), second.long(), outcome, weight, margin, torch.zeros_like(first).long())


def loss_of(scores: Tensor, *rows: tuple[float, ...]) -> Tensor:
    return pairwise_loss(scores, pairs_of(*rows), kind="bradley-terry", thresholds=NO_THRESHOLDS)


def test_a_won_pair_costs_the_bradley_terry_log_probability() -> None:
    scores = torch.tensor([1.5, 0.2], dtype=torch.float64)
    won, lost = -math.log(1 / (1 + math.exp(-1.3))), -math.log(1 / (1 + math.exp(1.3)))
    assert loss_of(scores, (0, 1, 1.0, 1.0)).item() == pytest.approx(won, abs=1e-12)
    assert loss_of(scores, (1, 0, 1.0, 1.0)).item() == pytest.approx(lost, abs=1e-12)
    assert loss_of(scores, (0, 1, 0.0, 1.0)).item() == pytest.approx(lost, abs=1e-12)


def test_a_soft_tie_costs_least_at_equal_scores() -> None:
    tie = (0, 1, 0.5, 1.0)
    equal = loss_of(torch.zeros(2, dtype=torch.float64), tie).item()
    assert equal == pytest.approx(math.log(2), abs=1e-12)
    apart = loss_of(torch.tensor([2.0, 0.0], dtype=torch.float64), tie).item()
    sigma = 1 / (1 + math.exp(-2))
    assert apart == pytest.approx(-0.5 * (math.log(sigma) + math.log(1 - sigma)), abs=1e-12)
    assert apart > equal


def test_weights_scale_and_pairs_add_up() -> None:
    scores = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64)
    rows = [(0, 1, 1.0, 0.25), (2, 1, 1.0, 0.5), (2, 0, 0.5, 0.25)]
    alone = [loss_of(scores, (*row[:3], 1.0)).item() * row[3] for row in rows]
    assert loss_of(scores, *rows).item() == pytest.approx(sum(alone), abs=1e-12)


def test_the_margin_is_that_of_trl() -> None:
    """TRL's RewardTrainer: −mean logsigmoid(chosen − rejected − margin)."""
    torch.manual_seed(1)
    chosen, rejected, margin = torch.randn(3, 6, dtype=torch.float64)
    peer = -torch.nn.functional.logsigmoid(chosen - rejected - margin.abs()).mean()
    rows = [(i, 6 + i, 1.0, 1 / 6, margin.abs()[i].item()) for i in range(6)]
    assert loss_of(torch.cat([chosen, rejected]), *rows).item() == pytest.approx(peer.item(), abs=1e-12)


def test_a_margin_asks_more_of_the_winner_on_either_side_and_nothing_of_a_tie() -> None:
    scores = torch.tensor([1.0, 0.25], dtype=torch.float64)
    won, lost = math.log1p(math.exp(-(0.75 - 0.5))), math.log1p(math.exp(-(-0.75 - 0.5)))
    assert loss_of(scores, (0, 1, 1.0, 1.0, 0.5)).item() == pytest.approx(won, abs=1e-12)
    assert loss_of(scores, (0, 1, 0.0, 1.0, 0.5)).item() == pytest.approx(lost, abs=1e-12)
    assert torch.equal(loss_of(scores, (0, 1, 0.5, 1.0, 0.5)), loss_of(scores, (0, 1, 0.5, 1.0)))


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    rows = [(0, 1, 1.0, 0.3, 0.4), (2, 3, 0.5, 0.2, 0.4), (3, 1, 1.0, 0.5), (1, 2, 0.0, 0.7, 0.1)]
    assert torch.autograd.gradcheck(lambda values: loss_of(values, *rows), (scores,))


def test_far_apart_scores_stay_finite() -> None:
    scores = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = loss_of(scores, (1, 0, 1.0, 1.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(2e4)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([1.0, -1.0])


def test_no_pairs_give_a_loss_of_zero_with_a_gradient() -> None:
    scores = torch.ones(3, requires_grad=True)
    empty = torch.zeros(0)
    pairs = Pairs(empty.long(), empty.long(), empty, empty, empty, empty.long())
    loss = pairwise_loss(scores, pairs, kind="bradley-terry", thresholds=NO_THRESHOLDS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert scores.grad is not None and scores.grad.tolist() == [0, 0, 0]


# --- centring ---------------------------------------------------------------------------------------------------------


def test_centring_sums_the_squared_mean_of_each_prompt() -> None:
    scores = torch.tensor([1.0, 3.0, -1.0, 2.0, 2.0, -1.0], dtype=torch.float64)
    row = torch.tensor([0, 0, 1, 3, 3, 3])
    assert centring(scores, row).item() == pytest.approx(2**2 + 1**2 + 1**2, abs=1e-12)


def test_centring_is_a_quarter_of_trls_where_a_prompt_has_two_responses() -> None:
    """TRL's RewardTrainer: mean (chosen + rejected)²."""
    torch.manual_seed(2)
    chosen, rejected = torch.randn(2, 5, dtype=torch.float64)
    row = torch.arange(5).repeat(2)
    ours = centring(torch.cat([chosen, rejected]), row) / 5
    assert ours.item() == pytest.approx((chosen + rejected).square().mean().item() / 4, abs=1e-12)


def test_centring_of_micro_batches_adds_up() -> None:
    torch.manual_seed(3)
    scores = torch.randn(7, dtype=torch.float64)
    row = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    parts = centring(scores[:2], row[:2]) + centring(scores[2:], row[2:] - 1)
    assert centring(scores, row).item() == pytest.approx(parts.item(), abs=1e-12)


def test_centring_has_the_gradient_of_its_formula() -> None:
    torch.manual_seed(4)
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([1, 0, 1, 3, 0])
    assert torch.autograd.gradcheck(lambda values: centring(values, row), (scores,))
    loss = centring(scores, row)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    expected = [(scores[0] + scores[2]) / 2, (scores[1] + scores[4]) / 2, 2 * scores[3]]
    assert scores.grad[[0, 1, 3]].tolist() == pytest.approx([value.item() for value in expected], abs=1e-12)
