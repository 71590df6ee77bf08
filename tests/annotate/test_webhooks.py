"""Webhooks: what is told, in which order, signed, and again after failures."""

import hashlib
import hmac
import json
import socket
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from annotate.models import Project, User, Webhook, WebhookDelivery
from annotate.selectors.webhooks import webhooks_of
from annotate.services import outbox
from annotate.services.outbox import PAUSES, claim_delivery, deliver_due
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from annotate.services.snapshots import freeze_snapshot
from annotate.services.webhooks import change_webhook, create_webhook, ping_webhook, renew_secret, replay_delivery
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, submit
from tests.annotate.hooks import State, alice, due_now, hook, private_addresses_allowed, project, rank, there, told
from tests.annotate.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
__all__ = ["alice", "hook", "private_addresses_allowed", "project", "there"]  # fixtures


# --- what is told -----------------------------------------------------------------------------------------------------


def test_everything_that_happens_is_told_in_its_order(project: Project, hook: Webhook, there: Receiver) -> None:
    task = make_task(project, overlap=2, external_id="q-1")
    first, slot, bob = rank(project, "bob")
    revised = revise_ranking(ranking_id=first.pk, supersedes=first.pk, annotator=bob, answer=answer_of(slot))
    second, *_ = rank(project, "dora")
    snapshot = freeze_snapshot(project=project, name="one")
    withdraw_prompt(prompt=task.prompt)
    assert deliver_due() == 10
    seen = told(there)
    assert [event for event, _data in seen] == [
        "ranking.submitted",
        "ranking.revised",
        "ranking.submitted",
        "task.completed",
        "snapshot.frozen",
        "snapshot.withdrawn",
        "ranking.withdrawn",
        "ranking.withdrawn",
        "ranking.withdrawn",
        "prompt.withdrawn",
    ]
    assert seen[0][1]["ranking"] == str(first.pk) and seen[0][1]["external_id"] == "q-1"
    assert seen[1][1]["supersedes"] == str(first.pk)
    assert seen[3][1]["rankings"] == [str(revised.pk), str(second.pk)]
    assert seen[4][1]["sha256"] == snapshot.sha256
    assert "good answer" not in b"".join(one.body for one in there.told).decode(), "texts are for exports"
    assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {State.DELIVERED}


def test_only_what_was_chosen_is_told_and_a_project_without_hooks_writes_nothing(
    project: Project, alice: User, there: Receiver
) -> None:
    create_webhook(project=project, by=alice, url=there.url, events=["task.completed"])
    other = make_project("other")
    for one in (project, other):
        make_task(one, overlap=1)
        rank(one, f"bob-{one.slug}")
    assert list(WebhookDelivery.objects.values_list("event", flat=True)) == ["task.completed"]


def test_a_submit_without_hooks_costs_no_further_query(project: Project) -> None:
    make_task(project, overlap=1)
    person = make_user("bob", project=project)
    slot = next_leases(project=project, annotator=person)[0]
    with CaptureQueriesContext(
        connection,
    ) as seen:
        submit(slot, person)
    assert not [one["sql"] for one in seen if "webhook" in one["sql"] and "annotate_change" not in one["sql"]]


def test_lower_overlap_completes_tasks(project: Project, hook: Webhook, there: Receiver) -> None:
    task = make_task(project, overlap=2)
    make_task(project, overlap=2)
    rank(project, "bob")
    set_overlap_of_all(project=project, overlap=1)
    deliver_due()
    assert [data["task"] for event, data in told(there) if event == "task.completed"] == [task.pk]


# --- signatures -------------------------------------------------------------------------------------------------------


def test_deliveries_are_signed_and_both_secrets_sign_for_a_day(
    project: Project, hook: Webhook, there: Receiver, alice: User
) -> None:
    old = hook.secret
    new = renew_secret(webhook=hook, by=alice).secret
    outbox.send_test(webhook=hook)
    Webhook.objects.filter(pk=hook.pk).update(previous_until=Now() - timedelta(seconds=1))
    outbox.send_test(webhook=hook)
    with CaptureQueriesContext(connection):
        Webhook.objects.filter(pk=hook.pk).update(previous_until=Now() + timedelta(hours=1))
        claim = claim_delivery()
        assert claim is not None
        outbox.send(claim)
    Webhook.objects.filter(pk=hook.pk).update(previous_until=Now() - timedelta(seconds=1))
    deliver_due()
    both, one = (signatures_of(delivery) for delivery in there.told)
    assert old != new and both == [expected(new, there.told[0]), expected(old, there.told[0])]
    assert one == [expected(new, there.told[1])]
    assert there.told[0].headers["Plackett-Event"] == "ping" and there.told[0].path == "/hook?of=us"


def signatures_of(delivery: Any) -> list[str]:
    parts = [part.split("=", 1) for part in delivery.headers["Plackett-Signature"].split(",")]
    assert abs(int(parts[0][1]) - time.time()) < 60
    return [value for name, value in parts if name == "v1"]


