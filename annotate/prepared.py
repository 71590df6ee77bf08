"""Statements that the server plans once per connection instead of at each call.

For the few that an annotator waits for after every answer: planning takes longer than running them. Django sends every
statement with its values written into it; these go with the values beside them, so the server can keep the plan.
"""

from typing import Any, Self

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper

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
