"""The annotator's loop over HTTP: next, extend, release, skip, draft, submit, revise, list."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.models import Project, Ranking, RankingTask, Role, Skip, Slot, TaskFlag
from annotate.services.projects import add_member
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import answer_to, error_of, submit, take
from tests.annotate.factories import make_project, make_task

RANKINGS = "/api/v1/projects/tales/rankings/"


@pytest.fixture
def bob(cast: Cast, task: RankingTask, client_for: ClientFor) -> APIClient:
    return client_for(cast.bob)


def lease_path(lease: dict[str, str] | str, action: str) -> str:
    identifier = lease if isinstance(lease, str) else lease["id"]
    return f"/api/v1/leases/{identifier}/{action}/"


# --- next ------------------------------------------------------------------------------------------------------------


def test_next_gives_all_that_is_needed_to_rank(bob: APIClient, task: RankingTask) -> None:
    lease = take(bob, "tales")
    assert lease["task"] == task.pk and lease["version"] == 1
    assert lease["prompt"] == task.prompt.messages
    shown = Slot.objects.get(lease=lease["id"]).presented_order
    assert [response["id"] for response in lease["responses"]] == [str(pk) for pk in shown or []]
    assert {response["text"] for response in lease["responses"]} == {
        "a good answer",
        "a middling answer",
        "a bad answer",
    }


def test_next_without_a_body_gives_one_and_repeats_it(bob: APIClient, project: Project) -> None:
    make_task(project)
    first = bob.post("/api/v1/projects/tales/next/").json()["leases"]
    again = bob.post("/api/v1/projects/tales/next/").json()["leases"]
    assert len(first) == 1
    assert [lease["id"] for lease in first] == [lease["id"] for lease in again]


def test_next_stays_within_the_limit_of_the_project(bob: APIClient, project: Project) -> None:
    for _ in range(4):
        make_task(project)
    assert len(bob.post("/api/v1/projects/tales/next/", {"count": 2}).json()["leases"]) == 2
    answer = bob.post("/api/v1/projects/tales/next/", {"count": 3})
    assert list(error_of(answer, 422)["fields"]) == ["count"]
    error_of(bob.post("/api/v1/projects/tales/next/", {"count": 0}), 400)


def test_next_is_empty_when_nothing_is_left(bob: APIClient) -> None:
    submit(bob, "tales", take(bob, "tales"))
    assert bob.post("/api/v1/projects/tales/next/").json() == {"leases": []}


# --- a lease ---------------------------------------------------------------------------------------------------------


def test_extend_gives_the_full_time_again(bob: APIClient) -> None:
    lease = take(bob, "tales")
    Slot.objects.filter(lease=lease["id"]).update(expires_at=timezone.now() + timedelta(seconds=5))
    answer = bob.post(lease_path(lease, "extend"))
    assert answer.status_code == 200
    until = Slot.objects.get(lease=lease["id"]).expires_at
    assert until is not None and until > timezone.now() + timedelta(minutes=50)
    assert answer.json()["id"] == lease["id"]


def test_release_frees_the_slot(bob: APIClient) -> None:
    lease = take(bob, "tales")
    assert bob.post(lease_path(lease, "release")).status_code == 204
    assert not Slot.objects.exclude(state="free").exists()
    error_of(bob.post(lease_path(lease, "extend")), 409, "lease_ended")


def test_skip_passes_the_task_on(bob: APIClient) -> None:
    lease = take(bob, "tales")
    assert bob.post(lease_path(lease, "skip"), {"reason": "expert", "note": "Latin"}).status_code == 204
    assert Skip.objects.get().note == "Latin"
    assert bob.post("/api/v1/projects/tales/next/").json() == {"leases": []}


def test_skip_wants_a_reason(bob: APIClient) -> None:
    lease = take(bob, "tales")
    assert list(error_of(bob.post(lease_path(lease, "skip"), {}), 400)["fields"]) == ["reason"]
    assert list(error_of(bob.post(lease_path(lease, "skip"), {"reason": "bored"}), 400)["fields"]) == ["reason"]


def test_a_flag_is_for_the_manager_and_the_task_stays(bob: APIClient) -> None:
    lease = take(bob, "tales")
    flag = lease_path(lease, "flag")
    assert bob.post(flag, {"kind": "unclear", "note": "Which one?"}).status_code == 204
    assert list(TaskFlag.objects.values_list("annotator__username", "kind", "note")) == [
        ("bob", "unclear", "Which one?")
    ]
    assert take(bob, "tales")["id"] == lease["id"]
    TaskFlag.objects.update(settled_at=Now())
    assert bob.post(flag, {"kind": "unclear"}).status_code == 204
    assert TaskFlag.objects.get().settled_at is None, "flagged again, it waits for the manager again"
    assert list(error_of(bob.post(flag, {"kind": "boring"}), 400)["fields"]) == ["kind"]


def test_an_unsafe_task_is_held_and_a_closed_one_stays_closed(bob: APIClient) -> None:
    lease = take(bob, "tales")
    for before, after in (("open", "held"), ("closed", "closed")):
        RankingTask.objects.filter(pk=lease["task"]).update(state=before)
        assert bob.post(lease_path(lease, "flag"), {"kind": "unsafe"}).status_code == 204
        assert RankingTask.objects.get(pk=lease["task"]).state == after


@pytest.mark.parametrize(
    ("action", "method"),
    [("extend", "post"), ("release", "post"), ("skip", "post"), ("flag", "post"), ("draft", "put")],
)
def test_the_lease_of_somebody_else_is_not_there(
    bob: APIClient, cast: Cast, client_for: ClientFor, action: str, method: str
) -> None:
    lease = take(bob, "tales")
    bodies: dict[str, dict[str, Any]] = {"skip": {"reason": "long"}, "flag": {"kind": "unclear"}}
    body = bodies.get(action, {"version": 0, "body": {}})
    for person in (cast.dora, cast.alice, cast.charlie, cast.sue):
        error_of(getattr(client_for(person), method)(lease_path(lease, action), body), 404, "not_found")
    error_of(getattr(client_for(cast.vera), method)(lease_path(lease, action), body), 403, "forbidden")
    error_of(getattr(bob, method)(lease_path(str(uuid.uuid4()), action), body), 404, "not_found")
    assert Slot.objects.filter(lease=lease["id"], state="leased").exists()


def test_who_may_no_longer_rank_loses_the_lease(bob: APIClient, cast: Cast, project: Project) -> None:
    lease = take(bob, "tales")
    add_member(project=project, user=cast.bob, role=Role.VIEWER)
    error_of(bob.post(lease_path(lease, "extend")), 403, "forbidden")
    error_of(bob.post(RANKINGS, answer_to(lease)), 403, "forbidden")


# --- drafts ----------------------------------------------------------------------------------------------------------


def test_a_draft_comes_back_with_the_lease(bob: APIClient) -> None:
    lease = take(bob, "tales")
    body = {"ranking": [[lease["responses"][0]["id"]]], "note": "ü"}
    assert bob.put(lease_path(lease, "draft"), {"version": 0, "body": body}).json() == {"version": 1}
    assert bob.put(lease_path(lease, "draft"), {"version": 1, "body": body}).json() == {"version": 2}
    assert take(bob, "tales")["draft"] == {"version": 2, "body": body}


def test_a_stale_draft_is_409_and_shows_the_last(bob: APIClient) -> None:
    lease = take(bob, "tales")
    bob.put(lease_path(lease, "draft"), {"version": 0, "body": {"from": "tab 1"}})
    answer = bob.put(lease_path(lease, "draft"), {"version": 0, "body": {"from": "tab 2"}})
    assert error_of(answer, 409, "stale_draft")["extra"] == {"draft": {"version": 1, "body": {"from": "tab 1"}}}


def test_a_draft_is_put_not_posted(bob: APIClient) -> None:
    lease = take(bob, "tales")
    error_of(bob.post(lease_path(lease, "draft"), {"version": 0, "body": {}}), 405)


# --- rankings --------------------------------------------------------------------------------------------------------


def test_a_submit_is_stored_as_said(bob: APIClient, cast: Cast) -> None:
    lease = take(bob, "tales")
    a, b, c = (response["id"] for response in lease["responses"])
    stored = submit(
        bob,
        "tales",
        lease,
        ranking=[[b], [a]],
        unranked=[c],
        strengths=[2],
        rationale="b is shorter",
        rewrite={"of": b, "text": " A better one.\n"},
    )
    assert stored["ranking"] == [[b], [a]] and stored["unranked"] == [c] and stored["strengths"] == [2]
    assert stored["rationale"] == "b is shorter" and stored["rewrite"] == {"of": b, "text": " A better one.\n"}
    assert stored["presented_order"] == [a, b, c] and stored["counted"] is True and stored["source"] == "api"
    assert stored["annotator"] == "bob" and stored["revision"] == 1 and stored["seconds"] == 12.5
    assert bob.get(RANKINGS).json() == {"results": [stored], "next": None}


def test_ties_keep_their_tier(bob: APIClient) -> None:
    lease = take(bob, "tales")
    a, b, c = (response["id"] for response in lease["responses"])
    stored = submit(bob, "tales", lease, ranking=[[c, a], [b]])
    assert [sorted(tier) for tier in stored["ranking"]] == [sorted([a, c]), [b]]
    assert stored["strengths"] == [None]


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"ranking": []}, 422, "unranked"),
        ({"ranking": [["999999999"]]}, 422, "ranking.0"),
        ({"ranking": [["nonsense"]]}, 422, "ranking.0"),
        ({"ranking": "abc"}, 400, "ranking"),
        ({"ranking": [[1.5, None]]}, 400, "ranking.0.1"),
        ({"strengths": [4, 1]}, 400, "strengths.0"),
        ({"strengths": [1]}, 422, "strengths"),
        ({"seconds": -1}, 400, "seconds"),
        ({"rewrite": {"of": "7"}}, 400, "rewrite.text"),
        ({"rewrite": {"of": "7", "text": "t"}}, 422, "rewrite.of"),
        ({"ratings": {"7": {"helpful": 3}}}, 422, "ratings.7"),
        ({"flags": {"7": ["unsafe"]}}, 422, "flags.7"),
        ({"lease": "7"}, 400, "lease"),
        ({"strenghts": []}, 400, "strenghts"),
    ],
)
def test_a_wrong_answer_names_the_field(bob: APIClient, changes: dict[str, object], status: int, field: str) -> None:
    lease = take(bob, "tales")
    answer = bob.post(RANKINGS, answer_to(lease, **changes))
    assert field in error_of(answer, status)["fields"]
    assert not Ranking.objects.exists()


def test_a_lease_of_another_project_is_not_there(bob: APIClient, cast: Cast) -> None:
    other = make_project("other")
    add_member(project=other, user=cast.bob)
    lease = take(bob, "tales")
    error_of(bob.post("/api/v1/projects/other/rankings/", answer_to(lease)), 404, "not_found")


def test_nobody_submits_on_the_lease_of_somebody_else(bob: APIClient, cast: Cast, client_for: ClientFor) -> None:
    lease = take(bob, "tales")
    error_of(client_for(cast.dora).post(RANKINGS, answer_to(lease)), 404, "not_found")
    error_of(client_for(cast.sue).post(RANKINGS, answer_to(lease)), 404, "not_found")


def test_a_revision_follows_the_last(bob: APIClient) -> None:
    lease = take(bob, "tales")
    first = submit(bob, "tales", lease)
    turned = {"ranking": first["ranking"][::-1], "supersedes": int(first["id"])}
    second = bob.post(f"/api/v1/rankings/{first['id']}/revise/", turned)
    assert second.status_code == 201, second.content
    assert second.json()["revision"] == 2 and second.json()["supersedes"] == first["id"]
    assert second.json()["ranking"] == first["ranking"][::-1]
    stale = bob.post(f"/api/v1/rankings/{first['id']}/revise/", turned)
    assert error_of(stale, 409, "superseded")["extra"]
    rows = bob.get(RANKINGS).json()["results"]
    assert [row["superseded_by"] for row in rows] == [second.json()["id"], None]


def test_nobody_revises_the_ranking_of_somebody_else(bob: APIClient, cast: Cast, client_for: ClientFor) -> None:
    first = submit(bob, "tales", take(bob, "tales"))
    body = {"ranking": first["ranking"], "supersedes": int(first["id"])}
    path = f"/api/v1/rankings/{first['id']}/revise/"
    for person in (cast.dora, cast.alice, cast.charlie, cast.sue):
        error_of(client_for(person).post(path, body), 404, "not_found")
    error_of(client_for(cast.vera).post(path, body), 403, "forbidden")
    error_of(bob.post("/api/v1/rankings/99999999999999999999999/revise/", body), 404)


def test_annotators_see_their_own_rankings_and_reviewers_all(
    bob: APIClient, cast: Cast, task: RankingTask, client_for: ClientFor
) -> None:
    dora = client_for(cast.dora)
    for client in (bob, dora):
        submit(client, "tales", take(client, "tales"))

    def seen(client: APIClient) -> list[str]:
        return [row["annotator"] for row in client.get(RANKINGS).json()["results"]]

    assert seen(bob) == ["bob"] and seen(dora) == ["dora"]
    assert seen(client_for(cast.rita)) == seen(client_for(cast.alice)) == seen(client_for(cast.sue)) == ["bob", "dora"]
    assert seen(client_for(cast.vera)) == []


# --- pages of lists --------------------------------------------------------------------------------------------------


def test_a_cursor_walks_the_list_once_while_rows_arrive(
    bob: APIClient, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    for _ in range(6):
        make_task(project)
    for _ in range(5):
        submit(bob, "tales", take(bob, "tales"))
    alice = client_for(cast.alice)
    page = alice.get(RANKINGS, {"limit": 2}).json()
    seen = [row["id"] for row in page["results"]]
    submit(bob, "tales", take(bob, "tales"))
    while page["next"]:
        page = alice.get(RANKINGS, {"limit": 2, "cursor": page["next"]}).json()
        seen += [row["id"] for row in page["results"]]
    assert seen == [str(pk) for pk in Ranking.objects.order_by("pk").values_list("pk", flat=True)]
    assert len(seen) == 6


def test_the_list_can_be_narrowed_to_a_task(
    bob: APIClient, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    make_task(project)
    done = [submit(bob, "tales", take(bob, "tales")) for _ in range(2)]
    rows = client_for(cast.alice).get(RANKINGS, {"task": done[1]["task"]}).json()["results"]
    assert [row["id"] for row in rows] == [done[1]["id"]]


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "nonsense"},
        {"cursor": ""},
        {"cursor": "é\0"},
        {"cursor": "YWZ0ZXI6LTU"},
        {"cursor": "YWZ0ZXI6OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "٣"},
        {"task": "x"},
        {"task": "9" * 30},
    ],
)
def test_a_query_that_makes_no_sense_is_400(bob: APIClient, query: dict[str, str]) -> None:
    assert list(error_of(bob.get(RANKINGS, query), 400)["fields"]) == list(query)


def test_the_number_of_queries_does_not_grow_with_the_page(
    bob: APIClient, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    alice = client_for(cast.alice)
    alice.get(RANKINGS)
    counts = []
    for _ in range(3):
        make_task(project)
        submit(bob, "tales", take(bob, "tales"))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            alice.get(RANKINGS)
        counts.append(len(queries))
    assert counts[0] == counts[-1]


def test_a_closed_project_gives_the_leases_held_and_no_new_ones(bob: APIClient, project: Project) -> None:
    make_task(project)
    lease = take(bob, "tales")
    Project.objects.filter(pk=project.pk).update(archived_at=Now())
    answer = bob.post("/api/v1/projects/tales/next/", {"count": 2}).json()
    assert ([one["id"] for one in answer["leases"]], answer["closed"]) == ([lease["id"]], True)
    bob.post(lease_path(lease, "release"))
    error_of(bob.post("/api/v1/projects/tales/next/"), 409, "project_closed")
