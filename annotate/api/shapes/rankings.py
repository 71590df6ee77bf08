"""The shapes of rankings, their revisions and reviews."""

from typing import Any

from rest_framework import serializers

from annotate.api.queries import MAX_ID
from annotate.api.shapes.base import MAX_CRITERIA, MAX_RESPONSES, Page, Shape
from annotate.models import Ranking, Review
from annotate.preferences import MAX_RATIONALE_CHARACTERS, MAX_REWRITE_CHARACTERS, Answer, Rewrite

MAX_SECONDS = 7 * 24 * 3600


class _Id(serializers.CharField):
    """The id of a response, as `next/` gave it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"max_length": 20} | options))


class RewriteShape(Shape):
    """A better text that the annotator wrote, starting from the response `of`."""

    of = _Id()
    text = serializers.CharField(max_length=MAX_REWRITE_CHARACTERS, trim_whitespace=False)


def _ids() -> serializers.ListField:
    return serializers.ListField(child=_Id(), max_length=MAX_RESPONSES)


class AnswerShape(Shape):
    """What an annotator says about a task; ids are those of the lease's responses."""

    ranking = serializers.ListField(
        child=_ids(), max_length=MAX_RESPONSES, help_text="Tiers of response ids, best first; equal ones share a tier."
    )
    unranked = serializers.ListField(
        child=_Id(), max_length=MAX_RESPONSES, required=False, help_text="The responses that stand in no tier."
    )
    strengths = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=3, allow_null=True),
        max_length=MAX_RESPONSES,
        required=False,
        allow_null=True,
        help_text="One per gap between tiers: 1 slightly, 2 clearly, 3 much better, null not said.",
    )
    all_bad = serializers.BooleanField(required=False, default=False)
    ratings = serializers.DictField(
        child=serializers.DictField(child=serializers.IntegerField(min_value=-1000, max_value=1000)),
        required=False,
        help_text="Response id → criterion → whole number.",
    )
    flags = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField(max_length=50), max_length=MAX_CRITERIA),
        required=False,
        help_text="Response id → flags.",
    )
    rationale = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, max_length=MAX_RATIONALE_CHARACTERS
    )
    rewrite = RewriteShape(required=False, allow_null=True)
    seconds = serializers.FloatField(
        required=False, allow_null=True, min_value=0, max_value=MAX_SECONDS, help_text="Time spent on the task."
    )

    def answer(self) -> Answer:
        """The validated content as the services take it."""
        given = self.validated_data
        rewrite = given.get("rewrite")
        return Answer(
            ranking=given["ranking"],
            unranked=given.get("unranked", []),
            strengths=given.get("strengths"),
            all_bad=given["all_bad"],
            ratings=given.get("ratings", {}),
            flags=given.get("flags", {}),
            rationale=given.get("rationale"),
            rewrite=Rewrite(of=rewrite["of"], text=rewrite["text"]) if rewrite else None,
        )


class SubmitShape(AnswerShape):
    lease = serializers.UUIDField()


class ReviseShape(AnswerShape):
    supersedes = serializers.IntegerField(min_value=1, max_value=MAX_ID, help_text="Id of the revision you saw last.")


class RewriteAnswer(serializers.Serializer[Any]):
    of = serializers.CharField()
    text = serializers.CharField()


class ReviewShape(Shape):
    """What a reviewer thinks of somebody else's ranking; to give one back takes a note."""

    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=2000, default="", help_text="For the annotator."
    )


class ReviewAnswer(serializers.Serializer[Any]):
    """A review; the last one of a ranking holds."""

    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    note = serializers.CharField(allow_blank=True)
    reviewer = serializers.CharField()
    created_at = serializers.DateTimeField()


class RankingAnswer(serializers.Serializer[Any]):
    """A ranking, one revision of it. A withdrawn one keeps its order, but none of its texts."""

    id = serializers.CharField()
    task = serializers.IntegerField()
    annotator = serializers.CharField(help_text="User name; exports hold pseudonyms instead.")
    revision = serializers.IntegerField()
    supersedes = serializers.CharField(allow_null=True)
    superseded_by = serializers.CharField(allow_null=True)
    counted = serializers.BooleanField(help_text="False for work beyond the overlap.")
    source = serializers.ChoiceField(choices=Ranking.Source.choices)  # type: ignore[assignment]
    version = serializers.IntegerField(help_text="Number of the project's rules it was made under.")
    ranking = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    unranked = serializers.ListField(child=serializers.CharField())
    strengths = serializers.ListField(child=serializers.IntegerField(allow_null=True))
    all_bad = serializers.BooleanField()
    ratings = serializers.DictField(child=serializers.DictField(child=serializers.IntegerField()))
    flags = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))
    rationale = serializers.CharField(allow_null=True)
    rewrite = RewriteAnswer(allow_null=True)
    presented_order = serializers.ListField(child=serializers.CharField())
    seconds = serializers.FloatField(allow_null=True)
    submitted_at = serializers.DateTimeField()
    withdrawn_at = serializers.DateTimeField(allow_null=True)
    review = ReviewAnswer(allow_null=True, help_text="The one that holds; a new revision has none.")


class RankingPage(Page):
    results = RankingAnswer(many=True)
