"""Withdrawals: what must not be kept any longer, of a person or of a text."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response as Answer

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, parameters, span, word
from annotate.api.idempotency import idempotent, idempotent_once_finished
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.api.shapes.withdrawals import WithdrawalPage, WithdrawAnswer, WithdrawShape
from annotate.errors import Conflict, Invalid
from annotate.models import Project, Prompt, Ranking, Response, Role, User, Withdrawal
from annotate.selectors.access import get_anyones_ranking_for, get_prompt_for
from annotate.selectors.phrases import Place, find_phrase
from annotate.selectors.projects import get_project_for
from annotate.selectors.withdrawals import (
    Reach,
    annotator_named,
    reach_of_annotator,
    reach_of_prompt,
    reach_of_ranking,
    reach_of_response,
    withdrawal_content,
    withdrawal_that_took,
    withdrawals_of,
)
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking, withdraw_response
from annotate.services.withdrawn_people import withdraw_annotator

FILTERS = (
    word("kind", "kind", Withdrawal.Kind.values, "Only of this kind."),
    *span("started", "started_at", "Begun"),
)
#: How long a request withdraws before it leaves the rest to a worker.
SECONDS = 5.0
ANSWERS = {200: WithdrawAnswer, 201: WithdrawAnswer, 202: WithdrawAnswer}


class Withdrawals(Endpoint):
    @extend_schema(
        operation_id="list_withdrawals", parameters=[*PAGE_PARAMETERS, *parameters(FILTERS)], responses=WithdrawalPage
    )
    def get(self, request: Request, slug: str) -> Answer:
        """What was withdrawn from the project, oldest first: who, what kind, how much, when; never the text."""
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        rows = filtered(withdrawals_of(project), request, FILTERS)
        return Answer(page_of(rows, request, lambda page: [withdrawal_content(row) for row in page]))

    @extend_schema(operation_id="withdraw", request=WithdrawShape, responses=ANSWERS)
    @idempotent_once_finished
    def post(self, request: Request, slug: str) -> Answer:
        """Withdraws a response, a prompt or all that a person wrote; with `dry_run` says what that would reach.

        201 when it is done; 202 when a person wrote so much that a worker goes on with it; 200 with `dry_run`, and for
        what was withdrawn before: asking again changes nothing.
        """
        project = get_project_for(request.user, slug, role=Role.MANAGER)
        shape = WithdrawShape(data=request.data)
        shape.is_valid(raise_exception=True)
        asked, by = shape.validated_data, asking(request)
        said: dict[str, Any] = {"by": by, "reason": asked["reason"]}
        if "text" in asked:
            return _search(project, asked["text"], asked.get("cursor"))
        if "annotator" in asked:
            return _withdraw_annotator(project, asked, by)
        if "prompt" in asked:
            prompt = _own(Prompt.objects.filter(project=project), asked["prompt"], "prompt")
            return _withdraw(prompt, reach_of_prompt(prompt), asked, lambda: withdraw_prompt(prompt=prompt, **said))
        response = _own(Response.objects.filter(prompt__project=project), asked["response"], "response")
        reach = reach_of_response(response)
        return _withdraw(response, reach, asked, lambda: withdraw_response(response=response, **said))


class WithdrawRanking(Endpoint):
    @extend_schema(operation_id="withdraw_ranking", request=None, responses={200: WithdrawAnswer, 201: WithdrawAnswer})
    @idempotent
    def post(self, request: Request, ranking: int) -> Answer:
        """Withdraws an answer in all its revisions. Asking again changes nothing: 200."""
        found = get_anyones_ranking_for(request.user, ranking, role=Role.MANAGER)
        by = asking(request)
        return _withdraw(found, reach_of_ranking(found), {}, lambda: withdraw_ranking(ranking=found, by=by))


class WithdrawPrompt(Endpoint):
    @extend_schema(operation_id="withdraw_prompt", request=None, responses={200: WithdrawAnswer, 201: WithdrawAnswer})
    @idempotent
    def post(self, request: Request, prompt: int) -> Answer:
        """Withdraws a prompt with its responses, demonstrations and rankings. Asking again changes nothing: 200."""
        found = get_prompt_for(request.user, prompt, role=Role.MANAGER)
        by = asking(request)
        return _withdraw(found, reach_of_prompt(found), {}, lambda: withdraw_prompt(prompt=found, by=by))


def _own(rows: Any, pk: int, name: str) -> Any:
    found = rows.filter(pk=pk).first()
    if found is None:
        raise Invalid("There is no such thing in this project.", fields={name: "Not of this project."})
    return found


def _withdraw(
    thing: Ranking | Prompt | Response, reach: Reach, asked: dict[str, Any], act: Callable[[], Withdrawal]
) -> Answer:
    if asked.get("dry_run"):
        return _answer(reach)
    try:
        return _answer(reach, act(), status=201)
    except Conflict as refused:
        before = withdrawal_that_took(thing) if refused.code == "withdrawn" else None
        if before is None:
            raise
        return _answer(reach, before, status=200)


def _withdraw_annotator(project: Project, asked: dict[str, Any], by: User) -> Answer:
    annotator = annotator_named(project, asked["annotator"], key=asked["key"])
    reach = reach_of_annotator(project, annotator)
    if asked["dry_run"]:
        return _answer(reach)
    reason = asked["reason"]
    done = withdraw_annotator(project=project, annotator=annotator, by=by, reason=reason, seconds=SECONDS)
    if done.finished_at is None:
        return _answer(reach, done, status=202)
    return _answer(reach, done, status=201 if any(reach.counts.values()) else 200)


def _search(project: Project, text: str, cursor: str | None) -> Answer:
    found, place = find_phrase(project, text, at=Place.decode(cursor) if cursor is not None else None)
    answer = _answer(Reach({}, [], []))
    answer.data |= {"found": [one.as_json() for one in found], "next": place.encode() if place else None}
    return answer


def _answer(reach: Reach, done: Withdrawal | None = None, *, status: int = 200) -> Answer:
    row = withdrawal_content(done) if done is not None else None
    body = {"dry_run": done is None, **reach.as_json(), "withdrawal": row, "found": [], "next": None}
    return Answer(body, status=status)
