"""Plackett-Luce with ties and with places left open, against enumeration in plain Python."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from training.core.losses import (
    Pairs,
    RankingTies,
    TieredRanking,
    count_choices,
    pairwise_loss,
    plackett_luce_loss,
    ranking_log_likelihoods,
)

Tiers = tuple[tuple[int, ...], ...]
LOG_SIZES = torch.tensor([-0.4, -1.1, -1.3], dtype=torch.float64)  # ln δ_2, ln δ_3, ln δ_4
DELTA = [1.0, *LOG_SIZES.exp().tolist()]
ALL_TIES: tuple[RankingTies, ...] = ("davidson", "skip", "soft")


def random_scores(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_likelihoods(scores: Tensor, rankings: Sequence[TieredRanking], ties: RankingTies) -> Tensor:
    return ranking_log_likelihoods(scores, rankings, ties=ties, log_sizes=LOG_SIZES if ties == "davidson" else None)


def loss_of(scores: Tensor, rankings: Sequence[TieredRanking], ties: RankingTies) -> Tensor:
    return plackett_luce_loss(scores, rankings, ties=ties, log_sizes=LOG_SIZES if ties == "davidson" else None)


# --- oracles: every subset, every order -------------------------------------------------------------------------------


def davidson_probability(scores: Sequence[float], tiers: Tiers, below: Sequence[int] = (), largest: int = 4) -> float:
    """Turner et al., section 2.2, with the subsets written out."""

    def liking(chosen: Sequence[int]) -> float:
        return DELTA[len(chosen) - 1] * math.prod(math.exp(scores[i]) for i in chosen) ** (1 / len(chosen))

    probability = 1.0
    for stage, tier in enumerate(tiers):
        pool = [i for later in tiers[stage:] for i in later] + list(below)
        sizes = range(1, min(largest, len(pool)) + 1)
        probability *= liking(tier) / sum(liking(chosen) for size in sizes for chosen in combinations(pool, size))
    return probability


def order_log_probability(scores: Sequence[float], order: Sequence[int], below: Sequence[int]) -> float:
    left = [*order, *below]
    total = 0.0
    for item in order:
        total += scores[item] - math.log(sum(math.exp(scores[i]) for i in left))
        left.remove(item)
    return total


def orders_of(tiers: Tiers) -> Iterator[list[int]]:
    if not tiers:
        yield []
        return
    for first in permutations(tiers[0]):
        for rest in orders_of(tiers[1:]):
            yield [*first, *rest]


def weak_orders(items: Sequence[int]) -> Iterator[Tiers]:
    """All rankings with ties of some items."""
    if not items:
        yield ()
    for size in range(1, len(items) + 1):
        for first in combinations(items, size):
            for rest in weak_orders([item for item in items if item not in first]):
                yield (first, *rest)


def top_choices(items: Sequence[int], stages: int) -> Iterator[tuple[Tiers, tuple[int, ...]]]:
    """All ways of choosing up to ``stages`` tiers, with what is left below."""
    if not items or not stages:
        yield (), tuple(items)
        return
    for size in range(1, len(items) + 1):
        for first in combinations(items, size):
            for rest, below in top_choices([item for item in items if item not in first], stages - 1):
                yield (first, *rest), below


def random_rankings(count: int, items: int, seed: int = 0) -> list[TieredRanking]:
    """Rankings of 2 to ``items`` responses with tiers of up to four and, half of the time, some left open."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        left = draw.sample(range(items), draw.randint(2, items))
        below = [left.pop() for _ in range(draw.randint(0, len(left) - 1))] if draw.random() < 0.5 else []
        tiers = []
        while left:
            tiers.append(tuple(left.pop() for _ in range(min(len(left), draw.choice([1, 1, 2, 3, 4])))))
        found.append(TieredRanking(tuple(tiers), tuple(below), draw.uniform(0.2, 2)))
    return found


# --- with ties: Turner et al. -----------------------------------------------------------------------------------------


def test_the_75_weak_orders_of_four_sum_to_one() -> None:
    orders = [TieredRanking(tiers) for tiers in weak_orders(range(4))]
    assert len(orders) == 75
    total = log_likelihoods(3 * random_scores(4), orders, "davidson").exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_partial_orders_sum_to_one_with_what_is_left_in_the_pools(stages: int) -> None:
    rankings = [TieredRanking(tiers, below) for tiers, below in top_choices(range(4), stages)]
    assert sum(bool(ranking.below) for ranking in rankings) > 10
    total = log_likelihoods(2 * random_scores(4, 1), rankings, "davidson").exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-13)


