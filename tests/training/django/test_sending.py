"""A sampling run's responses become ranking tasks: blind, once, and with a word on what was left out."""

from typing import Any

import pytest
from django.test import Client

from annotate.errors import Conflict
from annotate.models import ImportBatch, Project, RankingTask, Response, Slot, Snapshot, SplitGroup
from annotate.services.import_undo import undo_import
from annotate.services.snapshots import withdraw_snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import RunCast, make_sampled, make_snapshot
from training.models import Run
from training.services.sending import send_responses

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


@pytest.fixture
def project(db: None) -> Project:
    """One whose tasks want two rankings."""
    return make_project(overlap=2)


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_each_prompt_becomes_one_task_with_the_projects_overlap(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [["yes", "no"], ["a", "b", "c", "d"]], models=2)
    taken = send_responses(run, by=people.alice)
    assert (taken.made, taken.known, taken.merged, dict(taken.skipped)) == (2, 0, 0, {})
    tasks = list(RankingTask.objects.order_by("pk"))
    assert [task.task_responses.count() for task in tasks] == [2, 4]
    assert Slot.objects.filter(task=tasks[0]).count() == 2
    said = {one.text: (one.model, one.settings) for one in Response.objects.all()}
    assert said["yes"][0] == "tiny" and said["no"][0] == "owner/model"
    assert said["yes"][1] == {"temperature": 1.0, "max_response_length": 8, "seed": 0, "run": run.pk}
    assert set(SplitGroup.objects.values_list("key", "split")) == {("group 0", "train"), ("group 1", "train")}
    batch = ImportBatch.objects.get()
    assert (batch.pk, batch.source, batch.created_by) == (taken.batch, f"run {run.pk}", people.alice)


def test_sent_again_nothing_is_made_twice_and_it_can_be_undone(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [["yes", "no"], ["a", "b"]], models=2)
    send_responses(run, by=people.alice)
    again = send_responses(run, by=people.alice)
    assert (again.made, again.known, again.batch) == (0, 2, None) and RankingTask.objects.count() == 2
    undo_import(batch=ImportBatch.objects.get(), by=people.alice)
    assert not RankingTask.objects.exists()
    assert send_responses(run, by=people.alice).made == 2


def test_equal_responses_stand_as_one_and_what_makes_no_task_is_counted(snapshot: Snapshot, people: RunCast) -> None:
    many = [f"answer {number}" for number in range(10)]
    run = make_sampled(
        snapshot, [["same", "same", "other"], ["same", "same"], many, ["", "empty is an answer"]], models=2
    )
    taken = send_responses(run, by=people.alice)
    assert (taken.made, taken.merged) == (2, 2)
    assert taken.skipped == {"fewer than two different responses": 1, "more than nine different responses": 1}
    assert Response.objects.get(text="same").model == "tiny = owner/model"


def test_the_order_of_responses_says_nothing_of_their_models(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [["zebra", "apple"], ["apple", "zebra"]], models=2)
    send_responses(run, by=people.alice)
    for task in RankingTask.objects.all():
        texts = [one.response.text for one in task.task_responses.select_related("response").order_by("response__key")]
        assert texts == ["apple", "zebra"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "reward"}, "Only the responses of a sampling run"),
        ({"state": "cancelled"}, "has not succeeded"),
    ],
)
def test_only_a_sampling_run_that_succeeded_is_sent(
    snapshot: Snapshot, people: RunCast, changes: dict[str, str], words: str
) -> None:
    run = make_sampled(snapshot, [["yes", "no"]], models=2)
    for name, value in changes.items():
        setattr(run, name, value)
    with pytest.raises(Conflict, match=words):
        send_responses(run, by=people.alice)
    assert not RankingTask.objects.exists()


def test_what_was_withdrawn_or_deleted_is_not_sent(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [["yes", "no"]], models=2)
    (run.folder / "out" / "responses.jsonl").unlink()
    with pytest.raises(Conflict, match="files are gone"):
        send_responses(run, by=people.alice)
    other = make_sampled(make_snapshot(snapshot.project, name="second"), [["yes", "no"]], models=2)
    assert other.snapshot is not None
    withdraw_snapshot(snapshot=other.snapshot)
    with pytest.raises(Conflict, match="withdrawn"):
        send_responses(Run.objects.get(pk=other.pk), by=people.alice)


def test_the_button_and_the_api_say_what_was_made(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [["yes", "no"], ["same", "same"]], models=2)
    client = client_of(people.alice)
    html = client.post(f"/runs/{run.pk}/send/", follow=True).content.decode()
    assert "1 ranking task was made." in html and "Left out: 1, fewer than" in html
    answer = client.post(f"/api/v1/runs/{run.pk}/send/", HTTP_IDEMPOTENCY_KEY="k")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["made"], told["known"], told["merged"], told["batch"]) == (0, 1, 1, None)
    for user, status in ((people.charlie, 404), (people.bob, 403)):
        for address in (f"/runs/{run.pk}/send/", f"/api/v1/runs/{run.pk}/send/"):
            assert client_of(user).post(address).status_code == status
    assert Client().post(f"/api/v1/runs/{run.pk}/send/").status_code == 401
    assert RankingTask.objects.count() == 1
