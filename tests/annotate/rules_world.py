"""A sound piece of the record to break by raw SQL, and what breaks it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from annotate.models import (
    Project,
    Ranking,
    RankingTask,
    User,
)
from annotate.services.queue import next_leases
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit


@dataclass
class World:
    """Two projects; in the first a ranked, a leased and a free task."""

    project: Project
    other: Project
    ranked: RankingTask
    leased: RankingTask
    free: RankingTask
    foreign: RankingTask
    bob: User
    carol: User
    ranking: Ranking


@pytest.fixture
def world() -> World:
    project, other = make_project(overlap=1), make_project()
    tasks = [make_task(project) for _ in range(3)]
    foreign = make_task(other)
    bob, carol = make_user(project=project), make_user(project=project)
    ranking = submit(next_leases(project=project, annotator=bob)[0], bob, tiers=[[0], [1, 2]], strengths=[2])
    next_leases(project=project, annotator=bob)
    sql("SET CONSTRAINTS ALL IMMEDIATE")  # what the fixture wrote is sound; each test breaks one thing
    sql("SET CONSTRAINTS ALL DEFERRED")
    return World(project, other, *tasks, foreign, bob, carol, ranking)


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def refused(work: Callable[[], Any]) -> str:
    """Runs the work, then all deferred checks, in a savepoint; the message of the refusal."""
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        work()
        sql("SET CONSTRAINTS ALL IMMEDIATE")
    return str(caught.value)


def columns(instance: Any, **changes: Any) -> tuple[str, list[Any]]:
    """INSERT of a copy of the row with some columns changed; generated and key columns left out."""
    fields = [field for field in instance._meta.concrete_fields if not field.primary_key]
    values = {
        f.column: changes.get(f.column, f.get_db_prep_save(f.value_from_object(instance), connection)) for f in fields
    }
    for name in changes:
        assert name in values, f"no column {name}"
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(["%s"] * len(values))
    return f"INSERT INTO {instance._meta.db_table} ({names}) VALUES ({marks})", list(values.values())


def copy(instance: Any, **changes: Any) -> None:
    statement, values = columns(instance, **changes)
    sql(statement, *values)
