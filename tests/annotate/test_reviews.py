"""Reviews: the last one holds, nobody's own, a revision starts anew; exports and snapshots of what was accepted."""

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from annotate.errors import Conflict, Forbidden, Invalid
from annotate.interchange import EXPORTS
from annotate.models import Project, Ranking, Review, Slot, Snapshot, User
from annotate.selectors.reviews import next_to_review, returned_to
from annotate.selectors.task_lists import TaskFilter, browse_tasks
from annotate.services.exports import open_export
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from annotate.services.reviews import review_ranking
from annotate.services.snapshots import freeze_snapshot
from annotate.services.withdrawals import withdraw_ranking
from tests.annotate.api.conftest import token_client
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, submit
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db


class World:
    """Bob ranked three tasks; Rita reviews."""

    def __init__(self) -> None:
        self.project = make_project("tales")
        self.bob = make_user("bob", project=self.project)
        self.rita = make_user("rita", project=self.project, role="reviewer")
        self.rankings = [self.ranked(self.bob) for _ in range(3)]

    def ranked(self, user: User) -> Ranking:
        make_task(self.project)
        return submit(next_leases(project=self.project, annotator=user)[0], user, tiers=[[0], [1, 2]])

    def review(self, number: int, verdict: str, note: str = "Look again.") -> Review:
        return review_ranking(ranking=self.rankings[number], reviewer=self.rita, verdict=verdict, note=note)

    def revise(self, number: int) -> Ranking:
        old = self.rankings[number]
        answer = answer_of(Slot(presented_order=old.presented_order))
        return revise_ranking(ranking_id=old.pk, supersedes=old.pk, annotator=self.bob, answer=answer)


@pytest.fixture
def world() -> World:
    return World()


def ids(project: Project, **options: str) -> list[int]:
    export = open_export(project, options=options)
    found = [int(json.loads(line)["id"]) for line in export.lines]
    assert len(found) == export.count
    return found


# --- rules ------------------------------------------------------------------------------------------------------------

INSERT = "INSERT INTO annotate_review (ranking_id, reviewer_id, verdict, note, change) VALUES (%s, %s, %s, '', %s)"


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def test_the_database_refuses_what_no_review_can_be(world: World) -> None:
    superseded, withdrawn, free = world.rankings
    world.revise(0)
    withdraw_ranking(ranking=withdrawn)
    sql(INSERT, free.pk, world.rita.pk, "accepted", 900)
    for why, statement, values in (
        ("of their own", INSERT, (free.pk, world.bob.pk, "accepted", 901)),
        ("withdrawn ranking", INSERT, (withdrawn.pk, world.rita.pk, "accepted", 902)),
        ("last revision", INSERT, (superseded.pk, world.rita.pk, "accepted", 903)),
        ("review_verdict_known", INSERT, (free.pk, world.rita.pk, "fine", 904)),
        ("one_review_per_ranking_and_change", INSERT, (free.pk, world.rita.pk, "accepted", 900)),
        ("only a withdrawal", "UPDATE annotate_review SET verdict = 'returned'", ()),
        ("must blank", "UPDATE annotate_review SET withdrawn_at = now(), note = 'x'", ()),
        ("append-only", "DELETE FROM annotate_review", ()),
    ):
        with pytest.raises(DatabaseError, match=why), transaction.atomic():
            sql(statement, *values)
    sql("UPDATE annotate_review SET withdrawn_at = now(), note = ''")


def test_the_service_says_why(world: World) -> None:
    first, second, _third = world.rankings
    with pytest.raises(Forbidden):
        review_ranking(ranking=first, reviewer=world.bob, verdict="accepted")
    for bad in (
        {"verdict": "fine"},
        {"verdict": "returned", "note": "  "},
        {"verdict": "accepted", "note": "x" * 2001},
    ):
        with pytest.raises(Invalid):
            review_ranking(ranking=first, reviewer=world.rita, **bad)
    revised = world.revise(0)
    withdraw_ranking(ranking=second)
    for number, code in ((0, "superseded"), (1, "withdrawn")):
        with pytest.raises(Conflict) as refused:
            world.review(number, "accepted")
        assert refused.value.code == code and refused.value.extra in ({}, None, {"ranking": str(revised.pk)})
    assert not Review.objects.exists()


# --- what goes out ----------------------------------------------------------------------------------------------------


def test_the_last_review_holds_and_a_revision_starts_without_one(world: World) -> None:
    first, second, third = (one.pk for one in world.rankings)
    assert ids(world.project) == [first, second, third] and ids(world.project, reviewed="yes") == []
    world.review(0, "accepted")
    world.review(1, "accepted")
    world.review(2, "returned")
    assert ids(world.project, reviewed="yes") == [first, second] and len(ids(world.project, reviewed="any")) == 3
    world.review(0, "returned")
    world.review(2, "accepted")
    assert ids(world.project, reviewed="yes") == [second, third]
    world.rankings[1] = world.revise(1)
    assert ids(world.project, reviewed="yes") == [third]
    world.review(1, "accepted")
    assert ids(world.project, reviewed="yes") == [third, world.rankings[1].pk]
    withdraw_ranking(ranking=world.rankings[2])
    assert ids(world.project, reviewed="yes") == [world.rankings[1].pk]


