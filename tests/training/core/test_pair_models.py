"""The models of a pair's outcome and their thresholds, against closed forms in plain Python."""

import json
import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.core.losses import PairModel, Pairs, outcome_log_probabilities, pairwise_loss
from training.core.thresholds import (
    Davidson,
    Ordinal,
    RaoKupper,
    TierSizes,
    fit_thresholds,
    outcome_probabilities,
    pair_thresholds,
    tensor_of_thresholds,
)

KINDS: tuple[PairModel, ...] = get_args(PairModel)
WITH_THRESHOLDS = [kind for kind in KINDS if kind != "bradley-terry"]
# The thresholds that the losses take; Davidson's is ln ν.
EXAMPLES: dict[PairModel, list[float]] = {
    "bradley-terry": [],
    "rao-kupper": [0.4],
    "davidson": [math.log(0.7)],
    "ordinal": [0.4, 1.1, 2.5],
}
ETA, NU = 0.4, 0.7


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def thresholds_of(kind: PairModel) -> Tensor:
    return torch.tensor(EXAMPLES[kind], dtype=torch.float64)


def loss_of(
    kind: PairModel,
    scores: Tensor,
    rows: list[tuple[float, ...]],
    thresholds: Tensor | None = None,
) -> Tensor:
    """Rows of first, second, outcome, weight, margin, strength."""
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    first, second, outcome, weight, margin, strength = columns
    pairs = Pairs(first.long(), second.long(), outcome, weight, margin, strength.long())
    return pairwise_loss(scores, pairs, kind=kind, thresholds=thresholds_of(kind) if thresholds is None else thresholds)


def one_pair(kind: PairModel, difference: float, outcome: float, *, margin: float = 0.0, strength: int = 0) -> float:
    scores = torch.tensor([difference, 0.0], dtype=torch.float64)
    return loss_of(kind, scores, [(0, 1, outcome, 1.0, margin, strength)]).item()


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difference", [-1.7, -0.2, 0.0, 0.9, 3.0])
def test_rao_kupper_is_its_closed_form(difference: float) -> None:
    theta, first, second = math.exp(ETA), math.exp(difference), 1.0  # Rao and Kupper's own letters: π_i, π_j and θ
    win = first / (first + theta * second)
    lose = second / (second + theta * first)
    tie = first * second * (theta**2 - 1) / ((first + theta * second) * (second + theta * first))
    assert one_pair("rao-kupper", difference, 1.0) == pytest.approx(-math.log(win), abs=1e-12)
    assert one_pair("rao-kupper", difference, 0.0) == pytest.approx(-math.log(lose), abs=1e-12)
    assert one_pair("rao-kupper", difference, 0.5) == pytest.approx(-math.log(tie), abs=1e-12)


@pytest.mark.parametrize("difference", [-1.7, -0.2, 0.0, 0.9, 3.0])
def test_davidson_is_its_closed_form(difference: float) -> None:
    first, second = math.exp(difference), 1.0
    drawn = NU * math.sqrt(first * second)
    total = first + second + drawn
    assert one_pair("davidson", difference, 1.0) == pytest.approx(-math.log(first / total), abs=1e-12)
    assert one_pair("davidson", difference, 0.0) == pytest.approx(-math.log(second / total), abs=1e-12)
    assert one_pair("davidson", difference, 0.5) == pytest.approx(-math.log(drawn / total), abs=1e-12)


@pytest.mark.parametrize("difference", [-1.7, -0.2, 0.0, 0.9, 3.0])
def test_said_strengths_share_what_the_thresholds_cut_off(difference: float) -> None:
    eta = EXAMPLES["ordinal"]
    at_least = [sigma(difference - value) for value in eta]
    expected = {0: at_least[0], 1: at_least[0] - at_least[1], 2: at_least[1] - at_least[2], 3: at_least[2]}
    for strength, probability in expected.items():
        assert one_pair("ordinal", difference, 1.0, strength=strength) == pytest.approx(-math.log(probability))
    assert one_pair("ordinal", difference, 0.0, strength=2) == one_pair("ordinal", -difference, 1.0, strength=2)
    drawn = sigma(difference + eta[0]) - sigma(difference - eta[0])
    assert one_pair("ordinal", difference, 0.5) == pytest.approx(-math.log(drawn))
    said = [one_pair("ordinal", sign * difference, 1.0, strength=s) for sign in (1, -1) for s in (1, 2, 3)]
    assert sum(math.exp(-loss) for loss in said) + drawn == pytest.approx(1, abs=1e-12)


