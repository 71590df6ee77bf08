"""Statements that are planned once, and the few that annotators wait for."""

import pytest
from django.db import DataError, connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from annotate.models import ApiToken, User
from annotate.prepared import prepared_cursor
from annotate.selectors import progress
from annotate.selectors.leases import lease_contents
from annotate.selectors.progress import standing_of
from annotate.selectors.projects import get_project_for, membership_of
from annotate.services.queue import next_leases, release_lease
from annotate.services.tokens import create_token, find_token
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit

pytestmark = pytest.mark.django_db


def _one_more(number: int) -> int:
    with prepared_cursor() as cursor:
        cursor.execute("SELECT %s::int + 1 AS one_more", [number])
        return int(cursor.fetchone()[0])


def test_a_statement_is_planned_once_and_right_each_time() -> None:
    assert [_one_more(number) for number in range(8)] == list(range(1, 9))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%AS one_more'")
        assert cursor.fetchone() == (1,)


def test_its_errors_are_djangos_and_it_is_counted_among_the_queries() -> None:
    with CaptureQueriesContext(connection) as seen:
        _one_more(1)
    assert len(seen) == 1
    with pytest.raises(DataError), transaction.atomic(), prepared_cursor() as cursor:
        cursor.execute("SELECT 1 / %s::int", [0])


def test_rows_read_by_columns_are_those_of_the_orm() -> None:
    project = make_project()
    bob = make_user(project=project)
    token, secret = create_token(user=bob, name="loader", scopes=["read", "annotate"])
    found, membership = find_token(secret), membership_of(user=bob, project=project)
    assert found is not None

    def values(row: Model) -> dict[str, object]:
        return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}

    assert values(found) == values(ApiToken.objects.get(pk=token.pk)) and not found._state.adding
    assert values(found.user) == values(User.objects.get(pk=bob.pk))
    assert values(get_project_for(bob, project.slug)) == values(membership.project)


def test_a_lease_that_holds_no_slot_any_more_shows_nothing() -> None:
    project = make_project()
    bob = make_user(project=project)
    make_task(project)
    make_task(project)
    first, second = (slot.lease_id for slot in next_leases(project=project, annotator=bob, count=2))
    assert first is not None and second is not None
    assert [one["id"] for one in lease_contents([second, first])] == [str(second), str(first)]
    release_lease(lease_id=first, annotator=bob)
    assert [one["id"] for one in lease_contents([second, first])] == [str(second)]


def test_of_a_large_project_the_counts_may_be_old_and_the_annotators_own_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "CACHE_FROM", 3)
    project = make_project("large")
    bob = make_user(project=project)
    for _ in range(3):
        make_task(project)
    for own, done in [(0, 0), (1, 0), (2, 0)]:
        now = standing_of(user=bob, project=project)
        assert (now.own, now.today, now.done, now.wanted) == (own, own, done, 3)
        assert (now.guidelines.number, now.guidelines.read) == (1, True)
        submit(next_leases(project=project, annotator=bob)[0], bob)
    monkeypatch.setattr(progress, "CACHE_FROM", 4)
    progress.cache.delete(f"wanted:{project.pk}")
    assert standing_of(user=bob, project=project).done == 3
