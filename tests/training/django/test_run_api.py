"""Runs and models over REST: who may, what comes back, what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.models import ApiToken, Snapshot, User
from annotate.services.tokens import create_token
from tests.training.django.helpers import RunCast, claim, make_snapshot, queue_run
from tests.training.told import points, told_in
from training.models import ModelVersion, Run
from training.services.claims import fail, give_back, mark_running, succeed
from training.services.metrics import StepMetrics, begin_attempt, record_metrics

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]

REPORT = {
    "validation": {
        "accuracy": {"value": 0.71, "low": 0.6, "high": 0.8, "pairs": 20, "prompts": 6},
        "length_baseline": {"value": 0.55, "low": 0.4, "high": 0.7, "pairs": 20, "prompts": 6},
    }
}


def client_of(user: User | None, *scopes: str) -> APIClient:
    client = APIClient()
    if user is not None:
        _, secret = create_token(user=user, name="test", scopes=scopes or tuple(ApiToken.Scope.values))
        client.credentials(HTTP_AUTHORIZATION=f"Token {secret}")
    return client


def body(snapshot: Snapshot, /, **changes: Any) -> dict[str, Any]:
    given = {"project": snapshot.project.slug, "kind": "reward", "snapshot": snapshot.pk, "base_model": "tiny"}
    return given | {"config": {"epochs": 2}} | changes


def finished(snapshot: Snapshot, **fields: Any) -> ModelVersion:
    """A run that has succeeded, by its model."""
    run = queue_run(snapshot)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    values = {"name": "m", "kind": "reward", "folder": f"{run.pk}/out/model", "size_bytes": 7, "report": REPORT}
    model = ModelVersion(project=snapshot.project, run=run, **(values | fields))
    succeed(held, model=model, step=3, report=REPORT)
    return model


def test_the_measurements_come_as_an_event_file_with_each_step_once(
    snapshot: Snapshot, people: RunCast, tmp_path: Path
) -> None:
    run = queue_run(snapshot)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=9)
    told = {"train/loss": 1.0, "train/odd": None}
    record_metrics(held, rows=[StepMetrics(step, told) for step in range(1, 8)], from_step=0)
    give_back(held, lost=False, reason="x")
    again = claim()
    begin_attempt(again, from_step=3, total_steps=9)
    record_metrics(again, rows=[StepMetrics(step, {"train/loss": 2.0}) for step in (4, 5)], from_step=3)
    address = f"/api/v1/runs/{run.pk}/tensorboard/"
    answer = client_of(people.alice).get(address)
    assert answer.status_code == 200 and answer["Cache-Control"] == "private, no-store"
    name = re.fullmatch(r'attachment; filename="(events\.out\.tfevents\.[\d.a-z-]+)"', answer["Content-Disposition"])
    assert name is not None
    (tmp_path / name[1]).write_bytes(b"".join(answer))  # type: ignore[arg-type]
    assert told_in(tmp_path) == points((1, 3, 1.0), (4, 5, 2.0))
    assert client_of(people.alice).head(address).content == b""
    for who, status in (("charlie", 404), ("bob", 403)):
        assert client_of(getattr(people, who)).get(address).status_code == status


def test_start_read_cancel_resume(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)
    answer = client.post("/api/v1/runs/", body(snapshot, name="mine"))
    assert answer.status_code == 201, answer.content
    run = answer.json()
    assert (run["state"], run["name"], run["snapshot"]) == ("queued", "mine", snapshot.pk)
    assert run["started_by"] == people.alice.username and run["config"]["epochs"] == 2
    assert client.get(f"/api/v1/runs/{run['id']}/").json() == run
    assert client.post(f"/api/v1/runs/{run['id']}/cancel/").json()["state"] == "cancelled"
    assert client.post(f"/api/v1/runs/{run['id']}/cancel/").status_code == 200
    assert client.post(f"/api/v1/runs/{run['id']}/resume/").json()["state"] == "queued"
    assert client.post(f"/api/v1/runs/{run['id']}/resume/").status_code == 409


def test_starting_twice_with_one_key_starts_one_run(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)
    answers = [client.post("/api/v1/runs/", body(snapshot), HTTP_IDEMPOTENCY_KEY="k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert Run.objects.count() == 1


def test_a_resume_that_comes_twice_does_not_undo_what_came_between(snapshot: Snapshot, people: RunCast) -> None:
    client, run = client_of(people.alice), queue_run(snapshot)
    model = ModelVersion.objects.create(
        project=run.project, name="m", kind="reward", run=run, folder="1/model", size_bytes=1
    )
    client.post(f"/api/v1/runs/{run.pk}/cancel/")
    for path, sent in (
        (f"/api/v1/runs/{run.pk}/resume/", {}),
        (f"/api/v1/models/{model.pk}/promote/", {"stage": "candidate"}),
        (f"/api/v1/runs/{run.pk}/checkpoints/", {"keep": True}),
    ):
        first = client.post(path, sent, HTTP_IDEMPOTENCY_KEY="k")
        assert first.status_code == 200, first.content
        Run.objects.filter(pk=run.pk).update(state="cancelled", finished_at=run.created_at, keeps_checkpoints=False)
        ModelVersion.objects.update(stage="archived")
        again = client.post(path, sent, HTTP_IDEMPOTENCY_KEY="k")
        assert (again.status_code, again.json(), again["Idempotent-Replay"]) == (200, first.json(), "true"), path
        run.refresh_from_db()
        assert (run.state, run.keeps_checkpoints) == ("cancelled", False)
        assert ModelVersion.objects.get().stage == "archived"


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"kind": "evaluate"}, 422, "baseline"),
        ({"kind": "sing"}, 400, "kind"),
        ({"snapshot": 987654}, 422, "snapshot"),
        ({"snapshot": 2**80}, 400, "snapshot"),
        ({"base_model": "missing"}, 422, "base_model"),
        ({"config": {"epochs": 0}}, 422, "config.epochs"),
        ({"config": {"epochs": [1]}}, 422, "config.epochs"),
        ({"config": {"model": "/etc"}}, 422, "config.model"),
        ({"config": []}, 400, "config"),
        ({"colour": 1}, 400, "colour"),
        ({"name": "x" * 121}, 400, "name"),
    ],
)
def test_what_is_wrong_is_named(
    snapshot: Snapshot, people: RunCast, changes: dict[str, Any], status: int, field: str
) -> None:
    answer = client_of(people.alice).post("/api/v1/runs/", body(snapshot, **changes))
    assert answer.status_code == status, answer.content
    assert field in answer.json()["error"]["fields"]
    assert not Run.objects.exists()


def test_a_snapshot_of_another_project_is_unknown(snapshot: Snapshot, people: RunCast) -> None:
    other = make_snapshot(people.charlie.memberships.get().project)
    answer = client_of(people.alice).post("/api/v1/runs/", body(snapshot, snapshot=other.pk))
    assert answer.status_code == 422 and "snapshot" in answer.json()["error"]["fields"]


def test_lists_show_what_the_caller_may_see(snapshot: Snapshot, people: RunCast) -> None:
    mine = queue_run(snapshot)
    theirs = queue_run(make_snapshot(people.charlie.memberships.get().project))

    def ids(user: User, query: str = "") -> list[int]:
        return [row["id"] for row in client_of(user).get(f"/api/v1/runs/{query}").json()["results"]]

    assert ids(people.alice) == [mine.pk] and ids(people.charlie) == [theirs.pk] and ids(people.bob) == []
    assert ids(people.sue) == [mine.pk, theirs.pk]
    assert ids(people.sue, f"?project={snapshot.project.slug}") == [mine.pk]
    assert ids(people.alice, "?state=queued") == [mine.pk] and ids(people.alice, "?state=failed") == []
    assert client_of(people.alice).get("/api/v1/runs/?state=odd").status_code == 400


def test_metrics_since_a_step(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    held = claim()
    begin_attempt(held, from_step=0, total_steps=9)
    record_metrics(held, rows=[StepMetrics(step, {"train/loss": step / 2}) for step in (1, 2, 3)], from_step=0)
    client = client_of(people.alice)
    answer = client.get(f"/api/v1/runs/{run.pk}/metrics/?since_step=1&attempt=1").json()
    assert answer == {
        "state": "starting",
        "attempt": 1,
        "discard_after": None,
        "more": False,
        "metrics": [
            {"step": 2, "attempt": 1, "values": {"train/loss": 1.0}},
            {"step": 3, "attempt": 1, "values": {"train/loss": 1.5}},
        ],
    }
    assert client.get(f"/api/v1/runs/{run.pk}/metrics/?limit=2").json()["more"] is True
    for query in ("since_step=-1", "since_step=x", "limit=0", "limit=9999999", "attempt=99999999999999999999"):
        assert client.get(f"/api/v1/runs/{run.pk}/metrics/?{query}").status_code == 400


def test_the_registry_tells_accuracy_and_lineage(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    answer = client_of(people.alice).get(f"/api/v1/models/{model.pk}/").json()
    assert answer["accuracy"] == REPORT["validation"]["accuracy"]
    assert answer["length_baseline"]["value"] == 0.55
    assert (answer["run"], answer["snapshot"], answer["base_model"]) == (model.run_id, snapshot.pk, "tiny")
    assert (answer["parent"], answer["lineage"], answer["withdrawn"], answer["report"]) == (None, [], False, REPORT)
    listed = client_of(people.alice).get("/api/v1/models/").json()["results"]
    assert [row["id"] for row in listed] == [model.pk]
    run = client_of(people.alice).get(f"/api/v1/runs/{model.run_id}/").json()
    assert (run["state"], run["model"]) == ("succeeded", model.pk)


def test_models_trained_from_withdrawn_data_say_so_down_the_line(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    child = ModelVersion.objects.create(
        project=snapshot.project, name="c", kind="policy", folder="c", size_bytes=1, parent=model
    )
    other = finished(make_snapshot(snapshot.project, name="other"))
    Snapshot.objects.filter(pk=snapshot.pk).update(state="withdrawn", withdrawn_at="2026-01-01T00:00:00Z")
    rows = client_of(people.alice).get("/api/v1/models/").json()["results"]
    assert {row["id"]: row["withdrawn"] for row in rows} == {model.pk: True, child.pk: True, other.pk: False}
    assert client_of(people.alice).get(f"/api/v1/models/{child.pk}/").json()["lineage"] == [model.pk]


def test_a_shared_model_is_read_by_engineers_elsewhere(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot, shared=True)
    assert client_of(people.charlie).get(f"/api/v1/models/{model.pk}/").status_code == 200
    assert client_of(people.charlie).get("/api/v1/models/").json()["results"][0]["id"] == model.pk
    assert client_of(people.bob).get(f"/api/v1/models/{model.pk}/").status_code == 403


READS = ["runs/{run}/", "runs/{run}/metrics/", "models/{model}/"]
WRITES = ["runs/{run}/cancel/", "runs/{run}/resume/"]


@pytest.mark.parametrize("address", READS + WRITES)
def test_each_address_of_one_thing_is_for_engineers_of_its_project(
    snapshot: Snapshot, people: RunCast, address: str
) -> None:
    model = finished(snapshot)
    run = queue_run(snapshot)
    fail(claim(), reason="because")
    url = f"/api/v1/{address.format(run=run.pk, model=model.pk)}"
    method = "post" if address in WRITES else "get"
    expected = 409 if "cancel" in address else 200
    before = Run.objects.get(pk=run.pk).state
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401)):
        answer = getattr(client_of(user), method)(url)
        assert answer.status_code == status, (address, user, answer.content)
        assert set(answer.json()["error"]) == {"code", "message", "fields"}
    assert Run.objects.get(pk=run.pk).state == before
    assert getattr(client_of(people.alice), method)(url).status_code == expected
    gone = address.format(run=987654321, model=987654321)
    assert getattr(client_of(people.alice), method)(f"/api/v1/{gone}").status_code == 404
    huge = address.format(run=10**30, model=10**30)
    assert getattr(client_of(people.alice), method)(f"/api/v1/{huge}").status_code == 404


@pytest.mark.parametrize("address", ["runs/", "models/"])
def test_lists_of_a_project_are_for_its_engineers(snapshot: Snapshot, people: RunCast, address: str) -> None:
    url = f"/api/v1/{address}?project={snapshot.project.slug}"
    statuses = {client_of(user).get(url).status_code for user in (people.alice, people.sue)}
    assert statuses == {200}
    assert client_of(people.charlie).get(url).status_code == 404
    assert client_of(people.bob).get(url).status_code == 403
    assert client_of(None).get(url).status_code == 401


def test_starting_is_for_engineers_of_the_project(snapshot: Snapshot, people: RunCast) -> None:
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401), (people.sue, 201)):
        assert client_of(user).post("/api/v1/runs/", body(snapshot)).status_code == status


def test_a_token_needs_the_scope_to_train(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    reader = client_of(people.alice, "read", "annotate", "write")
    assert reader.get("/api/v1/runs/").status_code == 200
    for url, given in (("runs/", body(snapshot)), (f"runs/{run.pk}/cancel/", {}), (f"runs/{run.pk}/resume/", {})):
        assert reader.post(f"/api/v1/{url}", given).status_code == 403
    assert client_of(people.alice, "train").get("/api/v1/runs/").status_code == 403
    assert client_of(people.alice, "train").post("/api/v1/runs/", body(snapshot)).status_code == 201
