"""What webhooks are to be told: written in the transaction of what happened, sent by workers afterwards.

For each webhook the events of a project go out one after the other, in the order of their commits: a later one waits
until the one before it was delivered or given up. A worker claims a delivery for as long as sending can take; if it
dies between sending and noting that, another sends the same event again under the same id.
"""

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotate.models import Counter, Project, Webhook, WebhookDelivery
from annotate.services.counters import draw
from annotate.services.outgoing import SECONDS, NotSent, Reply, post
from annotate.services.signatures import signed_headers

logger = logging.getLogger(__name__)

TASK = "annotate.deliver_webhooks"
#: What is waited before each further attempt; after the last one the event is given up, 12.5 hours after the first.
PAUSES = tuple(timedelta(seconds=one) for one in (15, 60, 300, 900, 1800, 3600, 7200, 14400, 14400, 28800))
#: After so many events in a row were given up, or one was answered with 410 Gone, the webhook is switched off.
GIVEN_UP_LIMIT = 3
GONE = 410
CLAIM = timedelta(seconds=3 * SECONDS)
KEPT_DAYS = 30

Event = Webhook.Event
State = WebhookDelivery.State

# Webhooks that are switched off are told nothing, also not later. Ids are drawn in the order of the events. The rows of
# the webhooks are held: one that is being deleted is left out, instead of failing what happened.
_WRITE = """
    INSERT INTO annotate_webhookdelivery (webhook_id, event_id, event, body)
    SELECT webhook.id, happened.event_id, happened.event, happened.body
    FROM unnest(%(ids)s::uuid[], %(events)s::text[], %(bodies)s::text[])
        WITH ORDINALITY AS happened(event_id, event, body, place)
    JOIN annotate_webhook webhook ON webhook.project_id = %(project)s AND webhook.switched_off_at IS NULL
        AND happened.event = ANY (webhook.events)
    ORDER BY happened.place, webhook.id FOR KEY SHARE OF webhook
"""

# The first that waits of each webhook, if it is due and nobody is sending it. Of several webhooks the one that was sent
# to the longest ago comes first, so that a slow server does not hold up the others.
_CLAIM = """
    UPDATE annotate_webhookdelivery claimed
    SET claimed_until = statement_timestamp() + %(seconds)s * interval '1 second', attempts = claimed.attempts + 1,
        attempted_at = statement_timestamp()
    WHERE claimed.id = (
        SELECT delivery.id FROM annotate_webhook webhook
        CROSS JOIN LATERAL (
            SELECT first.id FROM annotate_webhookdelivery first
            WHERE first.webhook_id = webhook.id AND first.state = 'waiting' ORDER BY first.id LIMIT 1) head
        JOIN annotate_webhookdelivery delivery ON delivery.id = head.id
        WHERE webhook.switched_off_at IS NULL AND delivery.state = 'waiting'
          AND delivery.due_at <= statement_timestamp()
          AND (delivery.claimed_until IS NULL OR delivery.claimed_until < statement_timestamp())
        ORDER BY webhook.attempted_at NULLS FIRST, delivery.id
        LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED)
    RETURNING claimed.id
"""


# --- writing ----------------------------------------------------------------------------------------------------------


