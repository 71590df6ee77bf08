"""Several stages at once over REST."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent
from annotate.api.queries import MAX_ID
from annotate.api.shapes.base import Shape
from annotate.selectors.projects import get_project_for
from training.api.serializers import RunRow
from training.api.views import TRAIN, snapshot_named
from training.services.pipelines import STAGES, start_pipeline


class PipelineShape(Shape):
    """Stages to start from one snapshot."""

    project = serializers.SlugField(max_length=60, help_text="Slug.")
    snapshot = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    base_model = serializers.CharField(max_length=300, help_text="What the first stage starts from.")
    stages = serializers.ListField(
        child=serializers.ChoiceField(choices=[(kind.value, kind.label) for kind in STAGES]),
        help_text="SFT from the base model; reward model and DPO from SFT; PPO from SFT and the reward model; the "
        "evaluation sets DPO's and PPO's policy beside SFT, by a judge that is trained for it.",
    )
    config = serializers.DictField(
        child=serializers.DictField(), required=False, default=dict, help_text="Settings by stage, then by name."
    )


class PipelineAnswer(serializers.Serializer[Any]):
    runs = RunRow(many=True, help_text="In the order in which they build on each other.")


class Pipelines(Endpoint):
    required_scope = TRAIN

    @extend_schema(operation_id="start_pipeline", request=PipelineShape, responses={201: PipelineAnswer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Starts all stages or none: the first is queued, each other waits for those that it builds on."""
        user = asking(request)
        shape = PipelineShape(data=request.data)
        shape.is_valid(raise_exception=True)
        given = shape.validated_data
        project = get_project_for(user, given["project"], engineer=True)
        runs = start_pipeline(
            project=project,
            started_by=user,
            snapshot=snapshot_named(project, given["snapshot"]),
            **{name: given[name] for name in ("base_model", "stages", "config")},
        )
        return Response({"runs": RunRow(runs, many=True).data}, status=201)
