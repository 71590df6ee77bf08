"""The columns that a record is made of, as plain tuples: models and their relations cost more than the reading itself.

Each row of a page is looked up through indexes by a lateral subquery of its own (`OFFSET 0` keeps the planner from
turning it into a join): joins of these tables, planned on the thin statistics after a large import, have been seen to
read a whole table for every page. The statements' texts never change, so a connection plans them once.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from annotate.models import Change
from annotate.prepared import prepared_cursor

RANKED = (Change.Kind.RANKING, Change.Kind.REVISION)


class RankedRow(NamedTuple):
    """A change with the ranking that it is about, and whether a revision has superseded that one by the window's end.

    `responses` and `tiers` say together where it puts what, in no order.
    """

    number: int
    kind: str
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
    submitted_at: str
    withdrawn: bool
    task_kind: str
    prompt_id: int
    superseded: bool
    responses: list[int]
    tiers: list[int | None]


class PromptRow(NamedTuple):
    id: int
    external_id: str | None
    messages: list[dict[str, Any]]
    withdrawn: bool
    group_key: str
    group_sha256: str
    split: str


class ResponseRow(NamedTuple):
    id: int
    key: str
    text: str
    thinking: str | None
    model: str
    settings: dict[str, Any]
    extra: dict[str, Any]
    withdrawn: bool


_RANKED = """
SELECT c.number, c.kind, r.id, r.task_id, r.annotator_id, r.version_id, r.supersedes_id, r.revision, r.counted,
    r.source, r.strengths, r.all_bad, r.ratings, r.flags, r.rationale, r.rewrite_of_id, r.rewrite_text,
    r.presented_order, r.seconds, r.extra,
    to_char(r.submitted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), r.withdrawn_at IS NOT NULL,
    t.kind, t.prompt_id,
    EXISTS (
        SELECT FROM annotate_ranking later JOIN annotate_change x ON x.ranking_id = later.id
        WHERE later.supersedes_id = r.id AND x.kind = 'revision' AND x.number <= %(up_to)s),
    e.responses, e.tiers
FROM ({changes}) c
CROSS JOIN LATERAL (SELECT * FROM annotate_ranking WHERE id = c.ranking_id OFFSET 0) r
CROSS JOIN LATERAL (SELECT kind, prompt_id FROM annotate_rankingtask WHERE id = r.task_id OFFSET 0) t
CROSS JOIN LATERAL (
    SELECT array_agg(response_id) AS responses, array_agg(tier) AS tiers
    FROM annotate_entry WHERE ranking_id = r.id) e
ORDER BY c.number
"""
_OF_FEED = _RANKED.format(
    changes="""
    SELECT number, kind, ranking_id FROM annotate_change
    WHERE project_id = %(project)s AND number > %(after)s AND number <= %(up_to)s AND ranking_id IS NOT NULL
        AND kind = ANY(%(kinds)s::text[])
    ORDER BY number LIMIT %(limit)s"""
)
_OF_TASKS = _RANKED.format(
    changes="""
    SELECT x.number, x.kind, x.ranking_id FROM unnest(%(tasks)s::bigint[]) task
    CROSS JOIN LATERAL (
        SELECT id FROM annotate_ranking WHERE task_id = task AND withdrawn_at IS NULL OFFSET 0) ranking
    CROSS JOIN LATERAL (
        SELECT number, kind, ranking_id FROM annotate_change
        WHERE ranking_id = ranking.id AND kind IN ('ranking', 'revision') AND number <= %(up_to)s OFFSET 0) x"""
)
_PROMPTS = """
SELECT p.id, p.external_id, p.messages, p.withdrawn_at IS NOT NULL, g.key, g.key_sha256, g.split
FROM unnest(%(ids)s::bigint[]) wanted
CROSS JOIN LATERAL (SELECT * FROM annotate_prompt WHERE id = wanted OFFSET 0) p
CROSS JOIN LATERAL (SELECT key, key_sha256, split FROM annotate_splitgroup WHERE id = p.split_group_id OFFSET 0) g
"""
_RESPONSES = """
SELECT wanted, x.id, x.key, x.text, x.thinking, x.model, x.settings, x.extra, x.withdrawn_at IS NOT NULL
FROM unnest(%(ids)s::bigint[]) wanted
CROSS JOIN LATERAL (SELECT response_id FROM annotate_taskresponse WHERE task_id = wanted OFFSET 0) shown
CROSS JOIN LATERAL (SELECT * FROM annotate_response WHERE id = shown.response_id OFFSET 0) x
ORDER BY wanted, x.id
"""


def rows_of_feed(
    project_id: int, *, after: int, up_to: int, kinds: Collection[str] = RANKED, limit: int
) -> list[RankedRow]:
    """The next changes of the feed that are about a ranking, at most `limit`, in their order."""
    values = {"project": project_id, "after": after, "up_to": up_to, "kinds": list(kinds), "limit": limit}
    return [_ranked(row) for row in _rows(_OF_FEED, values)]


def rows_of_tasks(tasks: Collection[int], *, up_to: int) -> list[RankedRow]:
    """The changes that wrote the rankings of these tasks, in their order."""
    return [_ranked(row) for row in _rows(_OF_TASKS, {"tasks": list(tasks), "up_to": up_to})]


def prompts_of(ids: Collection[int]) -> dict[int, PromptRow]:
    """The prompts, each under its id."""
    rows = _rows(_PROMPTS, {"ids": list(ids)})
    return {row[0]: PromptRow(row[0], row[1], json.loads(row[2]), *row[3:]) for row in rows}


def responses_of(tasks: Collection[int]) -> dict[int, list[ResponseRow]]:
    """Task id → its responses in the order in which they came."""
    found: dict[int, list[ResponseRow]] = defaultdict(list)
    for task, pk, key, text, thinking, model, settings, extra, withdrawn in _rows(_RESPONSES, {"ids": list(tasks)}):
        response = ResponseRow(pk, key, text, thinking, model, _object(settings), _object(extra), withdrawn)
        found[task].append(response)
    return found


def _rows(statement: str, values: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    with prepared_cursor() as cursor:
        cursor.execute(statement, values)
        yield from cursor.fetchall()


def _ranked(row: tuple[Any, ...]) -> RankedRow:
    values = list(row)
    for place in _OBJECTS:
        values[place] = _object(values[place])
    values[_SUBMITTED] = _instant(values[_SUBMITTED])
    return RankedRow._make(values)


_OBJECTS = tuple(RankedRow._fields.index(name) for name in ("ratings", "flags", "extra"))
_SUBMITTED = RankedRow._fields.index("submitted_at")


def _object(text: str) -> dict[str, Any]:
    """Most of them are empty, and the same one serves them all: nobody changes what was read."""
    return json.loads(text) if text != "{}" else _EMPTY


_EMPTY: dict[str, Any] = {}


def _instant(text: str) -> str:
    """As `instant_text` writes an instant: microseconds only where there are some."""
    return text.removesuffix(".000000") + "Z"
