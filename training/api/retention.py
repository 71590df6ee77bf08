"""Over REST: what is kept of a run's checkpoints, and keeping them."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent
from annotate.api.shapes.base import Shape
from training.models import Run
from training.selectors import get_run_for
from training.services.retention import keep_checkpoints, kept_of


class KeepShape(Shape):
    """Whether a run's checkpoints are kept, whatever the rules of retention say."""

    keep = serializers.BooleanField()


class KeptCheckpoint(serializers.Serializer[Any]):
    step = serializers.IntegerField()
    size_bytes = serializers.IntegerField()


class KeptAnswer(serializers.Serializer[Any]):
    """What there is of a run's checkpoints, the newest first, and until when."""

    keep = serializers.BooleanField(help_text="Somebody wants them kept.")
    checkpoints = KeptCheckpoint(many=True)
    until = serializers.DateTimeField(
        allow_null=True, help_text="When the rules remove what is here; null: the run is not over, or it is kept."
    )
    removed = serializers.BooleanField(help_text="The rules have removed what there was.")


class Checkpoints(Endpoint):
    required_scope = {"GET": Scope.READ, "POST": Scope.TRAIN}

    @extend_schema(operation_id="read_run_checkpoints", responses=KeptAnswer)
    def get(self, request: Request, run: int) -> Response:
        """What is kept of the run's checkpoints."""
        return _answer(get_run_for(asking(request), run))

    @extend_schema(operation_id="keep_run_checkpoints", request=KeepShape, responses=KeptAnswer)
    @idempotent
    def post(self, request: Request, run: int) -> Response:
        """Keeps the run's checkpoints, or leaves them to the rules again. What is gone does not come back."""
        found = get_run_for(asking(request), run)
        shape = KeepShape(data=request.data)
        shape.is_valid(raise_exception=True)
        return _answer(keep_checkpoints(found, keep=shape.validated_data["keep"]))


def _answer(run: Run) -> Response:
    kept = kept_of(run)
    checkpoints = [{"step": step, "size_bytes": size} for step, size in kept.checkpoints]
    told = {"keep": run.keeps_checkpoints, "checkpoints": checkpoints, "until": kept.until, "removed": kept.removed}
    return Response(KeptAnswer(told).data)
