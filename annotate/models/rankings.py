"""Judgements, append-only, and the numbered feed of everything that happened to them."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project, ProjectVersion
from annotate.models.prompts import Response
from annotate.models.tasks import Lease, RankingTask, Skip, Slot


class Ranking(models.Model):
    """An annotator's answer to a task. Never changed: a correction is a new revision that supersedes the last.

    Tiers are rows of Entry. `strengths[i]` is the gap between tier i+1 and i+2: 1 slightly, 2 clearly, 3 much better,
    null not said.
    """

    class Source(models.TextChoices):
        PAGE = "page", pgettext_lazy("source of a ranking", "Page")
        API = "api", pgettext_lazy("source of a ranking", "Api")
        IMPORT = "import", pgettext_lazy("source of a ranking", "Import")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rankings")
    task = models.ForeignKey(RankingTask, on_delete=models.PROTECT, related_name="rankings")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="rankings")
    slot = models.ForeignKey(Slot, on_delete=models.PROTECT, null=True, blank=True, related_name="rankings")
    lease = models.ForeignKey(Lease, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    version = models.ForeignKey(ProjectVersion, on_delete=models.PROTECT, related_name="+")
    revision = models.PositiveIntegerField(default=1)
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )
    counted = models.BooleanField(help_text="False for an extra: work beyond the overlap, kept but not counted.")
    source = models.CharField(max_length=10, choices=Source)
    strengths = ArrayField(models.SmallIntegerField(null=True), default=list)
    all_bad = models.BooleanField(default=False)
    ratings = models.JSONField(default=dict)
    flags = models.JSONField(default=dict)
    rationale = models.TextField(null=True, blank=True)
    rewrite_of = models.ForeignKey(Response, on_delete=models.PROTECT, null=True, blank=True, related_name="rewrites")
    rewrite_text = models.TextField(null=True, blank=True)
    content_sha256 = models.CharField(max_length=64, help_text="Of the whole answer; survives withdrawal.")
    presented_order = ArrayField(models.BigIntegerField(), help_text="Ids of the responses as shown, first to last.")
    seconds = models.FloatField(null=True, blank=True, help_text="Time spent, as the page measured it.")
    extra = models.JSONField(default=dict, blank=True)
    submitted_at = models.DateTimeField(db_default=Now())
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                name="ranking_by_annotator_and_time",
                fields=["project", "annotator", "-submitted_at"],
                condition=Q(revision=1),
            ),
            models.Index(
                name="ranking_made_here_by_time",
                fields=["project", "submitted_at"],
                condition=Q(revision=1, source__in=["page", "api"]),
            ),
            models.Index(name="ranking_by_time", fields=["project", "submitted_at", "id"]),
        ]
        constraints = [
            models.UniqueConstraint(name="one_ranking_per_revision", fields=["task", "annotator", "revision"]),
            models.UniqueConstraint(name="ranking_with_task", fields=["id", "task"]),
            models.UniqueConstraint(name="ranking_with_slot", fields=["id", "slot"]),
            models.UniqueConstraint(name="ranking_with_predecessor", fields=["id", "task", "annotator", "revision"]),
            models.CheckConstraint(
                name="only_later_revisions_supersede",
                condition=Q(revision=1, supersedes__isnull=True) | Q(revision__gt=1, supersedes__isnull=False),
            ),
            models.CheckConstraint(
                name="counted_means_slot_or_import",
                condition=Q(counted=True, slot__isnull=False)
                | Q(counted=True, source="import")
                | Q(counted=False, slot__isnull=True),
            ),
            models.CheckConstraint(name="ranking_source_known", condition=Q(source__in=["page", "api", "import"])),
            models.CheckConstraint(
                name="rewrite_is_whole",
                condition=Q(rewrite_of__isnull=True, rewrite_text__isnull=True)
                | Q(rewrite_of__isnull=False, rewrite_text__isnull=False),
            ),
            models.CheckConstraint(name="seconds_not_negative", condition=Q(seconds__isnull=True) | Q(seconds__gte=0)),
        ]

    def __str__(self) -> str:
        return f"ranking {self.pk} (task {self.task_id}, revision {self.revision})"


class Entry(models.Model):
    """Where a ranking puts one of its task's responses: tier 1 is best, null unranked, equal tiers a tie."""

    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, related_name="entries")
    task = models.ForeignKey(RankingTask, on_delete=models.PROTECT, related_name="+")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="entries")
    tier = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_entry_per_ranking_and_response", fields=["ranking", "response"]),
            models.CheckConstraint(name="tier_from_1", condition=Q(tier__isnull=True) | Q(tier__range=(1, 9))),
        ]

    def __str__(self) -> str:
        return f"response {self.response_id} in tier {self.tier}"


class Change(models.Model):
    """The project's feed: every ranking, revision, skip and withdrawal, numbered in the order of their commits."""

    class Kind(models.TextChoices):
        RANKING = "ranking"
        REVISION = "revision"
        SKIP = "skip"
        WITHDRAWAL = "withdrawal"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="changes")
    number = models.BigIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, null=True, blank=True, related_name="changes")
    skip = models.ForeignKey(Skip, on_delete=models.PROTECT, null=True, blank=True, related_name="changes")
    prompt = models.ForeignKey(
        "annotate.Prompt", on_delete=models.PROTECT, null=True, blank=True, related_name="changes"
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_change_per_number", fields=["project", "number"]),
            models.UniqueConstraint(
                name="one_first_change_per_ranking", fields=["ranking"], condition=Q(kind__in=["ranking", "revision"])
            ),
            models.CheckConstraint(
                name="change_names_its_object",
                condition=Q(kind__in=["ranking", "revision"], ranking__isnull=False, skip__isnull=True)
                | Q(kind="skip", skip__isnull=False, ranking__isnull=True)
                | Q(kind="withdrawal", skip__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"change {self.number}: {self.kind}"


class FeedBlock(models.Model):
    """What a stretch of the feed still holds, so that an export need not count it anew: see services.feed_blocks.

    Block n is of the changes n · CHANGES + 1 to (n + 1) · CHANGES. It goes as soon as anything of it is superseded or
    withdrawn.
    """

    CHANGES = 4096

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="feed_blocks")
    number = models.BigIntegerField()
    as_of = models.BigIntegerField(help_text="The last change when it was counted.")
    shapes = models.JSONField(help_text="Rows of selectors.line_counts.Shape.")

    class Meta:
        constraints = [models.UniqueConstraint(name="one_feed_block_per_number", fields=["project", "number"])]

    def __str__(self) -> str:
        return f"block {self.number} of the feed of project {self.project_id}"
