"""Numbers that come in commit order."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from annotate.models import Change, Counter, FeedBlock, Project
from annotate.prepared import prepared_cursor

_DRAW = """
    INSERT INTO annotate_counter (project_id, name, value) VALUES (%(project)s, %(name)s, %(count)s)
    ON CONFLICT (project_id, name) DO UPDATE SET value = annotate_counter.value + excluded.value
    RETURNING value
"""

# In one statement: whoever waits for the counter waits for one round trip less of whoever has it.
_RECORD = f"""
    WITH drawn AS ({_DRAW}), recorded AS (
        INSERT INTO annotate_change (project_id, number, kind, ranking_id, skip_id, prompt_id)
        SELECT %(project)s, drawn.value - %(count)s + change.place,
            change.kind, change.ranking, change.skip, change.prompt
        FROM drawn, unnest(%(kind)s::text[], %(ranking_id)s::bigint[], %(skip_id)s::bigint[], %(prompt_id)s::bigint[])
            WITH ORDINALITY AS change(kind, ranking, skip, prompt, place)
        ORDER BY change.place)
    SELECT value, EXISTS (
        SELECT 1 FROM annotate_webhook WHERE project_id = %(project)s AND switched_off_at IS NULL) FROM drawn
"""

# What was counted of the feed with a ranking that no longer stands: see services.feed_blocks.
_FORGET = """
    DELETE FROM annotate_feedblock USING annotate_ranking r, annotate_change written
    WHERE annotate_feedblock.project_id = %(project)s AND r.id = ANY(%(rankings)s::bigint[])
        AND written.ranking_id = CASE WHEN %(revised)s THEN r.supersedes_id ELSE r.id END
        AND written.kind IN ('ranking', 'revision') AND annotate_feedblock.number = (written.number - 1) / %(block)s
"""


class Recorded(NamedTuple):
    """The number of the last change, and whether somebody wants to be told of what happens in the project."""

    last: int
    has_webhooks: bool


def draw(*, project: Project, name: Counter.Name, count: int = 1) -> int:
    """Takes `count` consecutive numbers and returns the first.

    Locks the project's counter row until the transaction ends, so whoever draws later commits later: a reader that has
    seen number n has seen every number before it. Draw late. Whoever draws both kinds draws `offer` first.
    """
    with prepared_cursor() as cursor:
        cursor.execute(_DRAW, {"project": project.pk, "name": name, "count": count})
        last: int = cursor.fetchone()[0]
    return last - count + 1


def record_changes(*, project: Project, changes: Iterable[Mapping[str, Any]]) -> Recorded:
    """Appends to the project's feed. Must be the transaction's last statement, but for telling webhooks.

    Locks the project's counter row, as `draw` does.

    Args:
        changes: `kind` and one of `ranking_id`, `skip_id`, `prompt_id`, in the order in which they happened.
    """
    told = list(changes)
    if not told:
        return Recorded(0, False)
    values: dict[str, Any] = {"project": project.pk, "name": Counter.Name.CHANGE, "count": len(told)}
    values |= {name: [one.get(name) for one in told] for name in ("kind", "ranking_id", "skip_id", "prompt_id")}
    with prepared_cursor() as cursor:
        cursor.execute(_RECORD, values)
        recorded = Recorded(*cursor.fetchone())
    _forget_counts(project, told)
    return recorded


def _forget_counts(project: Project, changes: list[Mapping[str, Any]]) -> None:
    """Deletes the counted blocks of what revisions superseded and withdrawals took away. The counter is ours by now."""
    for kind in (Change.Kind.REVISION, Change.Kind.WITHDRAWAL):
        rankings = [one["ranking_id"] for one in changes if one["kind"] == kind and one.get("ranking_id")]
        if rankings:
            values: dict[str, Any] = {"project": project.pk, "rankings": rankings, "block": FeedBlock.CHANGES}
            values["revised"] = kind == Change.Kind.REVISION
            with prepared_cursor() as cursor:
                cursor.execute(_FORGET, values)
