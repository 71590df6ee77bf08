"""Losses of reward models: pure functions of scores, in nats.

Pairs (Bradley-Terry, and three models that know ties) and whole rankings (Plackett-Luce, with ties and with places left
open). Sums, never means: the weights carry the means, so that micro-batches and processes add up to the loss of the
whole step. Everything works in the scores' own dtype; thresholds (``training.core.thresholds``) are cast to it.

Words: Δ is the first response's score minus the second's; σ the logistic function; a *pool* is what a choice is made
from; η a threshold on the scale of scores; ν and δ how much ties are liked.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

PairModel = Literal["bradley-terry", "rao-kupper", "davidson", "ordinal"]
RankingTies = Literal["davidson", "skip", "soft"]

# Tied responses whose orders ``soft`` averages over: 2^n − 1 pools.
SOFT_TIE_LIMIT = 9


# --- pairs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Compared pairs, as tensors of shape (M,).

    ``first`` and ``second`` are positions in the scores; ``outcome`` is 1 (the first won), 0.5 (a tie) or 0 (the second
    won); ``margin`` (at least 0, on the scale of scores) is what a win has to exceed; ``strength`` (integers) is how
    much better the winner was said to be, 1 to 3, or 0 where nothing was said or the tiers are not adjacent.
    """

    first: Tensor
    second: Tensor
    outcome: Tensor
    weight: Tensor
    margin: Tensor
    strength: Tensor


def pairwise_loss(scores: Tensor, pairs: Pairs, *, kind: PairModel, thresholds: Tensor) -> Tensor:
    """−Σ w ln P(outcome) over weighted pairs; zero, with a gradient of zero, where there are none.

    Args:
        scores: (N,).
        pairs: what was judged.
        kind: the model of a pair's outcome; see ``outcome_log_probabilities``.
        thresholds: the model's own parameters, as its module in ``training.core.thresholds`` returns them.
    """
    difference = scores[pairs.first] - scores[pairs.second]
    return -(pairs.weight * pair_log_likelihoods(difference, pairs, kind=kind, thresholds=thresholds)).sum()


def pair_log_likelihoods(difference: Tensor, pairs: Pairs, *, kind: PairModel, thresholds: Tensor) -> Tensor:
    """ln P of what was said of each pair, (M,), given Δ, (M,).

    A win is judged at Δ − margin (the loss of TRL's RewardTrainer and of Llama 2, arXiv 2307.09288, eq. 2); a tie at Δ
    itself. Only the ordinal model reads strengths. Bradley-Terry has no ties: one counts as half a win for each side
    (WebGPT, arXiv 2112.09332, section 3.2), which is a cross-entropy and not a probability.
    """
    tie = pairs.outcome == 0.5
    towards_winner = torch.where(pairs.outcome < 0.5, -difference, difference)
    won_by = towards_winner - pairs.margin * ~tie
    win, drawn, lost = outcome_log_probabilities(kind, won_by, thresholds).unbind(-1)
    if kind == "bradley-terry":
        drawn = (win + lost) / 2
    if kind == "ordinal":
        win = _log_said(won_by, pairs.strength, thresholds.to(difference.dtype))
    return torch.where(tie, drawn, win)


def outcome_log_probabilities(kind: PairModel, difference: Tensor, thresholds: Tensor) -> Tensor:
    """ln P of [the first wins, a tie, the second wins] given Δ, without any margin.

    - ``bradley-terry``: σ(Δ), 0, σ(−Δ). No thresholds: (0,).
    - ``rao-kupper`` (Rao and Kupper 1967), thresholds (1,) = η > 0: a win is σ(Δ − η), a tie what is left,
      σ(Δ + η) − σ(Δ − η) = (e^{2η} − 1) σ(Δ − η) σ(−Δ − η).
    - ``davidson`` (Davidson 1970), thresholds (1,) = ln ν: the softmax of Δ/2, ln ν, −Δ/2.
    - ``ordinal`` (cumulative logits, Agresti 1992), thresholds (3,) = η₁ < η₂ < η₃, all > 0: the first is better by at
      least strength s with σ(Δ − η_s), so that these three outcomes are Rao and Kupper's at η₁.

    Shapes: ``difference`` (...), returns (..., 3). Finite for any finite Δ, save Bradley-Terry's tie, −inf.
    """
    thresholds = thresholds.to(difference.dtype)
    if kind == "bradley-terry":
        outcomes = [logsigmoid(difference), torch.full_like(difference, -torch.inf), logsigmoid(-difference)]
        return torch.stack(outcomes, -1)
    if kind == "davidson":
        half = difference / 2
        return torch.stack([half, thresholds[0].expand_as(half), -half], -1).log_softmax(-1)
    if kind in ("rao-kupper", "ordinal"):
        eta = thresholds[0]
        outcomes = [logsigmoid(difference - eta), _log_band(difference, -eta, eta), logsigmoid(-difference - eta)]
        return torch.stack(outcomes, -1)
    raise ValueError(f"unknown model of pairs: {kind!r}")


