"""Pair accuracy by parts of the pairs: where a model is good, and where it is only as good as the length of a text."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from training.core.bootstrap import mean
from training.core.judgements import NOT_ADJACENT, NOT_SAID, Bools, Judgements, Pairs, correctness

ANNOTATORS_SHOWN = 20
STRENGTHS: tuple[tuple[int, int | str], ...] = (
    (1, 1),
    (2, 2),
    (3, 3),
    (NOT_SAID, "not_said"),
    (NOT_ADJACENT, "not_adjacent"),
)

Slice = dict[str, Any]


def accuracy_by(
    judgements: Judgements,
    strict: Pairs,
    *,
    known_annotators: Iterable[int] | None,
    annotators: Sequence[str] | None,
) -> dict[str, list[Slice]]:
    """Every way to part the strict pairs; a part is an accuracy as a statistic, with what it is of beside it.

    ``placed``: ``of`` = responses that the ranking placed, whatever it left unranked. ``strength``: ``of`` = 1, 2, 3
    between neighbouring tiers, "not_said", or "not_adjacent" for pairs with a tier between. ``annotators``: ``kind``
    human or machine, ``seen`` in training (null unknown). ``annotator``: those with the most pairs, at most 20, by
    ``name``. ``length_difference``: ``quarter`` of the pairs by |difference of characters|, from ``from`` to ``to``.
    """
    return {
        "placed": _by_placed(judgements, strict),
        "strength": _by_strength(judgements, strict),
        "annotators": _by_kind(judgements, strict, known_annotators),
        "annotator": _by_annotator(judgements, strict, known_annotators, annotators),
        "length_difference": _by_length(judgements, strict),
    }


def _part(judgements: Judgements, strict: Pairs, chosen: Bools, **of: Any) -> Slice | Any:
    pairs = strict.where(chosen)
    groups = judgements.groups
    right, longer = correctness(pairs.margin), correctness(pairs.length_margin)
    beside = {
        **of,
        "pairs": len(pairs),
        "prompts": len(np.unique(pairs.prompt)),
        "length_baseline": mean(longer, pairs.group, groups=groups),
        "against_length": mean(right - longer, pairs.group, groups=groups),
    }
    return mean(right, pairs.group, groups=groups, beside=beside)


def _by_placed(judgements: Judgements, strict: Pairs) -> list[Slice]:
    placed = judgements.placed[strict.ranking]
    return [_part(judgements, strict, placed == count, of=count) for count in np.unique(placed).tolist()]


def _by_strength(judgements: Judgements, strict: Pairs) -> list[Slice]:
    there = set(np.unique(strict.strength).tolist())
    return [_part(judgements, strict, strict.strength == code, of=of) for code, of in STRENGTHS if code in there]


def _by_kind(judgements: Judgements, strict: Pairs, known: Iterable[int] | None) -> list[Slice]:
    machine, annotator = judgements.machine[strict.ranking], judgements.annotator[strict.ranking]
    is_named = (annotator >= 0) & (known is not None)
    is_known = np.isin(annotator, list(known or ()))
    parts = []
    for kind, of_kind in (("human", ~machine), ("machine", machine)):
        for seen, of_seen in ((True, is_named & is_known), (False, is_named & ~is_known), (None, ~is_named)):
            if (of_kind & of_seen).any():
                parts.append(_part(judgements, strict, of_kind & of_seen, kind=kind, seen=seen))
    return parts


def _by_annotator(
    judgements: Judgements, strict: Pairs, known: Iterable[int] | None, names: Sequence[str] | None
) -> list[Slice]:
    annotator, machine = judgements.annotator[strict.ranking], judgements.machine[strict.ranking]
    found, counts = np.unique(annotator[annotator >= 0], return_counts=True)
    most = found[np.lexsort((found, -counts))][:ANNOTATORS_SHOWN]
    seen = None if known is None else set(known)
    parts = []
    for number in most.tolist():
        chosen = annotator == number
        of = {
            "name": names[number] if names is not None else str(number),
            "kind": "machine" if machine[chosen].any() else "human",
            "seen": None if seen is None else number in seen,
        }
        parts.append(_part(judgements, strict, chosen, **of))
    return parts


def _by_length(judgements: Judgements, strict: Pairs) -> list[Slice]:
    if not len(strict):
        return []
    difference = np.abs(strict.length_margin)
    # A pair at a cut belongs below it; where many pairs differ by the same, a quarter may be larger, or missing.
    quarter = np.searchsorted(np.quantile(difference, [0.25, 0.5, 0.75]), difference, side="left")
    return [
        _part(
            judgements,
            strict,
            quarter == number,
            quarter=number + 1,
            **{"from": int(difference[quarter == number].min()), "to": int(difference[quarter == number].max())},
        )
        for number in np.unique(quarter).tolist()
    ]
