"""The columns that a record is made of, as plain tuples: models and their relations cost more than the reading itself.

Everything is fetched by ids, a table a query: joins of these tables, planned on the thin statistics after a large
import, have been seen to read a whole table for every page.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from django.db.models import Model, QuerySet

from annotate.models import Change, Entry, Prompt, Ranking, RankingTask, Response, SplitGroup, TaskResponse


class ChangeRow(NamedTuple):
    number: int
    kind: str
    ranking_id: int


class RankingRow(NamedTuple):
    id: int
    task_id: int
    annotator_id: int
    version_id: int
    supersedes_id: int | None
    revision: int
    counted: bool
    source: str
    strengths: list[int | None]
    all_bad: bool
    ratings: dict[str, Any]
    flags: dict[str, Any]
    rationale: str | None
    rewrite_of_id: int | None
    rewrite_text: str | None
    presented_order: list[int]
    seconds: float | None
    extra: dict[str, Any]
    submitted_at: datetime
    withdrawn_at: datetime | None


class TaskRow(NamedTuple):
    id: int
    kind: str
    prompt_id: int


class PromptRow(NamedTuple):
    id: int
    external_id: str | None
    messages: list[dict[str, Any]]
    split_group_id: int
    withdrawn_at: datetime | None


class GroupRow(NamedTuple):
    id: int
    key: str
    key_sha256: str
    split: str


class ResponseRow(NamedTuple):
    id: int
    key: str
    text: str
    thinking: str | None
    model: str
    settings: dict[str, Any]
    extra: dict[str, Any]
    withdrawn_at: datetime | None


Row = TypeVar("Row", RankingRow, TaskRow, PromptRow, GroupRow, ResponseRow)
_MODELS: dict[type[Any], type[Model]] = {
    RankingRow: Ranking, TaskRow: RankingTask, PromptRow: Prompt, GroupRow: SplitGroup, ResponseRow: Response,
}  # fmt: skip


def by_id(kind: type[Row], ids: Iterable[int]) -> dict[int, Row]:
    """The rows of these ids, each under its own: one query."""
    model: Any = _MODELS[kind]
    rows = model.objects.filter(pk__in=list(ids)).values_list(*kind._fields)
    return {row[0]: kind(*row) for row in rows}


def change_rows(changes: QuerySet[Change]) -> list[ChangeRow]:
    """The changes, each of a ranking, in their order."""
    return [ChangeRow(*row) for row in changes.values_list(*ChangeRow._fields)]


def superseded_by(rankings: Iterable[int], *, up_to_change: int) -> set[int]:
    """Which of these rankings a later revision had superseded at a change."""
    revisions = Change.objects.filter(
        ranking__supersedes__in=list(rankings), kind=Change.Kind.REVISION, number__lte=up_to_change
    )
    return {pk for pk in revisions.values_list("ranking__supersedes_id", flat=True) if pk is not None}


def tiers_of(rankings: Iterable[int]) -> dict[int, dict[int, int | None]]:
    """Ranking id → response id → tier."""
    found: dict[int, dict[int, int | None]] = defaultdict(dict)
    rows = Entry.objects.filter(ranking__in=list(rankings))
    for ranking, response, tier in rows.values_list("ranking_id", "response_id", "tier"):
        found[ranking][response] = tier
    return found


def responses_of(tasks: Iterable[int]) -> dict[int, list[ResponseRow]]:
    """Task id → its responses in the order in which they came."""
    rows = TaskResponse.objects.filter(task__in=list(tasks)).order_by("response_id")
    pairs = list(rows.values_list("task_id", "response_id"))
    responses = by_id(ResponseRow, {response for _, response in pairs})
    found: dict[int, list[ResponseRow]] = defaultdict(list)
    for task, response in pairs:
        found[task].append(responses[response])
    return found
