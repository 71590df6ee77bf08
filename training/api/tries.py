"""Trying models out over REST: one conversation, answered at once, its text as it is written."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent
from annotate.api.queries import whole_number
from annotate.api.shapes.base import Shape
from annotate.models import User
from annotate.selectors.projects import get_project_for
from training.api.serializers import MAX_STEP
from training.api.views import TRAIN
from training.models import Run, Try
from training.selectors_responses import models_sampled
from training.selectors_tries import Ahead, get_try_for, line_of, listed, why_it_failed
from training.services.tries import (
    LONGEST_RESPONSE,
    MOST_CHARACTERS,
    MOST_MESSAGES,
    MOST_SAMPLES,
    ROLES,
    Wish,
    mark_seen,
    move_to_cpu,
    start_try,
)


class AskedMessage(Shape):
    """One message of a conversation."""

    role = serializers.CharField(max_length=20, help_text=f"One of {', '.join(ROLES)}.")
    content = serializers.CharField(max_length=MOST_CHARACTERS, trim_whitespace=False, allow_blank=True)


class TryShape(Shape):
    """A conversation, and who is to answer it."""

    messages = AskedMessage(many=True, help_text=f"The last one is the user's; at most {MOST_MESSAGES}.")
    model = serializers.CharField(max_length=300, help_text="Named as base models of runs are.")
    model_2 = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    reward_model = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    samples = serializers.IntegerField(min_value=1, max_value=MOST_SAMPLES, default=1, help_text="Of each model.")
    temperature = serializers.FloatField(default=1.0)
    max_response_length = serializers.IntegerField(
        min_value=1, max_value=LONGEST_RESPONSE, default=256, help_text="In tokens."
    )
    seed = serializers.IntegerField(
        min_value=0, max_value=2**53, required=False, default=None, allow_null=True, help_text="Not given: drawn."
    )


class WorkerAhead(serializers.Serializer[Any]):
    """A living worker of the queue, and the run that it holds; of a run that is none of yours no more than that."""

    worker = serializers.CharField()
    busy = serializers.BooleanField()
    run = serializers.IntegerField(allow_null=True)
    kind = serializers.CharField(allow_null=True)
    started_by = serializers.CharField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True, help_text="That it has held the run.")
    seconds_left = serializers.FloatField(allow_null=True)


class LineAnswer(serializers.Serializer[Any]):
    """What it waits for."""

    queue = serializers.CharField()
    place = serializers.IntegerField(help_text="1 is next.")
    workers = WorkerAhead(many=True)
    cpu = serializers.BooleanField(help_text="A worker of processors could take it: POST to cpu/.")


class PieceAnswer(serializers.Serializer[Any]):
    model = serializers.IntegerField(help_text="Its place in `models`, from 0.")
    sample = serializers.IntegerField()
    text = serializers.CharField()


class SaidAnswer(serializers.Serializer[Any]):
    """A whole response."""

    model = serializers.IntegerField()
    sample = serializers.IntegerField()
    text = serializers.CharField()
    thinking = serializers.CharField(allow_null=True)
    tokens = serializers.IntegerField()
    ended = serializers.BooleanField(help_text="By itself; else it was cut off.")
    score = serializers.FloatField(allow_null=True)


class TryAnswer(serializers.Serializer[Any]):
    """How far a try is."""

    id = serializers.IntegerField(help_text="Of its run.")
    state = serializers.ChoiceField(choices=Run.State.choices)
    reason = serializers.CharField(help_text="Why it failed or was cancelled.")
    models = serializers.ListField(child=serializers.CharField(), help_text="As they were named.")
    line = LineAnswer(allow_null=True, help_text="While it waits.")
    attempt = serializers.IntegerField(help_text="When it changes, begin with since=0 again.")
    pieces = PieceAnswer(many=True, help_text="Of an unfinished try, in order; thinking and its tags included.")
    next = serializers.IntegerField(help_text="For `since` in your next request.")
    gap = serializers.BooleanField(help_text="Pieces were lost; the responses in the end are whole.")
    responses = SaidAnswer(many=True, allow_null=True, help_text="In the end.")
    seconds = serializers.ListField(
        child=serializers.FloatField(allow_null=True), allow_null=True, help_text="Of each model, in the end."
    )


class Tries(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="start_try", request=TryShape, responses={201: TryAnswer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        """Has models answer a conversation. Ask for it while it waits: unasked for five minutes it is cancelled."""
        user = asking(request)
        shape = TryShape(data=request.data)
        shape.is_valid(raise_exception=True)
        project = get_project_for(user, slug, engineer=True)
        tried = start_try(Wish(**shape.validated_data), project=project, started_by=user)
        return Response(try_content(tried, user=user, since=0), status=201)


class OneTry(Endpoint):
    @extend_schema(
        operation_id="read_try",
        parameters=[OpenApiParameter("since", int, description="Pieces from this number on.", default=0)],
        responses=TryAnswer,
    )
    def get(self, request: Request, slug: str, run: int) -> Response:
        """How far a try is, and the text since the last look."""
        tried = get_try_for(asking(request), slug, run)
        mark_seen(tried)
        since = whole_number(request, "since", high=MAX_STEP) or 0
        return Response(try_content(tried, user=asking(request), since=since))


class ToCpu(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="move_try_to_cpu", request=None, responses=TryAnswer)
    @idempotent
    def post(self, request: Request, slug: str, run: int) -> Response:
        """Has a waiting try answered by a worker of processors. Repeating it is harmless while it waits."""
        move_to_cpu(get_try_for(asking(request), slug, run))
        return Response(try_content(get_try_for(asking(request), slug, run), user=asking(request), since=0))


def try_content(tried: Try, *, user: User, since: int) -> dict[str, Any]:
    """What TryAnswer describes."""
    run, line, result = tried.run, line_of(tried, user=user), tried.result
    found = listed(run, since=since) if result is None else None
    return {
        "id": run.pk,
        "state": run.state,
        "reason": why_it_failed(run),
        "models": models_sampled(run),
        "line": line and {
            "queue": line.queue,
            "place": line.place,
            "workers": [_ahead(one) for one in line.workers],
            "cpu": line.cpu,
        },
        "attempt": run.attempt,
        "pieces": [
            {"model": one.model, "sample": one.sample, "text": one.text} for one in (found.pieces if found else ())
        ],
        "next": found.next if found else since,
        "gap": found.gap if found else False,
        "responses": result and [_said(row) for row in result["responses"]],
        "seconds": result and result["seconds"],
    }  # fmt: skip


def _ahead(one: Ahead) -> dict[str, Any]:
    run = one.held.run if one.held else None
    return {
        "worker": one.worker,
        "busy": one.held is not None,
        "run": run and run.pk,
        "kind": run and run.kind,
        "started_by": run.started_by.username if run and run.started_by else None,
        "seconds": one.held.seconds if one.held else None,
        "seconds_left": one.left,
    }


def _said(row: dict[str, Any]) -> dict[str, Any]:
    names = ("sample", "text", "thinking", "tokens", "ended", "score")
    return {"model": row["model_index"], **{name: row[name] for name in names}}
