"""Rankings as people and programs read them here; exports have their own way (services.exports)."""

from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from annotate.models import Entry, Project, Ranking, Role, User
from annotate.preferences import Answer
from annotate.selectors.projects import RANK, membership_of
from annotate.selectors.reviews import review_content, review_of, with_reviews


def rankings_for(user: User, project: Project) -> QuerySet[Ranking]:
    """The project's rankings that the member may see: reviewers and managers all, everybody else their own.

    Nobody's judgement is coloured by what others said about the same task.
    """
    rankings = Ranking.objects.filter(project=project)
    membership = membership_of(user=user, project=project)
    if RANK[membership.role] < RANK[Role.REVIEWER]:
        rankings = rankings.filter(annotator=user)
    return with_content(rankings)


def with_content(rankings: QuerySet[Ranking]) -> QuerySet[Ranking]:
    """Loads with the rankings what ranking_content reads."""
    entries = Prefetch("entries", queryset=Entry.objects.order_by("tier", "response_id"))
    return rankings.select_related("annotator", "version", "superseded_by").prefetch_related(entries, with_reviews())


def ranking_content(ranking: Ranking) -> dict[str, Any]:
    """One revision as JSON types; ids of rankings and responses are strings."""
    places = [(entry.response_id, entry.tier) for entry in ranking.entries.all()]
    content = _content(ranking, places, later=getattr(ranking, "superseded_by", None))
    return content | {"review": review_content(review_of(ranking))}


def written_content(ranking: Ranking, answer: Answer) -> dict[str, Any]:
    """As ranking_content, of a revision that was written this moment with this answer; reads nothing."""
    tiers = {int(name): number for number, tier in enumerate(answer.ranking, start=1) for name in tier}
    content = _content(ranking, [(pk, tiers.get(pk)) for pk in sorted(ranking.presented_order)], later=None)
    return content | {"review": None}


def _content(ranking: Ranking, places: list[tuple[int, int | None]], *, later: Ranking | None) -> dict[str, Any]:
    """`places`: each response shown with its tier, in the order in which they are told."""
    tiers: dict[int, list[str]] = {}
    for response, tier in places:
        if tier is not None:
            tiers.setdefault(tier, []).append(str(response))
    return {
        "id": str(ranking.pk),
        "task": ranking.task_id,
        "annotator": ranking.annotator.username,
        "revision": ranking.revision,
        "supersedes": str(ranking.supersedes_id) if ranking.supersedes_id else None,
        "superseded_by": str(later.pk) if later else None,
        "counted": ranking.counted,
        "source": ranking.source,
        "version": ranking.version.number,
        "ranking": [tiers[number] for number in sorted(tiers)],
        "unranked": [str(response) for response, tier in places if tier is None],
        "strengths": ranking.strengths,
        "all_bad": ranking.all_bad,
        "ratings": ranking.ratings,
        "flags": ranking.flags,
        "rationale": ranking.rationale,
        "rewrite": {"of": str(ranking.rewrite_of_id), "text": ranking.rewrite_text} if ranking.rewrite_of_id else None,
        "presented_order": [str(pk) for pk in ranking.presented_order],
        "seconds": ranking.seconds,
        "submitted_at": ranking.submitted_at.isoformat(),
        "withdrawn_at": ranking.withdrawn_at.isoformat() if ranking.withdrawn_at else None,
    }


def own_answered(*, user: User, project: Project, before: int | None = None) -> Ranking | None:
    """The last revision of what the user answered last here, or of what they answered before the ranking `before`.

    Answers stand in the order in which they were first submitted. Imported and withdrawn ones are passed over.

    Args:
        before: the id of any revision of the user's own; an unknown one finds nothing.
    """
    first = Ranking.objects.filter(project=project, annotator=user, revision=1, withdrawn_at=None)
    first = first.exclude(source=Ranking.Source.IMPORT).filter(lease__isnull=False)
    if before is not None:
        seen = Ranking.objects.filter(pk=before, annotator=user, project=project).values("task")
        start = Ranking.objects.filter(task__in=seen, annotator=user, revision=1).first()
        if start is None:
            return None
        first = first.filter(
            Q(submitted_at__lt=start.submitted_at) | Q(submitted_at=start.submitted_at, pk__lt=start.pk)
        )
    return _last_of(user, first.order_by("-submitted_at", "-pk"))


def own_answer(*, user: User, project: Project, ranking: int) -> Ranking | None:
    """As own_answered, of the answer that this ranking is a revision of."""
    mine = Ranking.objects.filter(pk=ranking, annotator=user, project=project, withdrawn_at=None)
    return _last_of(user, mine.filter(lease__isnull=False).order_by("pk"))


def _last_of(user: User, answers: QuerySet[Ranking]) -> Ranking | None:
    """The last revision of the first of the user's answers."""
    task = answers.values_list("task", flat=True)[:1]
    chain = Ranking.objects.filter(task__in=list(task), annotator=user).order_by("-revision")
    return with_content(chain).select_related("lease__task__prompt", "lease__version").first()


def answer_content(ranking: Ranking) -> dict[str, Any]:
    """What the ranking says, in the shape in which pages keep a draft."""
    content = ranking_content(ranking)
    names = ("ranking", "strengths", "all_bad", "ratings", "flags", "rationale", "rewrite", "seconds")
    return {name: content[name] for name in names}
