"""Many rows at once through COPY, with ids drawn beforehand so that rows can name each other before any is written."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from django.db import connection
from django.db.models import Field, JSONField, Model

#: As timezone.now, which looks a setting up for every row.
_NOW = partial(datetime.now, UTC)


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
        # The sequence is looked up once, not for every row.
        cursor.execute(
            "SELECT nextval(one.sequence) FROM generate_series(1, %s),"
            " (SELECT pg_get_serial_sequence(%s, 'id')::regclass AS sequence OFFSET 0) AS one",
            [count, model._meta.db_table],
        )
        return [row[0] for row in cursor.fetchall()]


class RowMaker:
    """Makes rows for `copy_rows` from what a model's constructor would take, defaults filled in.

    An instance for each row would be most of the time of a large import.
    """

    def __init__(self, model: type[Model]) -> None:
        fields = model._meta.concrete_fields
        self._template = [None if callable(one := _default_of(field)) else one for field in fields]
        self._made = [(place, one) for place, field in enumerate(fields) if callable(one := _default_of(field))]
        self._places: dict[str, tuple[int, Callable[[Any], Any] | None]] = {}
        for place, field in enumerate(fields):
            self._places[field.attname] = (place, _json_text if isinstance(field, JSONField) else None)
            if field.name != field.attname:
                self._places[field.name] = (place, attrgetter("pk"))

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        """The row, in the order of the model's columns. Names are those of fields, `_id` for keys of others."""
        row = self._template.copy()
        for place, make in self._made:
            row[place] = make()
        for name, value in values.items():
            place, convert = self._places[name]
            row[place] = value if convert is None or value is None else convert(value)
        return row


def _default_of(field: "Field[Any, Any]") -> Any:
    """A value, or what makes one for each row. What only the database knows (db_default) must be given."""
    if getattr(field, "auto_now_add", False):
        return _NOW
    if isinstance(field, JSONField):
        return _json_text(field.get_default()) if field.has_default() else None
    if field.has_default():
        return field.default
    return "" if field.empty_strings_allowed and not field.null and not field.primary_key else None


def _json_text(value: Any) -> str:
    return "{}" if value == {} else json.dumps(value)


def copy_rows(model: type[Model], rows: Iterable[Sequence[Any]]) -> int:
    """Writes rows of a RowMaker with COPY and returns how many; every value, primary key included, must be set.

    `rows` must not query the database while it is read: the connection is busy copying.

    Triggers and constraints apply as to any INSERT; signals and save() do not run.
    """
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in model._meta.concrete_fields)
    written = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {quote(model._meta.db_table)} ({columns}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(row)
            written += 1
    return written


def analyse(*models: type[Model]) -> None:
    """Refreshes the planner's statistics after a large load, which the server would only do within a minute or so."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(quote(model._meta.db_table) for model in models)}")


def look_up_by_index() -> None:
    """Until the transaction ends, statements are planned without reading tables whole where an index will do.

    A session keeps the plans of the checks that rows trigger. Made while a table is small they read it whole, and a
    load that fills it then reads all of it again for each row.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
