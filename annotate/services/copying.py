"""Many rows at once through COPY, with ids drawn beforehand so that rows can name each other before any is written."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from django.db import connection
from django.db.models import Field, JSONField, Model


class Ids:
    """Primary keys from the sequences of models, drawn in blocks. Those never used are gaps, which mean nothing."""

    def __init__(self, block: int = 500) -> None:
        self._block = block
        self._drawn: dict[type[Model], list[int]] = {}

    def next(self, model: type[Model]) -> int:
        """A primary key that nobody else has or will get."""
        drawn = self._drawn.setdefault(model, [])
        if not drawn:
            drawn += reversed(draw_ids(model, self._block))
        return drawn.pop()


def draw_ids(model: type[Model], count: int) -> list[int]:
    """`count` primary keys in ascending order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
            [model._meta.db_table, count],
        )
        return [row[0] for row in cursor.fetchall()]


def copy_rows(model: type[Model], rows: Iterable[Model]) -> int:
    """Writes instances with COPY and returns how many; every value, primary key included, must be set.

    `rows` must not query the database while it is read: the connection is busy copying.

    Triggers and constraints apply as to any INSERT; signals and save() do not run.
    """
    readers = [_reader(field) for field in model._meta.concrete_fields]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in model._meta.concrete_fields)
    written = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {quote(model._meta.db_table)} ({columns}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row([read(row) for read in readers])
            written += 1
    return written


def _reader(field: "Field[Any, Any]") -> Callable[[Model], Any]:
    """What the database gets of a field. Most Python values go as they are, which is several times quicker."""
    if isinstance(field, JSONField):
        return lambda row: field.get_db_prep_save(getattr(row, field.attname), connection)
    if getattr(field, "auto_now_add", False):
        return lambda row: field.pre_save(row, add=True)
    return attrgetter(field.attname)


def analyse(*models: type[Model]) -> None:
    """Refreshes the planner's statistics after a large load, which the server would only do within a minute or so."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(quote(model._meta.db_table) for model in models)}")
