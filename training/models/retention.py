"""What stays of checkpoints."""

from django.db import models

from annotate.models import Project


class Retention(models.Model):
    """What a project keeps of the checkpoints of runs that are over, where that is not what the server's settings say;
    see services.retention."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, primary_key=True, related_name="retention")
    kept = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="Checkpoints of a run that succeeded. Empty: as PLACKETT_CHECKPOINTS_KEPT says.",
    )
    days = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="After which these go, too. Empty: as PLACKETT_CHECKPOINT_DAYS says."
    )
    resume_days = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="For which a failed or cancelled run can go on. Empty: as PLACKETT_RESUME_DAYS says.",
    )

    class Meta:
        ordering = ["project"]
        verbose_name_plural = "retention"

    def __str__(self) -> str:
        return f"retention of {self.project}"
