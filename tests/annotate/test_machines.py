"""Machine annotators rank by the same calls as people, beside them: no count of people's changes."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from annotate.errors import Invalid
from annotate.models import Membership, Project, QueueCursor, Ranking, RankingTask, Role, Slot, User
from annotate.selectors.overview import project_overview
from annotate.selectors.progress import project_progress, standing_of
from annotate.services import own_places
from annotate.services.exports import open_export
from annotate.services.held_tasks import close_task, release_task, reopen_task
from annotate.services.machines import change_machine, create_machine, renew_machine_token
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.queue import hold_task, next_leases, release_lease
from annotate.services.skips import skip_task
from annotate.services.snapshots import freeze_snapshot
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.api.helpers import answer_to
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("tales", overlap=2)


@pytest.fixture
def alice(project: Project) -> User:
    return make_user("alice", project=project, role=Role.MANAGER, engineer=True)


@pytest.fixture
def judge(project: Project, alice: User) -> Membership:
    return create_machine(project=project, by=alice, name="judge")[0]


def lines(project: Project, **asked: Any) -> int:
    return len(list(open_export(project, **asked).lines))


def test_a_machine_ranks_by_the_same_calls_and_changes_no_count_of_peoples(project: Project, alice: User) -> None:
    _member, token = create_machine(project=project, by=alice, name="judge", open_lease_limit=3)
    tasks = [make_task(project, overlap=2) for _ in range(4)]
    bob = make_user("bob", project=project)
    submit(next_leases(project=project, annotator=bob)[0], bob)

    def counts() -> tuple[Any, ...]:
        standing = standing_of(user=bob, project=project)
        return project_progress([project])[project.pk], project_overview(project), standing.wanted, standing.done

    before = counts()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    for wanted in (3, 1):
        leases = client.post("/api/v1/projects/tales/next/", {"count": 3}).json()["leases"]
        assert len(leases) == wanted
        for lease in leases:
            answer = client.post("/api/v1/projects/tales/rankings/", answer_to(lease))
            assert answer.status_code == 201 and answer.json()["counted"]
    assert client.post("/api/v1/projects/tales/next/", {"count": 1}).json()["leases"] == []
    assert client.post("/api/v1/projects/tales/next/", {"count": 4}).status_code == 422
    assert client.post("/api/v1/projects/tales/prompts/", {"records": []}).status_code == 403
    assert counts() == before
    assert lines(project) == 1 and lines(project, options={"annotator_kinds": "human,machine"}) == 5
    assert (
        lines(project, format="trl") == 3 and lines(project, format="trl", options={"annotator_kinds": "machine"}) == 12
    )
    assert freeze_snapshot(project=project, name="people").counts["rankings"] == 1
    both = freeze_snapshot(project=project, name="both", filters={"annotator_kinds": ["human", "machine"]})
    assert both.counts["rankings_by_annotator_kind"] == {"human": 1, "machine": 4}
    dora = make_user("dora", project=project)
    assert {slot.task_id for slot in next_leases(project=project, annotator=dora, count=2)} <= {t.pk for t in tasks}


def test_nobody_logs_in_as_a_machine(judge: Membership, alice: User) -> None:
    assert not judge.user.has_usable_password()
    client = Client()
    for password in ("", "judge", "!"):
        client.post("/accounts/login/", {"login": judge.user.username, "password": password})
        assert client.get("/").status_code == 302
    client.force_login(alice)
    assert client.post(f"/p/tales/people/{judge.pk}/password-link/").status_code == 403


def test_several_machines_rank_one_task_each_in_an_order_of_its_own(project: Project, alice: User) -> None:
    task = make_task(project, ("a", "b", "c", "d"), overlap=1)
    orders = []
    for name in ("one", "two", "three"):
        machine = create_machine(project=project, by=alice, name=name)[0].user
        slot = next_leases(project=project, annotator=machine)[0]
        submit(slot, machine)
        orders.append(tuple(slot.presented_order or ()))
    assert len(set(orders)) == 3
    assert Slot.objects.filter(task=task, beyond_overlap=True, state="done").count() == 3
    bob = make_user("bob", project=project)
    assert submit(next_leases(project=project, annotator=bob)[0], bob).counted


def test_a_manager_can_let_a_machine_fill_peoples_places(project: Project, judge: Membership, alice: User) -> None:
    change_machine(membership=judge, by=alice, fills_places=True, open_lease_limit=1000, weight=0.5)
    make_task(project, overlap=2)
    submit(next_leases(project=project, annotator=judge.user)[0], judge.user)
    assert project_progress([project])[project.pk].done == 1
    assert not Slot.objects.filter(beyond_overlap=True).exists()


def test_what_was_passed_comes_back_when_it_can_be_ranked_again(
    project: Project, judge: Membership, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_places, "CURSOR_STEP", 1)
    held, closed, freed, last = tasks = [make_task(project, overlap=1) for _ in range(4)]
    RankingTask.objects.update(created_at=Now() - timedelta(hours=1))
    hold_task(held.pk)
    close_task(task=closed, by=alice)
    machine = judge.user
    slot = next_leases(project=project, annotator=machine)[0]
    assert slot.task_id == freed.pk
    next_leases(project=project, annotator=machine, count=2)
    assert QueueCursor.objects.get(annotator=machine).offer >= freed.pk, "it is past what it holds"
    assert slot.lease_id is not None
    release_lease(lease_id=slot.lease_id, annotator=machine)
    places = Slot.objects.filter(beyond_overlap=True)
    assert [place.task_id for place in places] == [last.pk], "a place of its own goes with the lease"
    seen = []
    for _ in range(2):
        slot = next_leases(project=project, annotator=machine)[0]
        submit(slot, machine)
        seen.append(slot.task_id)
    assert seen == [last.pk, freed.pk]
    assert next_leases(project=project, annotator=machine) == []
    assert QueueCursor.objects.get(annotator=machine).offer == last.pk
    release_task(task=RankingTask.objects.get(pk=held.pk), by=alice)
    reopen_task(task=RankingTask.objects.get(pk=closed.pk))
    again = next_leases(project=project, annotator=machine, count=2)
    assert [slot.task_id for slot in again] == [held.pk, closed.pk] and len(tasks) == 4


def test_machines_take_what_is_urgent_first(
    project: Project, judge: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_places, "CURSOR_STEP", 1)
    machine = judge.user

    def rank(count: int) -> list[int]:
        slots = next_leases(project=project, annotator=machine, count=count)
        RankingTask.objects.update(created_at=Now() - timedelta(hours=1))
        for slot in slots:
            submit(slot, machine)
        return [slot.task.priority for slot in slots]

    for priority in (3, 2, 1, 2, 0, 3, 1, 0):
        make_task(project, priority=priority)
    assert rank(3) == [0, 0, 1]
    make_task(project, priority=0)
    assert rank(4) == [0, 1, 2, 2], "what is urgent goes before what was begun, also when it came later"
    assert rank(9) == [3, 3] and rank(9) == []
    passed = dict(QueueCursor.objects.filter(annotator=machine).values_list("lane", "offer"))
    last = RankingTask.objects.latest("pk").pk
    assert passed == dict.fromkeys(own_places.LANES.values(), last)
    own_places.offer_again(project=project, task=last)
    assert QueueCursor.objects.filter(annotator=machine, offer=last - 1).count() == 4


def test_tasks_of_a_transaction_that_commits_late_are_not_passed(
    project: Project, judge: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_places, "CURSOR_STEP", 1)
    make_task(project)
    submit(next_leases(project=project, annotator=judge.user)[0], judge.user)
    assert next_leases(project=project, annotator=judge.user) == []
    assert not QueueCursor.objects.exists(), "a task that was made a moment ago may have earlier ones to come"


def test_a_late_answer_counts_and_one_to_a_closed_task_is_an_extra(
    project: Project, judge: Membership, alice: User
) -> None:
    other = create_machine(project=project, by=alice, name="other")[0].user
    tasks = [make_task(project, overlap=1) for _ in range(2)]
    slots = next_leases(project=project, annotator=judge.user, count=2)
    Slot.objects.filter(beyond_overlap=True).update(expires_at=Now() - timedelta(seconds=1))
    next_leases(project=project, annotator=other)
    assert not Slot.objects.filter(holder=judge.user).exists()
    close_task(task=tasks[1], by=alice)
    ranked = [submit(slot, judge.user) for slot in slots]
    assert [one.counted for one in ranked] == [True, False]


def test_machines_neither_hold_tasks_nor_keep_overlap_or_withdrawals_from_people(
    project: Project, judge: Membership, alice: User
) -> None:
    Project.objects.filter(pk=project.pk).update(skip_limit=1)
    project.refresh_from_db()
    skipped, ranked = make_task(project, overlap=2), make_task(project, overlap=2)
    first, second = next_leases(project=project, annotator=judge.user, count=2)
    assert first.lease_id is not None
    skip_task(lease_id=first.lease_id, annotator=judge.user, reason="unsafe")
    submit(second, judge.user)
    assert RankingTask.objects.get(pk=skipped.pk).state == "open"
    set_overlap_of_all(project=project, overlap=1)
    set_overlap_of_all(project=project, overlap=3)
    assert RankingTask.objects.get(pk=ranked.pk).overlap == 3
    assert Slot.objects.filter(task=ranked, beyond_overlap=False).count() == 3
    withdraw_prompt(prompt=ranked.prompt)
    assert RankingTask.objects.get(pk=ranked.pk).overlap == 0
    assert Ranking.objects.get(task=ranked).withdrawn_at is not None


def test_the_database_keeps_own_places_apart(project: Project, judge: Membership) -> None:
    make_task(project, overlap=1)
    next_leases(project=project, annotator=judge.user)
    for wrong in ({"state": "free"}, {"number": 7}, {"reserved_for": None}, {"beyond_overlap": False}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Slot.objects.filter(beyond_overlap=True).update(**wrong)


@pytest.mark.django_db(transaction=True)
def test_many_calls_of_one_machine_at_once_rank_everything_once(project: Project, judge: Membership) -> None:
    for _ in range(12):
        make_task(project, overlap=1)

    def work(_index: int) -> int:
        count = 0
        while slots := next_leases(project=project, annotator=judge.user, count=2):
            for slot in slots:
                try:
                    submit(slot, judge.user)
                except Exception as refused:  # another call of the same machine answered it
                    assert getattr(refused, "code", "") == "already_submitted", refused
                else:
                    count += 1
        return count

    assert sum(at_once(4, work)) == 12
    assert Ranking.objects.filter(counted=True).count() == 12


def test_names_limits_and_tokens_are_checked(project: Project, judge: Membership, alice: User) -> None:
    for wrong in ({"name": "judge"}, {"name": "Bad name"}, {"name": ""}, {"name": "x", "open_lease_limit": 1001}):
        with pytest.raises(Invalid) as refused:
            create_machine(project=project, by=alice, **wrong)
        assert set(refused.value.fields) <= {"name", "open_lease_limit"}
    first, second = (renew_machine_token(membership=judge, by=alice) for _ in range(2))
    client = APIClient()
    statuses = []
    for token in (first, second):
        client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        statuses.append(client.get("/api/v1/me/").status_code)
    assert statuses == [401, 200]


def test_pages_show_machines_apart(project: Project, judge: Membership, alice: User) -> None:
    make_task(project, overlap=1)
    submit(next_leases(project=project, annotator=judge.user)[0], judge.user)
    client = Client()
    client.force_login(alice)
    for path in ("/p/tales/", "/p/tales/people/", "/p/tales/machines/", f"/p/tales/machines/{judge.pk}/"):
        page = client.get(path)
        assert page.status_code == 200 and "tales.judge" in page.content.decode(), path
    people = client.get("/p/tales/").context
    assert [one["user"].username for one in people["people"]] == []
    assert [row.done for row in people["machines"]] == [1]
    made = client.post("/p/tales/machines/", {"name": "scorer", "open_lease_limit": 5})
    assert json.dumps(made.context["token"])[1:4] == "pk_" and made["Cache-Control"].count("no-store")
    assert client.get(f"/p/tales/people/{judge.pk}/").status_code == 302
