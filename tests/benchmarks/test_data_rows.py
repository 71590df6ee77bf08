"""The rows that the export benchmark writes in bulk are those of an import, to the byte of its exports."""

import json
from typing import Any

import pytest
from django.db import connection, transaction

from annotate.models import Project
from annotate.services.exports import open_export
from annotate.services.imports import import_records
from benchmarks.data_rows import COLUMNS, records, write_rankings
from tests.annotate.factories import make_project

RANKINGS = 40
TABLES = [f"annotate_{table}" for table in (*COLUMNS, "user", "counter", "importbatch")]
#: Of the moment, or drawn anew each time.
OTHER = ["created_at", "finished_at", "date_joined", "password"]


def rows() -> dict[str, list[Any]]:
    """Every row of every table, but for OTHER; what an import counts is a report, and nothing reads it here."""
    found = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT to_jsonb(t) - %s::text[] FROM {table} t", [[*OTHER, "counts"]])
            found[table] = sorted(json.dumps(json.loads(row[0]), sort_keys=True) for row in cursor.fetchall())
    return found


def exports(project: Project) -> list[bytes]:
    return [b"".join(open_export(project, format=format).lines) for format in ("plackett", "trl")]


def draw_one_of_each() -> dict[str, int]:
    """An id of each table: the next row gets the one after it."""
    with connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            cursor.execute("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [table])
            found[table] = cursor.fetchone()[0]
    return found


def go_back(last: dict[str, int]) -> None:
    """Lets the same ids be drawn again: a rollback does not."""
    with connection.cursor() as cursor:
        for table, value in last.items():
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, value])


@pytest.mark.django_db
def test_rows_written_in_bulk_are_those_of_an_import() -> None:
    project = make_project("bench")
    last = draw_one_of_each()
    with transaction.atomic():
        assert import_records(project=project, records=records(RANKINGS)).written == RANKINGS
        imported, exported = rows(), exports(project)
        transaction.set_rollback(True)
    go_back(last)
    write_rankings(project, RANKINGS)
    written = rows()
    assert len(written["annotate_ranking"]) == RANKINGS and len(written["annotate_entry"]) == 4 * RANKINGS
    for table in TABLES:
        assert written[table] == imported[table], table
    assert exports(project) == exported
