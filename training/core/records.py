"""Reading a snapshot: rankings from a JSONL file in the native format ``plackett/1``, and nothing else.

The file is read twice, line by line: once to see what it holds, once for the rankings that count.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Others know these by this module's name.
from training.core.line_parts import SPLITS as SPLITS
from training.core.line_parts import (
    LineError,
    group_of,
    prompt_of,
    responses_of,
    split_of,
    text,
    tiers_of,
    weight_of,
)
from training.core.line_parts import Message as Message
from training.core.line_parts import Response as Response
from training.core.lines import FORMAT as FORMAT
from training.core.lines import UsedLines, look_through, reason_to_drop

STRENGTHS = (1, 2, 3)


@dataclass(frozen=True)
class RankingRecord:
    """One counted ranking; ``line`` is where it stands in the file.

    ``tiers`` name positions in ``responses``, best first, ``unranked`` the rest; ``strengths`` has one entry per gap
    between tiers: 1 slightly, 2 clearly, 3 much better, None where nothing was said.
    """

    line: int
    split: str
    split_group: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    tiers: tuple[tuple[int, ...], ...]
    unranked: tuple[int, ...] = ()
    strengths: tuple[int | None, ...] = ()
    weight: float = 1.0
    annotator: str | None = None
    machine: bool = False
    task: str | None = None


class Snapshot(UsedLines):
    """What a file holds: how many lines, why some are left out, and where the rankings to use stand."""

    def rankings(self) -> Iterator[RankingRecord]:
        """The rankings to use, in the file's order, read anew at each call."""
        for number, value in self.values():
            yield ranking_of(value, number)


def read_rankings(path: Path, *, unanswered: bool = False) -> Snapshot:
    """Look through a snapshot file for the rankings to use; with ``unanswered`` also for tasks that nobody ranked.

    Dropped and counted by reason: other line types (``demonstration``, ``prompt``), markers, ``superseded`` and
    ``withdrawn`` rankings, ``unanswered`` tasks, ``uncounted`` ones, ``gold``, ``repeat`` and ``zero_weight``. An
    earlier revision is superseded also by one that is itself dropped.

    Raises:
        UsageError: the file cannot be read, or a line breaks the format; the message names the line.
    """

    def look(value: dict[str, Any], number: int) -> str | None:
        if unanswered and value.get("ranking", ()) is None and value.get("type") in (None, "ranking"):
            value["ranking"] = []
        reason = reason_to_drop(value, types=("ranking",))
        if reason is None:
            ranking_of(value, number)
        return reason

    snapshot = Snapshot(path=path)
    look_through(snapshot, look)
    return snapshot


def ranking_of(value: Mapping[str, Any], line: int) -> RankingRecord:
    """The ranking that a line holds, checked.

    Raises:
        LineError: it breaks the format.
    """
    split = split_of(value)
    prompt = prompt_of(value.get("prompt"))
    ids, responses = responses_of(value.get("responses"))
    annotator, task = value.get("annotator"), value.get("task")
    ranking = [] if value.get("ranking") is None else value["ranking"]
    tiers = tiers_of(ranking, ids)
    placed = {place for tier in tiers for place in tier}
    return RankingRecord(
        line=line,
        split=split,
        split_group=group_of(value, prompt),
        prompt=prompt,
        responses=responses,
        tiers=tiers,
        unranked=tuple(place for place in range(len(responses)) if place not in placed),
        strengths=_strengths(value.get("strengths"), ranking),
        weight=weight_of(value.get("weight")),
        annotator=None if annotator is None else text(annotator, "annotator"),
        machine=value.get("annotator_kind") not in (None, "human"),
        task=None if task is None else text(task, "task"),
    )


def _strengths(value: Any, ranking: list[list[str]]) -> tuple[int | None, ...]:
    """One entry per gap between tiers that hold something."""
    gaps = max(0, len(ranking) - 1)
    if value is None:
        value = [None] * gaps
    if not isinstance(value, list) or len(value) != gaps:
        raise LineError(f"strengths must be a list of {gaps}, one per gap between tiers")
    for strength in value:
        if strength is not None and (type(strength) is not int or strength not in STRENGTHS):
            raise LineError(f"a strength must be 1 (slightly), 2 (clearly), 3 (much better) or null, not {strength!r}")
    if not all(ranking):
        # Which gap an entry beside an empty tier meant cannot be said.
        return (None,) * max(0, sum(map(bool, ranking)) - 1)
    return tuple(value)
