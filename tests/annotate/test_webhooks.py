"""Webhooks: what is told, in which order, signed, again after failures, and never to where it must not go."""

import hashlib
import hmac
import json
import os
import socket
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
from django.test.utils import CaptureQueriesContext
from redis import Redis

from annotate.errors import Invalid
from annotate.models import Project, Ranking, Role, Slot, User, Webhook, WebhookDelivery
from annotate.selectors.webhooks import webhooks_of
from annotate.services import outbox
from annotate.services.outbox import PAUSES, claim_delivery, deliver_due, forget_deliveries
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from annotate.services.snapshots import freeze_snapshot
from annotate.services.webhooks import change_webhook, create_webhook, ping_webhook, renew_secret, replay_delivery
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, at_once, submit
from tests.annotate.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
ALL = list(Webhook.Event.values)
State = WebhookDelivery.State


@pytest.fixture(autouse=True)
def private_addresses_allowed(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE = True


@pytest.fixture
def project() -> Project:
    return make_project("tales", overlap=2)


@pytest.fixture
def alice(project: Project) -> User:
    return make_user("alice", project=project, role=Role.MANAGER, engineer=True)


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def hook(project: Project, alice: User, there: Receiver) -> Webhook:
    return create_webhook(project=project, by=alice, url=there.url, events=ALL)


def rank(project: Project, name: str) -> tuple[Ranking, Slot, User]:
    person = make_user(name, project=project)
    slot = next_leases(project=project, annotator=person)[0]
    return submit(slot, person), slot, person


def told(there: Receiver) -> list[tuple[str, dict[str, Any]]]:
    bodies = [json.loads(one.body) for one in there.told]
    return [(body["event"], body["data"]) for body in bodies]


def due_now() -> None:
    WebhookDelivery.objects.filter(state=State.WAITING).update(due_at=Now())


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


# --- workers ----------------------------------------------------------------------------------------------------------


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


# --- where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://127.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/",
        "http://93.184.215.14/",
    ],  # fmt: skip
)
def test_addresses_that_only_this_server_reaches_are_refused_when_saved(
    project: Project, alice: User, settings: Any, url: str
) -> None:
    settings.WEBHOOK_PRIVATE = False
    with pytest.raises(Invalid) as refused:
        create_webhook(project=project, by=alice, url=url, events=ALL)
    assert set(refused.value.fields) == {"url"}
    assert not Webhook.objects.exists()


def test_they_are_refused_again_when_sent_and_the_checked_address_is_the_one_connected_to(
    project: Project, hook: Webhook, there: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, *args: Any, **options: Any) -> Any:
        """A name that is public when it is checked, and this machine ever after."""
        if host != "rebinding.example":
            return real(host, *args, **options)
        asked.append(host)
        return real("127.0.0.1" if len(asked) > 1 else "93.184.215.14", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    settings.WEBHOOK_PRIVATE = False
    port = there.url.split(":")[2].split("/")[0]
    change_webhook(webhook=hook, by=hook.created_by, url=f"https://rebinding.example:{port}/")
    delivery = outbox.send_test(webhook=hook)
    deliver_due()
    delivery.refresh_from_db()
    assert not there.told and "private address" in delivery.problem
    # Without the check at all the name would lead here once more: the connection asks no resolver.
    settings.WEBHOOK_PRIVATE, asked[:] = True, ["once"]
    Webhook.objects.update(url=f"http://rebinding.example:{port}/")
    due_now()
    deliver_due()
    assert len(there.told) == 1 and len(asked) == 2
    assert there.told[0].headers["Host"] == f"rebinding.example:{port}"


def test_tls_checks_the_name_not_the_address(hook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=good.example", "-addext", "subjectAltName=DNS:good.example", "-days", "2"]
    subprocess.run([*names, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *args, **named: real("127.0.0.1", *args, **named))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiver(tls=(certificate, key)) as there:
        port = there.url.split(":")[2].split("/")[0]
        for host in ("good.example", "other.example"):
            Webhook.objects.update(url=f"https://{host}:{port}/")
            delivery = outbox.send_test(webhook=hook)
            due_now()
            deliver_due()
    delivery.refresh_from_db()
    assert len(there.told) == 1 and there.told[0].headers["Host"] == f"good.example:{port}"
    assert "certificate is not trusted" in delivery.problem


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
