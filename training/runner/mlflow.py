"""Telling a run to an MLflow server over its REST interface; no package of MLflow's is needed for that.

One run here is one run there. MLflow adds measurements and takes none back, so an attempt that goes on from a
checkpoint begins a new run there, tells it everything up to the checkpoint again, and deletes the one before (MLflow
keeps what was deleted until it is purged). What people wrote at the earlier one, tags and the description, is taken
along. Source: https://mlflow.org/docs/latest/rest-api.html
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from training.core.following import Step

TIMEOUT_SECONDS = 10.0
ANSWER_BYTES = 4_000_000
# What one request may hold.
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
VALUE_CHARACTERS, NAME_CHARACTERS = 500, 250
NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. /")
NOTE_TAG, OURS = "mlflow.note.content", "plackett."
EXISTS, MISSING = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"
# Too many requests, or something between here and the server is away.
PASSING = (408, 425, 429, 500, 502, 503, 504)


class Away(Exception):
    """The server cannot be reached, or cannot answer now: it may later."""


class Refusal(Exception):
    """The server says no."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Server:
    """An MLflow server.

    Attributes:
        uri: its address, http or https, without a slash at the end.
        authorization: the header of that name, "" for none; it is in no message.
    """

    uri: str
    authorization: str = ""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """What the server answers to a question."""
        return self._ask("GET", f"{path}?{urlencode(query)}", None)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """What the server answers to an order."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "plackett"}
        headers |= {"Authorization": self.authorization} if self.authorization else {}
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{path}", body, headers, method=method)
        try:
            with _opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                content = answer.read(ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            raise _fault(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Away(f"it cannot be reached ({type(reason).__name__})") from None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refusal("what answers at its address is no MLflow server")
        return found


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the log-in to wherever it leads."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _fault(error: urllib.error.HTTPError) -> Exception:
    with error:
        try:
            told = json.loads(error.read(ANSWER_BYTES))
        except (OSError, ValueError, http.client.HTTPException):
            told = None
    code = str(told.get("error_code", "")) if isinstance(told, dict) else ""
    if error.code in PASSING and code not in (EXISTS, MISSING):
        return Away(f"it answers HTTP {error.code}")
    if error.code in (401, 403):
        return Refusal(f"it refuses the log-in (HTTP {error.code}): see PLACKETT_MLFLOW_TOKEN")
    if 300 <= error.code < 400:
        return Refusal(f"it sends us elsewhere (HTTP {error.code}): set PLACKETT_MLFLOW_URI to where it is")
    return Refusal(f"it answers HTTP {error.code} {code}".rstrip(), code=code)


def basic(username: str, password: str) -> str:
    """The Authorization header of a name and a password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass(frozen=True)
class Facts:
    """What MLflow is told of a run besides its measurements: no texts, and nobody's name."""

    experiment: str
    name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]


class Memory(Protocol):
    """Keeps an object for the attempts to come."""

    def read(self) -> dict[str, Any]:
        """What was written last; empty if nothing was."""

    def write(self, value: dict[str, Any]) -> None:
        """Keep this. May raise."""


STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED", "queued": "SCHEDULED"}


