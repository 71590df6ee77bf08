"""Imports of many records: work that follows their number, level memory, one chunk read ahead."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from annotate.interchange.native import record_from_object
from annotate.interchange.records import FileError, ImportedRecord
from annotate.models import Prompt
from annotate.services import imports
from annotate.services.import_sources import one_ahead
from annotate.services.imports import import_files, import_records
from tests.annotate.factories import make_project
from tests.annotate.import_lines import line, put, ranked, written

pytestmark = pytest.mark.django_db


def test_an_import_of_hundreds_leaves_the_planner_with_their_number() -> None:
    """Statistics that the server took while they were not committed say 0, and an export then never ends."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE annotate_ranking, annotate_change")
    put(make_project(), *(ranked(f"{number}?", annotator="x") for number in range(imports.LARGE)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE relname IN ('annotate_ranking', 'annotate_change')")
        assert [count >= imports.LARGE for (count,) in cursor.fetchall()] == [True, True]


@pytest.mark.parametrize("large", [50, 200])
@pytest.mark.django_db(transaction=True)
def test_the_keys_of_new_rows_are_checked_without_reading_the_whole_project(
    monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    """On tables that nobody has counted yet the planner may take the index of the project, which all prompts share.

    On tables that are small when it plans, it reads them whole, and keeps to that while they grow.
    """
    monkeypatch.setattr(imports, "CHUNK_RECORDS", large)
    monkeypatch.setattr(imports, "LARGE", large)
    count = 800
    forget_statistics()
    connection.close()  # and with it the plans
    before = rows_read()
    put(make_project(), *(line(f"{number}?") for number in range(count)))
    after = rows_read()
    assert {table: after[table] - before[table] for table in after if after[table] - before[table] > 60 * count} == {}


def forget_statistics() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_clear_relation_stats('public', relname),"
            " pg_clear_attribute_stats('public', relname, attname, false)"
            " FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE relname LIKE 'annotate_%%' AND relkind = 'r' AND attnum > 0"
        )


def rows_read() -> dict[str, int]:
    """How many rows of each table statements have read so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT relname, coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables"
            " WHERE relname LIKE 'annotate_%%'"
        )
        return dict(cursor.fetchall())


@pytest.mark.parametrize("lines", [1, 5, 6])
def test_a_file_is_read_one_chunk_ahead_and_nothing_is_lost_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: int
) -> None:
    monkeypatch.setattr(imports, "CHUNK_RECORDS", 2)
    file = written(tmp_path / "lines.jsonl", *(line(f"{number}?", external_id=f"{number}") for number in range(lines)))
    (report,) = import_files(project=make_project(), files=[file], format="plackett")
    assert report.written == lines
    assert list(Prompt.objects.order_by("pk").values_list("external_id", flat=True)) == list(map(str, range(lines)))


def test_what_reading_ahead_raises_comes_after_the_chunks_before_it() -> None:
    def chunks() -> Iterator[int]:
        yield from (1, 2)
        raise FileError("the disk is gone")

    ahead = one_ahead(chunks())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(FileError, match="the disk is gone"):
        next(ahead)


def test_memory_stays_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the records, about the same peak: what is held is one chunk."""
    monkeypatch.setattr(imports, "CHUNK_RECORDS", 20)

    def made(count: int, name: str) -> Iterator[ImportedRecord]:
        for number in range(count):
            responses = [{"id": f"r{n}", "text": f"{number} {n} " + "tea " * 2000} for n in range(4)]
            yield record_from_object({"prompt": f"{name} {number}?", "responses": responses})

    def peak(count: int, name: str) -> int:
        project = make_project()
        tracemalloc.start()
        import_records(project=project, records=made(count, name))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(20, "warm")
    small, large = peak(60, "small"), peak(600, "large")
    assert large < 1.5 * small
