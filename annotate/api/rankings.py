"""Rankings: submit, revise, review, list."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.api.queries import whole_number
from annotate.api.serializers import RankingAnswer, RankingPage, ReviewAnswer, ReviewShape, ReviseShape, SubmitShape
from annotate.models import Ranking, Role
from annotate.selectors.access import get_anyones_ranking_for, get_ranking_for
from annotate.selectors.projects import get_project_for
from annotate.selectors.rankings import ranking_content, rankings_for, written_content
from annotate.selectors.reviews import review_content
from annotate.services.rankings import revise_ranking, submit_ranking
from annotate.services.reviews import review_ranking


class Rankings(Endpoint):
    required_scope = {"GET": Scope.READ, "POST": Scope.ANNOTATE}

    @extend_schema(
        operation_id="list_rankings",
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("task", int, description="Only this task's.")],
        responses=RankingPage,
    )
    def get(self, request: Request, slug: str) -> Response:
        """Every revision, oldest first: reviewers and managers see all, everybody else their own."""
        user = asking(request)
        rankings = rankings_for(user, get_project_for(user, slug))
        if (task := whole_number(request, "task")) is not None:
            rankings = rankings.filter(task=task)
        return Response(page_of(rankings, request, lambda rows: [ranking_content(row) for row in rows]))

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


def _source(request: Request) -> Ranking.Source:
    """Through a session it is a page of ours that sends; programs come with a token."""
    return Ranking.Source.PAGE if request.auth is None else Ranking.Source.API
