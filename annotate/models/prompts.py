"""What is ranked: prompts and responses, immutable once written, and the batches they came in."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project


class Split(models.TextChoices):
    """Which part of the data a prompt belongs to, decided by its split group."""

    TRAIN = "train", pgettext_lazy("split", "Train")
    VALIDATION = "validation", pgettext_lazy("split", "Validation")
    TEST = "test", pgettext_lazy("split", "Test")


class ImportBatch(models.Model):
    """One import. A manager can undo it while nothing of it has been ranked here."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="import_batches")
    format = models.CharField(max_length=30)
    source = models.CharField(max_length=300, blank=True, help_text="File name, or how the records came.")
    counts = models.JSONField(default=dict)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    undone_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.format} import of {self.created_at:%Y-%m-%d %H:%M}"


class ImportUpload(models.Model):
    """A file that waits on the server while its importer looks at what it holds. Kept for hours, never for days."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="import_uploads")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    format = models.CharField(max_length=30)
    name = models.CharField(max_length=300, blank=True, help_text="What the file was called.")
    mapping = models.JSONField(default=dict, help_text="Column → field.")
    columns = models.JSONField(default=list, help_text="What can be mapped.")
    stored = models.CharField(max_length=300, help_text="The file's name in the artifact store.")
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name or str(self.id)


class SplitGroup(models.Model):
    """Prompts that must fall into one split together: a conversation, a topic, the same first message."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="split_groups")
    key = models.TextField()
    key_sha256 = models.CharField(max_length=64, help_text="Keys can be longer than an index entry may be.")
    split = models.CharField(max_length=10, choices=Split)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_split_group_per_key", fields=["project", "key_sha256"]),
            models.UniqueConstraint(name="split_group_of_project", fields=["id", "project"]),
            models.CheckConstraint(name="split_known", condition=Q(split__in=Split.values)),
        ]

    def __str__(self) -> str:
        return f"{self.key[:60]} → {self.split}"


class Prompt(models.Model):
    """A conversation that calls for a response: messages = [{role, content}, …]. Immutable but for withdrawal."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="prompts")
    batch = models.ForeignKey(ImportBatch, on_delete=models.PROTECT, null=True, blank=True, related_name="prompts")
    external_id = models.CharField(max_length=300, null=True, blank=True)
    content_sha256 = models.CharField(
        max_length=64, help_text="Of the messages and responses as they came; survives withdrawal."
    )
    messages = models.JSONField()
    split_group = models.ForeignKey(SplitGroup, on_delete=models.PROTECT, related_name="prompts")
    answer = models.TextField(null=True, blank=True, help_text="A checkable answer, for rewards by rule.")
    tests = models.JSONField(null=True, blank=True, help_text="Unit tests, for rewards by rule.")
    language = models.CharField(max_length=20, blank=True)
    tags = models.JSONField(default=list, blank=True)
    extra = models.JSONField(default=dict, blank=True, help_text="Keys of the imported record that we do not know.")
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(name="prompt_by_time", fields=["project", "created_at", "id"])]
        constraints = [
            models.UniqueConstraint(
                name="one_prompt_per_external_id",
                fields=["project", "external_id"],
                condition=Q(external_id__isnull=False),
            ),
            models.UniqueConstraint(
                name="one_unnamed_prompt_per_content",
                fields=["project", "content_sha256"],
                condition=Q(external_id__isnull=True),
            ),
            models.UniqueConstraint(name="prompt_of_project", fields=["id", "project"]),
            models.CheckConstraint(name="prompt_sha256_known", condition=Q(content_sha256__regex="^[0-9a-f]{64}$")),
        ]

    def __str__(self) -> str:
        return self.external_id or f"prompt {self.pk}"


class Response(models.Model):
    """One candidate continuation of a prompt. Immutable but for withdrawal."""

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="responses")
    key = models.CharField(max_length=100, help_text="The response's id within its record; r1, r2 … where none came.")
    text = models.TextField()
    thinking = models.TextField(null=True, blank=True)
    model = models.CharField(max_length=200, blank=True)
    settings = models.JSONField(default=dict, blank=True, help_text="Sampling settings that made it.")
    extra = models.JSONField(default=dict, blank=True)
    text_sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_response_per_key", fields=["prompt", "key"]),
            models.UniqueConstraint(name="response_of_prompt", fields=["id", "prompt"]),
            models.CheckConstraint(name="response_sha256_known", condition=Q(text_sha256__regex="^[0-9a-f]{64}$")),
        ]

    def __str__(self) -> str:
        return f"{self.key} of {self.prompt_id}"


class IdentityLeak(models.Model):
    """A response gives away its maker (“As ChatGPT, …”): derived from its text, for the manager's eyes alone."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="identity_leaks")
    response = models.OneToOneField(Response, on_delete=models.CASCADE, related_name="identity_leak")
    phrase = models.CharField(max_length=200, help_text="The words that give it away.")
    found_at = models.DateTimeField(auto_now_add=True)
    settled_at = models.DateTimeField(null=True, blank=True, help_text="A manager has looked and let it be.")
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        indexes = [
            models.Index(name="leak_unsettled", fields=["project", "response"], condition=Q(settled_at__isnull=True))
        ]

    def __str__(self) -> str:
        return f"response {self.response_id}: {self.phrase}"


class Demonstration(models.Model):
    """A good answer to a prompt, written or chosen by a person, for SFT."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="demonstrations")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="demonstrations")
    text = models.TextField()
    text_sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(F("prompt"), F("text_sha256"), name="one_demonstration_per_text")]

    def __str__(self) -> str:
        return f"demonstration {self.pk}"
