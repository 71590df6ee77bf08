"""A sampling run's responses as ranking tasks, over REST."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.authentication import Scope
from annotate.api.base import Endpoint, asking
from annotate.api.idempotency import idempotent_once_finished
from training.selectors import get_run_for
from training.services.sending import send_responses


class SentAnswer(serializers.Serializer[Any]):
    """What became of the prompts of a run."""

    made = serializers.IntegerField(help_text="New ranking tasks.")
    known = serializers.IntegerField(help_text="Prompts that were sent before.")
    merged = serializers.IntegerField(help_text="Responses that say the same as another to their prompt.")
    skipped = serializers.DictField(child=serializers.IntegerField(), help_text="Prompts without a task, by reason.")
    batch = serializers.IntegerField(allow_null=True, help_text="The import, which a manager can undo.")


class Sending(Endpoint):
    required_scope = {"POST": Scope.WRITE}

    @extend_schema(operation_id="send_responses", request=None, responses=SentAnswer)
    @idempotent_once_finished
    def post(self, request: Request, run: int) -> Response:
        """Makes a ranking task of each prompt that a sampling run answered, blind. Repeating it makes nothing twice."""
        user = asking(request)
        taken = send_responses(get_run_for(user, run), by=user)
        return Response(SentAnswer(taken).data)