@pytest.mark.parametrize("format", EXPORTS)
def test_every_format_promises_as_many_lines_as_it_has(world: World, format: str) -> None:
    world.review(1, "accepted")
    whole, reviewed = (open_export(world.project, format=format, options={"reviewed": one}) for one in ("any", "yes"))
    lines = [len(list(export.lines)) for export in (whole, reviewed)]
    assert lines == [whole.count, reviewed.count] and lines[0] == 3 * lines[1] > 0
    if EXPORTS[format].line is not None:
        majority = open_export(world.project, format=format, options={"reviewed": "yes", "votes": "majority"})
        assert len(list(majority.lines)) == majority.count > 0


def test_what_is_reviewed_meanwhile_changes_nothing_of_an_export_or_a_snapshot(world: World) -> None:
    world.review(0, "accepted")
    export = open_export(world.project, options={"reviewed": "yes"})
    world.review(0, "returned")
    world.review(1, "accepted")
    assert [int(json.loads(line)["id"]) for line in export.lines] == [world.rankings[0].pk]
    snapshot = freeze_snapshot(project=world.project, name="accepted", filters={"reviewed": True})
    assert list(snapshot.snapshot_rankings.values_list("ranking", flat=True)) == [world.rankings[1].pk]
    assert snapshot.filters["reviewed"] is True
    call_command("create_snapshot", project=world.project.slug, name="again", reviewed=True, verbosity=0)
    assert Snapshot.objects.get(name="again").sha256 == snapshot.sha256


def test_what_is_new_among_the_reviewed_cannot_be_told(world: World) -> None:
    cursor = open_export(world.project, options={"reviewed": "yes"}).cursor
    with pytest.raises(Invalid) as refused:
        open_export(world.project, since=cursor, options={"reviewed": "yes"})
    assert "since" in refused.value.fields
    assert open_export(world.project, since=cursor).count == 0  # without the option the feed goes on as ever


# --- reviewers and annotators -----------------------------------------------------------------------------------------


def test_over_rest_a_review_is_shown_with_its_ranking(world: World) -> None:
    rita, bob = token_client(world.rita), token_client(world.bob)
    path = f"/api/v1/rankings/{world.rankings[0].pk}/review/"
    answers = [
        rita.post(path, {"verdict": "returned", "note": "B is wrong."}, headers={"Idempotency-Key": "k"}) for _ in "12"
    ]
    assert [one.status_code for one in answers] == [201, 201] and Review.objects.count() == 1
    assert rita.post(path, {"verdict": "returned"}).status_code == 422
    assert rita.post(path, {"verdict": "perhaps"}).status_code == 400
    assert token_client(make_user("own", project=world.project, role="manager")).post(path, {}).status_code == 400
    mine = world.ranked(world.rita)
    assert rita.post(f"/api/v1/rankings/{mine.pk}/review/", {"verdict": "accepted"}).status_code == 403
    (first, second, *_) = bob.get("/api/v1/projects/tales/rankings/").json()["results"]
    assert first["review"] == answers[0].json() and second["review"] is None
    assert (first["review"]["verdict"], first["review"]["reviewer"]) == ("returned", "rita")
    other = token_client(make_user("dora", project=world.project)).get("/api/v1/projects/tales/rankings/")
    assert other.json()["results"] == []


def test_a_reviewer_goes_from_one_to_the_next(world: World) -> None:
    machine = make_user("judge", project=world.project, kind="machine")
    own, judged = world.ranked(world.rita), world.ranked(machine)
    page = browser(world.rita)
    assert len(browse_tasks(world.project, TaskFilter(unreviewed=True)).rows) == 4  # her own is for others
    for ranking, verdict in zip(world.rankings, ("accepted", "returned", "accepted"), strict=True):
        found = page.get("/p/tales/review/", follow=True)
        assert f'action="/p/tales/answers/{ranking.pk}/review/"' in found.content.decode()
        assert found.redirect_chain[-1][0].endswith(f"?review={ranking.pk}")
        body = {"verdict": verdict, "note": "Why?", "walking": "1"}
        said = page.post(f"/p/tales/answers/{ranking.pk}/review/", body)
        assert said["Location"] == f"/p/tales/review/?after={ranking.pk}"
    assert "Nothing waits" in page.get("/p/tales/review/").content.decode()
    assert next_to_review(world.project, world.bob) == own
    (left,) = browse_tasks(world.project, TaskFilter(unreviewed=True)).rows
    assert left.task.pk == own.task_id and judged.task_id != own.task_id
    again = page.get(f"/p/tales/tasks/{world.rankings[1].task_id}/").content.decode()
    assert "Returned" in again and "Why?" in again and "Review again" in again
    refused = page.post(f"/p/tales/answers/{world.rankings[1].pk}/review/", {"verdict": "returned"}, follow=True)
    assert "Say in a note" in refused.content.decode() and Review.objects.count() == 3
    elsewhere = World.__new__(World)
    elsewhere.project = make_project("third")
    foreign = elsewhere.ranked(make_user("zoe", project=elsewhere.project))
    assert page.post(f"/p/tales/answers/{foreign.pk}/review/", {"verdict": "accepted"}).status_code == 404


