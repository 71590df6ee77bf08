"""Rankings: submit, revise, review, list."""

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, number, parameters, span, word, yes
from annotate.api.idempotency import idempotent
from annotate.api.pagination import page_of, page_parameters
from annotate.api.shapes.rankings import RankingAnswer, RankingPage, ReviewAnswer, ReviewShape, ReviseShape, SubmitShape
from annotate.models import Ranking, RankingTask, Role, User
from annotate.selectors.access import get_anyones_ranking_for, get_ranking_for
from annotate.selectors.projects import get_project_for
from annotate.selectors.rankings import ranking_content, rankings_for, written_content
from annotate.selectors.reviews import review_content
from annotate.services.rankings import revise_ranking, submit_ranking
from annotate.services.reviews import review_ranking

ORDERS = {"id": "pk", "submitted_at": "submitted_at"}
FILTERS = (
    number("task", "task", "Only this task's."),
    word("kind", "task__kind", RankingTask.Kind.values, "Only of tasks of this kind."),
    word("annotator_kind", "annotator__kind", User.Kind.values, "Only of annotators of this kind."),
    word("source", "source", Ranking.Source.values, "Only what came this way."),
    yes("counted", "counted", "1: only what counts; 0: only extras."),
    yes("latest", "superseded_by__isnull", "1: only last revisions; 0: only superseded ones."),
    yes(
        "withdrawn",
        "withdrawn_at__isnull",
        "1: only what was withdrawn; 0: only the rest.",
        same=lambda value: not value,
    ),
    *span("submitted", "submitted_at", "Submitted"),
)
ANNOTATOR = OpenApiParameter("annotator", str, description="Only of this user name; `me` for the caller's own.")


class Rankings(Endpoint):
    required_scope = {"GET": Scope.READ, "POST": Scope.ANNOTATE}

    @extend_schema(
        operation_id="list_rankings",
        parameters=[*page_parameters(ORDERS), ANNOTATOR, *parameters(FILTERS)],
        responses=RankingPage,
    )
    def get(self, request: Request, slug: str) -> Response:
        """Every revision, oldest first: reviewers and managers see all, everybody else their own."""
        user = asking(request)
        rankings = filtered(rankings_for(user, get_project_for(user, slug)), request, FILTERS)
        rankings = _of_annotator(rankings, request.query_params.get("annotator"), user=user)
        return Response(page_of(rankings, request, lambda rows: [ranking_content(row) for row in rows], orders=ORDERS))

    @extend_schema(operation_id="submit_ranking", request=SubmitShape, responses={201: RankingAnswer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        """Answers a lease. An expired one is good while the task has room; after that the work is kept, uncounted."""
        user = asking(request)
        project = get_project_for(user, slug, role=Role.ANNOTATOR)
        shape = SubmitShape(data=request.data)
        shape.is_valid(raise_exception=True)
        answer = shape.answer()
        ranking = submit_ranking(
            annotator=user,
            lease_id=shape.validated_data["lease"],
            answer=answer,
            seconds=shape.validated_data.get("seconds"),
            source=_source(request),
            project=project,
        )
        return Response(written_content(ranking, answer), status=201)


class Revise(Endpoint):
    required_scope = Scope.ANNOTATE

    @extend_schema(operation_id="revise_ranking", request=ReviseShape, responses={201: RankingAnswer})
    @idempotent
    def post(self, request: Request, ranking: int) -> Response:
        """Writes a new revision of the caller's own ranking; the old ones stay. 409 if `supersedes` is not the last."""
        known = get_ranking_for(request.user, ranking)
        shape = ReviseShape(data=request.data)
        shape.is_valid(raise_exception=True)
        answer = shape.answer()
        revised = revise_ranking(
            ranking_id=known.pk,
            supersedes=shape.validated_data["supersedes"],
            annotator=asking(request),
            answer=answer,
            seconds=shape.validated_data.get("seconds"),
            source=_source(request),
        )
        return Response(written_content(revised, answer), status=201)


class ReviewRanking(Endpoint):
    @extend_schema(operation_id="review_ranking", request=ReviewShape, responses={201: ReviewAnswer})
    @idempotent
    def post(self, request: Request, ranking: int) -> Response:
        """Accepts somebody else's ranking or gives it back. 409 if it is not the last revision, or was withdrawn."""
        found = get_anyones_ranking_for(request.user, ranking, role=Role.REVIEWER)
        shape = ReviewShape(data=request.data)
        shape.is_valid(raise_exception=True)
        review = review_ranking(ranking=found, reviewer=asking(request), **shape.validated_data)
        return Response(review_content(review), status=201)


def _of_annotator(rankings: QuerySet[Ranking], name: str | None, *, user: User) -> QuerySet[Ranking]:
    if name is None:
        return rankings
    return rankings.filter(annotator=user) if name == "me" else rankings.filter(annotator__username=name)


def _source(request: Request) -> Ranking.Source:
    """Through a session it is a page of ours that sends; programs come with a token."""
    return Ranking.Source.PAGE if request.auth is None else Ranking.Source.API
