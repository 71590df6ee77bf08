"""Pairs of a preferred and another response: of one ranking, or of what all annotators of a task said together.

Votes on a pair are weighed as the rankings are. Whoever left one of the two unranked has no vote on it. The majority's
outcome is the one of the three (either is better, a tie) with the most votes; where the two leading outcomes have
equally many, nobody prevails, and the pair counts as tied. *Agreement* is the share of votes for the leading outcome.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from annotate.interchange.options import ExportOptions
from annotate.preferences import compared_places, comparisons_of

LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}
#: Shares of votes are sums of floats: two thirds must pass for 0.6666666.
CLOSE = 1e-9


class Pair(NamedTuple):
    """Two native responses. `preference`: 1, for a tie 0.5, for a majority the share of votes for `chosen`, ties half.
    `margin`: the strength stated, 0 where none was. `tied`: neither was preferred, whichever is called chosen."""

    chosen: Mapping[str, Any]
    rejected: Mapping[str, Any]
    preference: float = 1.0
    margin: float = 0.0
    tied: bool = False

    @property
    def both(self) -> dict[str, Mapping[str, Any]]:
        return {"chosen": self.chosen, "rejected": self.rejected}


def columns_of_pairs(options: ExportOptions) -> dict[str, Any]:
    """The columns that options add to a line of a pair."""
    found = {"preference": "number"} if options.ties == "soft" else {}
    found |= {"margin": "number"} if options.margin else {}
    return found | ({"chosen_model": "text", "rejected_model": "text"} if options.models else {})


def added_by_options(pair: Pair, options: ExportOptions) -> dict[str, Any]:
    """What stands in those columns."""
    found: dict[str, Any] = {}
    if options.ties == "soft":
        found["preference"] = pair.preference
    if options.margin:
        found["margin"] = pair.margin
    if options.models:
        found |= {f"{key}_model": model_name(one) for key, one in pair.both.items()}
    return found


def pairs_of(record: Mapping[str, Any], options: ExportOptions) -> list[Pair]:
    """The pairs of one ranking, best tier first; strict ones, and ties as `options.ties` says."""
    responses, tiers, strengths = _by_id(record), record["ranking"], record.get("strengths")
    placed = [responses[name] for tier in tiers for name in tier]
    compared = compared_places(
        tuple(map(len, tiers)), tuple(strengths) if strengths is not None else None, ties=options.ties
    )
    return [
        Pair(placed[first], placed[second], 1.0 if outcome == "win" else 0.5, float(strength or 0), apart == 0)
        for first, second, outcome, strength, apart in compared
    ]


def _by_id(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {response["id"]: response for response in record["responses"]}


# --- all annotators of a task -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Votes:
    """What was said about two responses; `first`, `second`, `tie` are sums of weights."""

    first: float = 0.0
    second: float = 0.0
    tie: float = 0.0
    strengths: dict[str, list[int]] = field(default_factory=lambda: {"first": [], "second": []})

    @property
    def total(self) -> float:
        return self.first + self.second + self.tie

    @property
    def outcome(self) -> str:
        """`first`, `second` or `tie`; a tie too where nobody prevails."""
        ways = {"first": self.first, "second": self.second, "tie": self.tie}
        leading = [way for way, votes in ways.items() if votes > max(ways.values()) - CLOSE]
        return leading[0] if len(leading) == 1 else "tie"

    @property
    def agreement(self) -> float:
        return max(self.first, self.second, self.tie) / self.total

    def share_of(self, way: str) -> float:
        return float(getattr(self, way)) / self.total

    def preference_for(self, way: str) -> float:
        return (float(getattr(self, way)) + self.tie / 2) / self.total


VoteTable = dict[tuple[str, str], Votes]


def votes_of(records: Sequence[Mapping[str, Any]]) -> VoteTable:
    """The votes on each pair of responses of one task, pairs in the order of the responses; none without votes."""
    table = {pair: Votes() for pair in combinations([one["id"] for one in records[0]["responses"]], 2)}
    for record in records:
        weight = float(record.get("weight", 1.0))
        for one in comparisons_of(record["ranking"], strengths=record.get("strengths"), ties="soft"):
            forward = (one.first, one.second) in table
            votes = table[(one.first, one.second) if forward else (one.second, one.first)]
            if one.outcome == "tie":
                votes.tie += weight
                continue
            way = "first" if forward else "second"
            setattr(votes, way, getattr(votes, way) + weight)
            if one.strength is not None and weight > 0:
                votes.strengths[way].append(one.strength)
    return {pair: votes for pair, votes in table.items() if votes.total > 0}


def pairs_of_task(records: Sequence[Mapping[str, Any]], options: ExportOptions) -> Iterator[Pair]:
    """Yield the pairs of a task from the rankings of all its annotators."""
    table = votes_of(records)
    if options.votes == "majority":
        responses = _by_id(records[0])
        for pair, votes in table.items():
            if votes.agreement >= options.agreement - CLOSE:
                yield from _majority(responses[pair[0]], responses[pair[1]], votes, options)
        return
    for record in records:
        for one in pairs_of(record, options):
            if _shared_by(one, table) >= options.agreement - CLOSE:
                yield one


def _shared_by(pair: Pair, table: VoteTable) -> float:
    """The share of votes that say of a pair what this annotator says of it; 0 where nobody's vote has weight."""
    first, second = pair.chosen["id"], pair.rejected["id"]
    forward = (first, second) in table
    votes = table.get((first, second) if forward else (second, first))
    if votes is None:
        return 0.0
    if pair.tied:
        return votes.share_of("tie")
    return votes.share_of("first" if forward else "second")


def _majority(
    first: Mapping[str, Any], second: Mapping[str, Any], votes: Votes, options: ExportOptions
) -> Iterator[Pair]:
    way = votes.outcome
    if way != "tie":
        stated = votes.strengths[way]
        margin = sum(stated) / len(stated) if stated else 0.0
        order = (first, second) if way == "first" else (second, first)
        yield Pair(*order, votes.preference_for(way), margin)
    elif options.ties == "both":
        yield from (Pair(first, second), Pair(second, first))
    elif options.ties == "soft":
        leans = "first" if votes.first >= votes.second else "second"
        yield Pair(*((first, second) if leans == "first" else (second, first)), votes.preference_for(leans))


# --- prompts as texts -------------------------------------------------------------------------------------------------


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a conversation as one text: one user message as it is, a longer one as turns with labels."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return str(messages[0]["content"])
    turns = [f"{LABELS[message['role']]}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, f"{LABELS['assistant']}: "])


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages with role and content alone, which is all that chat templates know."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def model_name(response: Mapping[str, Any]) -> str:
    """The model that wrote a response, empty where nobody knows: readers of JSON lines (`datasets`) take a column's
    type from the first megabytes, and a null there for the type of all that follows."""
    return response.get("model") or ""


def answer(response: Mapping[str, Any]) -> dict[str, str]:
    """A response as the assistant's message."""
    return {"role": "assistant", "content": response["text"]}
