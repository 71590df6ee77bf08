"""Rankings and scores as flat arrays, and the pairs of responses in them: what a report is made from."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.core.bootstrap import Floats, Ints
from training.core.examples import Example

Bools = NDArray[np.bool_]

#: Strength of a pair whose tiers are neighbours without a word on the gap, and of one whose tiers are not neighbours.
NOT_SAID, NOT_ADJACENT = 0, -1


@dataclass(frozen=True)
class SameSize:
    """Rankings over the same number K of responses, best first: all arrays (R, K) but ``ranking`` (R,).

    What is left unranked is not among the K, or, read with ``below``, stands last as one tier more.

    Attributes:
        ranking: the ranking's number.
        response: number of the response in each place.
        tier: its tier, 0 the best.
        gap: strength of the gap below its tier, ``NOT_SAID`` where there is none.
    """

    ranking: Ints
    response: Ints
    tier: Ints
    gap: Ints


@dataclass(frozen=True)
class Judgements:
    """All responses (N,) and rankings (R,) of a split, in its order.

    Attributes:
        score: of each response.
        length: its characters.
        prompt: number of the prompt that it answers.
        group_of_prompt: (prompts,) groups, numbered from 0.
        groups: how many groups.
        ranking_prompt: number of the prompt that is ranked.
        placed: how many responses the ranking places; what is left unranked is never counted.
        annotator: −1 where unknown.
        machine: whether a machine ranked.
        task: −1 where unknown.
        sizes: the rankings that can hold a pair, by how many responses they are over.
    """

    score: Floats
    length: Floats
    prompt: Ints
    group_of_prompt: Ints
    groups: int
    ranking_prompt: Ints
    placed: Ints
    annotator: Ints
    machine: Bools
    task: Ints
    sizes: tuple[SameSize, ...]


@dataclass(frozen=True)
class Pairs:
    """Pairs of different responses that one ranking compares, (M,) each; the first is the better one, or as good.

    Attributes:
        margin: score of the first − score of the second.
        length_margin: the same of characters.
        strict: the first is better; else both share a tier.
        strength: 1, 2 or 3 between neighbouring tiers, ``NOT_SAID`` or ``NOT_ADJACENT``.
        first: number of the response.
        second: number of the response.
        ranking: number of the ranking.
        prompt: number of the prompt.
        group: number of the group.
    """

    margin: Floats
    length_margin: Floats
    strict: Bools
    strength: Ints
    first: Ints
    second: Ints
    ranking: Ints
    prompt: Ints
    group: Ints

    def __len__(self) -> int:
        return len(self.margin)

    def where(self, chosen: Bools) -> Self:
        """Those of the pairs."""
        return type(self)(*(getattr(self, column.name)[chosen] for column in fields(self)))


def read_judgements(
    examples: Sequence[Example], scores: Sequence[Sequence[float]], *, below: bool = False
) -> Judgements:
    """One pass over the examples, which may come from a file.

    Args:
        below: whether everything placed beats everything unranked (``examples.pairs_of``); else what is left unranked
            takes no part.

    Raises:
        ValueError: not one score per response.
    """
    score: list[float] = []
    length: list[int] = []
    prompt: list[int] = []
    group: list[int] = []
    rows: list[tuple[int, int, int, bool, int]] = []
    by_size: dict[int, list[tuple[int, list[int], list[int], list[int]]]] = defaultdict(list)
    for number, (example, row) in enumerate(zip(examples, scores, strict=True)):
        if len(row) != len(example.lengths):
            raise ValueError(f"prompt {number} has {len(example.lengths)} responses and {len(row)} scores")
        begin = len(score)
        score.extend(row)
        length.extend(example.lengths)
        prompt.extend([number] * len(row))
        group.append(example.group)
        for ranking in example.rankings:
            placed = sum(map(len, ranking.tiers))
            ordered = [*ranking.tiers, ranking.unranked] if below else ranking.tiers
            response = [begin + place for tier in ordered for place in tier]
            tiers = [number for number, tier in enumerate(ordered) for _ in tier]
            if placed and len(response) > 1:
                gap = [strength or NOT_SAID for strength in ranking.strengths]
                gap += [NOT_SAID] * (len(ordered) - len(gap))
                by_size[len(response)].append((len(rows), response, tiers, [gap[tier] for tier in tiers]))
            rows.append((number, placed, ranking.annotator, ranking.machine, ranking.task))
    known, numbers = np.unique(np.array(group, np.int64), return_inverse=True)
    columns = np.array(rows, np.int64).reshape(len(rows), 5).T
    return Judgements(
        score=np.array(score, np.float64),
        length=np.array(length, np.float64),
        prompt=np.array(prompt, np.int64),
        group_of_prompt=numbers.astype(np.int64),
        groups=len(known),
        ranking_prompt=columns[0],
        placed=columns[1],
        annotator=columns[2],
        machine=columns[3].astype(bool),
        task=columns[4],
        sizes=tuple(SameSize(*map(_ints, zip(*by_size[size], strict=True))) for size in sorted(by_size)),
    )


def all_pairs(judgements: Judgements) -> Pairs:
    """Every pair that a ranking compares, tied ones too; two places of one text are no pair.

    Nobody compared what is left unranked with each other: with ``below`` each of them loses to everything placed, and
    no two of them are a pair, not even a tied one.
    """
    parts = list(_pairs_by_size(judgements))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0, np.int64)] * 5
    in_order = np.argsort(columns[0], kind="stable")
    ranking, first, second, strength, distance = (column[in_order] for column in columns)
    prompt = judgements.ranking_prompt[ranking]
    return Pairs(
        margin=judgements.score[first] - judgements.score[second],
        length_margin=judgements.length[first] - judgements.length[second],
        strict=distance > 0,
        strength=np.where(distance > 1, NOT_ADJACENT, strength),
        first=first,
        second=second,
        ranking=ranking,
        prompt=prompt,
        group=judgements.group_of_prompt[prompt],
    )


def pair_table(examples: Sequence[Example], scores: Sequence[Sequence[float]], *, below: bool = False) -> Pairs:
    """The strict pairs of all rankings; ``below`` as in ``read_judgements``."""
    pairs = all_pairs(read_judgements(examples, scores, below=below))
    return pairs.where(pairs.strict)


def correctness(margin: Floats) -> Floats:
    """1 where the winner scores higher, 0.5 where both score the same, 0 elsewhere."""
    return (np.sign(margin) + 1) / 2


def _pairs_by_size(judgements: Judgements) -> Iterator[tuple[Ints, ...]]:
    """(ranking, first, second, strength of the gap below the first, tiers between) of all pairs, size by size."""
    for size in judgements.sizes:
        upper, lower = np.triu_indices(size.response.shape[1], k=1)
        first, second = size.response[:, upper], size.response[:, lower]
        distance = size.tier[:, lower] - size.tier[:, upper]
        ranking = np.broadcast_to(size.ranking[:, None], first.shape)
        # Unranked responses stand last, so the first of a pair is one of them only where both are.
        compared = (first != second) & (upper < judgements.placed[ranking])
        yield tuple(column[compared] for column in (ranking, first, second, size.gap[:, upper], distance))


def _ints(column: Sequence[int] | Sequence[Sequence[int]]) -> Ints:
    return np.array(column, np.int64)
