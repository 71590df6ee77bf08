"""Work that lost its lease comes back, can be submitted, skipped and flagged, also in a closed project."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotate.models import Draft, Project, RankingTask, Skip, Slot, TaskFlag, User
from annotate.services.queue import release_lease
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_task, make_user
from tests.annotate.pages.desk import Desk, bob, close, desk, project

pytestmark = pytest.mark.django_db
__all__ = ["bob", "desk", "project"]  # fixtures


def lose(lease: str, *, to: Desk) -> None:
    """The lease runs out and somebody else takes the place."""
    Slot.objects.filter(lease=lease).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert to.next()["tasks"]


def test_a_fresh_page_brings_the_draft_of_a_task_that_another_took(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    body = {"ranking": [task["order"][:1]]}
    version = desk.draft(task["lease"], body).json()["version"]
    lose(task["lease"], to=Desk(make_user("ann", project=project), project))
    make_task(project)
    found = desk.next()["tasks"]
    assert [(one["lease"] == task["lease"], one.get("expired", False)) for one in found] == [
        (True, True),
        (False, False),
    ]
    assert (found[0]["draft"]["version"], found[0]["draft"]["body"]["ranking"]) == (version, body["ranking"])
    assert (found[0]["order"], found[0]["html"] != "") == (task["order"], True)
    (known,) = desk.next(have=[found[1]["lease"]])["tasks"]
    assert known == {"lease": found[1]["lease"]}
    answer = desk.submit(found[0])
    assert answer["ranking"]["counted"] is False
    assert [one["lease"] for one in desk.next()["tasks"]] == [found[1]["lease"]]


@pytest.mark.parametrize("end", ["skipped", "held", "withdrawn", "closed", "mine"])
def test_a_draft_that_leads_nowhere_does_not_come_back(desk: Desk, project: Project, bob: User, end: str) -> None:
    task = make_task(project)
    (shown,) = desk.next()["tasks"]
    desk.draft(shown["lease"], {"ranking": []})
    if end != "mine":
        lose(shown["lease"], to=Desk(make_user("ann", project=project), project))
    if end == "skipped":
        Skip.objects.create(project=project, task=task, annotator=bob, reason="long")
    elif end in {"held", "closed"}:
        RankingTask.objects.filter(pk=task.pk).update(state=end)
    elif end == "withdrawn":
        withdraw_prompt(prompt=task.prompt)
        Draft.objects.create(task=task, annotator=bob, body={})
        RankingTask.objects.filter(pk=task.pk).update(state="open")
    again = desk.next()["tasks"]
    assert [one.get("expired") for one in again] == ([None] if end == "mine" else [])


def test_a_closed_project_brings_back_what_was_begun_and_lost(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    desk.draft(task["lease"], {"ranking": [task["order"][:1]]})
    lose(task["lease"], to=Desk(make_user("ann", project=project), project))
    close(project)
    found = desk.next()
    assert [(one["lease"], one["expired"]) for one in found["tasks"]] == [(task["lease"], True)] and found["closed"]
    assert desk.submit(found["tasks"][0])["ranking"]["counted"] is False
    assert desk.next()["tasks"] == []


def test_a_task_that_came_back_by_itself_comes_once(desk: Desk, project: Project, bob: User) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    desk.draft(task["lease"], {"ranking": [task["order"][:1]]})
    release_lease(lease_id=uuid.UUID(task["lease"]), annotator=bob)
    (again,) = desk.next()["tasks"]
    assert again["lease"] != task["lease"] and "expired" not in again
    assert again["draft"]["body"]["ranking"] == [task["order"][:1]]


def test_what_was_lost_can_be_flagged_and_skipped(desk: Desk, project: Project, bob: User) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    desk.draft(task["lease"], {"ranking": []})
    lose(task["lease"], to=Desk(make_user("ann", project=project), project))
    (back,) = desk.next()["tasks"]
    lease = f"/api/v1/leases/{back['lease']}"
    assert desk.client.post(f"{lease}/flag/", {"kind": "expert"}, content_type="application/json").status_code == 204
    assert desk.client.post(f"{lease}/skip/", {"reason": "long"}, content_type="application/json").status_code == 204
    assert desk.next()["tasks"] == []
    assert TaskFlag.objects.get().annotator == Skip.objects.get().annotator == bob
