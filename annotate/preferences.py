"""What follows from a ranking, what an answer must obey, and which split a prompt belongs to.

Pure: no Django, no I/O. The web page, the API, the imports and the exports all ask here, so that one ranking means
the same everywhere.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, combinations, pairwise
from typing import Any, Literal, NamedTuple

Split = Literal["train", "validation", "test"]
Outcome = Literal["win", "tie"]
Need = Literal["off", "optional", "required"]
UnrankedPolicy = Literal["ignore", "below"]
TiePolicy = Literal["drop", "both", "soft"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
STRENGTHS = (1, 2, 3)
MAX_RATIONALE_CHARACTERS = 10_000
MAX_REWRITE_CHARACTERS = 200_000


# --- splits -----------------------------------------------------------------------------------------------------


def normalise_split_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the default split group of a prompt: its first user message in NFC, casefolded, whitespace collapsed.

    A prompt without a user message gives its first message's text, an empty one the empty string.
    """
    texts = [message["content"] for message in messages if message["role"] == "user"]
    texts += [message["content"] for message in messages]
    if not texts:
        return ""
    return " ".join(unicodedata.normalize("NFC", texts[0]).casefold().split())


def split_for_group(group: str) -> Split:
    """Return the split of a group: sha256 of its UTF-8 bytes mod 100; 0–79 train, 80–89 validation, 90–99 test."""
    bucket = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100
    if bucket < 80:
        return "train"
    return "validation" if bucket < 90 else "test"


# --- comparisons ------------------------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """One pair derived from a ranking.

    `win`: `first` was placed above `second`. `tie`: both share a tier; which of them stands first means nothing.
    `strength` is the sum of the known strengths of the gaps between their tiers, None where none of them is known.
    `tiers_apart` is 0 for responses of one tier, 1 for neighbouring tiers; a loss that reads a strength as an ordinal
    uses it for `tiers_apart == 1` alone.
    """

    first: str
    second: str
    outcome: Outcome
    strength: int | None = None
    tiers_apart: int = 1


class ComparedPlaces(NamedTuple):
    """A Comparison of whichever responses stand at two places, counted from 0 through all tiers, best first."""

    first: int
    second: int
    outcome: Outcome
    strength: int | None
    tiers_apart: int


def comparisons_of(
    ranking: Sequence[Sequence[str]],
    *,
    unranked: Sequence[str] = (),
    strengths: Sequence[int | None] | None = None,
    unranked_policy: UnrankedPolicy = "ignore",
    ties: TiePolicy = "drop",
) -> list[Comparison]:
    """Derive every comparison of one ranking, best tier first.

    Args:
        ranking: tiers of response ids, best first.
        unranked: ids that were left unplaced.
        strengths: one value per gap between neighbouring tiers, 1–3 or None; None as a whole: nothing was stated.
        unranked_policy: `ignore`: an unplaced response gives no comparison; `below`: it loses to every placed one,
            across one more gap of unknown strength, and two unplaced responses give nothing.
        ties: `drop`: responses of one tier give nothing; `soft`: one `tie`; `both`: two wins, one each way.

    `all_bad` plays no part: a set where every response is bad keeps the order it was given.
    """
    below = unranked if unranked_policy == "below" and ranking else ()
    placed = [name for tier in (*ranking, below) for name in tier]
    sizes = tuple(map(len, ranking))
    gaps = tuple(strengths) if strengths is not None else None
    return [
        Comparison(placed[first], placed[second], outcome, strength, apart)
        for first, second, outcome, strength, apart in compared_places(sizes, gaps, ties=ties, below=len(below))
    ]


@lru_cache(maxsize=1024)
def compared_places(
    sizes: tuple[int, ...], strengths: tuple[int | None, ...] | None, *, ties: TiePolicy = "drop", below: int = 0
) -> tuple[ComparedPlaces, ...]:
    """Derive the comparisons of all rankings of one shape; few shapes make up millions of rankings.

    Args:
        sizes: how many responses each tier holds, best first.
        strengths, ties: as in `comparisons_of`.
        below: how many unplaced responses, which stand at the places after the tiers, lose to every placed one.
    """
    ends = list(accumulate(sizes, initial=0))
    tiers = [range(start, end) for start, end in pairwise(ends)]
    found = [pair for tier in tiers for pair in _ties_of(tier, policy=ties)]
    gaps = list(strengths) if strengths is not None else [None] * max(len(tiers) - 1, 0)
    if below:
        tiers.append(range(ends[-1], ends[-1] + below))
        gaps.append(None)
    for upper, lower in combinations(range(len(tiers)), 2):
        strength = _sum_of_known(gaps[upper:lower])
        found += [
            ComparedPlaces(better, worse, "win", strength, lower - upper)
            for better in tiers[upper]
            for worse in tiers[lower]
        ]
    return tuple(found)


def _ties_of(tier: range, *, policy: TiePolicy) -> list[ComparedPlaces]:
    pairs = list(combinations(tier, 2))
    if policy == "soft":
        return [ComparedPlaces(one, other, "tie", None, 0) for one, other in pairs]
    if policy == "both":
        return [
            ComparedPlaces(*order, "win", None, 0) for one, other in pairs for order in ((one, other), (other, one))
        ]
    return []


def _sum_of_known(gaps: Iterable[int | None]) -> int | None:
    known = [gap for gap in gaps if gap is not None]
    return sum(known) if known else None


# --- answers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A better text that an annotator wrote, starting from the response `of`."""

    of: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator said about one task; ids are those of the task's responses.

    `ranking` holds tiers, best first; `strengths` one value per gap between them (None: nothing stated at all).
    """

    ranking: Sequence[Sequence[str]]
    unranked: Sequence[str] = ()
    strengths: Sequence[int | None] | None = None
    all_bad: bool = False
    ratings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rationale: str | None = None
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True)
class Criterion:
    """A scale on which each response is rated in whole numbers, both ends included; `required`: on every response."""

    key: str
    low: int = 1
    high: int = 5
    required: bool = False


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What a project version lets an answer hold."""

    allow_ties: bool = True
    allow_partial: bool = True
    allow_all_bad: bool = True
    allow_rewrite: bool = True
    strength: Need = "optional"
    rationale: Need = "optional"
    criteria: tuple[Criterion, ...] = ()
    flags: tuple[str, ...] = ()


