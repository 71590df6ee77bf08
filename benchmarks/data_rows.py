"""A project full of imported rankings in minutes: the rows that ``import_records`` would write, by COPY in blocks.

Ids, hashes and the numbers of the feed are those that an import gives; tests/benchmarks/test_data_rows.py compares the
rows and the bytes of exports. Unique and check constraints and our triggers are at work as always. Foreign keys are
taken off while rows are written and put back in the same transaction, which checks every row against them in one go:
one by one, twenty million checks are most of the time.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from annotate.interchange.native import record_from_object
from annotate.interchange.records import ImportedRecord
from annotate.models import Project, User
from annotate.preferences import Answer, split_for_group
from annotate.selectors.projects import current_version
from annotate.services.import_known import content_sha256, group_key_of, sha256_of
from annotate.services.rankings import answer_sha256
from benchmarks.data_texts import ANNOTATORS, NAMES, RESPONSES, annotator, ranked_tasks

BLOCK_TASKS = 5_000
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
#: What is written, referenced rows first; `created_at` and the like stand at the end.
COLUMNS = {
    "splitgroup": "id, project_id, key, key_sha256, split",
    "prompt": "id, project_id, batch_id, external_id, content_sha256, messages, split_group_id, language, tags, "
    "extra, created_at",
    "response": "id, prompt_id, key, text, model, settings, extra, text_sha256, created_at",
    "rankingtask": "id, project_id, prompt_id, kind, state, overlap, priority, created_at",
    "taskresponse": "id, task_id, prompt_id, response_id",
    "ranking": "id, project_id, task_id, annotator_id, version_id, revision, counted, source, strengths, all_bad, "
    "ratings, flags, content_sha256, presented_order, extra, submitted_at",
    "entry": "id, ranking_id, task_id, response_id, tier",
    "change": "project_id, number, kind, ranking_id",
}
Lines = defaultdict[str, list[str]]


def records(rankings: int) -> Iterator[ImportedRecord]:
    """The rankings as an import reads them, four of each task."""
    for number, (task, said) in enumerate(ranked_tasks(rankings // ANNOTATORS)):
        for who, order in enumerate(said):
            yield _record(task, number, who, order)


def _record(task: dict[str, Any], number: int, who: int, order: Sequence[str]) -> ImportedRecord:
    answer = {"ranking": [[name] for name in order], "annotator": annotator(who)}
    return record_from_object(task | answer | {"submitted_at": _submitted_at(number)})


def _submitted_at(number: int) -> str:
    return (FIRST_DAY + timedelta(seconds=number)).isoformat()


def write_rankings(project: Project, rankings: int) -> None:
    """Writes into an empty project what importing `records(rankings)` would."""
    tasks = rankings // ANNOTATORS
    with transaction.atomic(), _foreign_keys_at_the_end():
        writer = _Writer(project, tasks)
        told = enumerate(ranked_tasks(tasks))
        while block := list(islice(told, BLOCK_TASKS)):
            _copy(writer.lines(block))
        _run(
            "INSERT INTO annotate_counter (project_id, name, value) VALUES (%s, 'change', %s)",
            [project.pk, tasks * ANNOTATORS],
        )
    _run(f"ANALYZE {', '.join(f'annotate_{table}' for table in COLUMNS)}")


class _Writer:
    """Turns tasks into lines of COPY's text format, under ids drawn for all of them."""

    def __init__(self, project: Project, tasks: int) -> None:
        self._project = project
        self._version = current_version(project).pk
        self._batch = _batch_of(project)
        self._now = datetime.now(UTC).isoformat()
        sizes = {
            "splitgroup": tasks, "prompt": tasks, "response": tasks * RESPONSES, "rankingtask": tasks,
            "taskresponse": tasks * RESPONSES, "ranking": tasks * ANNOTATORS,
            "entry": tasks * ANNOTATORS * RESPONSES,
        }  # fmt: skip
        self._ids = {table: count(_first_id(table, size)) for table, size in sizes.items()}
        self._numbers = count(1)
        self._people = [_account(project, annotator(who)) for who in range(ANNOTATORS)]

    def lines(self, block: Iterable[tuple[int, tuple[dict[str, Any], list[list[str]]]]]) -> Lines:
        """The rows of some tasks, by table."""
        found: Lines = defaultdict(list)
        for number, (task, said) in block:
            self._task(found, _record(task, number, 0, said[0]), number, said)
        return found

    def _task(self, found: Lines, record: ImportedRecord, number: int, said: list[list[str]]) -> None:
        ids, project, now = self._ids, self._project.pk, self._now
        group, prompt, task = next(ids["splitgroup"]), next(ids["prompt"]), next(ids["rankingtask"])
        key = group_key_of(record)
        found["splitgroup"].append(_line(group, project, "", sha256_of(key), split_for_group(key)))
        messages = json.dumps([dict(message) for message in record.prompt])
        sha256 = content_sha256(record)
        found["prompt"].append(
            _line(prompt, project, self._batch, record.external_id, sha256, messages, group, "", "[]", "{}", now)
        )
        found["rankingtask"].append(_line(task, project, prompt, "normal", "open", 0, 2, now))
        responses: dict[str, int] = {}
        for one in record.responses:
            pk = responses[one.id] = next(ids["response"])
            sha256 = sha256_of(one.text)
            found["response"].append(_line(pk, prompt, one.id, one.text, one.model, "{}", "{}", sha256, now))
            found["taskresponse"].append(_line(next(ids["taskresponse"]), task, prompt, pk))
        for person, order in zip(self._people, said, strict=True):
            self._ranking(found, task, person, [responses[name] for name in order], number)

    def _ranking(self, found: Lines, task: int, person: int, order: Sequence[int], number: int) -> None:
        pk, project = next(self._ids["ranking"]), self._project.pk
        answer = Answer(ranking=[[str(one)] for one in order], strengths=[None] * (RESPONSES - 1))
        strengths = "{" + ",".join(["NULL"] * (RESPONSES - 1)) + "}"
        found["ranking"].append(
            _line(
                pk, project, task, person, self._version, 1, "t", "import", strengths, "f", "{}", "{}",
                answer_sha256(answer), "{}", "{}", _submitted_at(number),
            )
        )  # fmt: skip
        entries = self._ids["entry"]
        found["entry"] += [_line(next(entries), pk, task, one, order.index(one) + 1) for one in sorted(order)]
        found["change"].append(_line(project, next(self._numbers), "ranking", pk))


