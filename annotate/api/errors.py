"""One error shape for the whole API: {"error": {"code", "message", "fields"}}, `extra` where it helps."""

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from annotate.errors import Refused

Faults = Iterator[tuple[str, str]]


class LengthRequired(exceptions.APIException):
    """A body in chunks of unknown number (`Transfer-Encoding: chunked`), which Django hands on as an empty one: taken
    for that, a change of three fields would be answered with 200 and none of them changed."""

    status_code = 411
    default_code = "length_required"
    default_detail = "Send the body with its Content-Length; one in chunks of unknown number cannot be read."


def error_body(
    code: str, message: str, fields: dict[str, str] | None = None, extra: dict[str, object] | None = None
) -> dict[str, Any]:
    """The body of every answer that is an error.

    Args:
        code: a stable word for programs.
        message: a sentence for people.
        fields: dotted field path → what is wrong there.
        extra: what a program needs to go on; the key is absent when there is nothing.
    """
    error: dict[str, Any] = {"code": code, "message": message, "fields": fields or {}}
    if extra:
        error["extra"] = extra
    return {"error": error}


def handle(problem: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: turns what views and services raise into an answer; None for what is a bug of ours."""
    answer = _answer_to(problem)
    if answer is not None:
        set_rollback()
    return answer


def _answer_to(problem: Exception) -> Response | None:
    match problem:
        case Refused():
            body = error_body(problem.code, problem.message, problem.fields, problem.extra)
            return Response(body, status=problem.status)
        case exceptions.APIException():
            return _framework_answer(problem)
        case ValidationError():
            fields = dict(flatten(_django_detail(problem)))
            return Response(error_body("invalid", _("The content is not valid."), fields), status=400)
        case Http404():
            return Response(error_body("not_found", _("There is no such thing.")), status=404)
        case PermissionDenied():
            return Response(error_body("forbidden", _("You may not do this.")), status=403)
        case RequestDataTooBig():
            return Response(error_body("too_large", _("The body is too large for one request.")), status=413)
        case SuspiciousOperation():
            return Response(error_body("invalid", _("The request cannot be read.")), status=400)
    return None


def _framework_answer(problem: exceptions.APIException) -> Response:
    headers: dict[str, str] = {}
    if challenge := getattr(problem, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(problem, "wait", None):
        headers["Retry-After"] = str(int(wait))
    fields: dict[str, str] = {}
    if isinstance(problem, exceptions.ValidationError):
        fields = dict(flatten(problem.detail))
        code, message = "invalid", _("The content is not valid.")
    else:
        code, message = str(problem.get_codes()), str(problem.detail)
    return Response(error_body(code, message, fields), status=problem.status_code, headers=headers)


def _django_detail(problem: ValidationError) -> Any:
    return problem.message_dict if hasattr(problem, "error_dict") else problem.messages


def flatten(detail: Any, path: str = "") -> Faults:
    """Yields (dotted path, message) for DRF's nested error details; what belongs to no field stands under `body`."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            step = "" if name in {api_settings.NON_FIELD_ERRORS_KEY, "__all__"} else str(name)
            yield from flatten(inner, ".".join(part for part in (path, step) if part))
    elif isinstance(detail, list) and any(isinstance(item, dict | list) for item in detail):
        for number, inner in enumerate(detail):
            yield from flatten(inner, f"{path}.{number}" if path else str(number))
    elif isinstance(detail, list):
        if detail:
            yield path or "body", " ".join(map(str, detail))
    else:
        yield path or "body", str(detail)


# --- the same shape where no view of the API was reached -------------------------------------------------------------


@csrf_exempt
def no_such_address(request: HttpRequest) -> JsonResponse:
    """The answer to an address under /api/ that does not exist."""
    return JsonResponse(error_body("not_found", _("There is no such address; see /api/docs/.")), status=404)


def bad_request(request: HttpRequest) -> JsonResponse:
    """The answer to a request under /api/ that cannot be read at all."""
    return JsonResponse(error_body("invalid", _("The request cannot be read.")), status=400)


def fault_of_ours(request: HttpRequest) -> JsonResponse:
    """The answer when something broke; the log has the rest."""
    return JsonResponse(error_body("server_error", _("Something broke on our side; it is in the log.")), status=500)