def test_only_the_ordinal_model_reads_strengths_and_no_tie_does() -> None:
    for kind in KINDS:
        assert one_pair(kind, 0.3, 0.5, strength=2) == one_pair(kind, 0.3, 0.5)
        assert (one_pair(kind, 0.3, 1.0, strength=2) == one_pair(kind, 0.3, 1.0)) is (kind != "ordinal")


def test_ordinal_without_strengths_is_rao_kupper() -> None:
    grid = torch.linspace(-5, 5, 21, dtype=torch.float64)
    ordinal = outcome_log_probabilities("ordinal", grid, thresholds_of("ordinal"))
    assert torch.equal(ordinal, outcome_log_probabilities("rao-kupper", grid, thresholds_of("rao-kupper")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_margin_moves_wins_alone(kind: PairModel) -> None:
    for strength in (0, 1, 2, 3):
        shifted = one_pair(kind, 0.8, 1.0, margin=0.5, strength=strength)
        assert shifted == pytest.approx(one_pair(kind, 0.8 - 0.5, 1.0, strength=strength), abs=1e-12)
        lost = one_pair(kind, 0.8, 0.0, margin=0.5, strength=strength)
        assert lost == pytest.approx(one_pair(kind, 0.8 + 0.5, 0.0, strength=strength), abs=1e-12)
    assert one_pair(kind, 0.8, 0.5, margin=0.5) == one_pair(kind, 0.8, 0.5)


def test_rao_kuppers_win_is_bradley_terry_with_its_threshold_as_margin() -> None:
    assert one_pair("rao-kupper", 0.8, 1.0) == pytest.approx(one_pair("bradley-terry", 0.8, 1.0, margin=ETA), abs=1e-12)


# --- what holds for all of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_three_outcomes_sum_to_one(kind: PairModel) -> None:
    grid = torch.linspace(-40, 40, 161, dtype=torch.float64).reshape(7, 23)
    log_p = outcome_log_probabilities(kind, grid, thresholds_of(kind))
    assert log_p.shape == (7, 23, 3)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones_like(grid), rtol=0, atol=1e-14)
    assert torch.equal(log_p[..., 0] > log_p[..., 2], grid > 0)
    assert bool((log_p[..., 1] == -torch.inf).all()) is (kind == "bradley-terry")


@pytest.mark.parametrize("kind", KINDS)
def test_exchanging_the_two_exchanges_the_outcomes(kind: PairModel) -> None:
    grid = torch.linspace(-6, 6, 25, dtype=torch.float64)
    there = outcome_log_probabilities(kind, grid, thresholds_of(kind))
    torch.testing.assert_close(outcome_log_probabilities(kind, -grid, thresholds_of(kind)), there.flip(-1))


ROWS: list[tuple[float, ...]] = [
    (0, 1, 1.0, 0.3, 0.0, 0), (2, 3, 0.5, 0.2, 0.3, 0), (3, 1, 1.0, 0.5, 0.3, 1), (1, 0, 1.0, 0.4, 0.0, 2),
    (2, 0, 1.0, 0.1, 0.2, 3), (0, 3, 0.0, 0.6, 0.1, 2), (3, 0, 0.5, 0.7, 0.0, 0),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_scores_and_thresholds_are_those_of_the_formula(kind: PairModel) -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, dtype=torch.float64, requires_grad=True)
    thresholds = thresholds_of(kind).requires_grad_(kind != "bradley-terry")
    assert torch.autograd.gradcheck(lambda s, t: loss_of(kind, s, ROWS, t), (scores, thresholds))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_added_to_all_scores_changes_nothing(kind: PairModel) -> None:
    torch.manual_seed(1)
    scores = torch.randn(4, dtype=torch.float64)
    moved = loss_of(kind, scores + 12.5, ROWS)
    assert moved.item() == pytest.approx(loss_of(kind, scores, ROWS).item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up(kind: PairModel) -> None:
    torch.manual_seed(2)
    scores = torch.randn(4, dtype=torch.float64)
    parts = loss_of(kind, scores, ROWS[:3]) + loss_of(kind, scores, ROWS[3:])
    assert parts.item() == pytest.approx(loss_of(kind, scores, ROWS).item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("difference", [-1e4, -300.0, 300.0, 1e4])
def test_extreme_scores_give_finite_losses_and_gradients(kind: PairModel, difference: float) -> None:
    slope = {"davidson": 0.5}.get(kind, 1.0)  # of a tie that far away
    for outcome, strength in [(1.0, 0), (1.0, 1), (1.0, 2), (1.0, 3), (0.5, 0), (0.0, 1)]:
        scores = torch.tensor([difference, 0.0], requires_grad=True)
        thresholds = thresholds_of(kind).float().requires_grad_()
        loss = loss_of(kind, scores, [(0, 1, outcome, 1.0, 0.0, strength)], thresholds)
        loss.backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        assert math.isfinite(loss.item()) and bool(scores.grad.isfinite().all())
        assert thresholds.grad is None or bool(thresholds.grad.isfinite().all())
        if outcome == 0.5:
            expected = (
                0.5 * math.copysign(1, difference) if kind == "bradley-terry" else math.copysign(slope, difference)
            )
            assert scores.grad[0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("eta", [1e-6, 1e-3, 1.0, 60.0])
def test_narrow_and_wide_thresholds_keep_ties_exact(eta: float) -> None:
    """At Δ = 0 a tie has 2σ(η) − 1 = tanh(η/2)."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        log_p = outcome_log_probabilities("rao-kupper", torch.zeros((), dtype=dtype), torch.tensor([eta], dtype=dtype))
        assert log_p[1].item() == pytest.approx(math.log(math.tanh(eta / 2)), abs=tolerance)


def test_thresholds_take_the_dtype_of_the_scores() -> None:
    for dtype in (torch.float32, torch.float64):
        for kind in KINDS:
            scores = torch.tensor([0.3, -0.2], dtype=dtype)
            one, nothing = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
            pairs = Pairs(torch.tensor([0]), torch.tensor([1]), one, one, nothing, torch.tensor([1]))
            loss = pairwise_loss(scores, pairs, kind=kind, thresholds=pair_thresholds(kind, tie_share=0.2)())
            assert loss.dtype == dtype


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="thurstone"):
        outcome_log_probabilities("thurstone", torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]


# --- the modules of thresholds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.85])
@pytest.mark.parametrize("kind", WITH_THRESHOLDS)
def test_two_equal_scores_first_tie_as_often_as_in_the_data(kind: PairModel, share: float) -> None:
    thresholds = pair_thresholds(kind, tie_share=share)
    log_p = outcome_log_probabilities(kind, torch.zeros(()), thresholds())
    assert log_p[1].exp().item() == pytest.approx(share, rel=1e-4)
    again = outcome_probabilities(kind, np.zeros(1), thresholds.values())
    assert again[0].tolist() == pytest.approx([(1 - share) / 2, share, (1 - share) / 2], rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_json_by_name_and_lead_back_to_the_tensor(kind: PairModel) -> None:
    thresholds = pair_thresholds(kind, tie_share=0.3)
    values = json.loads(json.dumps(thresholds.values()))
    back = tensor_of_thresholds(kind, values)
    assert back.dtype == torch.float64
    torch.testing.assert_close(back.float(), thresholds().detach())
    names = {"bradley-terry": [], "rao-kupper": ["eta"], "davidson": ["nu"], "ordinal": ["eta_1", "eta_2", "eta_3"]}
    assert list(values) == names[kind]


def test_starting_values_by_hand() -> None:
    assert RaoKupper(0.2).values() == pytest.approx({"eta": math.log(0.6 / 0.4)}, rel=1e-5)
    assert Davidson(0.2).values() == pytest.approx({"nu": 0.5}, rel=1e-5)
    first = math.log(1.5)
    assert Ordinal(0.2).values() == pytest.approx({"eta_1": first, "eta_2": first + 1, "eta_3": first + 2}, rel=1e-5)
    assert TierSizes(0.2).values() == pytest.approx({"delta_2": 0.5, "delta_3": 0.25, "delta_4": 0.125}, rel=1e-5)
    assert TierSizes(0.2, largest_tier=2).values() == pytest.approx({"delta_2": 0.5}, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("make", [RaoKupper, Davidson, Ordinal, TierSizes])
def test_no_ties_or_nothing_else_in_the_data_still_leave_something_to_learn(
    make: Callable[[float], nn.Module], share: float
) -> None:
    module = make(share)
    value = module().sum()
    value.backward()
    (parameter,) = module.parameters()
    assert parameter.dtype == torch.float32
    assert math.isfinite(value.item())
    assert parameter.grad is not None and bool((parameter.grad.abs() > 1e-3).all())


@pytest.mark.parametrize("kind", WITH_THRESHOLDS)
def test_free_parameters_have_the_gradient_of_the_formula(kind: PairModel) -> None:
    torch.manual_seed(3)
    module = pair_thresholds(kind, tie_share=0.3).double()
    scores = torch.randn(4, dtype=torch.float64)
    (parameter,) = module.parameters()
    names = [name for name, _ in module.named_parameters()]

    def loss(free: Tensor) -> Tensor:
        return loss_of(kind, scores, ROWS, torch.func.functional_call(module, {names[0]: free}, ()))

    assert torch.autograd.gradcheck(loss, (parameter,))


def test_thresholds_stay_positive_and_in_order_wherever_training_takes_them() -> None:
    module = Ordinal(0.2)
    for free in ([-200.0, -200.0, -200.0], [80.0, -200.0, 3.0]):
        with torch.no_grad():
            module.free.copy_(torch.tensor(free))
        eta = module.double()()
        assert 0 < eta[0] < eta[1] < eta[2]
        assert bool(outcome_log_probabilities("ordinal", torch.zeros(1), eta.float()).isfinite().all())


def test_a_threshold_is_learned_by_gradient_descent() -> None:
    """Equal scores, 30 ties of 100: the optimum is where P(tie | Δ = 0) = 0.3."""
    module = RaoKupper(0.05)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    rows = [(0, 1, 0.5, 0.3, 0, 0), (0, 1, 1.0, 0.35, 0, 0), (1, 0, 1.0, 0.35, 0, 0)]
    for _ in range(150):
        optimizer.zero_grad()
        loss_of("rao-kupper", torch.zeros(2), rows, module()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert module.values()["eta"] == pytest.approx(math.log(1.3 / 0.7), rel=1e-3)


# --- fits to given scores ---------------------------------------------------------------------------------------------


def drawn_pairs(kind: PairModel, values: dict[str, float], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    difference = draw.normal(0, 1.5, count)
    bounds = outcome_probabilities(kind, difference, values).cumsum(1)
    uniform = draw.random(count)
    return difference, np.where(uniform < bounds[:, 0], 1.0, np.where(uniform < bounds[:, 1], 0.5, 0.0))


def test_fits_at_equal_scores_are_the_closed_form() -> None:
    outcome = np.array([0.5] * 3 + [1.0] * 5 + [0.0] * 2)
    weight = np.array([2.0] * 3 + [1.0] * 7)  # ties: 6 of 13
    share = 6 / 13
    nothing = np.zeros(10)
    assert fit_thresholds("rao-kupper", nothing, outcome, weight)["eta"] == pytest.approx(
        math.log((1 + share) / (1 - share)), abs=1e-9
    )
    assert fit_thresholds("davidson", nothing, outcome, weight)["nu"] == pytest.approx(
        2 * share / (1 - share), abs=1e-9
    )


def test_the_ordinal_fit_at_equal_scores_is_the_closed_form() -> None:
    outcome = np.array([0.5] * 4 + [1.0] * 12)
    strength = np.array([0] * 4 + [1] * 6 + [2] * 4 + [3] * 2)
    values = fit_thresholds("ordinal", np.zeros(16), outcome, np.ones(16), strength)
    # Wins of either side together are all but the ties: P(at least s) = σ(−η_s) is half of what is at least s.
    expected = {f"eta_{s}": math.log((1 - share) / share) for s, share in ((1, 6 / 16), (2, 3 / 16), (3, 1 / 16))}
    assert values == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("kind", "true"),
    [("rao-kupper", {"eta": 0.6}), ("davidson", {"nu": 0.8}), ("ordinal", {"eta_1": 0.4, "eta_2": 1.2, "eta_3": 2.5})],
)
def test_a_fit_finds_what_the_outcomes_were_drawn_from_and_nothing_near_it_is_likelier(
    kind: PairModel, true: dict[str, float]
) -> None:
    difference, outcome = drawn_pairs(kind, true, 4000)
    strength = np.zeros(4000, np.int64)
    if kind == "ordinal":
        won_by = np.where(outcome == 0, -difference, difference)
        at_least = [1 / (1 + np.exp(-(won_by - true[name]))) for name in ("eta_1", "eta_2", "eta_3")]
        uniform = np.random.default_rng(1).random(4000) * at_least[0]  # of those that won
        strength = 1 + (uniform < at_least[1]) + (uniform < at_least[2])
    found = fit_thresholds(kind, difference, outcome, np.ones(4000), strength)
    assert found == pytest.approx(true, rel=0.1)

    def loss_at(values: dict[str, float]) -> float:
        scores = torch.cat([torch.from_numpy(difference), torch.zeros(1, dtype=torch.float64)])
        rows = [(i, 4000, outcome[i], 1.0, 0.0, strength[i]) for i in range(4000)]
        return loss_of(kind, scores, rows, tensor_of_thresholds(kind, values)).item()

    best = loss_at(found)
    assert best < loss_at(true)
    for name in found:
        for step in (-1e-3, 1e-3):
            assert best < loss_at({**found, name: found[name] + step})


def slope_of_gaps(
    found: dict[str, float], difference: np.ndarray, outcome: np.ndarray, said: np.ndarray
) -> list[float]:
    """The gradient of the mean ordinal loss by η₁, η₂ − η₁ and η₃ − η₂."""
    count = len(difference)
    scores = torch.cat([torch.from_numpy(difference), torch.zeros(1, dtype=torch.float64)])
    rows = [(i, count, outcome[i], 1 / count, 0.0, said[i]) for i in range(count)]
    eta = tensor_of_thresholds("ordinal", found).requires_grad_()
    loss_of("ordinal", scores, rows, eta).backward()  # type: ignore[no-untyped-call]
    assert eta.grad is not None
    return [eta.grad[at:].sum().item() for at in range(3)]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, 1000.0])
def test_a_fit_holds_on_scores_of_any_scale(scale: float) -> None:
    difference, outcome = drawn_pairs("ordinal", {"eta_1": 0.6, "eta_2": 1, "eta_3": 2}, 500)
    said = np.random.default_rng(2).integers(0, 4, 500)
    found = fit_thresholds("ordinal", difference * scale, outcome, np.ones(500), said)
    assert slope_of_gaps(found, difference * scale, outcome, said) == pytest.approx([0, 0, 0], abs=1e-8)


@pytest.mark.parametrize("absent", [1, 2])
def test_a_strength_that_nobody_says_has_no_room_and_the_others_are_still_the_likeliest(absent: int) -> None:
    difference, outcome = drawn_pairs("ordinal", {"eta_1": 0.6, "eta_2": 1, "eta_3": 2}, 500)
    said = np.random.default_rng(2).integers(0, 4, 500)
    said[said == absent] = 0
    found = fit_thresholds("ordinal", difference, outcome, np.ones(500), said)
    slope = slope_of_gaps(found, difference, outcome, said)
    assert found[f"eta_{absent + 1}"] - found[f"eta_{absent}"] == pytest.approx(1e-6, rel=1e-3)
    assert slope.pop(absent) > 1e-3  # held at its limit
    assert slope == pytest.approx([0, 0], abs=1e-8)


def test_fits_without_an_optimum_end_and_say_so_by_their_size() -> None:
    difference, ones = np.linspace(-2, 2, 50), np.ones(50)
    assert fit_thresholds("rao-kupper", difference, ones, ones)["eta"] < 1e-5  # never a tie
    assert fit_thresholds("davidson", difference, ones, ones)["nu"] < 1e-9
    assert fit_thresholds("rao-kupper", difference, ones / 2, ones)["eta"] > 15  # ties alone
    some = fit_thresholds("ordinal", difference, np.tile([1.0, 0.5], 25), ones)  # nobody said how much
    assert 0 < some["eta_1"] < some["eta_2"] < some["eta_3"] < 100
    lone = fit_thresholds("ordinal", difference, np.tile([1.0, 0.5], 25), ones, np.full(50, 3))  # always "much"
    assert 0 < lone["eta_1"] < lone["eta_2"] < lone["eta_3"] < 100
    assert fit_thresholds("bradley-terry", difference, ones, ones) == {}
    assert fit_thresholds("davidson", np.zeros(0), np.zeros(0), np.zeros(0))["nu"] > 0