def test_skipping_leads_on_and_round_again(world: World) -> None:
    first, _second, third = world.rankings
    assert next_to_review(world.project, world.rita, after=first.pk - 1) == first
    assert next_to_review(world.project, world.rita, after=third.pk) == first
    withdraw_ranking(ranking=first)
    revised = world.revise(1)
    assert next_to_review(world.project, world.rita) == third
    assert next_to_review(world.project, world.rita, after=third.pk) == revised


def test_what_was_given_back_is_shown_to_its_annotator_until_it_is_revised(world: World) -> None:
    world.review(0, "returned", "Is B really <b>better</b>?")
    world.review(1, "returned", "First thought.")
    world.review(1, "accepted")
    page = browser(world.bob)
    overview = page.get("/p/tales/").content.decode()
    assert "Given back to you" in overview and "Is B really &lt;b&gt;better&lt;/b&gt;?" in overview
    assert f"/p/tales/rank/?again={world.rankings[0].pk}" in overview and "First thought." not in overview
    assert (
        f'data-again="{world.rankings[0].pk}"'
        in page.get(f"/p/tales/rank/?again={world.rankings[0].pk}").content.decode()
    )

    def back(user: User, **body: Any) -> Any:
        sent = browser(user).post("/p/tales/rank/back/", body, content_type="application/json")
        return sent.json()["task"]

    task = back(world.bob, ranking=str(world.rankings[0].pk))
    assert task["revises"] == str(world.rankings[0].pk) and "&lt;b&gt;better" in task["html"]
    assert "Given back" not in back(world.bob, ranking=world.rankings[1].pk)["html"]
    assert back(world.bob)["task"] == world.rankings[2].task_id  # without a name the last answer, as ever
    assert back(make_user("dora", project=world.project), ranking=world.rankings[0].pk) is None
    bad = page.post("/p/tales/rank/back/", {"ranking": "x"}, content_type="application/json")
    assert bad.status_code == 422
    world.revise(0)
    assert (
        "Given back to you" not in page.get("/p/tales/").content.decode()
        and returned_to(world.bob, world.project) == []
    )


def test_a_manager_withdraws_a_response_on_a_page(world: World) -> None:
    mona = make_user("mona", project=world.project, role="manager")
    task = world.rankings[0].task
    one, other = task.task_responses.order_by("pk")[:2]
    page, address = browser(mona), f"/p/tales/tasks/{task.pk}/responses/{one.response_id}/withdraw/"
    assert address in page.get(f"/p/tales/tasks/{task.pk}/").content.decode()
    assert "1 ranking " in page.get(address).content.decode()
    done = page.post(address, follow=True).content.decode()
    assert "The response was withdrawn." in done and "its text is gone" in done and address not in done
    assert other.response.text in done and Ranking.objects.filter(withdrawn_at=None).count() == 2
    assert "withdrawn before" in page.post(address, follow=True).content.decode()
    foreign = world.rankings[1].task
    assert page.get(f"/p/tales/tasks/{foreign.pk}/responses/{one.response_id}/withdraw/").status_code == 404


def test_a_manager_withdraws_a_member_on_a_page(world: World) -> None:
    mona = make_user("mona", project=world.project, role="manager")
    snapshot = freeze_snapshot(project=world.project, name="The first one")
    member = world.project.memberships.get(user=world.bob)
    page, address = browser(mona), f"/p/tales/people/{member.pk}/withdraw/"
    assert address in page.get(f"/p/tales/people/{member.pk}/").content.decode()
    asked = page.get(address).content.decode()
    assert "3 rankings" in asked and "The first one" in asked and Ranking.objects.filter(withdrawn_at=None).count() == 3
    done = page.post(address, follow=True).content.decode()
    assert "is withdrawn: 3 rankings" in done and "Nothing of bob" in done and "mona" in done
    snapshot.refresh_from_db()
    assert snapshot.state == "withdrawn" and not Ranking.objects.filter(withdrawn_at=None).exists()
