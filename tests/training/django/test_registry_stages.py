"""Promotion: one in production, who and when, doubts that must be confirmed; the same by the API and on the page."""

from typing import Any

import pytest
from django.test import Client

from annotate.errors import Conflict, Invalid
from annotate.models import Snapshot
from tests.training.django.helpers import RunCast
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_run_api import client_of, finished
from training.models import ModelEvent, ModelVersion, Run
from training.services.registry import promote_model

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def stages() -> dict[int, str]:
    return dict(ModelVersion.objects.values_list("pk", "stage"))


def promote(model: ModelVersion, user: Any, **body: Any) -> Any:
    return client_of(user).post(f"/api/v1/models/{model.pk}/promote/", {"stage": "production"} | body)


def test_promoting_another_archives_the_present_one(snapshot: Snapshot, people: RunCast) -> None:
    first, second, reward = make_model(snapshot), make_model(snapshot), make_model(snapshot, kind="reward")
    for model in (first, reward, second):
        promote_model(model, stage="production", actor=people.alice, reason=" because ")
    assert stages() == {first.pk: "archived", second.pk: "production", reward.pk: "production"}
    events = ModelEvent.objects.filter(model=first).order_by("pk")
    assert [(one.from_stage, one.to_stage, one.reason, one.actor) for one in events] == [
        ("new", "production", "because", people.alice),
        ("production", "archived", f"Model {second.pk} took its place.", people.alice),
    ]
    assert all(one.at is not None for one in events)


def test_the_same_stage_again_changes_nothing(snapshot: Snapshot, people: RunCast) -> None:
    model = make_model(snapshot)
    for _ in range(2):
        promote_model(model, stage="candidate", actor=people.alice)
    assert ModelEvent.objects.count() == 1
    with pytest.raises(Invalid):
        promote_model(model, stage="famous", actor=people.alice)


@pytest.mark.parametrize("doubt", ["suspect run", "suspect report", "withdrawn", "withdrawn before"])
def test_what_is_to_be_doubted_is_trusted_only_with_a_reason(snapshot: Snapshot, people: RunCast, doubt: str) -> None:
    model = finished(snapshot)
    if doubt == "suspect run":
        Run.objects.filter(pk=model.run_id).update(suspect=True)
    elif doubt == "suspect report":
        ModelVersion.objects.filter(pk=model.pk).update(report={"suspect": {"step": 3}})
    else:
        Snapshot.objects.filter(pk=snapshot.pk).update(state="withdrawn", withdrawn_at="2026-01-01T00:00:00Z")
        model = make_model(snapshot, parent=model) if doubt == "withdrawn before" else model
    for stage in ("candidate", "production"):
        for body in ({}, {"confirm": True}, {"confirm": True, "reason": "  "}, {"reason": "I know"}):
            answer = promote(model, people.alice, stage=stage, **body)
            assert answer.status_code == 409 and answer.json()["error"]["code"] == "needs_confirmation"
            assert len(answer.json()["error"]["extra"]["doubts"]) == 1
    assert stages()[model.pk] == "new" and not ModelEvent.objects.exists()
    assert promote(model, people.alice, stage="archived").status_code == 200
    answer = promote(model, people.alice, confirm=True, reason="I know")
    assert (answer.status_code, answer.json()["stage"]) == (200, "production")
    assert ModelEvent.objects.order_by("-pk")[0].reason == "I know"


def test_a_deleted_model_has_no_further_stage(snapshot: Snapshot, people: RunCast) -> None:
    model = make_model(snapshot, deleted_at="2026-01-01T00:00:00Z")
    with pytest.raises(Conflict):
        promote_model(model, stage="archived", actor=people.alice)
    assert promote(model, people.alice).json()["error"]["code"] == "deleted"


def test_only_engineers_of_its_own_project_promote(snapshot: Snapshot, people: RunCast) -> None:
    model = make_model(snapshot)
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401)):
        assert promote(model, user).status_code == status
    ModelVersion.objects.filter(pk=model.pk).update(shared=True)
    assert client_of(people.charlie).get(f"/api/v1/models/{model.pk}/").status_code == 200
    assert promote(model, people.charlie).status_code == 403
    assert client_of(people.alice, "read", "write").post(f"/api/v1/models/{model.pk}/promote/", {}).status_code == 403
    assert stages() == {model.pk: "new"}
    assert promote(model, people.sue).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [({"stage": "x"}, "stage"), ({"confirm": 7}, "confirm"), ({"reason": "x" * 2001}, "reason"), ({"odd": 1}, "odd")],
)
def test_what_is_wrong_is_named(snapshot: Snapshot, people: RunCast, body: dict[str, Any], field: str) -> None:
    answer = promote(make_model(snapshot), people.alice, **body)
    assert answer.status_code == 400 and list(answer.json()["error"]["fields"]) == [field]


def page_of(user: Any) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def test_the_page_promotes_and_tells_the_history(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    client = page_of(people.alice)
    given = {"stage": "production", "reason": "the <best> so far"}
    html = client.post(f"/models/{model.pk}/promote/", given, follow=True).content.decode()
    assert stages() == {model.pk: "production"}
    assert "New → Production" in html and "the &lt;best&gt; so far" in html and people.alice.username in html


def test_the_page_keeps_what_was_written_when_it_is_refused(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    Run.objects.filter(pk=model.run_id).update(suspect=True)
    client = page_of(people.alice)
    given = {"stage": "candidate", "reason": "I looked <well>"}
    answer = client.post(f"/models/{model.pk}/promote/", given)
    html = answer.content.decode()
    assert answer.status_code == 409 and 'role="alert"' in html
    assert "I looked &lt;well&gt;</textarea>" in html and '<option value="candidate" selected>' in html
    assert client.post(f"/models/{model.pk}/promote/", given | {"confirm": "on"}).status_code == 302
    assert stages() == {model.pk: "candidate"}
    assert client.post(f"/models/{model.pk}/promote/", {"stage": "\0odd"}).status_code == 422
    assert client.get(f"/models/{model.pk}/promote/").status_code == 405


def test_the_form_is_shown_to_those_who_may_use_it(snapshot: Snapshot, people: RunCast) -> None:
    model = make_model(snapshot, shared=True)
    promote_model(model, stage="candidate", actor=people.alice, reason="secret of ours")
    seen = {user: page_of(user).get(f"/models/{model.pk}/").content.decode() for user in (people.alice, people.charlie)}
    assert "/promote/" in seen[people.alice] and "secret of ours" in seen[people.alice]
    assert "/promote/" not in seen[people.charlie] and "secret of ours" not in seen[people.charlie]
    for user, status in ((people.charlie, 403), (people.bob, 403), (None, 302)):
        answer = page_of(user).post(f"/models/{model.pk}/promote/", {"stage": "production"})
        assert answer.status_code == status
    assert stages() == {model.pk: "candidate"}
