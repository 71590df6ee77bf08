"""What is measured while a run trains."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from training.models.runs import Run


class RunMetric(models.Model):
    """What a recipe measured at one step: a line of metrics.jsonl."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    values = models.JSONField(help_text="Name → number, null where it was not finite.")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["run", "step"]
        constraints = [
            models.UniqueConstraint(name="one_metric_row_per_step", fields=["run", "step"]),
            models.CheckConstraint(name="metric_step_from_1", condition=Q(step__gte=1)),
        ]
        indexes = [
            # The last measurement on held-out data may lie many thousand steps back.
            models.Index(
                name="metric_held_out",
                fields=["run", "-step"],
                condition=Q(values__has_any_keys=["validation/accuracy", "validation/loss", "validation/score"]),
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.step} of run {self.run_id}"


class MetricStretch(models.Model):
    """What a stretch of steps came to, so that the curves of a long run need not be drawn from all its rows.

    Stretch n is of the steps n × STEPS + 1 to (n + 1) × STEPS, and is written when the last of them is there. It can be
    made anew from the rows at any time.
    """

    STEPS = 64

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="stretches")
    number = models.PositiveIntegerField()
    values = models.JSONField(help_text="Name → count, mean, step of the lowest, lowest, step of the highest, highest.")

    class Meta:
        ordering = ["run", "number"]
        constraints = [models.UniqueConstraint(name="one_stretch_per_number", fields=["run", "number"])]

    def __str__(self) -> str:
        return f"stretch {self.number} of run {self.run_id}"