def _line(*values: Any) -> str:
    """A row of COPY's text format; no generated text has a sign that would have to be escaped."""
    return "\t".join(map(str, values))


def _copy(lines: Lines) -> None:
    with connection.cursor() as cursor:
        for table, columns in COLUMNS.items():
            with cursor.copy(f"COPY annotate_{table} ({columns}) FROM STDIN") as copy:
                copy.write("".join(f"{line}\n" for line in lines[table]))


def _account(project: Project, name: str) -> int:
    """Who stands for an annotator."""
    kind = User.Kind.IMPORTED
    username = f"{kind}:{project.slug}:{name}"
    return User.objects.create(
        username=username, first_name=name, kind=kind, is_active=False, password=make_password(None)
    ).pk


def _batch_of(project: Project) -> int:
    return int(
        _run(
            """INSERT INTO annotate_importbatch (project_id, format, source, counts, created_at, finished_at)
               VALUES (%s, 'plackett', '', '{}', now(), now()) RETURNING id""",
            [project.pk],
        )[0][0]
    )


def _first_id(table: str, size: int) -> int:
    """The first of `size` ids; the others follow it, as nobody else draws any."""
    name = f"annotate_{table}"
    first = int(_run("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [name])[0][0])
    _run("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [name, first + max(size, 1) - 1])
    return first


@contextmanager
def _foreign_keys_at_the_end() -> Iterator[None]:
    """The foreign keys of what is written, off meanwhile; putting them back checks every row."""
    names = [f"annotate_{table}" for table in COLUMNS]
    keys = _run(
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
           WHERE contype = 'f' AND (conrelid::regclass::text = ANY(%s) OR confrelid::regclass::text = ANY(%s))""",
        [names, names],
    )
    _run("SET CONSTRAINTS ALL IMMEDIATE")
    for table, name, _ in keys:
        _run(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    _run("SET CONSTRAINTS ALL DEFERRED")
    yield
    _run("SET CONSTRAINTS ALL IMMEDIATE")
    for table, name, definition in keys:
        _run(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')
    _run("SET CONSTRAINTS ALL DEFERRED")


def _run(statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


assert sorted(NAMES) == NAMES  # responses get their ids in this order, here and in an import
