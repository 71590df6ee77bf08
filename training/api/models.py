"""Models over REST. Everything here needs the engineer right in the project, or in any for what is shared."""

import threading
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.exports import ReleasedStream
from annotate.api.filters import filtered, parameters, span, word, yes
from annotate.api.idempotency import idempotent
from annotate.api.pagination import page_of, page_parameters
from annotate.api.shapes.base import Shape
from training.api.asked import OF_PROJECT, project_asked
from training.api.serializers import ModelAnswer, ModelDetails, ModelRow
from training.models import ModelVersion
from training.selectors import accuracy_of, get_model_for, lineage_of, models_for, withdrawn_among
from training.selectors_models import files_to_take, get_model_to_change, runs_using
from training.services.model_archive import Archive
from training.services.registry import MAX_REASON_CHARACTERS, delete_model, promote_model

TAR = "application/x-tar"
AT_ONCE = 2
RETRY_SECONDS = 30
USES_TOLD = 100

_room = threading.BoundedSemaphore(AT_ONCE)


class ShareAnswer(serializers.Serializer[Any]):
    """A share of prompts, with its 95 % interval."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    prompts = serializers.IntegerField(required=False)


class PerplexityAnswer(serializers.Serializer[Any]):
    """Perplexity of held-out text, with its 95 % interval."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)


class RegistryRow(ModelRow):
    """A model in the registry, with what it scored on held-out data; null for what its kind does not have."""

    win_rate = ShareAnswer(
        allow_null=True, help_text="How often a judge prefers the policy's answer to that of the policy at the start."
    )
    perplexity = PerplexityAnswer(allow_null=True, help_text="Of held-out text.")
    files_removed_at = serializers.DateTimeField(
        allow_null=True, help_text="Of a deleted model: null as long as files of it are left."
    )

    class Meta(ModelRow.Meta):
        fields = (*ModelRow.Meta.fields, "win_rate", "perplexity", "files_removed_at")


class RegistryPage(serializers.Serializer[Any]):
    results = RegistryRow(many=True)
    next = serializers.CharField(allow_null=True)


class RegistryAnswer(RegistryRow, ModelAnswer):
    """A model with its report, the models it descends from (the nearest first) and the runs that read it."""

    used_by = serializers.ListField(
        child=serializers.IntegerField(), help_text="The newest 100 runs that read it and that the caller may see."
    )

    class Meta(RegistryRow.Meta):
        fields = (*RegistryRow.Meta.fields, "lineage", "used_by", "report")


class PromoteShape(Shape):
    """Another stage for a model."""

    stage = serializers.ChoiceField(choices=ModelVersion.Stage.choices)
    reason = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=MAX_REASON_CHARACTERS, help_text="For the history."
    )
    confirm = serializers.BooleanField(
        required=False,
        default=False,
        help_text="Needed, with a reason, where a suspect run or withdrawn data speaks against a candidate or a model "
        "in production.",
    )


ORDERS = {"id": "pk", "created_at": "created_at", "size_bytes": "size_bytes"}
FILTERS = (
    word("kind", "kind", ModelVersion.Kind.values, "Only of this kind."),
    word("stage", "stage", ModelVersion.Stage.values, "Only in this stage."),
    yes(
        "deleted",
        "deleted_at__isnull",
        "1: only those whose files are gone; 0: only the rest.",
        same=lambda value: not value,
    ),
    yes("shared", "shared", "1: only those shared with other projects; 0: only the others."),
    *span("created", "created_at", "Made"),
)


class Models(Endpoint):
    @extend_schema(
        operation_id="list_models",
        parameters=[*page_parameters(ORDERS), OF_PROJECT, *parameters(FILTERS)],
        responses=RegistryPage,
    )
    def get(self, request: Request) -> Response:
        """The registry: models of the projects whose engineer the caller is, and shared ones, oldest first."""
        user = asking(request)
        models = filtered(models_for(user, project=project_asked(request, user)), request, FILTERS)
        return Response(page_of(models, request, model_rows, orders=ORDERS))


