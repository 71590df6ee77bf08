"""The log of what was withdrawn: who asked for it and why, what kind of thing it was, how much; never the text."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from annotate.models.projects import Project
from annotate.models.prompts import Prompt, Response
from annotate.models.rankings import Ranking


class Withdrawal(models.Model):
    """One thing that was withdrawn from a project, with all that went with it.

    That of an annotator is done in steps; until `finished_at` is set, some of it may still stand, and asking again, or
    the clock, goes on with it.
    """

    class Kind(models.TextChoices):
        ANNOTATOR = "annotator", pgettext_lazy("what was withdrawn", "All that a person wrote")
        RANKING = "ranking", pgettext_lazy("what was withdrawn", "Ranking")
        PROMPT = "prompt", pgettext_lazy("what was withdrawn", "Prompt")
        RESPONSE = "response", pgettext_lazy("what was withdrawn", "Response")
        NOTE = "note", pgettext_lazy("what was withdrawn", "Note")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="withdrawals")
    kind = models.CharField(max_length=10, choices=Kind)
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    counts = models.JSONField(default=dict, help_text="What was removed: kind of thing → how many.")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    reason = models.CharField(
        max_length=200, default="", db_default="", blank=True, help_text="Why, in the words of whoever withdrew it."
    )
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="one_open_withdrawal_per_annotator",
                fields=["project", "annotator"],
                condition=Q(kind="annotator", finished_at__isnull=True),
            ),
            models.CheckConstraint(
                name="withdrawal_names_its_object",
                condition=Q(kind__in=["annotator", "note"], annotator__isnull=False)
                | Q(kind="ranking", ranking__isnull=False)
                | Q(kind="prompt", prompt__isnull=False)
                | Q(kind="response", response__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"withdrawal {self.pk}: {self.kind}"
