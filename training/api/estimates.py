"""What a run would need, and named sets of settings, over REST. Neither makes a run."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint
from training.api.serializers import SettingsField, StartShape
from training.api.views import TRAIN, asked_run
from training.models import Run
from training.recipes.configs import PRESETS
from training.services.plans import Estimate
from training.services.run_settings import STARTABLE
from training.services.runs import look_ahead


class MemoryAnswer(serializers.Serializer[Any]):
    """In bytes, of each process, without the libraries that it loads (0.4 GiB on a CPU)."""

    peak_bytes = serializers.IntegerField(help_text="The same figure that the recipe prints at its start.")
    rest_bytes = serializers.IntegerField(help_text="Weights, gradients and optimiser alone.")


class TimeAnswer(serializers.Serializer[Any]):
    """A range in seconds."""

    low = serializers.FloatField()
    high = serializers.FloatField()
    runs = serializers.IntegerField(help_text="Runs like it that were timed; 0: rough, by the kind of machine alone.")


class RoomAnswer(serializers.Serializer[Any]):
    """Whether the living workers of the queue have the memory."""

    queue = serializers.CharField(help_text="The one given, else by rule.")
    workers = serializers.IntegerField(help_text="That live and take runs from it.")
    fitting = serializers.IntegerField(help_text="Those of them that have the memory.")
    largest_bytes = serializers.IntegerField(help_text="What a process has on the largest of them.")
    on_gpu = serializers.BooleanField()


class EstimateAnswer(serializers.Serializer[Any]):
    """What a run would need, as far as this server can tell without loading a model."""

    memory = MemoryAnswer(allow_null=True)
    seconds = TimeAnswer(allow_null=True)
    steps = serializers.IntegerField(allow_null=True)
    tokens = serializers.FloatField(allow_null=True, help_text="Forwarded in training; by a rule, not by a tokenizer.")
    exact = serializers.BooleanField(help_text="Whether the whole snapshot was counted, not a sample of a large one.")
    unknown = serializers.CharField(help_text="Why memory and time are null; else empty.")
    room = RoomAnswer()
    notices = serializers.ListField(child=serializers.CharField(), help_text="What is worth knowing before.")
    refusals = serializers.DictField(
        child=serializers.CharField(), help_text="By field: for these the run would be refused."
    )


class EstimateRun(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="estimate_run", request=StartShape, responses=EstimateAnswer)
    def post(self, request: Request) -> Response:
        """Memory and time of a run before it is started. Takes what starting takes; makes nothing, changes nothing."""
        _plan, estimate = look_ahead(**asked_run(request))
        return Response(estimate_content(estimate))


def estimate_content(found: Estimate) -> dict[str, Any]:
    """What EstimateAnswer describes."""
    need = found.need
    return {
        "memory": need and {"peak_bytes": need.peak_bytes, "rest_bytes": need.rest_bytes},
        "seconds": found.seconds and asdict(found.seconds),
        "steps": need and need.steps,
        "tokens": need and need.tokens,
        "exact": found.exact,
        "unknown": found.why_unknown,
        "room": asdict(found.room),
        "notices": list(found.notices),
        "refusals": dict(found.refusals),
    }


class PresetAnswer(serializers.Serializer[Any]):
    """A named set of settings."""

    kind = serializers.ChoiceField(choices=Run.Kind.choices)
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    config = SettingsField(help_text="Those that differ from the defaults.")


class PresetList(serializers.Serializer[Any]):
    results = PresetAnswer(many=True)


class Presets(Endpoint):
    @extend_schema(operation_id="list_run_presets", responses=PresetList)
    def get(self, request: Request) -> Response:
        """Named sets of settings to begin with, by kind of run; `preset` of a run to start names one."""
        found = [
            {"kind": kind, "name": one.name, "title": one.label, "description": one.help, "config": one.config}
            for kind in STARTABLE
            for one in PRESETS.get(kind, ())
        ]
        return Response({"results": found})
