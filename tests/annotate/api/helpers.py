"""Steps that the API's tests share."""

from typing import Any

from rest_framework.test import APIClient


def take(client: APIClient, slug: str) -> dict[str, Any]:
    """The caller's next lease."""
    answer = client.post(f"/api/v1/projects/{slug}/next/", {"count": 1})
    assert answer.status_code == 200, answer.content
    lease: dict[str, Any] = answer.json()["leases"][0]
    return lease


def answer_to(lease: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    """A body for `rankings/`: every response in a tier of its own, in the order shown."""
    ids = [response["id"] for response in lease["responses"]]
    return {"lease": lease["id"], "ranking": [[name] for name in ids], "seconds": 12.5} | changes


def submit(client: APIClient, slug: str, lease: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    """Submits and returns the ranking."""
    answer = client.post(f"/api/v1/projects/{slug}/rankings/", answer_to(lease, **changes))
    assert answer.status_code == 201, answer.content
    ranking: dict[str, Any] = answer.json()
    return ranking


def error_of(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The error of a refusal, whose shape is checked here for every test."""
    assert answer.status_code == status, answer.content
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) - {"extra"} == {"code", "message", "fields"}
    assert isinstance(error["message"], str) and error["message"]
    assert all(isinstance(name, str) and isinstance(text, str) for name, text in error["fields"].items())
    if code is not None:
        assert error["code"] == code
    return error
