"""What the ranking page sends: submit and next in one, back, drafts of revisions."""

from collections.abc import Callable
from typing import Any

import pytest

from annotate.models import (
    Draft,
    Entry,
    Lease,
    Project,
    Ranking,
    User,
)
from annotate.services.projects import change_rules
from annotate.services.withdrawals import withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once
from tests.annotate.pages.desk import Desk, answer_to, bob, close, code_of, desk, project, revision_of

pytestmark = pytest.mark.django_db
__all__ = ["bob", "desk", "project"]  # fixtures


# --- submit -----------------------------------------------------------------------------------------------------------


def test_submit_writes_the_answer_and_hands_out_what_is_next(desk: Desk, project: Project, bob: User) -> None:
    for _ in range(3):
        make_task(project)
    first, second = desk.next()["tasks"]
    desk.draft(first["lease"], {"ranking": []})
    answer = desk.submit(first, have=[second["lease"]], guidelines=1)
    ranking = Ranking.objects.get()
    assert answer["ranking"] == {"id": str(ranking.pk), "revision": 1, "counted": True}
    assert (ranking.annotator, ranking.source, ranking.seconds) == (bob, "page", 12.5)
    assert answer["tasks"][0] == {"lease": second["lease"]} and answer["tasks"][1]["html"]
    assert len(answer["tasks"]) == 2 and answer["guidelines"] == {"version": 1, "read": False}
    assert answer["progress"]["own"] == {"today": 1, "done": 1, "median_seconds": 12.5}
    assert answer["progress"]["words"] == "1 today · 1 in all · median 12 s · 1 of 3 by everybody"
    assert not Draft.objects.exists()


def test_the_whole_answer_arrives(desk: Desk, project: Project, bob: User) -> None:
    criterion = {"key": "clear", "label": "Clear", "kind": "likert", "low": 1, "high": 5, "required": False}
    change_rules(project=project, changed_by=bob, criteria=[criterion], flags=[{"key": "wrong", "label": "Wrong"}])
    make_task(project)
    (task,) = desk.next()["tasks"]
    a, b, c = task["order"]
    desk.submit(
        task,
        ranking=[[a, b]],
        unranked=[c],
        strengths=[],
        all_bad=True,
        ratings={a: {"clear": 4}},
        flags={b: ["wrong"]},
        rationale=" Because. ",
        rewrite={"of": a, "text": "better"},
    )
    ranking = Ranking.objects.get()
    tiers = dict(Entry.objects.filter(ranking=ranking).values_list("response_id", "tier"))
    assert tiers == {int(a): 1, int(b): 1, int(c): None}
    assert (ranking.all_bad, ranking.ratings, ranking.flags) == (True, {a: {"clear": 4}}, {b: ["wrong"]})
    assert (ranking.rationale, ranking.rewrite_of_id, ranking.rewrite_text) == ("Because.", int(a), "better")


def test_the_same_key_writes_once_and_brings_fresh_tasks(desk: Desk, project: Project) -> None:
    for _ in range(4):
        make_task(project)
    task, other = desk.next()["tasks"]
    first = desk.submit(task, key="k", have=[other["lease"]])
    again = desk.submit(task, key="k", have=[])
    assert again["ranking"] == first["ranking"] and Ranking.objects.count() == 1
    assert [one["lease"] for one in again["tasks"]] == [one["lease"] for one in first["tasks"]]
    assert "html" in again["tasks"][0]
    assert code_of(desk.send(answer_to(task) | {"seconds": 1}, key="k")) == (422, "idempotency_key_reused")


@pytest.mark.django_db(transaction=True)
def test_of_two_submits_at_once_with_one_key_one_writes(desk: Desk, project: Project, bob: User) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    pages = [Desk(bob, project) for _ in range(2)]
    first, second = at_once(2, lambda index: pages[index].submit(task, key="k"))
    assert first["ranking"] == second["ranking"] and Ranking.objects.count() == 1


