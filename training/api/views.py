"""Runs over REST. Everything here needs the engineer right in the project."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, number, parameters, span, word, yes
from annotate.api.idempotency import idempotent
from annotate.api.pagination import page_of, page_parameters
from annotate.api.queries import whole_number, yes_or_no
from annotate.errors import Invalid
from annotate.models import Project, Snapshot
from annotate.selectors.projects import get_project_for
from training.api.asked import OF_PROJECT, project_asked
from training.api.serializers import (
    MAX_STEP,
    MetricsAnswer,
    RunAnswer,
    RunDetails,
    RunPage,
    RunRow,
    StartShape,
    StepAnswer,
)
from training.models import Run, RunInput
from training.selectors import (
    get_run_for,
    metrics_since,
    runs_for,
    seconds_left,
)
from training.selectors_use import with_time_worked
from training.services.run_settings import with_preset
from training.services.runs import cancel_run, resume_run, start_run

TRAIN = {"GET": Scope.READ, "POST": Scope.TRAIN}
ROWS_A_REPLY = 5_000


ORDERS = {"id": "pk", "created_at": "created_at"}
FILTERS = (
    word("state", "state", Run.State.values, "Only in this state."),
    word("kind", "kind", Run.Kind.values, "Only of this kind."),
    yes("suspect", "suspect", "1: only those marked suspect; 0: only the others."),
    number("snapshot", "snapshot", "Only from this snapshot."),
    *span("created", "created_at", "Asked for"),
)


class Runs(Endpoint):
    required_scope = TRAIN

    @extend_schema(
        operation_id="list_runs",
        parameters=[
            *page_parameters(ORDERS),
            OF_PROJECT,
            *parameters(FILTERS),
            OpenApiParameter("tries", bool, description="1: tries alone, which are left out otherwise.", default=False),
        ],
        responses=RunPage,
    )
    def get(self, request: Request) -> Response:
        """The runs of the projects whose engineer the caller is, oldest first."""
        user, tries = asking(request), yes_or_no(request, "tries")
        runs = with_time_worked(runs_for(user, project=project_asked(request, user))).filter(tried__isnull=not tries)
        runs = filtered(runs, request, FILTERS)
        return Response(page_of(runs, request, lambda rows: [*RunRow(rows, many=True).data], orders=ORDERS))

    @extend_schema(operation_id="start_run", request=StartShape, responses={201: RunAnswer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Queues a run from a snapshot; a worker with a free device takes it."""
        run = start_run(started_by=asking(request), **asked_run(request))
        return Response(run_content(run), status=201)


class OneRun(Endpoint):
    @extend_schema(operation_id="read_run", responses=RunAnswer)
    def get(self, request: Request, run: int) -> Response:
        """Where the run stands."""
        return Response(run_content(get_run_for(asking(request), run)))


class Cancel(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="cancel_run", request=None, responses=RunAnswer)
    @idempotent
    def post(self, request: Request, run: int) -> Response:
        """Stops the run: at once if no worker has it, else within seconds. Repeating it is harmless."""
        return Response(run_content(cancel_run(get_run_for(asking(request), run))))


class Resume(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="resume_run", request=None, responses=RunAnswer)
    @idempotent
    def post(self, request: Request, run: int) -> Response:
        """Queues a failed or cancelled run again; it goes on from its last checkpoint."""
        return Response(run_content(resume_run(get_run_for(asking(request), run))))


class Metrics(Endpoint):
    @extend_schema(
        operation_id="read_run_metrics",
        parameters=[
            OpenApiParameter("since_step", int, description="Rows after this step.", default=0),
            OpenApiParameter("attempt", int, description="The `attempt` of your last answer, if you have rows."),
            OpenApiParameter("limit", int, description="Rows at most.", default=ROWS_A_REPLY),
        ],
        responses=MetricsAnswer,
    )
    def get(self, request: Request, run: int) -> Response:
        """What was measured after a step. A resumed run cuts back: drop your rows beyond `discard_after`."""
        found = get_run_for(asking(request), run)
        answer = metrics_since(
            found,
            since_step=whole_number(request, "since_step", high=MAX_STEP) or 0,
            seen_attempt=whole_number(request, "attempt", high=MAX_STEP),
            limit=whole_number(request, "limit", low=1, high=ROWS_A_REPLY) or ROWS_A_REPLY,
        )
        return Response(
            {
                "state": found.state,
                "attempt": answer.attempt,
                "discard_after": answer.discard_after,
                "more": answer.more,
                "metrics": StepAnswer(answer.rows, many=True).data,
            }
        )


def asked_run(request: Request) -> dict[str, Any]:
    """What a request asks services.runs.start_run for, without who asks.

    Raises:
        Invalid, NotFound, Forbidden, ValidationError: it cannot be asked for, or not by this caller.
    """
    shape = StartShape(data=request.data)
    shape.is_valid(raise_exception=True)
    given = shape.validated_data
    project = get_project_for(asking(request), given["project"], engineer=True)
    return {
        "project": project,
        "snapshot": snapshot_named(project, given["snapshot"]),
        "inputs": {role: given[role] for role in RunInput.Role.values},
        "config": with_preset(given["kind"], given["preset"], given["config"]),
        **{name: given[name] for name in ("kind", "base_model", "name", "queue", "processes", "nodes")},
    }


def snapshot_named(project: Project, snapshot_id: int) -> Snapshot:
    """A snapshot of the project.

    Raises:
        Invalid: there is none with this id.
    """
    snapshot = Snapshot.objects.filter(project=project, pk=snapshot_id).first()
    if snapshot is None:
        message = _("There is no such snapshot in this project.")
        raise Invalid(_("The run cannot be started."), fields={"snapshot": message})
    return snapshot


def run_content(run: Run) -> dict[str, Any]:
    """What RunAnswer describes."""
    return {**RunDetails(run).data, "waits_for": run.parent_id, "seconds_left": seconds_left(run)}
