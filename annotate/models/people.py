"""People, machines and the keys they come with."""

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class User(AbstractUser):
    """Whoever ranks or administers. Users are deactivated, never deleted: their rankings name them."""

    class Kind(models.TextChoices):
        HUMAN = "human"
        MACHINE = "machine"  # an LLM judge or a reward model, never mixed into human counts unasked
        IMPORTED = "imported"  # stands for the annotators of a data set; cannot log in
        EXAMPLE = "example"  # the author of the demo's example rankings; cannot log in

    kind = models.CharField(max_length=10, choices=Kind, default=Kind.HUMAN)
    single_key_shortcuts = models.BooleanField(
        default=True, help_text="Single-key shortcuts on the ranking page (WCAG 2.1.4)."
    )

    class Meta(AbstractUser.Meta):
        swappable = "AUTH_USER_MODEL"
        constraints = [
            models.CheckConstraint(
                name="user_kind_known", condition=Q(kind__in=["human", "machine", "imported", "example"])
            ),
            models.CheckConstraint(
                name="user_without_person_cannot_log_in",
                condition=Q(kind__in=["human", "machine"]) | Q(is_active=False),
            ),
        ]


class ApiToken(models.Model):
    """A bearer token of the REST API. Only its SHA-256 is kept; the token itself is shown once."""

    class Scope(models.TextChoices):
        READ = "read"
        ANNOTATE = "annotate"
        WRITE = "write"
        TRAIN = "train"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="api_tokens")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="The token's first characters, to tell tokens apart.")
    digest = models.CharField(max_length=64, unique=True)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope), default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="token_digest_is_sha256", condition=Q(digest__regex="^[0-9a-f]{64}$"))
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"


class OneTimeLink(models.Model):
    """A link that makes the first administrator, once, before it expires. Only its SHA-256 is kept."""

    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"one-time link of {self.created_at:%Y-%m-%d %H:%M}"
