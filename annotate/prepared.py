"""Statements that the server plans once per connection instead of at each call.

For the few that an annotator waits for after every answer: planning takes longer than running them. Django sends every
statement with its values written into it; these go with the values beside them, so psycopg can prepare them. It does so
from the `prepare_threshold` of the database's OPTIONS on; without one they run as well, unprepared.
"""

from django.db import connection
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.utils import CursorWrapper


def prepared_cursor() -> CursorWrapper:
    """As connection.cursor(). Use it only for statements whose text is always the same, and give parameters casts."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = ServerBindingCursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)