def expected(secret: str, delivery: Any) -> str:
    sent = delivery.headers["Plackett-Signature"].split(",")[0].removeprefix("t=")
    return hmac.new(secret.encode(), sent.encode() + b"." + delivery.body, hashlib.sha256).hexdigest()


# --- failures ---------------------------------------------------------------------------------------------------------


def test_what_failed_is_sent_again_with_its_id_before_anything_later(
    project: Project, hook: Webhook, there: Receiver
) -> None:
    make_task(project, overlap=1)
    there.status = 503
    first = outbox.send_test(webhook=hook)
    rank(project, "bob")
    assert deliver_due() == 1, "what comes later waits for the first"
    first.refresh_from_db()
    assert (first.state, first.attempts, first.status, first.excerpt) == (State.WAITING, 1, 503, "thank you")
    assert first.problem == "It answered 503."
    assert deliver_due() == 0, "it waits its pause"
    assert webhooks_of(project).get().failing
    there.status = 204
    ping_webhook(webhook=hook)
    assert deliver_due() == 4, "whoever tries it out has what waits sent, too"
    assert not webhooks_of(project).get().failing
    ids = [json.loads(one.body)["id"] for one in there.told]
    assert ids[0] == ids[1] == str(first.event_id) and len(set(ids)) == 4
    assert [event for event, _ in told(there)] == ["ping", "ping", "ranking.submitted", "task.completed", "ping"]


def test_after_the_last_attempt_an_event_is_given_up_and_after_three_the_hook_is_off(
    project: Project, hook: Webhook, there: Receiver, alice: User
) -> None:
    there.status = 500
    deliveries = [outbox.send_test(webhook=hook) for _ in range(4)]
    for given_up in range(outbox.GIVEN_UP_LIMIT):
        WebhookDelivery.objects.filter(pk=deliveries[given_up].pk).update(attempts=len(PAUSES))
        due_now()
        assert deliver_due() >= 1
    hook.refresh_from_db()
    assert [WebhookDelivery.objects.get(pk=one.pk).state for one in deliveries] == ["given_up"] * 3 + ["waiting"]
    assert hook.switched_off_at is not None and "3 events" in hook.switched_off_because
    due_now()
    assert deliver_due() == 0
    make_task(project, overlap=1)
    rank(project, "bob")
    assert WebhookDelivery.objects.count() == 4, "nothing new is kept for a hook that is off"
    there.status = 200
    change_webhook(webhook=hook, by=alice, on=True)
    replay_delivery(delivery=WebhookDelivery.objects.get(pk=deliveries[0].pk))
    assert deliver_due() == 2
    sent = [json.loads(one.body)["id"] for one in there.told[-2:]]
    assert sent == [str(deliveries[3].event_id), str(deliveries[0].event_id)]


def test_gone_switches_the_hook_off_at_once(hook: Webhook, there: Receiver) -> None:
    there.status = 410
    outbox.send_test(webhook=hook)
    deliver_due()
    hook.refresh_from_db()
    assert hook.switched_off_because == "It answered 410 Gone."


def test_redirects_are_not_followed(hook: Webhook, there: Receiver) -> None:
    with receiver() as elsewhere:
        there.status, there.headers = 302, {"Location": elsewhere.url}
        delivery = outbox.send_test(webhook=hook)
        deliver_due()
        delivery.refresh_from_db()
        assert delivery.state == State.WAITING and "redirects are not followed" in delivery.problem
        assert not elsewhere.told


def test_a_slow_or_endless_answer_ends_in_bounded_time_and_memory(
    hook: Webhook, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.answer = b"x" * 5_000_000
    delivery = outbox.send_test(webhook=hook)
    deliver_due()
    delivery.refresh_from_db()
    assert delivery.state == State.DELIVERED and 0 < len(delivery.excerpt) <= 2000
    with dripping() as url:
        Webhook.objects.filter(pk=hook.pk).update(url=url)
        monkeypatch.setattr(outbox, "post", lambda *args: real_post(*args, seconds=0.5))
        slow = outbox.send_test(webhook=hook)
        deliver_due()
    slow.refresh_from_db()
    assert slow.state == State.WAITING and "No whole answer" in slow.problem


def real_post(*args: Any, **options: Any) -> Any:
    from annotate.services.outgoing import post

    return post(*args, **options)


class dripping:
    """A server that sends a byte of a header now and then, so that no timeout of a socket ever passes."""

    def __enter__(self) -> str:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        threading.Thread(target=self._drip, daemon=True).start()
        return f"http://127.0.0.1:{self._server.getsockname()[1]}/"

    def _drip(self) -> None:
        link, _ = self._server.accept()
        try:
            link.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._over.wait(0.05):
                link.sendall(b"x")
        except OSError:
            pass

    def __exit__(self, *_args: Any) -> None:
        self._over.set()
        self._server.close()
