"""People, machines and the keys they come with."""

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Role


class User(AbstractUser):
    """Whoever ranks or administers. Users are deactivated, never deleted: their rankings name them."""

    class Kind(models.TextChoices):
        HUMAN = "human", _("Human")
        MACHINE = "machine", _("Machine")  # an LLM judge or a reward model, never mixed into human counts unasked
        IMPORTED = "imported", pgettext_lazy("user", "Imported")  # the annotators of a data set; cannot log in
        EXAMPLE = "example", _("Example")  # the author of the demo's example rankings; cannot log in

    class Theme(models.TextChoices):
        SYSTEM = "system", pgettext_lazy("theme", "System")
        LIGHT = "light", pgettext_lazy("theme", "Light")
        DARK = "dark", pgettext_lazy("theme", "Dark")

    class Layout(models.TextChoices):
        COLUMNS = "columns", pgettext_lazy("layout", "Columns")
        STACKED = "stacked", pgettext_lazy("layout", "Stacked")

    kind = models.CharField(max_length=10, choices=Kind, default=Kind.HUMAN)
    single_key_shortcuts = models.BooleanField(
        default=True, help_text="Single-key shortcuts on the ranking page (WCAG 2.1.4)."
    )
    theme = models.CharField(max_length=10, choices=Theme, default=Theme.SYSTEM)
    layout = models.CharField(max_length=10, choices=Layout, default=Layout.COLUMNS, help_text="Of the responses.")
    language = models.CharField(max_length=10, blank=True, help_text="Of the interface; empty: the browser's.")
    pause_reminder = models.BooleanField(default=True, help_text="A gentle word after 50 minutes of ranking.")

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
            models.CheckConstraint(name="user_theme_known", condition=Q(theme__in=["system", "light", "dark"])),
            models.CheckConstraint(name="user_layout_known", condition=Q(layout__in=["columns", "stacked"])),
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
    """A link that lets one person in, once, before it expires. Only its SHA-256 is kept.

    `first_admin` makes the first administrator, `invitation` a member of a project (with a new account, or the one that
    is logged in), `password` lets `user` choose a new password.
    """

    class Kind(models.TextChoices):
        FIRST_ADMIN = "first_admin"
        INVITATION = "invitation"
        PASSWORD = "password"

    kind = models.CharField(max_length=12, choices=Kind, default=Kind.FIRST_ADMIN)
    digest = models.CharField(max_length=64, unique=True)
    project = models.ForeignKey("annotate.Project", on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    role = models.CharField(max_length=10, blank=True, help_text="Of whoever accepts the invitation.")
    engineer = models.BooleanField(default=False)
    note = models.CharField(max_length=120, blank=True, help_text="For whom it is meant, in the manager's words.")
    user = models.ForeignKey(User, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="link_names_what_it_opens",
                condition=Q(kind="first_admin", project__isnull=True, user__isnull=True)
                | Q(
                    kind="invitation",
                    project__isnull=False,
                    user__isnull=True,
                    role__in=["viewer", "annotator", "reviewer", "manager"],
                )
                | Q(kind="password", user__isnull=False),
            ),
            models.CheckConstraint(name="link_digest_is_sha256", condition=Q(digest__regex="^[0-9a-f]{64}$")),
        ]

    @property
    def role_words(self) -> str:
        """The role that an invitation gives, as it stands inside a sentence."""
        return Role(self.role).in_words if self.role else ""

    def __str__(self) -> str:
        return f"{self.kind} link of {self.created_at:%Y-%m-%d %H:%M}"
