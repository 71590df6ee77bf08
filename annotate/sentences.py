"""A ranking as a sentence for people: "B > A = D, C unranked". Pure; the words may come translated.

It agrees with what the ranking page shows while one ranks (`sentence` in static/annotate/ranking_state.js).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a sentence; what stands in braces is filled in."""

    all_bad: str = "All bad"
    unranked: str = "{letters} unranked"
    edited: str = "with an edited version of {letter}"
    strengths: Mapping[int, str] = field(
        default_factory=lambda: {
            1: "{better} slightly better than {worse}",
            2: "{better} clearly better than {worse}",
            3: "{better} much better than {worse}",
        }
    )


ENGLISH = Words()


def sentence_of(
    ranking: Sequence[Iterable[str]],
    *,
    unranked: Iterable[str] = (),
    all_bad: bool = False,
    edited: str | None = None,
    words: Words = ENGLISH,
) -> str:
    """Return what a ranking says: tiers of letters, best first, what was left unranked, and which response was edited.

    Letters of a tier, and the unranked ones, are named in alphabetical order. Where nothing was placed, the unranked
    ones are not named: "All bad" says it all.
    """
    tiers = " > ".join(map(_tier, ranking))
    rest = ", ".join(sorted(unranked)) if tiers else ""
    parts = [
        words.all_bad if all_bad else "",
        tiers,
        words.unranked.format(letters=rest) if rest else "",
        words.edited.format(letter=edited) if edited else "",
    ]
    return ", ".join(part for part in parts if part)


def strengths_of(
    ranking: Sequence[Iterable[str]], strengths: Sequence[int | None], *, words: Words = ENGLISH
) -> list[str]:
    """Return one clause for each gap of stated strength: "B clearly better than A = D"."""
    tiers = list(map(_tier, ranking))
    return [
        words.strengths[strength].format(better=tiers[gap], worse=tiers[gap + 1])
        for gap, strength in enumerate(strengths)
        if strength is not None
    ]


def _tier(letters: Iterable[str]) -> str:
    return " = ".join(sorted(letters))
