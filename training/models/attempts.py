"""Who works on a run: its attempts, and the machines that share one."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from training.models.runs import Run


class RunAttempt(models.Model):
    """One worker's try at a run: one claim, at most one trainer process."""

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded", pgettext_lazy("state of a run", "Succeeded")
        FAILED = "failed", pgettext_lazy("state of a run", "Failed")
        CANCELLED = "cancelled", pgettext_lazy("state of a run", "Cancelled")
        RELEASED = "released", pgettext_lazy("state of a run", "Released")  # its worker was stopped and gave it back
        LOST = "lost", pgettext_lazy("state of a run", "Lost")  # the worker or the trainer ended without a word

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    process_id = models.PositiveIntegerField(null=True, blank=True, help_text="Of the trainer, on that host.")
    process_started_at = models.FloatField(
        null=True, blank=True, help_text="Seconds since 1970 by the host's clock: tells the process from a later one."
    )
    from_step = models.PositiveIntegerField(
        null=True, blank=True, help_text="Steps already done when the trainer began; null until it says."
    )
    bundle = models.CharField(
        max_length=60,
        blank=True,
        default="",
        db_default="",
        help_text="The picture of the output folder that it went on from; of a bucket alone.",
    )
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True)

    class Meta:
        ordering = ["run", "number"]
        constraints = [
            models.UniqueConstraint(name="one_attempt_per_number", fields=["run", "number"]),
            models.UniqueConstraint(name="one_open_attempt_per_run", fields=["run"], condition=Q(outcome="")),
            models.CheckConstraint(name="attempt_number_from_1", condition=Q(number__gte=1)),
            models.CheckConstraint(
                name="attempt_outcome_known",
                condition=Q(outcome="", ended_at__isnull=True)
                | Q(outcome__in=["succeeded", "failed", "cancelled", "released", "lost"], ended_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} at run {self.run_id}"


class RunMember(models.Model):
    """A worker that trains a run together with others, in one attempt. That of rank 0 holds the run itself.

    Members are of the attempt that holds the run, and end with it: migration 0008.
    """

    class Outcome(models.TextChoices):
        DONE = "done", pgettext_lazy("state of a member of a run", "Done")
        LEFT = "left", pgettext_lazy("state of a member of a run", "Left")  # its worker was stopped in good order
        LOST = "lost", pgettext_lazy("state of a member of a run", "Lost")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="members")
    attempt = models.PositiveIntegerField()
    rank = models.PositiveSmallIntegerField(help_text="Of the machine; 0 is where the others meet.")
    worker = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    address = models.CharField(max_length=200, help_text="At which the others reach it.")
    port = models.PositiveIntegerField(null=True, blank=True, help_text="Of rank 0, once it is ready for the others.")
    lease_expires_at = models.DateTimeField(null=True, blank=True, help_text="Null: rank 0, whose lease is the run's.")
    joined_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True)

    class Meta:
        ordering = ["run", "attempt", "rank"]
        constraints = [
            models.UniqueConstraint(name="one_member_per_rank", fields=["run", "attempt", "rank"]),
            models.UniqueConstraint(
                name="one_open_member_per_worker", fields=["run", "worker"], condition=Q(ended_at__isnull=True)
            ),
            models.CheckConstraint(
                name="member_ends_with_an_outcome",
                condition=Q(ended_at__isnull=True, outcome="")
                | Q(ended_at__isnull=False, outcome__in=["done", "left", "lost"]),
            ),
            models.CheckConstraint(
                name="member_has_a_lease", condition=Q(rank=0) | Q(rank__gte=1, lease_expires_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"member {self.rank} of attempt {self.attempt} at run {self.run_id}"