def test_a_submit_needs_a_key(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 201}, {"Idempotency-Key": "ü"}):
        assert code_of(desk.post("rank_submit", answer_to(task), **headers)) == (422, "invalid")
    assert not Ranking.objects.exists()


def test_a_refused_answer_says_where_and_may_be_corrected_under_its_key(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    refused = desk.send(answer_to(task) | {"ranking": [[task["order"][0]]], "unranked": task["order"][1:]}, key="k")
    assert code_of(refused) == (422, "invalid_answer") and "ranking" in refused.json()["error"]["fields"]
    assert desk.submit(task, key="k")["ranking"]["revision"] == 1


def test_a_second_answer_names_the_first(desk: Desk, project: Project) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    first = desk.submit(task)
    again = desk.send(answer_to(task))
    assert code_of(again) == (409, "already_submitted")
    assert again.json()["error"]["extra"] == {"ranking": int(first["ranking"]["id"]), "revision": 1}


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("ranking", lambda body: body.pop("ranking")),
        ("ranking", lambda body: body.update(ranking=["1"])),
        ("ranking", lambda body: body.update(ranking=[[1]])),
        ("unranked", lambda body: body.update(unranked="12")),
        ("strengths", lambda body: body.update(strengths=[True])),
        ("all_bad", lambda body: body.update(all_bad="yes")),
        ("ratings", lambda body: body.update(ratings={"1": {"clear": 1.5}})),
        ("flags", lambda body: body.update(flags={"1": "wrong"})),
        ("rationale", lambda body: body.update(rationale=["x"])),
        ("rewrite", lambda body: body.update(rewrite={"of": "1"})),
        ("seconds", lambda body: body.update(seconds=-1)),
        ("seconds", lambda body: body.update(seconds=True)),
        ("strenghts", lambda body: body.update(strenghts=[1])),
        ("lease", lambda body: body.update(revises=1)),
        ("lease", lambda body: body.update(lease="1")),
        ("lease", lambda body: body.pop("lease")),
        ("revises", lambda body: body.update(revises="x")),
    ],
)
def test_a_body_of_another_shape_is_refused_where_it_is_wrong(
    desk: Desk, project: Project, field: str, change: Change
) -> None:
    make_task(project)
    (task,) = desk.next()["tasks"]
    body = answer_to(task)
    change(body)
    answer = desk.send(body)
    assert answer.status_code == 422 and field in answer.json()["error"]["fields"]
    assert not Ranking.objects.exists()


def test_nobody_submits_for_another_or_into_another_project(desk: Desk, project: Project, bob: User) -> None:
    make_task(project, overlap=2)
    elsewhere = make_project("elsewhere")
    make_task(elsewhere)
    ann = make_user("ann", project=project)
    (hers,) = Desk(ann, project).next()["tasks"]
    assert code_of(desk.send(answer_to(hers))) == (404, "not_found")
    make_membership(bob, elsewhere)
    (other,) = Desk(bob, elsewhere).next()["tasks"]
    assert code_of(desk.send(answer_to(other))) == (404, "not_found")
    mine = Desk(bob, elsewhere).submit(other)
    assert code_of(desk.send(answer_to(hers) | {"lease": other["lease"]})) == (404, "not_found")
    body = {name: value for name, value in answer_to(other).items() if name != "lease"}
    assert code_of(desk.send(body | {"revises": mine["ranking"]["id"]})) == (404, "not_found")
    assert Ranking.objects.count() == 1


def make_membership(user: User, project: Project) -> None:
    project.memberships.create(user=user)


def test_a_closed_project_takes_what_was_begun(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project)
    make_task(project)
    first, second = desk.next()["tasks"]
    close(project)
    assert desk.draft(second["lease"], {"ranking": []}).status_code == 200
    again = desk.next()
    assert [task["lease"] for task in again["tasks"]] == [first["lease"], second["lease"]] and again["closed"]
    answer = desk.submit(first)
    assert ([task["lease"] for task in answer["tasks"]], answer["closed"]) == ([second["lease"]], True)
    assert answer["ranking"]["counted"]
    assert answer["progress"]["own"]["done"] == 1 and answer["guidelines"]["version"] == 1
    last = desk.submit(second)
    assert (last["tasks"], last["closed"], Lease.objects.count()) == ([], True, 2)
    assert desk.next()["tasks"] == []
    revised = desk.send(revision_of(desk.back()) | {"all_bad": True})
    assert revised.json()["ranking"]["revision"] == 2 and revised.json()["tasks"] == []


