"""Workers over REST: for engineers of any project. What a worker holds is named only to those who may see the run."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.filters import filtered, parameters, text, yes
from annotate.api.pagination import PAGE_PARAMETERS, page_of
from annotate.models import User
from training.models import Worker
from training.selectors_workers import Held, held_by, workers_for


class HeldAnswer(serializers.Serializer[Any]):
    """A run that a worker holds, alone or with others.

    All but `since` is null for a run of a project whose engineer the caller is not.
    """

    run = serializers.IntegerField(allow_null=True)
    name = serializers.CharField(allow_null=True)
    project = serializers.SlugField(allow_null=True)
    attempt = serializers.IntegerField(allow_null=True)
    machine = serializers.IntegerField(
        allow_null=True, help_text="Which of the `machines` that train it together this is; the first holds it."
    )
    machines = serializers.IntegerField(allow_null=True)
    since = serializers.DateTimeField()


class GpuAnswer(serializers.Serializer[Any]):
    """A GPU as its driver tells it."""

    name = serializers.CharField()
    memory_bytes = serializers.IntegerField()
    memory_used_bytes = serializers.IntegerField()
    busy = serializers.FloatField(allow_null=True, help_text="Share of the last moment, 0 to 1; null: unknown.")


class WorkerRow(serializers.ModelSerializer[Worker]):
    """A worker and its machine, as it last said."""

    alive = serializers.BooleanField(help_text="Heard of in the last 45 seconds, and not stopped.")
    queues = serializers.ListField(child=serializers.CharField(), help_text="It takes runs from these.")
    gpus = GpuAnswer(many=True)

    class Meta:
        model = Worker
        fields: tuple[str, ...] = (
            "id",
            "name",
            "host",
            "process_id",
            "queues",
            "version",
            "alive",
            "started_at",
            "seen_at",
            "stopped_at",
            "processes",
            "processors",
            "memory_bytes",
            "memory_used_bytes",
            "gpus",
        )


class WorkerAnswer(WorkerRow):
    """A worker with what it holds."""

    holds = HeldAnswer(many=True)

    class Meta(WorkerRow.Meta):
        fields = (*WorkerRow.Meta.fields, "holds")


class WorkerPage(serializers.Serializer[Any]):
    results = WorkerAnswer(many=True)
    next = serializers.CharField(allow_null=True)


FILTERS = (
    text("queue", "queues__contains", "Only those that take runs from it.", same=lambda queue: [queue]),
    yes("alive", "alive", "1: only those that live; 0: only the others."),
)


class Workers(Endpoint):
    @extend_schema(
        operation_id="list_workers", parameters=[*PAGE_PARAMETERS, *parameters(FILTERS)], responses=WorkerPage
    )
    def get(self, request: Request) -> Response:
        """Workers that were heard of in the last day: what they hold, and processors, memory and GPUs of each."""
        user = asking(request)
        workers = filtered(workers_for(user), request, FILTERS)
        return Response(page_of(workers, request, lambda rows: _contents(rows, user)))


def _contents(workers: list[Worker], user: User) -> list[dict[str, Any]]:
    """What WorkerAnswer describes, for each."""
    held = held_by(workers, user=user)
    return [
        {**WorkerRow(worker).data, "holds": [_held_content(one) for one in held[worker.name]]} for worker in workers
    ]


def _held_content(held: Held) -> dict[str, Any]:
    run = held.run
    return {
        "run": run and run.pk,
        "name": run and run.name,
        "project": run and run.project.slug,
        "attempt": run and held.attempt,
        "machine": run and held.machine,
        "machines": run and held.machines,
        "since": held.since,
    }
