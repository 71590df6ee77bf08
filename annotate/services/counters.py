"""Numbers that come in commit order."""

from collections.abc import Iterable
from typing import Any

from django.db import connection

from annotate.models import Change, Counter, Project


def draw(*, project: Project, name: Counter.Name, count: int = 1) -> int:
    """Takes `count` consecutive numbers and returns the first.

    Locks the project's counter row until the transaction ends, so whoever draws later commits later: a reader that has
    seen number n has seen every number before it. Draw late. Whoever draws both kinds draws `offer` first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO annotate_counter (project_id, name, value) VALUES (%s, %s, %s)
               ON CONFLICT (project_id, name) DO UPDATE SET value = annotate_counter.value + excluded.value
               RETURNING value""",
            [project.pk, name, count],
        )
        row = cursor.fetchone()
    last: int = row[0]
    return last - count + 1


def record_changes(*, project: Project, changes: Iterable[dict[str, Any]]) -> int:
    """Appends to the project's feed and returns the last number. Must be the transaction's last statement.

    Args:
        changes: fields of Change, without project and number, in the order in which they happened.
    """
    fields = list(changes)
    if not fields:
        return 0
    first = draw(project=project, name=Counter.Name.CHANGE, count=len(fields))
    Change.objects.bulk_create(
        [Change(project=project, number=first + index, **values) for index, values in enumerate(fields)],
        batch_size=1000,
    )
    return first + len(fields) - 1
