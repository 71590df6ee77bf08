"""Webhooks beside others: many senders, a worker that dies, submits, a log that is kept for a month."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery, current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from redis import Redis

from annotate.models import Project, Ranking, User, Webhook, WebhookDelivery
from annotate.services import outbox
from annotate.services.outbox import claim_delivery, deliver_due, forget_deliveries
from annotate.services.queue import next_leases
from annotate.services.webhooks import renew_secret
from tests.annotate.factories import make_task, make_user
from tests.annotate.helpers import at_once, submit
from tests.annotate.hooks import State, alice, hook, private_addresses_allowed, project, there
from tests.annotate.receivers import Receiver

pytestmark = pytest.mark.django_db
__all__ = ["alice", "hook", "private_addresses_allowed", "project", "there"]  # fixtures


@pytest.mark.django_db(transaction=True)
def test_many_senders_send_everything_once_and_in_order(project: Project, hook: Webhook, there: Receiver) -> None:
    for _ in range(30):
        outbox.send_test(webhook=hook)
    there.before = lambda: time.sleep(0.005)

    def drain(_index: int) -> int:
        done, idle = 0, 0
        while idle < 5:
            count = deliver_due()
            done, idle = done + count, 0 if count else idle + 1
            time.sleep(0.01)
        return done

    assert sum(at_once(6, drain)) == 30
    ids = list(WebhookDelivery.objects.order_by("pk").values_list("event_id", flat=True))
    assert [json.loads(one.body)["id"] for one in there.told] == [str(one) for one in ids]


@contextmanager
def real_worker(broker: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker of the queue `default` on this database, with messages of its own."""
    command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", "default", "--pool", "solo"]
    database = connection.settings_dict
    url = f"postgresql://{quote(database['USER'])}@/{database['NAME']}?host={quote(str(database['HOST']))}"
    environment = os.environ | {"DATABASE_URL": url, "REDIS_URL": broker, "PLACKETT_WEBHOOK_PRIVATE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle"],
            cwd=Path(__file__).resolve().parents[2],
            env=environment | {"DJANGO_SETTINGS_MODULE": "webapp.settings"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_dies_between_sending_and_noting_has_it_sent_again_under_the_same_id(
    hook: Webhook, there: Receiver, tmp_path: Path
) -> None:
    delivery = outbox.send_test(webhook=hook)
    broker = settings.REDIS_URL.replace("db=0", "db=9")
    messages = current_app.conf.broker_url.replace("virtual_host=0", "virtual_host=9")
    with real_worker(broker, tmp_path / "log") as worker, Celery(broker=messages, set_as_current=False) as app:
        there.before = worker.kill
        app.send_task(outbox.TASK, queue="default", ignore_result=True)
        worker.wait(timeout=60)
    assert len(there.told) == 1, (tmp_path / "log").read_text()
    there.before = lambda: None
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == (State.WAITING, 1)
    assert deliver_due() == 0, "for a while it may still be alive"
    WebhookDelivery.objects.filter(pk=delivery.pk).update(claimed_until=Now() - timedelta(seconds=1))
    assert deliver_due() == 1
    first, second = (json.loads(one.body)["id"] for one in there.told)
    assert first == second == str(delivery.event_id)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == (State.DELIVERED, 2)


def test_what_commits_rings_for_a_worker(hook: Webhook, django_capture_on_commit_callbacks: Any) -> None:
    messages = Redis.from_url(settings.REDIS_URL)
    before = messages.llen("default")
    with django_capture_on_commit_callbacks(execute=True):
        outbox.send_test(webhook=hook)
    assert messages.llen("default") > before


def test_a_sender_that_was_thought_dead_notes_nothing_over_the_one_that_took_over(
    hook: Webhook, there: Receiver
) -> None:
    delivery = outbox.send_test(webhook=hook)
    late = claim_delivery()
    assert late is not None
    WebhookDelivery.objects.filter(pk=delivery.pk).update(claimed_until=Now() - timedelta(seconds=1))
    assert deliver_due() == 1
    there.status = 500
    outbox.send(late)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.status) == (State.DELIVERED, 200)


def test_the_log_is_kept_for_a_month(hook: Webhook, there: Receiver) -> None:
    old, young, waiting = (outbox.send_test(webhook=hook) for _ in range(3))
    done = {"state": State.DELIVERED, "claimed_until": None}
    WebhookDelivery.objects.filter(pk=old.pk).update(finished_at=Now() - timedelta(days=31), **done)
    WebhookDelivery.objects.filter(pk=young.pk).update(finished_at=Now(), **done)
    assert forget_deliveries() == 1
    assert list(WebhookDelivery.objects.values_list("pk", flat=True)) == [young.pk, waiting.pk]


@pytest.mark.django_db(transaction=True)
def test_a_submit_goes_well_while_its_webhook_is_changed_or_deleted(
    project: Project, hook: Webhook, alice: User, there: Receiver
) -> None:
    slots = []
    for number in range(2):
        make_task(project, overlap=1)
        person = make_user(f"bob{number}", project=project)
        slots.append((next_leases(project=project, annotator=person)[0], person))
    held, over = threading.Event(), threading.Event()

    def other(work: Any) -> None:
        with transaction.atomic():
            work()
            held.set()
            over.wait(timeout=0.5)

    for number, work in enumerate((lambda: renew_secret(webhook=hook, by=alice), lambda: hook.delete())):
        held.clear()

        def one(index: int, number: int = number, work: Any = work) -> Any:
            if index == 0:
                return other(work)
            assert held.wait(timeout=30)
            return submit(*slots[number])

        results = at_once(2, one)
        assert not [one for one in results if isinstance(one, Exception)], results
    assert Ranking.objects.count() == 2 and not WebhookDelivery.objects.exists()