def tell_webhooks(*, project: Project, happened: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes what happened for every webhook of the project that wants it; sends it once the transaction commits.

    Must be called in the transaction of what happened, near its end: it locks the project's change counter, so that
    events are sent in the order of their commits. A project without webhooks costs one look.

    Args:
        happened: (event, data as JSON values) in their order.
    """
    wanted = wanted_events(project)
    told = [(event, data) for event, data in happened if event in wanted]
    if not told:
        return
    draw(project=project, name=Counter.Name.CHANGE, count=0)  # only for its lock
    ids = [uuid.uuid4() for _ in told]
    rows = zip(ids, told, strict=True)
    values: dict[str, Any] = {
        "project": project.pk,
        "ids": ids,
        "events": [event for event, _data in told],
        "bodies": [_body(project, pk, event, data) for pk, (event, data) in rows],
    }
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, values)
    transaction.on_commit(ring, robust=True)


def wanted_events(project: Project) -> set[str]:
    """The events that some webhook of the project is to be told of; none for most projects."""
    hooks = Webhook.objects.filter(project=project, switched_off_at=None)
    return {event for events in hooks.values_list("events", flat=True) for event in events}


def _body(project: Project, event_id: uuid.UUID, event: str, data: Mapping[str, Any]) -> str:
    content = {"id": str(event_id), "event": event, "project": project.slug, "at": timezone.now().isoformat()}
    return json.dumps(content | {"data": data}, ensure_ascii=False)


def send_test(*, webhook: Webhook) -> WebhookDelivery:
    """Writes a delivery of the event `ping` to this webhook alone, and has it sent; it stands in line like others."""
    event_id = uuid.uuid4()
    body = _body(webhook.project, event_id, "ping", {"webhook": webhook.pk})
    delivery = WebhookDelivery.objects.create(webhook=webhook, event_id=event_id, event="ping", body=body)
    transaction.on_commit(ring, robust=True)
    return delivery


def replay(*, delivery: WebhookDelivery) -> WebhookDelivery:
    """Has the same event sent again, with the same id and bytes, behind whatever waits."""
    again = WebhookDelivery.objects.create(
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        event=delivery.event,
        body=delivery.body,
        is_replay=True,
    )
    transaction.on_commit(ring, robust=True)
    return again


def ring() -> None:
    """Wakes a worker. Without a broker nothing is lost but seconds: the sweep looks for itself."""
    try:
        current_app.send_task(TASK, expires=60, retry=False, ignore_result=True)
    except OperationalError as error:
        logger.warning("the broker did not take the doorbell for webhooks: %s", error)


# --- sending ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send a delivery for a while."""

    delivery: WebhookDelivery
    attempt: int


def deliver_due(*, at_most: int = 500) -> int:
    """Sends what is due, one after the other, until nothing is or `at_most` were sent; returns how many attempts."""
    for count in range(at_most):
        claim = claim_delivery()
        if claim is None:
            return count
        send(claim)
    ring()  # others had to wait long enough; the rest comes with the next message
    return at_most


@transaction.atomic
def claim_delivery() -> Claim | None:
    """Takes the delivery whose turn it is; None if nothing is due. Locks one row, skipping those others are taking."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"seconds": CLAIM.total_seconds()})
        row = cursor.fetchone()
    if row is None:
        return None
    delivery = WebhookDelivery.objects.select_related("webhook").get(pk=row[0])
    Webhook.objects.filter(pk=delivery.webhook_id).update(attempted_at=Now())
    return Claim(delivery, delivery.attempts)


def send(claim: Claim) -> None:
    """Sends a claimed delivery and notes what came of it. No transaction is open meanwhile."""
    delivery = claim.delivery
    headers = signed_headers(delivery.webhook, delivery)
    try:
        reply = post(delivery.webhook.url, delivery.body.encode(), headers)
    except NotSent as problem:
        _note(claim, problem=str(problem))
    else:
        _note(claim, reply=reply, problem=_problem_with(reply))


def _problem_with(reply: Reply) -> str:
    if 200 <= reply.status < 300:
        return ""
    if 300 <= reply.status < 400:
        return f"It answered {reply.status}: redirects are not followed; give the address that it leads to."
    return f"It answered {reply.status}."


@transaction.atomic
def _note(claim: Claim, *, problem: str, reply: Reply | None = None) -> None:
    """Writes what came of an attempt, unless the claim ended meanwhile and another worker has the delivery."""
    mine = WebhookDelivery.objects.filter(
        pk=claim.delivery.pk, state=State.WAITING, attempts=claim.attempt, claimed_until__isnull=False
    )
    told: dict[str, Any] = {"claimed_until": None, "problem": problem[:300]}
    told |= {"status": reply.status if reply else None, "excerpt": reply.excerpt if reply else ""}
    told["milliseconds"] = reply.milliseconds if reply else None
    gone = reply is not None and reply.status == GONE
    if not problem:
        told |= {"state": State.DELIVERED, "finished_at": Now()}
    elif gone or claim.attempt > len(PAUSES):
        told |= {"state": State.GIVEN_UP, "finished_at": Now()}
    else:
        told["due_at"] = Now() + PAUSES[claim.attempt - 1]
    if mine.update(**told):
        _note_health(claim.delivery.webhook, state=told.get("state"), gone=gone)


def _note_health(webhook: Webhook, *, state: str | None, gone: bool) -> None:
    same = Webhook.objects.filter(pk=webhook.pk)
    if state == State.DELIVERED:
        same.exclude(given_up_in_a_row=0).update(given_up_in_a_row=0)
    if state != State.GIVEN_UP:
        return
    same.update(given_up_in_a_row=F("given_up_in_a_row") + 1)
    why = "It answered 410 Gone." if gone else f"{GIVEN_UP_LIMIT} events in a row could not be delivered."
    ended = same if gone else same.filter(given_up_in_a_row__gte=GIVEN_UP_LIMIT)
    ended.filter(switched_off_at=None).update(switched_off_at=Now(), switched_off_because=why)


def forget_deliveries(*, days: int = KEPT_DAYS) -> int:
    """Deletes what was delivered or given up this many days ago, and returns how many there were."""
    old = WebhookDelivery.objects.exclude(state=State.WAITING)
    return old.filter(finished_at__lt=Now() - timedelta(days=days)).delete()[0]