class OneModel(Endpoint):
    required_scope = {"GET": Scope.READ, "DELETE": Scope.TRAIN}

    @extend_schema(operation_id="read_model", responses=RegistryAnswer)
    def get(self, request: Request, model: int) -> Response:
        """The model, what it scored on held-out data, where it came from and what reads it."""
        return _answer(request, get_model_for(asking(request), model))

    @extend_schema(operation_id="delete_model", responses={200: RegistryAnswer})
    def delete(self, request: Request, model: int) -> Response:
        """Removes the model's files; its row and its lineage stay.

        409 `in_production`, or `in_use` with the `runs` that are not finished and read it. Repeating it is harmless,
        and tries again where `files_removed_at` is null.
        """
        found = get_model_to_change(asking(request), model)
        return _answer(request, delete_model(found, actor=asking(request)))


class Promotion(Endpoint):
    required_scope = Scope.TRAIN

    @extend_schema(operation_id="promote_model", request=PromoteShape, responses=RegistryAnswer)
    @idempotent
    def post(self, request: Request, model: int) -> Response:
        """Gives the model a stage. One of a kind is in production in a project: the one before it is archived with it.

        409 `needs_confirmation` says in `extra.doubts` what speaks against it.
        """
        found = get_model_to_change(asking(request), model)
        shape = PromoteShape(data=request.data)
        shape.is_valid(raise_exception=True)
        given = shape.validated_data
        moved = promote_model(
            found, stage=given["stage"], actor=asking(request), confirmed=given["confirm"], reason=given["reason"]
        )
        return _answer(request, moved)


class Download(Endpoint):
    @extend_schema(
        operation_id="download_model",
        parameters=[
            OpenApiParameter("Content-Length", int, "header", response=[200], description="Of the whole archive.")
        ],
        responses={(200, TAR): OpenApiResponse(OpenApiTypes.BINARY, description="The folder as a tar archive.")},
    )
    def get(self, request: Request, model: int) -> HttpResponseBase:
        """The model's folder as an uncompressed tar archive; SHA256SUMS in it has the hash of every file."""
        found = get_model_for(asking(request), model)
        name = f"{found.project.slug}-model-{found.pk}"
        archive = Archive(name, files_to_take(found), modified_at=int(found.created_at.timestamp()))
        headers = {
            "Content-Disposition": f'attachment; filename="{name}.tar"',
            "Content-Length": str(archive.size_bytes),
            "Cache-Control": "private, no-store",
        }
        if request.method == "HEAD":
            return HttpResponse(content_type=TAR, headers=headers)
        if not _room.acquire(blocking=False):
            raise Throttled(wait=RETRY_SECONDS, detail=f"This process is sending {AT_ONCE} models; ask again.")
        blocks = ReleasedStream(archive.blocks(), release=_room.release)
        return StreamingHttpResponse(blocks, content_type=TAR, headers=headers)


def model_rows(models: list[ModelVersion]) -> list[dict[str, Any]]:
    """What RegistryRow describes, for each."""
    withdrawn = withdrawn_among(models)
    return [
        {
            **ModelDetails(model).data,
            "withdrawn": model.pk in withdrawn,
            "accuracy": accuracy_of(model.report),
            "length_baseline": accuracy_of(model.report, what="length_baseline"),
            "win_rate": model.report.get("win_rate"),
            "perplexity": accuracy_of(model.report, what="perplexity"),
            "files_removed_at": model.files_removed_at,
        }
        for model in models
    ]


def _answer(request: Request, model: ModelVersion) -> Response:
    """What RegistryAnswer describes."""
    lineage = [one.pk for one in lineage_of(model)]
    used_by = list(runs_using(asking(request), model).values_list("pk", flat=True)[:USES_TOLD])
    return Response({**model_rows([model])[0], "lineage": lineage, "used_by": used_by, "report": model.report})