def test_tiers_are_chosen_as_the_written_out_subsets_say() -> None:
    scores = random_scores(7, 2)
    rankings = random_rankings(60, 7)
    expected = [math.log(davidson_probability(scores.tolist(), r.tiers, r.below)) for r in rankings]
    assert log_likelihoods(scores, rankings, "davidson").tolist() == pytest.approx(expected, abs=1e-12)


def test_a_pair_is_davidsons_with_delta_2_as_nu() -> None:
    scores = torch.tensor([0.7, -0.5], dtype=torch.float64)
    first, second = math.exp(0.7), math.exp(-0.5)
    drawn = DELTA[1] * math.sqrt(first * second)
    rankings = [TieredRanking(((0,), (1,))), TieredRanking(((1,), (0,))), TieredRanking(((0, 1),))]
    expected = [math.log(part / (first + second + drawn)) for part in (first, second, drawn)]
    for log_sizes in (LOG_SIZES, LOG_SIZES[:1]):  # whatever D: a pool of two has no larger subset
        found = ranking_log_likelihoods(scores, rankings, ties="davidson", log_sizes=log_sizes)
        assert found.tolist() == pytest.approx(expected, abs=1e-12)
    pairs = Pairs(
        torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1]), torch.tensor([1.0, 1.0, 0.5]).double(),
        torch.ones(3).double(), torch.zeros(3).double(), torch.zeros(3).long(),
    )  # fmt: skip
    pairwise = pairwise_loss(scores, pairs, kind="davidson", thresholds=LOG_SIZES[:1])
    assert loss_of(scores, rankings, "davidson").item() == pytest.approx(pairwise.item(), abs=1e-12)


def test_a_tier_larger_than_the_model_knows_is_refused_by_name() -> None:
    rankings = [TieredRanking(((0,), (1,))), TieredRanking(((0,), (5, 1, 2, 3, 4)))]
    with pytest.raises(ValueError, match=r"ranking 1 has 5 responses in one tier, \(5, 1, 2, 3, 4\).* takes 4"):
        loss_of(random_scores(6), rankings, "davidson")
    assert math.isfinite(loss_of(random_scores(6), rankings, "skip").item())


def test_many_responses_cost_no_enumeration() -> None:
    """40 equal scores: e_k counts the subsets, C(40, k)."""
    ranking = TieredRanking(((0, 1), (2,)), tuple(range(3, 40)))
    first = DELTA[1] / sum(DELTA[k - 1] * math.comb(40, k) for k in (1, 2, 3, 4))
    second = 1 / sum(DELTA[k - 1] * math.comb(38, k) for k in (1, 2, 3, 4))
    found = log_likelihoods(torch.full((40,), 0.3, dtype=torch.float64), [ranking], "davidson")
    assert found.item() == pytest.approx(math.log(first) + math.log(second), abs=1e-12)


# --- the other two ways with ties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [(), (3, 4)])
def test_without_ties_all_are_plackett_luce(below: tuple[int, ...]) -> None:
    scores = random_scores(5, 3)
    order = [0, 1, 2] if below else [4, 2, 0, 3, 1]
    ranking = TieredRanking(tuple((item,) for item in order), below)
    expected = order_log_probability(scores.tolist(), order, below)
    for ties in ("skip", "soft"):
        assert log_likelihoods(scores, [ranking], ties).item() == pytest.approx(expected, abs=1e-12)
    # A model of ties whose ties never occur.
    never = torch.full((3,), -80.0, dtype=torch.float64)
    found = ranking_log_likelihoods(scores, [ranking], ties="davidson", log_sizes=never)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_skip_compares_each_response_with_what_is_below_it_alone() -> None:
    scores = random_scores(6, 4)
    e = [math.exp(value) for value in scores.tolist()]
    ranking = TieredRanking(((2, 0), (1,), (3, 5)), (4,))
    lowest = e[4]
    lower = e[3] + e[5] + lowest
    expected = [
        e[2] / (e[2] + e[1] + lower), e[0] / (e[0] + e[1] + lower), e[1] / (e[1] + lower),
        e[3] / (e[3] + lowest), e[5] / (e[5] + lowest),
    ]  # fmt: skip
    found = log_likelihoods(scores, [ranking], "skip").item()
    assert found == pytest.approx(sum(map(math.log, expected)), abs=1e-12)
    assert loss_of(scores, [ranking], "skip").item() == pytest.approx(-found / 5, abs=1e-12)
    closed = TieredRanking(((2, 0), (1, 3)))  # within the last tier nothing is compared
    expected = [e[2] / (e[2] + e[1] + e[3]), e[0] / (e[0] + e[1] + e[3])]
    assert log_likelihoods(scores, [closed], "skip").item() == pytest.approx(sum(map(math.log, expected)), abs=1e-12)