def criteria_from(settings: Iterable[Mapping[str, Any]]) -> tuple[Criterion, ...]:
    """Return the scales of a version's criteria, `{key, kind likert | yesno, low, high, required}`; yes is 1, no 0."""
    return tuple(
        Criterion(one["key"], 0, 1, bool(one.get("required")))
        if one.get("kind") == "yesno"
        else Criterion(one["key"], int(one.get("low", 1)), int(one.get("high", 5)), bool(one.get("required")))
        for one in settings
    )


def validate_answer(answer: Answer, *, responses: Sequence[str], rules: AnswerRules) -> dict[str, str]:
    """Return what is wrong with an answer, as field path → message; empty when nothing is.

    Paths are dotted: `ranking`, `ranking.1` (a tier), `strengths.0`, `ratings.r1.helpful`, `flags.r1`,
    `rationale`, `rewrite.text`. Values must have the types of `Answer`; one message is given per path.
    """
    faults = ranking_faults(answer, responses=responses)
    for path, message in (
        *_order_faults(answer, rules),
        *_strength_faults(answer, rules.strength),
        *_rating_faults(answer, responses, rules.criteria),
        *_flag_faults(answer, responses, rules.flags),
        *_rationale_faults(answer, rules.rationale),
        *_rewrite_faults(answer, responses, allowed=rules.allow_rewrite),
    ):
        faults.setdefault(path, message)
    return faults


def ranking_faults(answer: Answer, *, responses: Sequence[str]) -> dict[str, str]:
    """Return what no project could accept of an answer's order and strengths, as field path → message.

    Every response stands exactly once in `ranking` or `unranked`, no tier is empty, two responses are placed unless
    all are bad, and a strength, 1–3 or None, stands for each gap.
    """
    faults: dict[str, str] = {}
    known, seen = set(responses), set[str]()
    places = [(f"ranking.{number}", tier) for number, tier in enumerate(answer.ranking)]
    for path, ids in [*places, ("unranked", answer.unranked)]:
        if not ids and path != "unranked":
            faults[path] = "An empty tier."
        for name in ids:
            if name not in known:
                faults.setdefault(path, f"{name!r} is not a response of this task.")
            elif name in seen:
                faults.setdefault(path, f"{name!r} is named twice.")
            seen.add(name)
    missing = [name for name in responses if name not in seen]
    if missing:
        faults.setdefault("unranked", f"Neither placed nor left unranked: {', '.join(missing)}.")
    if sum(map(len, answer.ranking)) < 2 and not answer.all_bad:
        faults.setdefault("ranking", "Place at least two responses, or say that all are bad.")
    return faults | _gap_faults(answer)


