"""Who could carry out a run."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Worker(models.Model):
    """What a worker last said of itself and its machine. It says so every few seconds; see services.workers."""

    name = models.CharField(max_length=200, unique=True, help_text="As in Run.worker.")
    host = models.CharField(max_length=200)
    process_id = models.PositiveIntegerField(help_text="On that host.")
    queues = ArrayField(models.CharField(max_length=100), help_text="It takes runs from these.")
    version = models.CharField(max_length=50, blank=True, help_text="Of Plackett.")
    processes = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="Of one run that it starts side by side."
    )
    processors = models.PositiveIntegerField(help_text="That it may use.")
    memory_bytes = models.BigIntegerField()
    memory_used_bytes = models.BigIntegerField()
    gpus = models.JSONField(default=list, help_text="Of each: name, memory_bytes, memory_used_bytes, busy (0 to 1).")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_default=Now())
    stopped_at = models.DateTimeField(null=True, blank=True, help_text="It said goodbye.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="worker_memory_not_negative", condition=Q(memory_bytes__gte=0, memory_used_bytes__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return self.name
