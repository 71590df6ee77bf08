"""What keeps requests and cursors honest."""

import uuid

from django.conf import settings
from django.db import models


class IdempotencyKey(models.Model):
    """The first answer to a creating POST, given again when the same key comes with the same body."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    endpoint = models.CharField(max_length=200)
    key = models.CharField(max_length=200)
    body_sha256 = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    answer = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(name="one_answer_per_key", fields=["user", "endpoint", "key"])]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.key}"


class DatabaseEpoch(models.Model):
    """Names this database's history.

    After a restore from a backup the operator starts a new epoch (manage.py new_epoch), so that cursors from the lost
    future are refused instead of silently skipping changes.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    started_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-started_at"]
        get_latest_by = "started_at"

    def __str__(self) -> str:
        return str(self.id)
