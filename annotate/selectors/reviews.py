"""Which reviews hold, what waits for one, and what came back to its annotator."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery, Value
from django.db.models.lookups import Exact

from annotate.models import Project, Prompt, Ranking, Review, User

ACCEPTED, RETURNED = Review.Verdict.ACCEPTED, Review.Verdict.RETURNED
LIST = 20


def whose_review_is(verdict: str, *, ranking: str = "pk", up_to_change: int | None = None) -> Exact:
    """A condition: the last review, of those up to a change, of the ranking in this field says so."""
    reviews = Review.objects.filter(ranking=OuterRef(ranking))
    if up_to_change is not None:
        reviews = reviews.filter(change__lte=up_to_change)
    last = Subquery(reviews.order_by("-change").values("verdict")[:1], output_field=CharField())
    return Exact(last, Value(verdict))


def accepted_among(rankings: Collection[int], *, up_to_change: int) -> set[int]:
    """Which of these rankings the last review up to a change had accepted."""
    found = Ranking.objects.filter(whose_review_is(ACCEPTED, up_to_change=up_to_change), pk__in=rankings)
    return set(found.values_list("pk", flat=True))


def with_reviews() -> "Prefetch[Any]":
    """Loads with rankings what review_content reads."""
    return Prefetch("reviews", queryset=Review.objects.select_related("reviewer").order_by("change"))


def review_of(ranking: Ranking) -> Review | None:
    """The review that holds, of a ranking loaded with with_reviews."""
    reviews = list(ranking.reviews.all())
    return reviews[-1] if reviews else None


def review_content(review: Review | None) -> dict[str, Any] | None:
    """A review as JSON types."""
    if review is None:
        return None
    said = {"verdict": review.verdict, "note": review.note, "reviewer": review.reviewer.username}
    return said | {"created_at": review.created_at.isoformat()}


# --- what waits -------------------------------------------------------------------------------------------------------


def unreviewed(project: Project) -> QuerySet[Ranking]:
    """Last revisions that people made here, that stand and that nobody has reviewed."""
    mine = Ranking.objects.filter(project=project, withdrawn_at=None, superseded_by=None)
    reviewed = Review.objects.filter(ranking=OuterRef("pk"))
    made_here = mine.filter(source__in=[Ranking.Source.PAGE, Ranking.Source.API])
    return made_here.filter(~Exists(reviewed)).exclude(annotator__kind=User.Kind.MACHINE)


def next_to_review(project: Project, user: User, *, after: int = 0) -> Ranking | None:
    """The first unreviewed ranking beyond `after` that is not the user's own; if there is none beyond, the oldest."""
    waiting = unreviewed(project).exclude(annotator=user).order_by("pk")
    return waiting.filter(pk__gt=after).first() or (waiting.first() if after else None)


@dataclass(frozen=True, slots=True)
class Returned:
    """A ranking of the user's own that a reviewer gave back, with what the task begins with."""

    ranking: Ranking
    review: Review
    prompt: Prompt


def returned_to(user: User, project: Project) -> list[Returned]:
    """What reviewers gave back to the user and the user has not revised since, the newest first; at most 20."""
    given_back = Review.objects.filter(verdict=RETURNED, ranking__project=project, ranking__annotator=user)
    later = Review.objects.filter(ranking=OuterRef("ranking"), change__gt=OuterRef("change"))
    standing = Q(ranking__superseded_by=None, ranking__withdrawn_at=None, ranking__lease__isnull=False)
    reviews = given_back.filter(~Exists(later), standing).select_related("ranking__task__prompt").order_by("-change")
    return [Returned(one.ranking, one, one.ranking.task.prompt) for one in reviews[:LIST]]
