"""One error shape, whatever goes wrong."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.http import Http404
from django.test import Client
from django.urls import path
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient

from annotate.api.base import Endpoint
from annotate.api.errors import flatten, handle
from annotate.errors import Conflict, Forbidden, Invalid, NotFound
from annotate.models import Project
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from webapp import urls

PROBLEMS: list[tuple[Exception, int, str]] = [
    (Invalid("no"), 422, "invalid"),
    (Conflict("no", code="stale"), 409, "stale"),
    (Forbidden("no"), 403, "forbidden"),
    (NotFound("no"), 404, "not_found"),
    (Http404(), 404, "not_found"),
    (PermissionDenied(), 403, "forbidden"),
    (RequestDataTooBig(), 413, "too_large"),
    (SuspiciousOperation(), 400, "invalid"),
    (ValidationError({"slug": ["taken"]}), 400, "invalid"),
    (ValidationError("no"), 400, "invalid"),
]


@pytest.mark.parametrize(("problem", "status", "code"), PROBLEMS)
def test_every_refusal_has_the_one_shape(problem: Exception, status: int, code: str) -> None:
    answer = handle(problem, {})
    assert answer is not None and answer.status_code == status
    assert set(answer.data) == {"error"} and set(answer.data["error"]) == {"code", "message", "fields"}
    assert answer.data["error"]["code"] == code


def test_what_a_program_needs_to_go_on_stands_under_extra() -> None:
    answer = handle(Conflict("no", fields={"body": "old"}, extra={"draft": 7}), {})
    assert answer is not None
    expected = {"code": "conflict", "message": "no", "fields": {"body": "old"}, "extra": {"draft": 7}}
    assert answer.data == {"error": expected}


def test_a_throttled_caller_is_told_when_to_come_back() -> None:
    answer = handle(Throttled(wait=3.2), {})
    assert answer is not None and answer.status_code == 429
    assert answer["Retry-After"] == "4"


def test_bugs_are_not_dressed_up() -> None:
    assert handle(KeyError("x"), {}) is None


def test_field_paths_are_dotted() -> None:
    detail: Any = {
        "rules": {"criteria": [{}, {"low": ["Too low."]}], "non_field_errors": ["Odd."]},
        "ranking": {0: ["A", "B"]},
        "non_field_errors": ["All wrong."],
    }
    assert dict(flatten(detail)) == {
        "rules.criteria.1.low": "Too low.",
        "rules": "Odd.",
        "ranking.0": "A B",
        "body": "All wrong.",
    }


def test_an_unknown_address_is_404_in_the_same_shape(db: None) -> None:
    for path_ in ("/api/v1/nothing/", "/api/", "/api/v2/projects/", "/api/v1/projects"):
        error_of(APIClient().get(path_), 404, "not_found")
        error_of(Client(enforce_csrf_checks=True).post(path_), 404, "not_found")


def test_an_unknown_method_is_405(cast: Cast, client_for: ClientFor) -> None:
    error_of(client_for(cast.sue).delete("/api/v1/projects/"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"name": NaN}',
        b'{"name": "\\u0000"}',
        b'{"name": "\\ud800"}',
        b'{"name": "a", "name": "b"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"overlap": ' + b"9" * 5000 + b"}",
        b'{"overlap": 1e999}',
    ],
    ids=["cut", "nan", "nul", "surrogate", "twice", "utf-16", "deep", "digits", "infinite"],
)
def test_a_body_that_is_no_strict_json_is_400(cast: Cast, project: Project, client_for: ClientFor, body: bytes) -> None:
    client = client_for(cast.alice)
    answer = client.generic("PATCH", "/api/v1/projects/tales/", body, content_type="application/json")
    assert "it is holds" not in error_of(answer, 400, "parse_error")["message"]


def test_another_media_type_is_415(cast: Cast, project: Project, client_for: ClientFor) -> None:
    answer = client_for(cast.alice).generic("PATCH", "/api/v1/projects/tales/", "a=1", content_type="text/plain")
    error_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path_"),
    [
        ("PATCH", "/api/v1/projects/tales/"),
        ("POST", "/api/v1/projects/"),
        ("POST", "/api/v1/projects/tales/next/"),
        ("POST", "/api/v1/projects/tales/prompts/"),
        ("POST", "/api/v1/runs/"),
    ],
)
def test_a_body_in_chunks_of_unknown_number_is_refused_and_not_taken_for_an_empty_one(
    method: str, path_: str, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    headers = {"Transfer-Encoding": "chunked", "Idempotency-Key": "k"}
    for kind in ("application/json", "application/x-ndjson"):
        answer = client_for(cast.alice).generic(method, path_, content_type=kind, headers=headers)
        assert "Content-Length" in error_of(answer, 411, "length_required")["message"]


def test_a_compressed_body_is_refused_in_words(cast: Cast, project: Project, client_for: ClientFor) -> None:
    packed = gzip.compress(b'{"description": "x"}')
    answer = client_for(cast.alice).generic("PATCH", "/api/v1/projects/tales/", packed, content_type="application/json")
    assert "compressed" in error_of(answer, 400, "parse_error")["message"]


def test_a_body_announced_as_too_large_is_refused_before_it_comes(
    cast: Cast, project: Project, client_for: ClientFor
) -> None:
    answer = client_for(cast.alice).patch("/api/v1/projects/tales/", {}, CONTENT_LENGTH="4000001")
    error_of(answer, 413, "too_large")


@pytest.mark.parametrize("body", ["[]", '"text"', "5", "null"])
def test_a_body_of_another_shape_is_400(cast: Cast, project: Project, client_for: ClientFor, body: str) -> None:
    answer = client_for(cast.alice).generic("PATCH", "/api/v1/projects/tales/", body, content_type="application/json")
    error_of(answer, 400, "invalid")


def test_an_unknown_field_is_named(cast: Cast, project: Project, client_for: ClientFor) -> None:
    answer = client_for(cast.alice).patch("/api/v1/projects/tales/", {"nmae": "x", "rules": {"tise": True}})
    assert error_of(answer, 400)["fields"] == {"nmae": "There is no such field."}
    answer = client_for(cast.alice).patch("/api/v1/projects/tales/", {"rules": {"tise": True}})
    assert error_of(answer, 400)["fields"] == {"rules.tise": "There is no such field."}


@pytest.mark.parametrize("query", ["?limit=%00", "?x=%00", "?%00=1", "?project=a%00b"])
def test_a_nul_in_a_query_is_400(cast: Cast, client_for: ClientFor, query: str) -> None:
    for path_ in ("/api/v1/projects/", "/api/v1/runs/", "/api/v1/models/"):
        error_of(client_for(cast.sue).get(path_ + query), 400, "invalid")


class Broken(Endpoint):
    permission_classes = ()

    def get(self, request: Request) -> Response:
        raise RuntimeError("a bug of ours")


@pytest.fixture
def broken_endpoint() -> Iterator[None]:
    urls.urlpatterns.insert(0, path("api/broken/", Broken.as_view()))
    from django.urls import clear_url_caches

    clear_url_caches()
    yield
    urls.urlpatterns.pop(0)
    clear_url_caches()


def test_a_fault_of_ours_keeps_the_shape_and_tells_nothing(db: None, broken_endpoint: None) -> None:
    answer = Client(raise_request_exception=False).get("/api/broken/")
    error = error_of(answer, 500, "server_error")
    assert "bug" not in error["message"]


def test_an_unknown_host_is_400_in_the_same_shape(db: None) -> None:
    answer = Client(raise_request_exception=False).get("/api/v1/me/", headers={"host": "evil.example"})
    error_of(answer, 400, "invalid")
