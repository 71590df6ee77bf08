"""What the OpenAPI document says of every operation: its errors, its scope, its Idempotency-Key, how to log in."""

from typing import Any, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from annotate.api.authentication import scope_for
from annotate.api.idempotency import HEADER, MAX_KEY_CHARACTERS


class ErrorSerializer(serializers.Serializer[Any]):
    """What went wrong, for programs (`code`), people (`message`) and forms (`fields`: path → message)."""

    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.CharField())  # type: ignore[assignment]
    extra = serializers.DictField(required=False)


class ErrorAnswerSerializer(serializers.Serializer[Any]):
    """Every answer that is no success."""

    error = ErrorSerializer()


class Operations(AutoSchema):
    """Adds to each operation what holds for all of them, so that no view repeats it."""

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular itself
        stated = super().get_description() or ""
        return f"{stated}\n\nScope of the token: `{scope_for(self.view, self.method)}`.".strip()

    def _get_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = super()._get_parameters()
        if self.method == "POST" and getattr(getattr(self.view, "post", None), "is_idempotent", False):
            about = (
                "Any text of yours, for example a UUID. The same key with the same body gives the first answer again."
            )
            shape = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS}
            found.append({"in": "header", "name": HEADER, "schema": shape, "description": about})
        return found

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        error = self._get_response_for_code(ErrorAnswerSerializer, "4XX", ["application/json"])  # type: ignore[no-untyped-call]
        return bodies | {"4XX": error | {"description": "Refused; `error` says why."}}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "annotate.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        about = "`Authorization: Token pk_…`. An administrator makes tokens, or manage.py create_token."
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": about}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "annotate.api.authentication.PageSession"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        about = "Logged in through the pages; a change also needs the header X-CSRFToken."
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": about}
