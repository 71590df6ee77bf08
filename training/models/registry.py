"""The registry of models."""

from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotate.models import Project
from training.models.runs import Run


class ModelVersion(models.Model):
    """A model in the registry: a plain Hugging Face folder, and where it came from."""

    class Kind(models.TextChoices):
        POLICY = "policy", _("Policy")
        REWARD = "reward", _("reward model")

    class Stage(models.TextChoices):
        NEW = "new", pgettext_lazy("stage of a model", "New")
        CANDIDATE = "candidate", pgettext_lazy("stage of a model", "Candidate")
        PRODUCTION = "production", pgettext_lazy("stage of a model", "Production")
        ARCHIVED = "archived", pgettext_lazy("stage of a model", "Archived")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="models")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=Kind)
    stage = models.CharField(max_length=10, choices=Stage, default=Stage.NEW)
    run = models.OneToOneField(Run, on_delete=models.PROTECT, null=True, blank=True, related_name="model")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    folder = models.CharField(max_length=300, unique=True, help_text="Under the folder of runs.")
    size_bytes = models.BigIntegerField()
    report = models.JSONField(default=dict, help_text="report.json of its run: what it scored on held-out data.")
    shared = models.BooleanField(default=False, help_text="Engineers of other projects may read and train from it.")
    created_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(
        null=True, blank=True, help_text="Its files are gone, or about to go; the lineage stays."
    )
    files_removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the files of a deleted model were found to be gone."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(name="model_of_project", fields=["id", "project"]),
            models.UniqueConstraint(
                name="one_production_model", fields=["project", "kind"], condition=Q(stage="production")
            ),
            models.CheckConstraint(name="model_kind_known", condition=Q(kind__in=["policy", "reward"])),
            models.CheckConstraint(
                name="model_stage_known", condition=Q(stage__in=["new", "candidate", "production", "archived"])
            ),
            models.CheckConstraint(name="model_size_not_negative", condition=Q(size_bytes__gte=0)),
            models.CheckConstraint(name="model_is_not_its_parent", condition=~Q(parent=F("id"))),
            models.CheckConstraint(
                name="model_in_production_is_kept", condition=~Q(stage="production") | Q(deleted_at__isnull=True)
            ),
            models.CheckConstraint(
                name="model_files_go_with_it", condition=Q(files_removed_at__isnull=True) | Q(deleted_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.get_kind_display()} {self.pk})"

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.pk])

    @property
    def path(self) -> Path:
        """The folder on this machine's disk."""
        return Path(settings.RUNS_ROOT) / self.folder


class ModelEvent(models.Model):
    """Something that was done with a model of the registry. Append-only: a trigger refuses everything else."""

    class What(models.TextChoices):
        STAGE = "stage", pgettext_lazy("event of a model", "Stage")
        DELETED = "deleted", pgettext_lazy("event of a model", "Deleted")
        FILES_REMOVED = "files_removed", pgettext_lazy("event of a model", "Files removed")
        FILES_KEPT = "files_kept", pgettext_lazy("event of a model", "Files could not be removed")
        PUSHED = "pushed", pgettext_lazy("event of a model", "Pushed to a hub")

    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="events")
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Null: the server, or whoever works on it.",
    )
    what = models.CharField(max_length=15, choices=What)
    from_stage = models.CharField(max_length=10, choices=ModelVersion.Stage, blank=True)
    to_stage = models.CharField(max_length=10, choices=ModelVersion.Stage, blank=True)
    reason = models.TextField(blank=True, help_text="Why, or where to, in a person's or the system's words.")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="model_event_known",
                condition=Q(
                    what="stage",
                    from_stage__in=["new", "candidate", "production", "archived"],
                    to_stage__in=["new", "candidate", "production", "archived"],
                )
                & ~Q(from_stage=F("to_stage"))
                | Q(what__in=["deleted", "files_removed", "files_kept", "pushed"], from_stage="", to_stage=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.what} of model {self.model_id}"