def test_soft_is_the_mean_over_all_orders() -> None:
    scores = random_scores(7, 5)
    rankings = random_rankings(25, 7, seed=3)
    for ranking, found in zip(rankings, log_likelihoods(scores, rankings, "soft").tolist(), strict=True):
        orders = list(orders_of(ranking.tiers))
        expected = sum(order_log_probability(scores.tolist(), order, ranking.below) for order in orders) / len(orders)
        assert found == pytest.approx(expected, abs=1e-11)


def test_two_tied_softly_are_half_a_win_for_each() -> None:
    scores = torch.tensor([0.7, -0.5], dtype=torch.float64)
    sigma = 1 / (1 + math.exp(-1.2))
    found = loss_of(scores, [TieredRanking(((0, 1),))], "soft")
    assert found.item() == pytest.approx(-0.5 * (math.log(sigma) + math.log(1 - sigma)), abs=1e-12)


def test_nine_may_be_tied_softly_and_ten_are_refused() -> None:
    equal = torch.zeros(10, dtype=torch.float64)
    found = log_likelihoods(equal, [TieredRanking((tuple(range(9)),))], "soft")
    assert found.item() == pytest.approx(-math.log(math.factorial(9)), abs=1e-12)  # each of the 9! orders
    with pytest.raises(ValueError, match="ranking 0 has 10 responses in one tier"):
        log_likelihoods(equal, [TieredRanking((tuple(range(10)),))], "soft")


# --- what holds for all of them ---------------------------------------------------------------------------------------


def test_the_choices_of_a_ranking_are_those_between_two_or_more() -> None:
    cases: list[tuple[TieredRanking, dict[str, int]]] = [
        (TieredRanking(((0,), (1,))), {"davidson": 1, "skip": 1, "soft": 1}),
        (TieredRanking(((0,), (1,), (2,))), {"davidson": 2, "skip": 2, "soft": 2}),
        (TieredRanking(((0,),), (1, 2)), {"davidson": 1, "skip": 1, "soft": 1}),
        (TieredRanking(((0, 1),)), {"davidson": 1, "skip": 0, "soft": 1}),
        (TieredRanking(((0, 1), (2,))), {"davidson": 1, "skip": 2, "soft": 2}),
        (TieredRanking(((0,), (1, 2))), {"davidson": 2, "skip": 1, "soft": 2}),
        (TieredRanking(((0,), (1, 2)), (3,)), {"davidson": 2, "skip": 3, "soft": 3}),
        (TieredRanking(((0,),)), {"davidson": 0, "skip": 0, "soft": 0}),
        (TieredRanking((), (0, 1)), {"davidson": 0, "skip": 0, "soft": 0}),
    ]
    for ranking, expected in cases:
        for ties in ALL_TIES:
            assert count_choices(ranking, ties=ties) == expected[ties], (ranking, ties)


@pytest.mark.parametrize("ties", ALL_TIES)
def test_nine_weigh_as_two_do(ties: RankingTies) -> None:
    scores = torch.zeros(9, dtype=torch.float64)
    ranking = TieredRanking(tuple((item,) for item in range(9)), weight=0.25)
    alone = log_likelihoods(scores, [ranking], ties).item()
    assert loss_of(scores, [ranking], ties).item() == pytest.approx(-0.25 * alone / 8, abs=1e-12)
    twice = [TieredRanking(ranking.tiers, weight=0.5), ranking]
    assert loss_of(scores, twice, ties).item() == pytest.approx(-0.75 * alone / 8, abs=1e-12)


@pytest.mark.parametrize("ties", ALL_TIES)
def test_rankings_without_a_choice_cost_nothing_and_have_a_gradient_of_zero(ties: RankingTies) -> None:
    for rankings in ([], [TieredRanking(((0,),))], [TieredRanking((), (0, 1))], [TieredRanking(((2,),))] * 2):
        scores = random_scores(3).requires_grad_()
        loss = loss_of(scores, rankings, ties)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0
        assert scores.grad is not None and scores.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("ties", ALL_TIES)
