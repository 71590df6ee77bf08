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


class RunSample(models.Model):
    """What a policy answered to a prompt at a step: a line of samples.jsonl, its texts cut where they are long.

    Only for those who may see texts; gone when the run's snapshot is withdrawn, see migration 0011.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="samples")
    attempt = models.PositiveIntegerField()
    step = models.PositiveIntegerField(help_text="0: before training.")
    place = models.PositiveSmallIntegerField(help_text="Among the rows of its step; the same prompt at each step.")
    prompt = models.JSONField(help_text="[{role, content}, …], as prompts have them.")
    before = models.TextField(null=True, blank=True, help_text="Said before training; null: not told in this row.")
    before_score = models.FloatField(null=True, blank=True)
    response = models.TextField(blank=True)
    thinking = models.TextField(null=True, blank=True)
    score = models.FloatField(null=True, blank=True)
    scores = models.JSONField(default=dict, help_text="Of each reward source, by its name.")
    ended = models.BooleanField(null=True, blank=True, help_text="By itself; otherwise it was cut off.")
    shortened = models.BooleanField(default=False, help_text="A text is longer in samples.jsonl.")

    class Meta:
        ordering = ["run", "-step", "place"]
        constraints = [
            models.UniqueConstraint(name="one_sample_per_place", fields=["run", "step", "place"]),
        ]

    def __str__(self) -> str:
        return f"sample {self.place} at step {self.step} of run {self.run_id}"


class RunUse(models.Model):
    """How busy a worker's machine was during a span of the time that it worked on a run: means of what it said.

    Span n is of the seconds n × `seconds` to (n + 1) × `seconds` after the run first began. All spans of a worker are
    alike; they are doubled when there are many, see services.use.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="use")
    worker = models.CharField(max_length=200)
    number = models.PositiveIntegerField()
    seconds = models.PositiveIntegerField(help_text="Of the span.")
    readings = models.PositiveIntegerField(default=1)
    memory_bytes = models.BigIntegerField()
    memory_used_bytes = models.BigIntegerField()
    gpus = models.JSONField(default=list, help_text="As Worker.gpus.")

    class Meta:
        ordering = ["run", "worker", "number"]
        constraints = [models.UniqueConstraint(name="one_use_per_span", fields=["run", "worker", "number"])]

    def __str__(self) -> str:
        return f"span {self.number} of {self.worker} at run {self.run_id}"