class MlflowRun:
    """A run as MLflow has it, a ``following.Sink``.

    Args:
        memory: where the next attempt finds which run of the server this was.
    """

    def __init__(self, server: Server, facts: Facts, *, memory: Memory) -> None:
        self.server, self.facts = server, facts
        self.url = ""
        self._memory = memory
        self._id = ""
        self._last_ms = 0

    def begin(self, *, attempt: int, from_step: int | None) -> int:
        """Begin a run on the server in the place of an earlier attempt's; everything is to be told again.

        Raises:
            Away, Refusal: it did not work out; beginning again is harmless.
        """
        experiment = self._experiment()
        earlier = self._earlier()
        tags = {**self._told_by_people(earlier), **self.facts.tags, f"{OURS}attempt": str(attempt)}
        begun = self.server.post(
            "runs/create", experiment_id=experiment, run_name=self.facts.name[:NAME_CHARACTERS], tags=_pairs(tags)
        )
        self._id = str(begun["run"]["info"]["run_id"])
        self._remember([self._id, *earlier])
        for one in earlier:
            self._delete(one)
        self._remember([self._id])
        parameters = _pairs(self.facts.parameters)
        for place in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self.server.post("runs/log-batch", run_id=self._id, params=parameters[place : place + PARAMETERS_AT_ONCE])
        self.url = f"{self.server.uri}/#/experiments/{experiment}/runs/{self._id}"
        return 0

    def tell(self, steps: Sequence[Step]) -> None:
        """Add measurements; doing it twice is harmless, as a step's time follows from the run's files.

        Raises:
            Away, Refusal: the server did not take them.
        """
        for batch in _batches(steps):
            self.server.post("runs/log-batch", run_id=self._id, metrics=batch)
        self._last_ms = round(steps[-1].at * 1000) if steps else self._last_ms

    def close(self, *, state: str, reason: str, model: int | None, ended_at: float) -> None:
        """Say how the run ended; ``queued`` is one that goes on with another attempt.

        Args:
            model: in the registry.
            ended_at: in seconds since 1970.

        Raises:
            Away, Refusal: the server did not take it.
        """
        if not self._id:
            return
        tags = {f"{OURS}state": state, f"{OURS}reason": reason, f"{OURS}model": "" if model is None else str(model)}
        self.server.post("runs/log-batch", run_id=self._id, tags=_pairs({key: one for key, one in tags.items() if one}))
        end = {} if state == "queued" else {"end_time": max(round(ended_at * 1000), self._last_ms)}
        self.server.post("runs/update", run_id=self._id, status=STATUS.get(state, "FAILED"), **end)

    def _experiment(self) -> str:
        name = self.facts.experiment
        try:
            return self._experiment_named(name)
        except Refusal as refusal:
            if refusal.code != MISSING:
                raise
        try:
            return str(self.server.post("experiments/create", name=name)["experiment_id"])
        except Refusal as refusal:
            if refusal.code != EXISTS:  # another worker was faster
                raise
            return self._experiment_named(name)

    def _experiment_named(self, name: str) -> str:
        found = self.server.get("experiments/get-by-name", experiment_name=name)["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            raise Refusal(f"its experiment {name} was deleted: restore it, or set PLACKETT_MLFLOW_EXPERIMENT")
        return str(found["experiment_id"])

    # --- the attempts before --------------------------------------------------------------------------------------

    def _earlier(self) -> list[str]:
        """Runs of this server that earlier attempts began, the latest first."""
        told = self._memory.read()
        runs = told.get("runs") if told.get("uri") == self.server.uri else None
        return [str(one) for one in runs] if isinstance(runs, list) else []

    def _remember(self, runs: list[str]) -> None:
        self._memory.write({"uri": self.server.uri, "runs": runs})

    def _told_by_people(self, earlier: list[str]) -> dict[str, str]:
        if not earlier:
            return {}
        try:
            found = self.server.get("runs/get", run_id=earlier[0])["run"]["data"].get("tags", [])
        except Refusal:
            return {}
        tags = {str(one["key"]): str(one["value"]) for one in found}
        return {key: value for key, value in tags.items() if key == NOTE_TAG or not key.startswith((OURS, "mlflow."))}

    def _delete(self, run: str) -> None:
        try:
            self.server.post("runs/delete", run_id=run)
        except Refusal as refusal:  # somebody there was faster, or purged it
            if refusal.code not in (MISSING, "INVALID_PARAMETER_VALUE", "INVALID_STATE"):
                raise


def metric_name(name: str) -> str:
    """A name in the signs that MLflow takes, which has to be as good as a file's path."""
    plain = "".join(sign if sign in NAME_SIGNS else "_" for sign in name)[:NAME_CHARACTERS]
    return "/".join(part for part in plain.split("/") if part.strip(".")) or "_"


def _batches(steps: Sequence[Step]) -> Iterator[list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    for one in steps:
        for name, value in one.values.items():
            told.append({"key": metric_name(name), "value": value, "timestamp": round(one.at * 1000), "step": one.step})
            if len(told) == METRICS_AT_ONCE:
                yield told
                told = []
    if told:
        yield told


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"key": metric_name(key), "value": (value if isinstance(value, str) else json.dumps(value))[:VALUE_CHARACTERS]}
        for key, value in values.items()
    ]
