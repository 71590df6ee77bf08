"""Requests that survive a busy server and a broken network.

Only what can safely be repeated is: GET, DELETE, and POST with an Idempotency-Key, which the server carries out once.
An answer of 429 or 5xx and a connection that broke are tried again, after as long as `Retry-After` says, else after 1,
2, 4 … s.
"""

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from plackett.errors import Disconnected, Refused

RETRIED = {429, 500, 502, 503, 504}
ATTEMPTS = 7
LONGEST_PAUSE = 60.0
TIMEOUT = httpx.Timeout(120.0, connect=10.0)


class Transport:
    """Sends requests to one server with one token."""

    def __init__(self, server: str, token: str, *, attempts: int = ATTEMPTS) -> None:
        self.server = server.rstrip("/")
        self._attempts = attempts
        headers = {"Authorization": f"Token {token}", "User-Agent": "plackett-client/1", "Accept": "*/*"}
        self._http = httpx.Client(base_url=self.server, headers=headers, timeout=TIMEOUT)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The answer's JSON."""
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """As get, of a POST with this body as JSON, under a fresh Idempotency-Key."""
        return self._json("POST", path, json=body if body is not None else {}, params=params, headers=_key())

    def delete(self, path: str) -> None:
        """Deletes what is at the path."""
        self._json("DELETE", path, params={})

    def post_bytes(self, path: str, body: bytes, *, content_type: str, key: str, **params: Any) -> Any:
        """As post, of bytes, under a key of the caller's."""
        headers = {"Content-Type": content_type, "Idempotency-Key": key}
        return self._json("POST", path, content=body, params=params, headers=headers)

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[httpx.Response]:
        """A GET whose body is read by the caller; only its beginning is tried again.

        Raises:
            Disconnected: also when the body breaks off.
        """
        response = self._answer("GET", path, params=_given(params), stream=True)
        try:
            yield response
        except httpx.HTTPError as problem:
            raise Disconnected(f"The answer of {self.server} broke off: {_said(problem)}. Ask again.") from None
        finally:
            response.close()

    def _json(self, method: str, path: str, *, params: Mapping[str, Any], **options: Any) -> Any:
        response = self._answer(method, path, params=_given(params), **options)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise Disconnected(f"{self.server}{path} answered no JSON: is this a Plackett server?") from None

    def _answer(self, method: str, path: str, *, stream: bool = False, **options: Any) -> httpx.Response:
        problem, pause = "", 0.0
        for attempt in range(self._attempts):
            time.sleep(pause)
            pause = min(2.0**attempt, LONGEST_PAUSE) * random.uniform(0.75, 1.25)
            try:
                response = self._http.send(self._http.build_request(method, path, **options), stream=stream)
            except httpx.HTTPError as broken:
                problem = f"{self.server} cannot be reached: {_said(broken)}."
                continue
            if response.is_success:
                return response
            refused = _refused(response)
            if response.status_code not in RETRIED or attempt == self._attempts - 1:
                raise refused
            pause = _asked_pause(response) or pause
        raise Disconnected(problem)


def _refused(response: httpx.Response) -> Refused:
    response.read()
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        moved = f" It leads to {response.headers['location']}." if response.is_redirect else ""
        error = {"message": f"The server answered {response.status_code}.{moved}"}
    response.close()
    return Refused(response.status_code, error)


def _asked_pause(response: httpx.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else None


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def _said(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
