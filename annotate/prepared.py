"""Statements that the server plans once per connection instead of at each call.

For the few that an annotator waits for after every answer: planning takes longer than running them. Django sends every
statement with its values written into it; these go with the values beside them, so the server can keep the plan.
"""

from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

Row = TypeVar("Row", bound=Model)

#: A connection plans a statement this many times before it keeps the plan.
PREPARED_FROM = 3


class PreparingCursor(psycopg.Cursor[Any]):
    """Has its connection prepare what it executes, and nothing else.

    If the connection prepared on its own, it would keep the text of every other statement to count it, with all the
    values that Django writes into it.
    """

    def execute(self, *args: Any, **kwargs: Any) -> Self:
        self.connection.prepare_threshold = PREPARED_FROM
        try:
            return super().execute(*args, **kwargs)
        finally:
            self.connection.prepare_threshold = None


def prepared_cursor() -> CursorWrapper:
    """As connection.cursor(), for statements whose text is always the same and whose parameters have a type."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Any = PreparingCursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)


class Columns(Generic[Row]):
    """All columns of a model, for a statement of our own that reads rows of it under an alias.

    Attributes:
        sql: what to select, in the order of the model's fields.
    """

    def __init__(self, model: type[Row], alias: str) -> None:
        fields = model._meta.concrete_fields
        self._model = model
        self._names = [str(field.attname) for field in fields]
        self._converters = [getattr(field, "from_db_value", None) for field in fields]
        self.sql = ", ".join(f'{alias}."{field.column}"' for field in fields)

    def __len__(self) -> int:
        return len(self._names)

    def row(self, values: Sequence[Any]) -> Row:
        """The instance whose columns these are."""
        converted = [
            value if convert is None else convert(value, None, connection)
            for value, convert in zip(values, self._converters, strict=True)
        ]
        return self._model.from_db(connection.alias, self._names, converted)
