"""Reading a snapshot: rankings from a JSONL file in the native format ``plackett/1``, and nothing else.

Every line is either used or dropped with a counted reason; a line that breaks the format is an error that names it.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.core.errors import UsageError

FORMAT = "plackett/1"
SPLITS = ("train", "validation", "test")
MARKERS = ("superseded", "withdrawn")
KINDS = ("normal", "gold", "repeat")


@dataclass(frozen=True)
class Message:
    """One turn of a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class Response:
    """One candidate continuation; two with equal text and thinking are the same response."""

    text: str
    thinking: str | None = None


@dataclass(frozen=True)
class RankingRecord:
    """One counted ranking. ``tiers`` name positions in ``responses``, best first; ``line`` is where it stands."""

    line: int
    split: str
    split_group: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    tiers: tuple[tuple[int, ...], ...]
    weight: float


@dataclass
class Snapshot:
    """What a file held: the rankings to use, how many lines were read, and why the others were left out."""

    path: Path
    sha256: str = ""
    read: int = 0
    rankings: list[RankingRecord] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _LineError(ValueError):
    """What is wrong with one line, without its place."""


def read_rankings(path: Path) -> Snapshot:
    """Read the rankings of a snapshot file.

    Dropped and counted by reason: other line types (``demonstration``, ``prompt``), markers, ``superseded`` and
    ``withdrawn`` rankings, ``unanswered`` tasks, ``uncounted`` ones, ``gold``, ``repeat`` and ``zero_weight``.

    Raises:
        UsageError: the file cannot be read, or a line breaks the format; the message names the line.
    """
    snapshot = Snapshot(path=path)
    taken_back: dict[str, str] = {}
    found: list[tuple[dict[str, Any], RankingRecord]] = []
    for number, value in _lines(snapshot):
        try:
            reason = _reason_to_drop(value)
            if value.get("type") in MARKERS:
                taken_back[str(value.get("id"))] = value["type"]
            elif reason is None:
                found.append((_identity(value), _ranking(value, number)))
        except _LineError as error:
            raise UsageError(f"{path} line {number}: {error}") from None
        if reason:
            snapshot.dropped[reason] += 1
    newest = _newest_revisions([identity for identity, _ in found])
    for identity, record in found:
        reason = taken_back.get(str(identity["id"])) or ("superseded" if _is_older(identity, newest) else None)
        if reason:
            snapshot.dropped[reason] += 1
        else:
            snapshot.rankings.append(record)
    return snapshot


def _lines(snapshot: Snapshot) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of the file with their line numbers, blank lines left out; fills ``read`` and ``sha256``."""
    digest = hashlib.sha256()
    try:
        with open(snapshot.path, "rb") as file:
            for number, raw in enumerate(file, 1):
                digest.update(raw)
                if not raw.strip():
                    continue
                snapshot.read += 1
                yield number, _parse(raw, f"{snapshot.path} line {number}")
    except OSError as error:
        raise UsageError(f"cannot read {snapshot.path}: {error.strerror or error}") from None
    snapshot.sha256 = digest.hexdigest()


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON in UTF-8 ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _reason_to_drop(value: Mapping[str, Any]) -> str | None:
    """Why a line is no ranking to use, or None; what it holds beyond that is not looked at."""
    if value.get("format", FORMAT) != FORMAT:
        raise _LineError(f"format {value['format']!r} is not {FORMAT!r}")
    kind, line_type = value.get("kind") or "normal", value.get("type") or "ranking"
    if line_type in MARKERS:
        return "marker"
    if line_type != "ranking":
        return _one_of(line_type, ("demonstration", "prompt"), "type")
    if value.get("withdrawn") or value.get("withdrawn_at"):
        return "withdrawn"
    if value.get("superseded_by") is not None:
        return "superseded"
    if value.get("ranking") is None:
        return "unanswered"
    if value.get("counted", True) is not True:
        return "uncounted"
    if _one_of(kind, KINDS, "kind") != "normal":
        return str(kind)
    return "zero_weight" if value.get("weight") == 0 and value["weight"] is not False else None


def _identity(value: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: value.get(key) for key in ("id", "task", "annotator")}
    revision = value.get("revision")
    for key, name in names.items():
        if name is not None:
            _text(name, key)
    if revision is not None and type(revision) is not int:
        raise _LineError(f"revision must be a whole number, not {revision!r}")
    return names | {"revision": 1 if revision is None else revision}


def _newest_revisions(identities: list[dict[str, Any]]) -> dict[tuple[Any, Any], int]:
    newest: dict[tuple[Any, Any], int] = {}
    for identity in identities:
        key = (identity["task"], identity["annotator"])
        newest[key] = max(newest.get(key, identity["revision"]), identity["revision"])
    return newest


def _is_older(identity: Mapping[str, Any], newest: Mapping[tuple[Any, Any], int]) -> bool:
    """Whether the file also holds a later revision of the same person's answer to the same task."""
    task, annotator = identity["task"], identity["annotator"]
    if task is None or annotator is None:
        return False
    return bool(identity["revision"] < newest[task, annotator])