def _gap_faults(answer: Answer) -> dict[str, str]:
    if answer.strengths is None:
        return {}
    gaps = max(len(answer.ranking) - 1, 0)
    if len(answer.strengths) != gaps:
        return {"strengths": f"{len(answer.strengths)} strengths for {gaps} gaps between tiers."}
    return {
        f"strengths.{number}": "A strength is 1, 2, 3 or null."
        for number, value in enumerate(answer.strengths)
        if value is not None and (type(value) is not int or value not in STRENGTHS)
    }


Faults = list[tuple[str, str]]


def _order_faults(answer: Answer, rules: AnswerRules) -> Faults:
    faults: Faults = []
    if not rules.allow_ties:
        faults += [
            (f"ranking.{number}", "Ties are off in this project.")
            for number, tier in enumerate(answer.ranking)
            if len(tier) > 1
        ]
    if answer.all_bad and not rules.allow_all_bad:
        faults.append(("all_bad", "Saying that all are bad is off in this project."))
    order_given_up = answer.all_bad and not answer.ranking
    if answer.unranked and not rules.allow_partial and not order_given_up:
        faults.append(("unranked", "Every response must be placed in this project."))
    return faults


def _strength_faults(answer: Answer, need: Need) -> Faults:
    gaps = max(len(answer.ranking) - 1, 0)
    given = list(answer.strengths) if answer.strengths is not None else [None] * gaps
    if need == "off":
        wrong, message = [number for number, value in enumerate(given) if value is not None], "Strengths are off."
    elif need == "required":
        wrong, message = [number for number, value in enumerate(given) if value is None], "Say how much better."
    else:
        return []
    return [(f"strengths.{number}", message) for number in wrong]


def _rating_faults(answer: Answer, responses: Sequence[str], criteria: Sequence[Criterion]) -> Faults:
    scales = {criterion.key: criterion for criterion in criteria}
    faults: Faults = []
    for response, ratings in answer.ratings.items():
        if response not in responses:
            faults.append((f"ratings.{response}", "Not a response of this task."))
        for name, value in ratings.items():
            scale = scales.get(name)
            if scale is None:
                faults.append((f"ratings.{response}.{name}", "Not a criterion of this project."))
            elif type(value) is not int or not scale.low <= value <= scale.high:
                faults.append((f"ratings.{response}.{name}", f"Rate {scale.low} to {scale.high}, in whole numbers."))
    faults += [
        (f"ratings.{response}.{criterion.key}", "This rating is required.")
        for criterion in criteria
        if criterion.required
        for response in responses
        if criterion.key not in answer.ratings.get(response, {})
    ]
    return faults


def _flag_faults(answer: Answer, responses: Sequence[str], allowed: Sequence[str]) -> Faults:
    faults: Faults = []
    for response, flags in answer.flags.items():
        unknown = [flag for flag in flags if flag not in allowed]
        if response not in responses:
            faults.append((f"flags.{response}", "Not a response of this task."))
        elif unknown:
            faults.append((f"flags.{response}", f"Not a flag of this project: {', '.join(unknown)}."))
        elif len(set(flags)) < len(flags):
            faults.append((f"flags.{response}", "A flag is named twice."))
    return faults


def _rationale_faults(answer: Answer, need: Need) -> Faults:
    text = (answer.rationale or "").strip()
    if need == "required" and not text:
        return [("rationale", "Say why.")]
    if need == "off" and text:
        return [("rationale", "A rationale is off in this project.")]
    fault = text_fault(text, limit=MAX_RATIONALE_CHARACTERS)
    return [("rationale", fault)] if fault else []


def _rewrite_faults(answer: Answer, responses: Sequence[str], *, allowed: bool) -> Faults:
    rewrite = answer.rewrite
    if rewrite is None:
        return []
    if not allowed:
        return [("rewrite", "A rewrite is off in this project.")]
    if rewrite.of not in responses:
        return [("rewrite.of", "Not a response of this task.")]
    fault = text_fault(rewrite.text, limit=MAX_REWRITE_CHARACTERS) if rewrite.text.strip() else "An empty rewrite."
    return [("rewrite.text", fault)] if fault else []


def text_fault(text: str, *, limit: int | None = None) -> str | None:
    """Return why a text cannot be stored, or None: a NUL, half of a surrogate pair, or more than `limit` characters."""
    if "\0" in text:
        return "Holds a NUL character."
    # isascii costs nothing; only other texts are encoded to look for half pairs.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "Holds a lone surrogate (half of a character)."
    if limit is not None and len(text) > limit:
        return f"Longer than {limit:,} characters."
    return None
