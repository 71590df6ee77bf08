"""Telling other servers what happened: where to, and the outbox of what is still to be said."""

import secrets
import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project

SECRET_PREFIX = "whsec_"


def new_webhook_secret() -> str:
    """A fresh key for the signatures of a webhook: 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


class Webhook(models.Model):
    """An address of somebody's server that is told of a project's events.

    The secret is kept as it is: every delivery is signed with it. Pages and API show it once.
    """

    class Event(models.TextChoices):
        RANKING_SUBMITTED = "ranking.submitted", _("A ranking was submitted")
        RANKING_REVISED = "ranking.revised", _("A ranking was revised")
        RANKING_WITHDRAWN = "ranking.withdrawn", _("A ranking was withdrawn")
        PROMPT_WITHDRAWN = "prompt.withdrawn", _("A prompt was withdrawn")
        TASK_COMPLETED = "task.completed", _("A task has all the rankings it wants")
        SNAPSHOT_FROZEN = "snapshot.frozen", _("A snapshot was frozen")
        SNAPSHOT_WITHDRAWN = "snapshot.withdrawn", _("A snapshot was withdrawn")
        RUN_FINISHED = "run.finished", _("A run ended")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="webhooks")
    url = models.CharField(max_length=1000)
    events = ArrayField(models.CharField(max_length=20, choices=Event))
    secret = models.CharField(max_length=100, default=new_webhook_secret, editable=False)
    previous_secret = models.CharField(max_length=100, blank=True, editable=False)
    previous_until = models.DateTimeField(
        null=True, blank=True, help_text="Until then deliveries carry a signature with the previous secret too."
    )
    given_up_in_a_row = models.PositiveSmallIntegerField(default=0, db_default=0)
    attempted_at = models.DateTimeField(null=True, blank=True)
    switched_off_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then nothing is sent, and nothing new is kept to be sent."
    )
    switched_off_because = models.CharField(max_length=300, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(name="webhook_has_events", condition=Q(events__len__gte=1)),
            models.CheckConstraint(
                name="webhook_previous_secret_ends",
                condition=Q(previous_secret="", previous_until__isnull=True)
                | (~Q(previous_secret="") & Q(previous_until__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return self.url


class WebhookDelivery(models.Model):
    """An event to be told to a webhook, written with what happened: the outbox, and afterwards the log.

    Ids of a project's events come in the order of their commits: they are drawn under the project's change counter.
    """

    class State(models.TextChoices):
        WAITING = "waiting", pgettext_lazy("state of a delivery", "Waiting")
        DELIVERED = "delivered", pgettext_lazy("state of a delivery", "Delivered")
        GIVEN_UP = "given_up", pgettext_lazy("state of a delivery", "Given up")

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event_id = models.UUIDField(default=uuid.uuid4, help_text="Names the event, the same at every attempt and replay.")
    event = models.CharField(max_length=20)
    body = models.TextField(help_text="The bytes that are sent, as UTF-8.")
    is_replay = models.BooleanField(default=False, db_default=False, help_text="A manager had it sent again.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING, db_default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    due_at = models.DateTimeField(db_default=Now())
    claimed_until = models.DateTimeField(
        null=True, blank=True, help_text="A worker is sending it; if that died, another one may from then on."
    )
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of the last answer.")
    problem = models.CharField(max_length=300, blank=True, db_default="", help_text="Of the last attempt.")
    excerpt = models.TextField(blank=True, db_default="", help_text="The beginning of the last answer.")
    milliseconds = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    attempted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(name="delivery_waiting", fields=["webhook", "id"], condition=Q(state="waiting")),
            models.Index(name="delivery_finished", fields=["finished_at"], condition=~Q(state="waiting")),
        ]
        constraints = [
            models.CheckConstraint(
                name="delivery_state_consistent",
                condition=Q(state="waiting", finished_at__isnull=True)
                | Q(state__in=["delivered", "given_up"], finished_at__isnull=False, claimed_until__isnull=True),
            ),
            models.UniqueConstraint(
                name="one_delivery_per_event", fields=["webhook", "event_id"], condition=Q(is_replay=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}: {self.state}"
