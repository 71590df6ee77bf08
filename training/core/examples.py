"""From rankings to training examples: one per prompt, its distinct responses once, and weighted pairs over them.

The loss that the pairs stand for (DESIGN: the reward model) is, for one prompt, the weighted mean over its rankings of
the mean over their pairs; a batch takes the mean over its prompts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from training.core.errors import UsageError
from training.core.records import Message, RankingRecord, Response


@dataclass(frozen=True)
class Pair:
    """``first`` against ``second`` (positions in the example's responses): ``outcome`` 1 = first won, 0.5 = a tie."""

    first: int
    second: int
    outcome: float
    weight: float


@dataclass(frozen=True)
class JudgedRanking:
    """One ranking over an example's responses, kept whole for evaluation; ``pairs`` carry no ranking weight."""

    tiers: tuple[tuple[int, ...], ...]
    weight: float
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Example:
    """One prompt with its distinct responses and all its rankings; ``pairs`` weights sum to 1."""

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    split_group: str
    rankings: tuple[JudgedRanking, ...]
    pairs: tuple[Pair, ...]


def build_examples(
    records: Iterable[RankingRecord],
    *,
    ties: str,
    show_thinking: bool,
    fits: Callable[[tuple[Message, ...], Response], bool],
    dropped: Counter[str],
) -> list[Example]:
    """Group rankings by prompt, in order of first appearance.

    Counted in ``dropped``: rankings without a pair (``no_pairs``) and those that place a response that is ``too_long``.

    Args:
        fits: whether prompt and response are short enough together.
        ties: ``skip`` leaves the pairs of one tier out, ``soft`` gives them the outcome 0.5.
        show_thinking: without it, responses that differ in thinking alone are one response.
    """
    grouped: dict[tuple[str, tuple[Message, ...]], list[RankingRecord]] = defaultdict(list)
    for record in records:
        grouped[record.split_group, record.prompt].append(record)
    examples = []
    for (group, prompt), rankings in grouped.items():
        kept = []
        for record in rankings:
            shown = tuple(response if show_thinking else Response(response.text) for response in record.responses)
            if not _pairs_of(record.tiers, shown, ties=ties):
                dropped["no_pairs"] += 1
            elif not _fits_whole(record, shown, fits):
                dropped["too_long"] += 1
            else:
                kept.append((record, shown))
        if kept:
            examples.append(_build_example(prompt, group, kept, ties=ties))
    return examples


def _fits_whole(
    record: RankingRecord, shown: Sequence[Response], fits: Callable[[tuple[Message, ...], Response], bool]
) -> bool:
    """Whether every response that the ranking places is short enough."""
    try:
        return all(fits(record.prompt, shown[place]) for tier in record.tiers for place in tier)
    except UsageError as error:
        raise UsageError(f"line {record.line}: {error}") from None


def _build_example(
    prompt: tuple[Message, ...],
    split_group: str,
    records: Sequence[tuple[RankingRecord, tuple[Response, ...]]],
    *,
    ties: str,
) -> Example:
    places: dict[Response, int] = {}
    rankings = []
    for record, shown in records:
        tiers = tuple(tuple(places.setdefault(shown[i], len(places)) for i in tier) for tier in record.tiers)
        rankings.append(JudgedRanking(tiers, record.weight, _pairs_of(tiers, list(places), ties=ties)))
    return Example(prompt, tuple(places), split_group, tuple(rankings), _weigh(rankings))


def _pairs_of(tiers: tuple[tuple[int, ...], ...], responses: Sequence[Response], *, ties: str) -> tuple[Pair, ...]:
    """The pairs of one ranking. Two responses of one text always score alike and teach nothing: no pair."""
    pairs = [
        Pair(first, second, 1.0, 1.0)
        for better, worse in combinations(tiers, 2)
        for first in better
        for second in worse
        if responses[first] != responses[second]
    ]
    if ties == "soft":
        pairs += [
            Pair(first, second, 0.5, 1.0)
            for tier in tiers
            for first, second in combinations(tier, 2)
            if responses[first] != responses[second]
        ]
    return tuple(pairs)


def _weigh(rankings: Sequence[JudgedRanking]) -> tuple[Pair, ...]:
    """All pairs of a prompt, each with its share of the prompt's loss; equal pairs of several rankings are merged."""
    total = sum(ranking.weight for ranking in rankings)
    shares: dict[tuple[int, int, float], float] = defaultdict(float)
    for ranking in rankings:
        for pair in ranking.pairs:
            shares[pair.first, pair.second, pair.outcome] += ranking.weight / total / len(ranking.pairs)
    return tuple(Pair(*key, share) for key, share in shares.items())


def count_pairs(examples: Iterable[Example]) -> int:
    """Pairs over all rankings of the examples."""
    return sum(len(ranking.pairs) for example in examples for ranking in example.rankings)
