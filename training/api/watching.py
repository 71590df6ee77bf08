"""What is watched of a run over REST besides its measurements: samples and the use of its machines."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.queries import whole_number
from training.api.serializers import MAX_STEP
from training.models import Run, RunSample
from training.selectors import get_run_for
from training.selectors_samples import samples_of
from training.selectors_use import use_of

STEPS_A_REPLY = 50


class SampleAnswer(serializers.ModelSerializer[RunSample]):
    """What the policy answered to a prompt at a step. Texts are cut at 4,000 characters."""

    prompt = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))
    scores = serializers.DictField(child=serializers.FloatField(), help_text="Of each reward source.")

    class Meta:
        model = RunSample
        fields = (
            "step",
            "attempt",
            "place",
            "prompt",
            "before",
            "before_score",
            "response",
            "thinking",
            "score",
            "scores",
            "ended",
            "shortened",
        )


class SamplesAnswer(serializers.Serializer[Any]):
    """Samples of some steps, the newest step first; none once the run's snapshot was withdrawn."""

    state = serializers.ChoiceField(choices=Run.State.choices)
    samples = SampleAnswer(many=True)
    more = serializers.BooleanField(help_text="There are older ones: ask again with `before_step`.")


class Samples(Endpoint):
    @extend_schema(
        operation_id="read_run_samples",
        parameters=[
            OpenApiParameter("before_step", int, description="Steps before this one; without it the newest."),
            OpenApiParameter("steps", int, description="Sampled steps at most.", default=STEPS_A_REPLY),
        ],
        responses=SamplesAnswer,
    )
    def get(self, request: Request, run: int) -> Response:
        """What the policy says to a few prompts while it is trained, as the run's page shows it."""
        found = get_run_for(asking(request), run)
        table = samples_of(
            found,
            steps=whole_number(request, "steps", low=1, high=STEPS_A_REPLY) or STEPS_A_REPLY,
            before_step=whole_number(request, "before_step", high=MAX_STEP),
        )
        rows = [row for one in table.steps for row in one.rows]
        return Response({"state": found.state, "samples": SampleAnswer(rows, many=True).data, "more": table.older})


class UseLineAnswer(serializers.Serializer[Any]):
    """One figure of one machine over time."""

    figure = serializers.ChoiceField(choices=["gpu_busy", "gpu_memory", "memory"])
    name = serializers.CharField(help_text="The GPU or the worker.")
    whole = serializers.FloatField(help_text="What there is of it, in the unit of the values.")
    points = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(allow_null=True)),
        help_text="[minutes since the run began, value]: a share of busy GPUs, GiB of memory; null: not known.",
    )


class UseAnswer(serializers.Serializer[Any]):
    """How busy the machines were that worked on the run."""

    state = serializers.ChoiceField(choices=Run.State.choices)
    lines = UseLineAnswer(many=True)


class Use(Endpoint):
    @extend_schema(operation_id="read_run_use", responses=UseAnswer)
    def get(self, request: Request, run: int) -> Response:
        """GPUs and memory of the run's workers while they worked on it; at most 720 points a line."""
        found = get_run_for(asking(request), run)
        return Response(UseAnswer({"state": found.state, "lines": use_of(found)}).data)
