"""Reading a snapshot: rankings from a JSONL file in the native format ``plackett/1``, and nothing else.

Every line is either used or dropped with a counted reason; a line that breaks the format is an error that names it.
The file is read twice, line by line: once to see what it holds, once for the rankings that count. Its texts are never
in memory together, so a million rankings need no more of it than their numbers do.
"""

import hashlib
import json
import math
from array import array
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
STRENGTHS = (1, 2, 3)


@dataclass(frozen=True)
class Message:
    """One turn of a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class Response:
    """One candidate continuation; two with equal text and thinking are the same response.

    Read from a file, ``thinking`` is never empty: None stands for that too.
    """

    text: str
    thinking: str | None = None


@dataclass(frozen=True)
class RankingRecord:
    """One counted ranking; ``line`` is where it stands in the file.

    ``tiers`` name positions in ``responses``, best first, ``unranked`` the rest; ``strengths`` has one entry per gap
    between tiers: 1 slightly, 2 clearly, 3 much better, None where nothing was said.
    """

    line: int
    split: str
    split_group: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    tiers: tuple[tuple[int, ...], ...]
    unranked: tuple[int, ...] = ()
    strengths: tuple[int | None, ...] = ()
    weight: float = 1.0
    annotator: str | None = None
    machine: bool = False
    task: str | None = None


@dataclass
class Snapshot:
    """What a file holds: how many lines, why some are left out, and where the rankings to use stand."""

    path: Path
    sha256: str = ""
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    used_lines: "array[int]" = field(default_factory=lambda: array("q"))

    def rankings(self) -> Iterator[RankingRecord]:
        """The rankings to use, in the file's order, read anew at each call."""
        wanted = iter(self.used_lines)
        following = next(wanted, None)
        for number, raw in _raw_lines(self.path):
            if number == following:
                yield _ranking(_parse(raw, f"{self.path} line {number}"), number)
                following = next(wanted, None)


class _LineError(ValueError):
    """What is wrong with one line, without its place."""


def read_rankings(path: Path, *, unanswered: bool = False) -> Snapshot:
    """Look through a snapshot file for the rankings to use; with ``unanswered`` also for tasks that nobody ranked.

    Dropped and counted by reason: other line types (``demonstration``, ``prompt``), markers, ``superseded`` and
    ``withdrawn`` rankings, ``unanswered`` tasks, ``uncounted`` ones, ``gold``, ``repeat`` and ``zero_weight``. An
    earlier revision is superseded also by one that is itself dropped.

    Raises:
        UsageError: the file cannot be read, or a line breaks the format; the message names the line.
    """
    snapshot = Snapshot(path=path)
    found = _Found()
    digest = hashlib.sha256()
    for number, raw in _raw_lines(path):
        digest.update(raw)
        if raw.strip():
            snapshot.read += 1
            value = _parse(raw, f"{path} line {number}")
            if unanswered and value.get("ranking", ()) is None and value.get("type") in (None, "ranking"):
                value["ranking"] = []
            reason = _look_at(value, f"{path} line {number}", number, found)
            snapshot.dropped.update([reason] if reason else [])
    snapshot.sha256 = digest.hexdigest()
    for place, number in enumerate(found.lines):
        reason = found.taken_back.get(found.ids[place]) or ("superseded" if found.is_older(place) else None)
        if reason:
            snapshot.dropped[reason] += 1
        else:
            snapshot.used_lines.append(number)
    return snapshot


class _Found:
    """What is kept of each ranking while a file is looked through: hashes instead of names."""

    def __init__(self) -> None:
        self.lines, self.ids, self.answers, self.revisions = array("q"), array("q"), array("q"), array("q")
        self.newest: dict[int, int] = {}
        self.taken_back: dict[int, str] = {}

    def note(self, identity: Mapping[str, Any]) -> int:
        """Remember the revision of a ranking, used or not; the number of the answer that it is a revision of."""
        task, annotator, revision = identity["task"], identity["annotator"], identity["revision"]
        answer = 0 if task is None or annotator is None else _short_hash(task, annotator)
        self.newest[answer] = max(self.newest.get(answer, revision), revision)
        return answer

    def add(self, number: int, identity: Mapping[str, Any]) -> None:
        """Note a ranking of line ``number`` that may be used."""
        self.lines.append(number)
        self.ids.append(_short_hash(str(identity["id"])))
        self.answers.append(self.note(identity))
        self.revisions.append(identity["revision"])

    def is_older(self, place: int) -> bool:
        """Whether the file also holds a later revision of the same person's answer to the same task."""
        answer = self.answers[place]
        return answer != 0 and self.revisions[place] < self.newest[answer]


