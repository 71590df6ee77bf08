"""Webhooks by the API and on their pages: secrets are told once, and nobody has told what they may not see."""

from typing import Any

import pytest
from django.test import Client

from annotate.models import Project, Role, User, Webhook, WebhookDelivery
from annotate.services.outbox import send_test
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from tests.annotate.factories import make_user

pytestmark = pytest.mark.django_db
PATH = "/api/v1/projects/tales/webhooks/"
URL = "https://93.184.215.14/hook"


@pytest.fixture
def mona(project: Project) -> User:
    """Manages without being an engineer."""
    return make_user("mona", project=project, role=Role.MANAGER)


def test_from_making_one_to_deleting_it(cast: Cast, client_for: ClientFor) -> None:
    client = client_for(cast.alice)
    made = client.post(PATH, {"url": URL, "events": ["run.finished", "ranking.submitted"]})
    assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
    hook = f"{PATH}{made.json()['id']}/"
    assert made.json()["events"] == ["ranking.submitted", "run.finished"]
    renewed = client.post(f"{hook}secret/").json()["secret"]
    assert renewed != made.json()["secret"]
    ping = client.post(f"{hook}ping/").json()
    assert (ping["event"], ping["state"], ping["attempts"], ping["replay"]) == ("ping", "waiting", 0, False)
    error_of(client.post(f"{hook}deliveries/{ping['id']}/replay/"), 409, "waiting")
    WebhookDelivery.objects.update(state="delivered", finished_at="2026-01-01T00:00:00Z", status=200)
    again = client.post(f"{hook}deliveries/{ping['id']}/replay/").json()
    assert (again["event_id"], again["replay"]) == (ping["event_id"], True)
    assert [one["id"] for one in client.get(f"{hook}deliveries/").json()["results"]] == [ping["id"], again["id"]]
    off = client.patch(hook, {"on": False, "events": ["task.completed"]}).json()
    assert (off["on"], off["events"], off["waiting"]) == (False, ["task.completed"], 1)
    error_of(client.post(f"{hook}ping/"), 409, "switched_off")
    listed = client.get(PATH)
    assert [one["url"] for one in listed.json()["results"]] == [URL]
    assert "whsec_" not in listed.content.decode() + client.get(hook).content.decode()
    assert client.delete(hook).status_code == 204
    error_of(client.get(hook), 404)
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"url": URL, "events": []}, 400, "events"),
        ({"url": URL, "events": ["ranking.eaten"]}, 400, "events.0"),
        ({"url": "https://127.0.0.1/", "events": ["ranking.submitted"]}, 422, "url"),
        ({"url": "http://93.184.215.14/", "events": ["ranking.submitted"]}, 422, "url"),
        ({"url": URL}, 400, "events"),
        ({"url": URL, "events": ["ranking.submitted"], "secret": "mine"}, 400, "secret"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(
    cast: Cast, client_for: ClientFor, body: dict[str, Any], status: int, field: str
) -> None:
    refused = client_for(cast.alice).post(PATH, body)
    assert field in error_of(refused, status)["fields"]


def test_only_engineers_have_snapshots_and_runs_told(cast: Cast, client_for: ClientFor, mona: User) -> None:
    alice, other = client_for(cast.alice), client_for(mona)
    error_of(other.post(PATH, {"url": URL, "events": ["run.finished"]}), 403)
    hers = f"{PATH}{alice.post(PATH, {'url': URL, 'events': ['snapshot.frozen']}).json()['id']}/"
    for answer in (
        other.patch(hers, {"url": "https://93.184.215.14/mine"}),
        other.patch(hers, {"events": ["ranking.submitted"]}),
        other.post(f"{hers}secret/"),
        other.delete(hers),
    ):
        error_of(answer, 403)
    own = f"{PATH}{other.post(PATH, {'url': URL, 'events': ['ranking.submitted']}).json()['id']}/"
    error_of(other.patch(own, {"events": ["run.finished"]}), 403)
    assert Webhook.objects.get(pk=int(own.rstrip("/").rsplit("/", 1)[1])).events == ["ranking.submitted"]


def test_a_webhook_of_another_project_is_none_of_ones_business(cast: Cast, client_for: ClientFor) -> None:
    hook = client_for(cast.alice).post(PATH, {"url": URL, "events": ["ranking.submitted"]}).json()["id"]
    error_of(client_for(cast.charlie).get(f"/api/v1/projects/elsewhere/webhooks/{hook}/"), 404)
    other = Webhook.objects.get(pk=hook)
    delivery = send_test(webhook=other)
    mine = client_for(cast.charlie).post(
        "/api/v1/projects/elsewhere/webhooks/", {"url": URL, "events": ["task.completed"]}
    )
    path = f"/api/v1/projects/elsewhere/webhooks/{mine.json()['id']}/deliveries/{delivery.pk}/replay/"
    error_of(client_for(cast.charlie).post(path), 404)


def test_pages_show_a_secret_once_and_what_was_sent(cast: Cast, mona: User) -> None:
    browser = Client()
    browser.force_login(cast.alice)
    made = browser.post("/p/tales/webhooks/", {"url": URL, "events": ["ranking.submitted", "run.finished"]})
    hook = Webhook.objects.get()
    assert hook.secret in made.content.decode() and "no-store" in made["Cache-Control"]
    assert hook.secret not in browser.get("/p/tales/webhooks/").content.decode()
    renewed = browser.post(f"/p/tales/webhooks/{hook.pk}/secret/").content.decode()
    hook.refresh_from_db()
    assert hook.secret in renewed
    browser.post(f"/p/tales/webhooks/{hook.pk}/ping/")
    WebhookDelivery.objects.update(
        state="given_up", finished_at="2026-01-01T00:00:00Z", problem="Nothing listens there.", excerpt="<b>no</b>"
    )
    page = browser.get(f"/p/tales/webhooks/{hook.pk}/").content.decode()
    assert "Nothing listens there." in page and "&lt;b&gt;no&lt;/b&gt;" in page
    wrong = browser.post("/p/tales/webhooks/", {"url": "https://127.0.0.1/", "events": ["ranking.submitted"]})
    assert wrong.status_code == 422 and "private address" in wrong.content.decode()
    assert browser.post(f"/p/tales/webhooks/{hook.pk}/switch/", {"on": "no"}).status_code == 302
    assert browser.get(f"/p/tales/webhooks/{hook.pk}/delete/").status_code == 200
    browser.force_login(mona)
    assert browser.post(f"/p/tales/webhooks/{hook.pk}/delete/").status_code == 403
    browser.force_login(cast.alice)
    assert browser.post(f"/p/tales/webhooks/{hook.pk}/delete/").status_code == 302 and not Webhook.objects.exists()