def test_gradients_are_those_of_the_formula(ties: RankingTies) -> None:
    scores = random_scores(6, 6).requires_grad_()
    rankings = random_rankings(8, 6, seed=1)
    if ties == "davidson":
        sizes = LOG_SIZES.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda s, d: plackett_luce_loss(s, rankings, ties=ties, log_sizes=d), (scores, sizes)
        )
    else:
        assert torch.autograd.gradcheck(lambda s: loss_of(s, rankings, ties), (scores,))


@pytest.mark.parametrize("ties", ALL_TIES)
def test_a_constant_added_to_all_scores_changes_nothing(ties: RankingTies) -> None:
    scores, rankings = random_scores(7, 7), random_rankings(20, 7, seed=2)
    moved = log_likelihoods(scores + 12.5, rankings, ties)
    torch.testing.assert_close(moved, log_likelihoods(scores, rankings, ties), rtol=0, atol=1e-11)


@pytest.mark.parametrize("ties", ALL_TIES)
def test_the_places_of_responses_and_the_order_within_a_tier_mean_nothing(ties: RankingTies) -> None:
    scores, rankings = random_scores(7, 8), random_rankings(20, 7, seed=4)
    place = torch.randperm(7, generator=torch.Generator().manual_seed(0))  # the response at i moves to place[i]
    moved_scores = torch.empty_like(scores).index_copy(0, place, scores)
    to = place.tolist()
    moved = [
        TieredRanking(
            tuple(tuple(to[i] for i in reversed(tier)) for tier in ranking.tiers),
            tuple(to[i] for i in reversed(ranking.below)),
        )
        for ranking in rankings
    ]
    torch.testing.assert_close(
        log_likelihoods(moved_scores, moved, ties), log_likelihoods(scores, rankings, ties), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("ties", ALL_TIES)
def test_micro_batches_add_up(ties: RankingTies) -> None:
    scores, rankings = random_scores(7, 9), random_rankings(12, 7, seed=5)
    parts = loss_of(scores, rankings[:5], ties) + loss_of(scores, rankings[5:], ties)
    assert parts.item() == pytest.approx(loss_of(scores, rankings, ties).item(), abs=1e-12)


@pytest.mark.parametrize("ties", ALL_TIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_scores_give_finite_losses_and_gradients(ties: RankingTies, dtype: torch.dtype) -> None:
    scores = torch.tensor([-1e4, 1e4, 0.0, -300.0, 300.0], dtype=dtype, requires_grad=True)
    for tiers in (((0,), (1,), (2,), (3,), (4,)), ((0, 1), (2, 3, 4)), ((4, 0, 3, 2), (1,)), ((1,), (4, 0))):
        scores.grad = None
        below = () if sum(map(len, tiers)) == 5 else (2, 3)
        loss = loss_of(scores, [TieredRanking(tiers, below)], ties)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.dtype == dtype
        assert math.isfinite(loss.item()) and loss.item() > 1
        assert scores.grad is not None and bool(scores.grad.isfinite().all())
        assert abs(scores.grad.sum().item()) < 1e-5  # no constant matters


@pytest.mark.parametrize("ties", ALL_TIES)
def test_two_responses_of_one_text_are_two_that_score_alike(ties: RankingTies) -> None:
    scores = random_scores(3, 10)
    doubled = torch.cat([scores, scores[:1]])
    cases: list[tuple[Tiers, Tiers]] = [
        (((0, 0), (1,), (2,)), ((0, 3), (1,), (2,))),
        (((1,), (0, 2), (0,)), ((1,), (0, 2), (3,))),
        (((0,), (1, 0), (2,)), ((0,), (1, 3), (2,))),
    ]
    together = log_likelihoods(scores, [TieredRanking(tiers) for tiers, _ in cases], ties)
    apart = log_likelihoods(doubled, [TieredRanking(tiers) for _, tiers in cases], ties)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


def test_log_sizes_belong_to_davidson_alone() -> None:
    with pytest.raises(ValueError, match="davidson needs them"):
        plackett_luce_loss(random_scores(2), [TieredRanking(((0,), (1,)))], ties="davidson")
    with pytest.raises(ValueError, match="davidson needs them"):
        plackett_luce_loss(random_scores(2), [TieredRanking(((0,), (1,)))], ties="skip", log_sizes=LOG_SIZES)
