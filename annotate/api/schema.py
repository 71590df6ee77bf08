"""What the OpenAPI document says of every operation: its errors, its scope, its Idempotency-Key, its rate, the ETags of
its answers, how to log in."""

from typing import Any, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from annotate.api.authentication import scope_for
from annotate.api.idempotency import HEADER, MAX_KEY_CHARACTERS

HEADERS = {
    "RateLimit-Policy": 'How much a token may ask: `"token";q=6000;w=6` are 6000 requests at once, all back after 6 s. '
    "Absent where there is no limit: for sessions, or if the operator set none.",
    "RateLimit": 'What is left: `"token";r=5990;t=1` are 5990 requests, all of the quota in 1 s.',
    "Retry-After": "Seconds until the next request may come.",
    "ETag": "Names this answer; `If-None-Match` with it gives 304 as long as it is the same.",
}

OF_EVERY_ANSWER = ("RateLimit-Policy", "RateLimit")


IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "schema": {"type": "string"},
    "description": "ETags of answers that you have: 304, without a body, if it is one of them.",
}


def name_headers(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: the headers that operations refer to, once for the whole document."""
    named = {name: {"schema": {"type": "string"}, "description": about} for name, about in HEADERS.items()}
    result["components"] |= {"headers": named, "parameters": {"IfNoneMatch": IF_NONE_MATCH}}
    for operation in (one for path in result["paths"].values() for one in path.values()):
        parameters = operation.get("parameters", [])
        if "304" in operation["responses"] and all(one["name"] != "If-None-Match" for one in parameters):
            operation["parameters"] = [*parameters, {"$ref": "#/components/parameters/IfNoneMatch"}]
    return result


def _with_headers(response: dict[str, Any], *names: str) -> dict[str, Any]:
    referred = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return response | {"headers": response.get("headers", {}) | referred}


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
        if self.method == "GET" and "application/json" in bodies.get("200", {}).get("content", {}):
            bodies["200"] = _with_headers(bodies["200"], "ETag")
            bodies["304"] = _with_headers({"description": "The answer is the one that you have."}, "ETag")
        error = self._get_response_for_code(ErrorAnswerSerializer, "4XX", ["application/json"])  # type: ignore[no-untyped-call]
        bodies["4XX"] = error | {"description": "Refused; `error` says why."}
        bodies["429"] = _with_headers(error | {"description": "Too much at once."}, "Retry-After")
        return {code: _with_headers(body, *OF_EVERY_ANSWER) for code, body in bodies.items()}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "annotate.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        about = "`Authorization: Token pk_…`. You make tokens at /accounts/tokens/."
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": about}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "annotate.api.authentication.PageSession"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        about = "Logged in through the pages; a change also needs the header X-CSRFToken."
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": about}
