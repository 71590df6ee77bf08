"""Projects, their versioned rules, and who may do what in them."""

import secrets

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy


def new_pseudonym_key() -> str:
    """A fresh key for the HMACs that stand for people in exports."""
    return secrets.token_hex(32)


class Role(models.TextChoices):
    """What a member may do; each role may do all that the ones before it may."""

    VIEWER = "viewer", _("Viewer")
    ANNOTATOR = "annotator", _("Annotator")
    REVIEWER = "reviewer", _("Reviewer")
    MANAGER = "manager", _("Manager")

    @property
    def in_words(self) -> str:
        """The label as it stands inside a sentence; some languages write it otherwise there."""
        return str(_ROLES_IN_WORDS[self])


_ROLES_IN_WORDS = {
    Role.VIEWER: pgettext_lazy("role inside a sentence", "viewer"),
    Role.ANNOTATOR: pgettext_lazy("role inside a sentence", "annotator"),
    Role.REVIEWER: pgettext_lazy("role inside a sentence", "reviewer"),
    Role.MANAGER: pgettext_lazy("role inside a sentence", "manager"),
}


class Project(models.Model):
    """A body of prompts ranked under one set of rules. What decides an answer is in ProjectVersion."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    overlap = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(50)],
        help_text="How many annotators rank each new task.",
    )
    lease_seconds = models.PositiveIntegerField(
        default=3600, help_text="How long an annotator may hold a task without a sign of life."
    )
    open_lease_limit = models.PositiveSmallIntegerField(
        default=2, help_text="Tasks a person may hold at once: the one on the page and one prefetched."
    )
    skip_limit = models.PositiveSmallIntegerField(
        default=3, help_text="After so many skips a task is held for the manager."
    )
    pseudonym_key = models.CharField(max_length=64, default=new_pseudonym_key, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="project_overlap_1_to_50", condition=Q(overlap__range=(1, 50))),
            models.CheckConstraint(name="project_lease_at_least_30_seconds", condition=Q(lease_seconds__gte=30)),
            models.CheckConstraint(
                name="project_open_leases_1_to_1000", condition=Q(open_lease_limit__range=(1, 1000))
            ),
            models.CheckConstraint(name="project_skip_limit_positive", condition=Q(skip_limit__gte=1)),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])


class ProjectVersion(models.Model):
    """All that decides what an answer may hold. Append-only: a slot pins the version it was leased under."""

    class Strength(models.TextChoices):
        OFF = "off", pgettext_lazy("part of an answer", "Off")
        OPTIONAL = "optional", pgettext_lazy("part of an answer", "Optional")
        REQUIRED = "required", pgettext_lazy("part of an answer", "Required")

    class Rationale(models.TextChoices):
        OFF = "off", pgettext_lazy("part of an answer", "Off")
        OPTIONAL = "optional", pgettext_lazy("part of an answer", "Optional")
        REQUIRED = "required", pgettext_lazy("part of an answer", "Required")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    guidelines = models.TextField(blank=True, help_text="Markdown.")
    allow_ties = models.BooleanField(default=True)
    allow_partial = models.BooleanField(default=True, help_text="Some responses may stay unranked.")
    allow_all_bad = models.BooleanField(default=True)
    strength = models.CharField(max_length=10, choices=Strength, default=Strength.OPTIONAL)
    rationale = models.CharField(max_length=10, choices=Rationale, default=Rationale.OPTIONAL)
    allow_rewrite = models.BooleanField(default=True)
    criteria = models.JSONField(
        default=list,
        blank=True,
        help_text='Ratings per response: [{"key", "label", "kind": "likert"|"yesno", "low", "high", "required"}].',
    )
    flags = models.JSONField(default=list, blank=True, help_text='Flags per response: [{"key", "label"}].')
    show_models = models.BooleanField(default=False, help_text="Annotators see which model wrote a response.")
    show_thinking = models.BooleanField(default=True, help_text="Annotators can unfold a response's thinking text.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(name="one_version_per_number", fields=["project", "number"]),
            models.UniqueConstraint(name="version_of_project", fields=["id", "project"]),
            models.CheckConstraint(name="version_number_from_1", condition=Q(number__gte=1)),
            models.CheckConstraint(
                name="version_strength_known", condition=Q(strength__in=["off", "optional", "required"])
            ),
            models.CheckConstraint(
                name="version_rationale_known", condition=Q(rationale__in=["off", "optional", "required"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project} rules {self.number}"


class ReadingReceipt(models.Model):
    """A member has read the guidelines of a version."""

    version = models.ForeignKey(ProjectVersion, on_delete=models.PROTECT, related_name="receipts")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    read_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(name="one_receipt_per_version_and_user", fields=["version", "user"])]

    def __str__(self) -> str:
        return f"{self.user} read {self.version}"


class Membership(models.Model):
    """What a person may do in a project, and how much their rankings weigh in training."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.ANNOTATOR)
    engineer = models.BooleanField(default=False, help_text="May freeze snapshots, start runs and export texts.")
    weight = models.FloatField(
        default=1.0, help_text="Weight of this person's rankings in training; 1 is usual, 0 leaves them out."
    )
    open_lease_limit = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Of a machine: tasks it may hold at once; empty: as many as a person."
    )
    fills_places = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Of a machine: its rankings fill places that people would fill otherwise.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    deactivated_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then the person counts as an outsider; their rankings stay."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_membership_per_project_and_user", fields=["project", "user"]),
            models.CheckConstraint(name="membership_role_known", condition=Q(role__in=Role.values)),
            models.CheckConstraint(name="membership_weight_0_to_100", condition=Q(weight__gte=0, weight__lte=100)),
            models.CheckConstraint(
                name="membership_open_leases_1_to_1000",
                condition=Q(open_lease_limit__isnull=True) | Q(open_lease_limit__range=(1, 1000)),
            ),
        ]

    @property
    def role_words(self) -> str:
        """The role as it stands inside a sentence."""
        return Role(self.role).in_words

    def __str__(self) -> str:
        return f"{self.user} in {self.project}: {self.role}"


class Counter(models.Model):
    """A project's numbers that must come in commit order: whoever draws one holds the row until commit."""

    class Name(models.TextChoices):
        CHANGE = "change"  # position in the feed of rankings, revisions, skips, withdrawals
        OFFER = "offer"  # position in the queue of free slots

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="counters")
    name = models.CharField(max_length=10, choices=Name)
    value = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_counter_per_project_and_name", fields=["project", "name"]),
            models.CheckConstraint(name="counter_not_negative", condition=Q(value__gte=0)),
        ]

    def __str__(self) -> str:
        return f"{self.project} {self.name} {self.value}"