def _log_said(difference: Tensor, strength: Tensor, eta: Tensor) -> Tensor:
    """ln P(the first is better by exactly ``strength``); 0 is at all, 3 is by at least 3; both (M,)."""
    slightly = _log_band(difference, eta[0], eta[1])
    clearly = _log_band(difference, eta[1], eta[2])
    at_all, much = logsigmoid(difference - eta[0]), logsigmoid(difference - eta[2])
    # Chosen by where, not by an index: the gradient of a gather has no deterministic kernel on every device.
    return torch.where(
        strength == 0, at_all, torch.where(strength == 1, slightly, torch.where(strength == 2, clearly, much))
    )


def _log_band(difference: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """ln [σ(Δ − low) − σ(Δ − high)], low < high, as ln[(e^{high − low} − 1) σ(Δ − high) σ(low − Δ)].

    The plain difference of two sigmoids is 0 in floating point, and its logarithm −inf, once Δ is far from the band.
    """
    width = high - low
    log_expm1 = width + (-torch.expm1(-width)).log()  # e^width itself overflows
    return log_expm1 + logsigmoid(difference - high) + logsigmoid(low - difference)


# --- whole rankings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TieredRanking:
    """A ranking to learn from: ``tiers`` of positions in the scores, best first, and its weight in the loss.

    ``below`` stays in every pool and is never chosen: what was left unranked, where that means worse than all tiers.
    A position may stand twice; it then counts as two responses that score alike.
    """

    tiers: tuple[tuple[int, ...], ...]
    below: tuple[int, ...] = ()
    weight: float = 1.0


def plackett_luce_loss(
    scores: Tensor, rankings: Sequence[TieredRanking], *, ties: RankingTies, log_sizes: Tensor | None = None
) -> Tensor:
    """−Σ weight · ln P(ranking) / its real choices; zero, with a gradient of zero, where there is nothing to choose.

    Divided by the number of choices (``count_choices``), a ranking of nine weighs as one of two does.

    Args:
        scores: (N,).
        rankings: what was judged.
        ties: see ``ranking_log_likelihoods``.
        log_sizes: (D − 1,), needed by ``davidson`` alone.

    Raises:
        ValueError: as ``ranking_log_likelihoods``.
    """
    choices = [count_choices(ranking, ties=ties) for ranking in rankings]
    shares = [ranking.weight / count if count else 0.0 for ranking, count in zip(rankings, choices, strict=True)]
    likelihoods = ranking_log_likelihoods(scores, rankings, ties=ties, log_sizes=log_sizes)
    return -(likelihoods * scores.new_tensor(shares)).sum()


def count_choices(ranking: TieredRanking, *, ties: RankingTies) -> int:
    """How many choices between two or more a ranking stands for; 0: nothing can be learned from it.

    ``davidson`` chooses tiers, one at a time; ``skip`` compares each response that has something below it; ``soft``
    places the responses one after another.
    """
    if ties == "davidson":
        return sum(pool > 1 for _, _, pool in _tiers_upwards(ranking))
    if ties == "skip":
        return sum(len(tier) for tier, lower, _ in _tiers_upwards(ranking) if lower)
    return sum(len(tier) if lower else len(tier) - 1 for tier, lower, _ in _tiers_upwards(ranking))


def ranking_log_likelihoods(
    scores: Tensor, rankings: Sequence[TieredRanking], *, ties: RankingTies, log_sizes: Tensor | None = None
) -> Tensor:
    """ln P of each ranking, (B,): a product over its tiers, best first, each chosen from what is not placed yet.

    Without ties the three agree: Σ_i [s_i − ln Σ_{j not above i} e^{s_j}] (Plackett 1975). With them:

    - ``davidson`` (Turner, van Etten, Firth and Kosmidis 2020, arXiv 1810.12068, section 2.2): tier C is chosen with
      f(C) / Σ_S f(S), f(S) = δ_|S| exp(mean_{i in S} s_i), over all subsets S of the pool of at most D; δ_1 = 1 and
      ``log_sizes`` = ln δ_2 … ln δ_D. A proper distribution over weak orders; two responses are Davidson's pair with
      ν = δ_2.
    - ``skip``: nothing is compared within a tier; each of its responses is chosen from itself and what is below.
    - ``soft``: the mean of the logarithm over all orders of the tied responses. Two tied are a pair's tie of 0.5.

    Shapes: ``scores`` (N,); ``log_sizes`` (D − 1,); returns (B,).

    Raises:
        ValueError: a tier of more responses than D (``davidson``) or than ``SOFT_TIE_LIMIT`` (``soft``);
            ``log_sizes`` missing, or given where there is no such parameter.
    """
    if ties == "davidson" and log_sizes is not None:
        _refuse_large_tiers(rankings, largest=1 + len(log_sizes), ties=ties)
        return _choose_tiers(scores, rankings, log_sizes.to(scores.dtype))
    if ties == "soft" and log_sizes is None:
        _refuse_large_tiers(rankings, largest=SOFT_TIE_LIMIT, ties=ties)
        return _choose_responses(scores, rankings, average_orders=True)
    if ties == "skip" and log_sizes is None:
        return _choose_responses(scores, rankings, average_orders=False)
    raise ValueError(f"ties={ties!r} with log_sizes={log_sizes}: davidson needs them, skip and soft have none")


def _choose_tiers(scores: Tensor, rankings: Sequence[TieredRanking], log_sizes: Tensor) -> Tensor:
    log_sizes = torch.cat([log_sizes.new_zeros(1), log_sizes])  # ln δ_1 … ln δ_D
    members: list[tuple[int, int, float]] = []  # ranking, position, share of its tier's mean
    stages: list[tuple[int, int, int]] = []  # ranking, size of the tier, size of the pool
    for number, ranking in enumerate(rankings):
        for tier, _, pool in _tiers_upwards(ranking):
            if pool > 1:
                members += [(number, position, 1 / len(tier)) for position in tier]
                stages.append((number, len(tier), pool))
    result = scores.new_zeros(len(rankings)) + scores[:0].sum()  # where nothing is added, a gradient of zero
    if not stages:
        return result
    owner, position = _indices(scores, [member[:2] for member in members])
    share = scores.new_tensor([member[2] for member in members])
    result = result.index_add(0, owner, share * scores[position])
    owner, size, pool_size = _indices(scores, stages)
    denominators = _log_choices(_pad(scores, rankings), log_sizes)
    return result.index_add(0, owner, log_sizes[size - 1] - denominators[owner, pool_size - 1])


def _choose_responses(scores: Tensor, rankings: Sequence[TieredRanking], *, average_orders: bool) -> Tensor:
    single: list[tuple[int, int, int]] = []  # ranking, position, how many are below
    tied: dict[int, list[tuple[int, ...]]] = defaultdict(list)  # by size: ranking, how many are below, positions
    for number, ranking in enumerate(rankings):
        for tier, lower, _ in _tiers_upwards(ranking):
            if average_orders and len(tier) > 1:
                tied[len(tier)].append((number, lower, *tier))
            elif lower:
                single += [(number, position, lower) for position in tier]
    result = scores.new_zeros(len(rankings)) + scores[:0].sum()
    if not single and not tied:
        return result
    # (B, n + 1): ln Σ e^s of each ranking's lowest 0, 1, … n responses.
    pools = _pad(scores, rankings)
    below = torch.cat([pools.new_full((len(pools), 1), -torch.inf), _log_choices(pools, pools.new_zeros(1))], 1)
    if single:
        owner, position, lower_size = _indices(scores, single)
        result = result.index_add(0, owner, logsigmoid(scores[position] - below[owner, lower_size]))
    for size, found in tied.items():
        owner, lower_size, *positions = _indices(scores, found)
        terms = _mean_over_orders(scores[torch.stack(positions, 1)], below[owner, lower_size], *_subsets(size))
        result = result.index_add(0, owner, terms)
    return result


def _mean_over_orders(tied: Tensor, below: Tensor, subsets: Tensor, probability: Tensor) -> Tensor:
    """The mean over all orders of tied scores (T, n) of their ln P, above what sums to ``below`` (T,); returns (T,).

    In a random order what is still to be placed before the j-th choice is any subset of n − j + 1 alike, so that the
    n! orders need the 2^n − 1 subsets alone.
    """
    subsets, probability = subsets.to(tied.device), probability.to(tied)
    members = tied.unsqueeze(1).masked_fill(~subsets, -torch.inf)  # (T, 2^n − 1, n)
    lower = below[:, None, None].expand(-1, len(subsets), 1)
    return tied.sum(1) - torch.cat([members, lower], 2).logsumexp(2) @ probability


@lru_cache
def _subsets(size: int) -> tuple[Tensor, Tensor]:
    """The non-empty subsets of ``size`` things, (2^n − 1, n), and 1 / the number of subsets as large, (2^n − 1,)."""
    chosen = [set(subset) for count in range(1, size + 1) for subset in combinations(range(size), count)]
    subsets = torch.tensor([[item in subset for item in range(size)] for subset in chosen])
    return subsets, torch.tensor([1 / comb(size, len(subset)) for subset in chosen], dtype=torch.float64)


def _log_choices(pools: Tensor, log_sizes: Tensor) -> Tensor:
    """ln Σ_S f(S) over the subsets S of at most D of each row's first 1, 2, … n scores; (B, n) to (B, n).

    Σ of exp(mean s) over the subsets of size k is the elementary symmetric polynomial e_k of the numbers exp(s/k).
    It grows one response at a time, e_k ← e_k + exp(s/k) e_{k−1}, here in logarithms and for all k at once: no subset
    is ever listed. Pools are prefixes of one row, so one pass gives all of them. With D = 1 it is ln Σ e^s.
    """
    depth = len(log_sizes)
    sizes = torch.arange(1, depth + 1, device=pools.device, dtype=pools.dtype)
    shares = pools.unsqueeze(2) / sizes  # (B, n, D): s/k
    table = pools.new_zeros(len(pools), depth, 1)  # (B, D, m): row k, ln e_0 … ln e_m of exp(s/k); m ≤ responses so far
    totals = []
    for item in shares.unbind(1):
        taken = table[..., :depth] + item.unsqueeze(2)
        left = table[..., 1:]
        # With m responses so far there was no e_{m+1}: no entry, rather than ln 0, whose gradient is not a number.
        both = torch.logaddexp(left, taken[..., : left.shape[2]])
        table = torch.cat([table[..., :1], both, taken[..., left.shape[2] :]], 2)
        largest = table.shape[2] - 1
        of_own_size = table[:, :largest, 1:].diagonal(dim1=1, dim2=2)  # (B, largest): e_k of row k
        totals.append((of_own_size + log_sizes[:largest]).logsumexp(1))
    return torch.stack(totals, 1)


def _tiers_upwards(ranking: TieredRanking) -> list[tuple[tuple[int, ...], int, int]]:
    """Each tier, from the last up, with how many responses are below it and how many it is chosen from."""
    found, lower = [], len(ranking.below)
    for tier in reversed(ranking.tiers):
        found.append((tier, lower, lower + len(tier)))
        lower += len(tier)
    return found


def _pad(scores: Tensor, rankings: Sequence[TieredRanking]) -> Tensor:
    """Each ranking's scores from the bottom up, (B, n): every pool is then the beginning of a row."""
    rows = [
        [*ranking.below, *(position for tier in reversed(ranking.tiers) for position in tier)] for ranking in rankings
    ]
    longest = max(len(row) for row in rows)
    # What stands behind a row is in no pool; it repeats a score of the batch so as to be a number like the others.
    some = next(position for row in rows for position in row)
    padded = [row + [some] * (longest - len(row)) for row in rows]
    return scores[torch.tensor(padded, device=scores.device)]


def _refuse_large_tiers(rankings: Sequence[TieredRanking], *, largest: int, ties: RankingTies) -> None:
    for number, ranking in enumerate(rankings):
        for tier in ranking.tiers:
            if len(tier) > largest:
                raise ValueError(
                    f"ranking {number} has {len(tier)} responses in one tier, {tier}; ties={ties!r} takes {largest}"
                )


def _indices(scores: Tensor, rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """The columns of a list of rows of integers, on the scores' device."""
    return torch.tensor(rows, device=scores.device).unbind(1)


# --- where scores lie -------------------------------------------------------------------------------------------------


def centring(scores: Tensor, row: Tensor) -> Tensor:
    """Σ over prompts of the squared mean score of the prompt's responses; divide by the prompts of the whole step.

    No ranking says where scores lie: this draws each prompt's mean to 0 (after Eisenstein et al., arXiv 2312.09244,
    whose (s_first + s_second)² is four times this).

    Shapes: ``scores`` (N,); ``row`` (N,), the number of each response's prompt, from 0; numbers may be missing.
    """
    count = torch.bincount(row)
    total = scores.new_zeros(len(count)).index_add(0, row, scores)
    return (total / count.clamp(min=1)).square().sum()
