"""What is learned from: one example per prompt with all its rankings, and the pairs that a ranking stands for.

The loss (DESIGN: the reward model) is, for one prompt, the weighted mean over its rankings of the mean over their
pairs; a batch takes the mean over its prompts. Places are positions in the prompt's list of distinct responses.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product


@dataclass(frozen=True)
class JudgedRanking:
    """One annotator's ranking over an example's distinct responses.

    ``tiers`` hold places, the best tier first; a place stands twice where two responses had the same text.
    ``strengths`` has one entry per gap between tiers: 1 slightly, 2 clearly, 3 much better, None not said.
    ``annotator`` and ``task`` are numbers that are equal where the names were; -1 where there was none.
    """

    tiers: tuple[tuple[int, ...], ...]
    unranked: tuple[int, ...] = ()
    strengths: tuple[int | None, ...] = ()
    weight: float = 1.0
    annotator: int = -1
    machine: bool = False
    task: int = -1


@dataclass(frozen=True)
class Example:
    """One prompt with all its rankings.

    ``lengths`` are the characters of its distinct responses, ``group`` is the number of its split group.
    """

    group: int
    lengths: tuple[int, ...]
    rankings: tuple[JudgedRanking, ...]


@dataclass(frozen=True)
class Pair:
    """``first`` against ``second``: ``outcome`` 1 = first won, 0.5 = a tie.

    ``strength`` is what was said of two adjacent tiers (0 = nothing, or not adjacent), ``distance`` the sum of the
    strengths between the two tiers (unsaid ones count 0).
    """

    first: int
    second: int
    outcome: float
    strength: int = 0
    distance: int = 0


def pairs_of(ranking: JudgedRanking, *, ties: bool, below: bool) -> list[Pair]:
    """The pairs of one ranking, each of weight 1.

    Two responses of one text share a place, always score alike and teach nothing: no pair.

    Args:
        ties: whether two responses of one tier are a pair.
        below: whether everything placed beats everything unranked.
    """
    tiers = [*ranking.tiers, ranking.unranked] if below and ranking.unranked else list(ranking.tiers)
    said = [strength or 0 for strength in ranking.strengths] or [0] * (len(ranking.tiers) - 1)
    # How far the last tier is above what was left unranked, nobody was asked.
    said += [0] * (len(tiers) - 1 - len(said))
    pairs = [
        Pair(first, second, 1.0, said[upper] if lower == upper + 1 else 0, sum(said[upper:lower]))
        for upper, lower in combinations(range(len(tiers)), 2)
        for first, second in product(tiers[upper], tiers[lower])
        if first != second
    ]
    if ties:
        pairs += [
            Pair(first, second, 0.5)
            for tier in ranking.tiers
            for first, second in combinations(tier, 2)
            if first != second
        ]
    return pairs


def strict_pairs(ranking: JudgedRanking) -> Iterator[tuple[int, int]]:
    """Winner and loser of each pair of places in different tiers; what is left unranked takes no part."""
    for better, worse in combinations(ranking.tiers, 2):
        for first, second in product(better, worse):
            if first != second:
                yield first, second


def weighted_pairs(rankings: Sequence[JudgedRanking], *, ties: bool, below: bool) -> list[tuple[Pair, float]]:
    """All pairs of a prompt, each with its share of the prompt's loss (they sum to 1); equal ones are one pair.

    Rankings without a pair have no share.
    """
    found = [(ranking.weight, pairs_of(ranking, ties=ties, below=below)) for ranking in rankings]
    total = sum(weight for weight, pairs in found if pairs)
    shares: dict[Pair, float] = defaultdict(float)
    for weight, pairs in found:
        for pair in pairs:
            shares[pair] += weight / total / len(pairs)
    return list(shares.items())


def count_pairs(rankings: Iterable[JudgedRanking], *, ties: bool, below: bool) -> int:
    """Pairs over all the rankings."""
    return sum(len(pairs_of(ranking, ties=ties, below=below)) for ranking in rankings)
