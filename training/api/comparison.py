"""Runs beside each other over REST: what differs between them and what came out; their curves are `…/metrics/`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.queries import MAX_ID
from training.api.serializers import RunRow
from training.models import Run
from training.selectors import latest_metrics
from training.selectors_comparison import FEWEST, MOST, differing_settings, end_figures, runs_to_compare


class DifferenceAnswer(serializers.Serializer[Any]):
    """A setting that differs; runs without such a setting are left out of `values`."""

    name = serializers.CharField()
    values = serializers.DictField(child=serializers.JSONField(allow_null=True), help_text="By the run's id.")


class EndFigureAnswer(serializers.Serializer[Any]):
    """A number of the report, with its 95 % interval where it has one."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)


class ComparedRun(RunRow):
    """A run with what came out of it."""

    latest = serializers.DictField(child=serializers.FloatField(), help_text="The last value of each measurement.")
    figures = serializers.DictField(
        child=EndFigureAnswer(), help_text="The numbers of its report by part and name; empty before it has one."
    )

    class Meta(RunRow.Meta):
        fields = (*RunRow.Meta.fields, "latest", "figures")


class ComparisonAnswer(serializers.Serializer[Any]):
    runs = ComparedRun(many=True)
    settings = DifferenceAnswer(many=True)


class Comparison(Endpoint):
    @extend_schema(
        operation_id="compare_runs",
        parameters=[OpenApiParameter("run", int, many=True, required=True, description="Two to six runs, repeated.")],
        responses=ComparisonAnswer,
    )
    def get(self, request: Request) -> Response:
        """The runs in the order asked for, with the settings in which they differ."""
        runs = runs_to_compare(asking(request), _asked(request))
        if len(runs) < FEWEST:
            raise ValidationError({"run": [f"{FEWEST} to {MOST} different runs."]})
        return Response({"runs": [_run_content(run) for run in runs], "settings": _settings_content(runs)})


def _asked(request: Request) -> list[int]:
    asked = request.query_params.getlist("run")
    if not all(one.isascii() and one.isdecimal() and len(one) < 20 and int(one) <= MAX_ID for one in asked):
        raise ValidationError({"run": ["A run's id."]})
    return [int(one) for one in asked]


def _run_content(run: Run) -> dict[str, Any]:
    figures = {name: asdict(figure) for name, figure in end_figures(run.report).items()}
    return {**RunRow(run).data, "latest": latest_metrics(run), "figures": figures}


def _settings_content(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "values": {str(run.pk): value for run, value, has in zip(runs, one.values, one.has, strict=True) if has},
        }
        for one in differing_settings(runs)
    ]