def _look_at(value: dict[str, Any], where: str, number: int, found: _Found) -> str | None:
    """Note what a line says; the reason why it is dropped, if it is."""
    try:
        reason = _reason_to_drop(value)
        if value.get("type") in MARKERS:
            found.taken_back[_short_hash(str(value.get("id")))] = value["type"]
        elif reason is None:
            _ranking(value, number)
            found.add(number, _identity(value))
        elif _is_normal_ranking(value):
            # Who took an answer back, or whose last one does not count, did not go back to the one before.
            found.note(_identity(value))
    except _LineError as error:
        raise UsageError(f"{where}: {error}") from None
    return reason


def _short_hash(*names: str) -> int:
    """63 bits of a hash, never 0: that two of a million names meet is less likely than one in ten million."""
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of the file as bytes with their numbers, from 1."""
    try:
        with open(path, "rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


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
    """Why a line is no ranking to use, or None; beyond that only its names and its revision are looked at."""
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


def _is_normal_ranking(value: Mapping[str, Any]) -> bool:
    """Gold and repeated tasks are tasks of their own: an answer to one is no revision of an answer to be used."""
    return (value.get("type") or "ranking") == "ranking" and (value.get("kind") or "normal") == "normal"


def _identity(value: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: value.get(key) for key in ("id", "task", "annotator")}
    revision = value.get("revision")
    for key, name in names.items():
        if name is not None:
            _text(name, key)
    if revision is not None and (type(revision) is not int or not 0 <= revision < 2**31):
        raise _LineError(f"revision must be a whole number from 0, not {revision!r}")
    return names | {"revision": 1 if revision is None else revision}


def _ranking(value: Mapping[str, Any], line: int) -> RankingRecord:
    if value.get("split") is None:
        raise _LineError("no split (train, validation or test)")
    prompt = _prompt(value.get("prompt"))
    ids, responses = _responses(value.get("responses"))
    group, annotator, task = value.get("split_group"), value.get("annotator"), value.get("task")
    ranking = [] if value.get("ranking") is None else value["ranking"]
    tiers = _tiers(ranking, ids)
    placed = {place for tier in tiers for place in tier}
    return RankingRecord(
        line=line,
        split=_one_of(value["split"], SPLITS, "split"),
        split_group=_text(group, "split_group") if group is not None else _default_group(prompt),
        prompt=prompt,
        responses=responses,
        tiers=tiers,
        unranked=tuple(place for place in range(len(responses)) if place not in placed),
        strengths=_strengths(value.get("strengths"), ranking),
        weight=_weight(value.get("weight")),
        annotator=None if annotator is None else _text(annotator, "annotator"),
        machine=value.get("annotator_kind") not in (None, "human"),
        task=None if task is None else _text(task, "task"),
    )


def _strengths(value: Any, ranking: list[list[str]]) -> tuple[int | None, ...]:
    """One entry per gap between tiers that hold something."""
    gaps = max(0, len(ranking) - 1)
    if value is None:
        value = [None] * gaps
    if not isinstance(value, list) or len(value) != gaps:
        raise _LineError(f"strengths must be a list of {gaps}, one per gap between tiers")
    for strength in value:
        if strength is not None and (type(strength) is not int or strength not in STRENGTHS):
            raise _LineError(f"a strength must be 1 (slightly), 2 (clearly), 3 (much better) or null, not {strength!r}")
    if not all(ranking):
        # Which gap an entry beside an empty tier meant cannot be said.
        return (None,) * max(0, sum(map(bool, ranking)) - 1)
    return tuple(value)


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
        # An empty thinking is none: templates write the same for both.
        thought = None if thinking is None or thinking == "" else _text(thinking, "thinking")
        responses.append(Response(_text(response.get("text"), "response text"), thought))
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