# --- back, and revisions ----------------------------------------------------------------------------------------------


def test_back_walks_through_ones_own_answers_newest_first(desk: Desk, project: Project) -> None:
    for number in range(3):
        make_task(project, question=f"Question {number}?")
    make_task(project, overlap=2, question="Ann's?")
    Desk(make_user("ann", project=project), project)
    assert desk.back() is None
    done = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(3)]
    seen, before = [], None
    while task := desk.back(before):
        seen.append(task["revises"])
        before = task["revises"]
    assert seen == done[::-1]
    last = desk.back()
    ranking = Ranking.objects.get(pk=done[2])
    assert last["lease"] == str(ranking.lease_id) and last["order"] == [str(pk) for pk in ranking.presented_order]
    assert last["answer"]["ranking"] == [[one] for one in last["order"]] and last["draft"] is None
    assert f'data-id="{last["order"][0]}"' in last["html"] and last["version"] == 1


def test_a_revision_keeps_its_place_on_the_way_back(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project)
    first, second = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(2)]
    older = desk.back(second)
    assert older["revises"] == first
    answer = desk.send(revision_of(older) | {"ranking": [older["order"]], "strengths": []}).json()
    assert answer["ranking"] == {"id": answer["ranking"]["id"], "revision": 2, "counted": True}
    assert desk.back()["revises"] == second
    again = desk.back(second)
    assert again["revises"] == answer["ranking"]["id"] and again["answer"]["ranking"] == [sorted(older["order"])]
    assert desk.back(again["revises"]) is None and desk.back(first) is None


def test_a_revision_of_what_is_not_the_last_is_told_which_is(desk: Desk, project: Project) -> None:
    make_task(project)
    desk.submit(desk.next()["tasks"][0])
    seen = desk.back()
    second = desk.send(revision_of(seen) | {"all_bad": True}).json()["ranking"]
    stale = desk.send(revision_of(seen))
    assert code_of(stale) == (409, "superseded")
    assert stale.json()["error"]["extra"] == {"ranking": int(second["id"])}


def test_back_passes_over_what_was_withdrawn_or_is_anothers(desk: Desk, project: Project) -> None:
    for _ in range(2):
        make_task(project, overlap=2)
    first, second = [desk.submit(desk.next()["tasks"][0])["ranking"]["id"] for _ in range(2)]
    withdraw_ranking(ranking=Ranking.objects.get(pk=second))
    assert desk.back()["revises"] == first and desk.back(second)["revises"] == first
    ann = Desk(make_user("ann", project=project), project)
    assert ann.back() is None and ann.back(first) is None
    assert code_of(desk.post("rank_back", {"before": "x"})) == (422, "invalid")


def test_a_draft_of_a_revision_is_kept_until_it_is_submitted(desk: Desk, project: Project) -> None:
    make_task(project)
    desk.submit(desk.next()["tasks"][0])
    task = desk.back()
    body = task["answer"] | {"all_bad": True}
    assert code_of(desk.draft(task["lease"], body)) == (409, "already_submitted")
    assert desk.draft(task["lease"], body | {"revises": task["revises"]}).json() == {"version": 1}
    assert desk.draft(task["lease"], body | {"revises": int(task["revises"])}, version=1).json() == {"version": 2}
    assert desk.back()["draft"]["version"] == 2 and desk.back()["draft"]["body"]["all_bad"] is True
    desk.send(revision_of(task) | {"all_bad": True})
    assert not Draft.objects.exists() and desk.back()["draft"] is None
    late = desk.draft(task["lease"], body | {"revises": task["revises"]}, version=2)
    assert code_of(late) == (409, "already_submitted")
