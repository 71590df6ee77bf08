"""What a manager decides about the webhooks of a project. What they are told, and how, is services.outbox."""

from collections.abc import Collection
from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Forbidden, Invalid
from annotate.models import Project, User, Webhook, WebhookDelivery
from annotate.models.webhooks import new_webhook_secret
from annotate.selectors.projects import membership_of
from annotate.services.locks import lock_members
from annotate.services.outbox import replay, ring, send_test
from annotate.services.outgoing import check_url

MOST = 20
#: For so long both secrets sign after a new one was made.
CHANGE_OVER = timedelta(hours=24)
#: What only engineers may see, only engineers may have told.
OF_ENGINEERS = frozenset({Webhook.Event.SNAPSHOT_FROZEN, Webhook.Event.SNAPSHOT_WITHDRAWN, Webhook.Event.RUN_FINISHED})


@transaction.atomic
def create_webhook(*, project: Project, by: User, url: str, events: Collection[str]) -> Webhook:
    """Writes a webhook; it is told of what happens from now on. Its `secret` is to be shown this once.

    Raises:
        Invalid: an address that nothing may be sent to, an unknown event, or none.
        Forbidden: `by` is no engineer and wants an event of snapshots or runs.
        Conflict: the project has 20 webhooks (`too_many`).
    """
    chosen = _checked_events(events)
    check_url(url)
    _refuse_unseen(project, by=by, events=chosen)
    lock_members(project)
    if Webhook.objects.filter(project=project).count() >= MOST:
        raise Conflict(_("A project has at most %(most)d webhooks.") % {"most": MOST}, code="too_many")
    webhook = Webhook.objects.create(project=project, url=url, events=chosen, created_by=by)
    webhook.refresh_from_db()
    return webhook


@transaction.atomic
def change_webhook(
    *, webhook: Webhook, by: User, url: str | None = None, events: Collection[str] | None = None, on: bool | None = None
) -> Webhook:
    """Sets what is given. What waits is sent to the new address; switched on again, it goes on with what waited.

    Raises:
        Invalid, Forbidden: as create_webhook; also for events that it is told of already.
    """
    if url is not None and url != webhook.url:
        check_url(url)  # before anything is locked: asking for a name can take seconds
    locked = _locked(webhook)
    _refuse_unseen(locked.project, by=by, events=locked.events)
    locked.url = locked.url if url is None else url
    if events is not None:
        locked.events = _checked_events(events)
        _refuse_unseen(locked.project, by=by, events=locked.events)
    if on is not None and on != (locked.switched_off_at is None):
        _switch(locked, on=on)
    locked.save(update_fields=["url", "events", "switched_off_at", "switched_off_because", "given_up_in_a_row"])
    locked.refresh_from_db()
    return locked


def _locked(webhook: Webhook) -> Webhook:
    """Its row, locked without keeping anybody from writing deliveries to it."""
    locked = Webhook.objects.select_for_update(of=("self",), no_key=True)
    return locked.select_related("project").get(pk=webhook.pk)


def _switch(webhook: Webhook, *, on: bool) -> None:
    webhook.switched_off_at, webhook.switched_off_because = (None, "") if on else (Now(), "")
    webhook.given_up_in_a_row = 0
    if on:
        _hurry(webhook)
        transaction.on_commit(ring, robust=True)


def _hurry(webhook: Webhook) -> None:
    """What waits its pause is due now."""
    waiting = WebhookDelivery.objects.filter(webhook=webhook, state=WebhookDelivery.State.WAITING)
    waiting.filter(claimed_until=None).update(due_at=Now())


@transaction.atomic
def delete_webhook(*, webhook: Webhook, by: User) -> None:
    """Deletes a webhook with its log; what waits is never sent.

    Raises:
        Forbidden: it is told of what `by` may not see.
    """
    _refuse_unseen(webhook.project, by=by, events=webhook.events)
    webhook.delete()


@transaction.atomic
def renew_secret(*, webhook: Webhook, by: User) -> Webhook:
    """Makes a new secret, to be shown this once; for 24 hours the old one signs too.

    Raises:
        Forbidden: it is told of what `by` may not see.
    """
    _refuse_unseen(webhook.project, by=by, events=webhook.events)
    locked = _locked(webhook)
    locked.previous_secret, locked.previous_until = locked.secret, Now() + CHANGE_OVER
    locked.secret = new_webhook_secret()
    locked.save(update_fields=["secret", "previous_secret", "previous_until"])
    locked.refresh_from_db()
    return locked


@transaction.atomic
def ping_webhook(*, webhook: Webhook) -> WebhookDelivery:
    """Sends the event `ping`, and what waits before it at once: somebody is looking.

    Raises:
        Conflict: it is switched off (`switched_off`).
    """
    _refuse_switched_off(webhook)
    _hurry(webhook)
    return send_test(webhook=webhook)


@transaction.atomic
def replay_delivery(*, delivery: WebhookDelivery) -> WebhookDelivery:
    """Has an event sent again that was delivered or given up.

    Raises:
        Conflict: it has not been sent yet (`waiting`), or the webhook is switched off (`switched_off`).
    """
    _refuse_switched_off(delivery.webhook)
    if delivery.state == WebhookDelivery.State.WAITING:
        raise Conflict(_("This event is still to be sent; wait for it."), code="waiting")
    return replay(delivery=delivery)


def _refuse_switched_off(webhook: Webhook) -> None:
    if webhook.switched_off_at is not None:
        raise Conflict(_("This webhook is switched off; switch it on first."), code="switched_off")


def _checked_events(events: Collection[str]) -> list[str]:
    chosen = [event for event in Webhook.Event.values if event in set(events)]
    if not chosen or set(events) - set(chosen):
        known = ", ".join(Webhook.Event.values)
        message = _("Choose what is told: some of %(known)s.") % {"known": known}
        raise Invalid(message, fields={"events": message})
    return chosen


def _refuse_unseen(project: Project, *, by: User, events: Collection[str]) -> None:
    if OF_ENGINEERS & set(events) and not membership_of(user=by, project=project).engineer:
        raise Forbidden(_("Only an engineer decides about webhooks that are told of snapshots and runs."))
