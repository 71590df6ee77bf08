"""What reviewers thought of rankings."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import pgettext_lazy

from annotate.models.rankings import Ranking


class Review(models.Model):
    """A reviewer's verdict on one revision of somebody else's ranking. Append-only: the last one holds.

    A revision is a ranking of its own, so it starts without one. `change` is drawn from the project's change counter: a
    review holds at a change if no later one does, as exports and snapshots ask.
    """

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted", pgettext_lazy("verdict of a review", "Accepted")
        RETURNED = "returned", pgettext_lazy("verdict of a review", "Returned")

    ranking = models.ForeignKey(Ranking, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=10, choices=Verdict)
    note = models.TextField(blank=True, help_text="For the annotator.")
    change = models.BigIntegerField(help_text="Its number in the project's order of changes.")
    created_at = models.DateTimeField(db_default=Now())
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="Since then without its note.")

    class Meta:
        constraints = [
            models.UniqueConstraint(name="one_review_per_ranking_and_change", fields=["ranking", "change"]),
            models.CheckConstraint(name="review_verdict_known", condition=Q(verdict__in=["accepted", "returned"])),
        ]

    def __str__(self) -> str:
        return f"{self.verdict}: ranking {self.ranking_id}"
