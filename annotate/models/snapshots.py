"""Frozen, content-hashed files that runs train from."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project
from annotate.models.rankings import Ranking


class Snapshot(models.Model):
    """A JSONL file of native records with its manifest. Immutable: only a withdrawal turns it into `withdrawn`."""

    class State(models.TextChoices):
        FROZEN = "frozen", pgettext_lazy("state of a snapshot", "Frozen")
        # File deleted, manifest and hash stay, new runs refused.
        WITHDRAWN = "withdrawn", pgettext_lazy("state of a snapshot", "Withdrawn")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    name = models.CharField(max_length=120)
    filters = models.JSONField(default=dict)
    counts = models.JSONField(default=dict)
    sha256 = models.CharField(max_length=64)
    size_bytes = models.BigIntegerField()
    change = models.BigIntegerField(help_text="Everything up to this change number was looked at.")
    file = models.CharField(max_length=300, help_text="Name in the artifact store.")
    state = models.CharField(max_length=10, choices=State, default=State.FROZEN)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now())
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(name="snapshot_of_project", fields=["id", "project"]),
            models.CheckConstraint(name="snapshot_sha256_known", condition=Q(sha256__regex="^[0-9a-f]{64}$")),
            models.CheckConstraint(
                name="snapshot_state_consistent",
                condition=Q(state="frozen", withdrawn_at__isnull=True)
                | Q(state="withdrawn", withdrawn_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class SnapshotRanking(models.Model):
    """Which rankings a snapshot holds, so that a withdrawal finds every file it must reach."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="snapshot_rankings")
    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, related_name="snapshot_rankings")

    class Meta:
        constraints = [models.UniqueConstraint(name="one_row_per_snapshot_and_ranking", fields=["snapshot", "ranking"])]

    def __str__(self) -> str:
        return f"ranking {self.ranking_id} in snapshot {self.snapshot_id}"