def _ranking(value: Mapping[str, Any], line: int) -> RankingRecord:
    if value.get("split") is None:
        raise _LineError("no split (train, validation or test)")
    prompt = _prompt(value.get("prompt"))
    ids, responses = _responses(value.get("responses"))
    group = value.get("split_group")
    return RankingRecord(
        line=line,
        split=_one_of(value["split"], SPLITS, "split"),
        split_group=_text(group, "split_group") if group is not None else _default_group(prompt),
        prompt=prompt,
        responses=responses,
        tiers=_tiers(value["ranking"], ids),
        weight=_weight(value.get("weight")),
    )


def _prompt(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise _LineError("prompt must be a list of messages, {role, content}")
    messages = []
    for message in value:
        if not isinstance(message, dict):
            raise _LineError("prompt must be a list of messages, {role, content}")
        messages.append(Message(_text(message.get("role"), "role"), _text(message.get("content"), "content")))
    return tuple(messages)


def _responses(value: Any) -> tuple[dict[str, int], tuple[Response, ...]]:
    if not isinstance(value, list) or len(value) < 2:
        raise _LineError("responses must be a list of at least two objects with id and text")
    ids: dict[str, int] = {}
    responses = []
    for position, response in enumerate(value):
        if not isinstance(response, dict):
            raise _LineError("responses must be objects with id and text")
        name, thinking = _text(response.get("id"), "response id"), response.get("thinking")
        if name in ids:
            raise _LineError(f"two responses have the id {name!r}")
        ids[name] = position
        responses.append(
            Response(_text(response.get("text"), "response text"), thinking and _text(thinking, "thinking"))
        )
    return ids, tuple(responses)


def _tiers(value: Any, ids: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(tier, list) for tier in value):
        raise _LineError("ranking must be a list of tiers, each a list of response ids")
    named = [name for tier in value for name in tier]
    for name in named:
        if not isinstance(name, str) or name not in ids:
            raise _LineError(f"ranking names {name!r}, which is no response of this line")
        if named.count(name) > 1:
            raise _LineError(f"ranking names {name!r} twice")
    return tuple(tuple(ids[name] for name in tier) for tier in value if tier)


def _weight(value: Any) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _LineError(f"weight must be a number from 0, not {value!r}")
    return float(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _LineError(f"{name} must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _LineError(f"{name} holds half a surrogate pair") from None
    return value


def _one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    if value not in allowed:
        raise _LineError(f"{name} must be {' / '.join(allowed)}, not {value!r}")
    return str(value)


def _default_group(prompt: tuple[Message, ...]) -> str:
    first = next((message.content for message in prompt if message.role == "user"), prompt[0].content)
    return " ".join(first.casefold().split())
