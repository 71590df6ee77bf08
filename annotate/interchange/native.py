"""The native format, `plackett/1`: read with every check, and written back in one fixed order of keys.

The other readers build native records too and pass them through `record_from_object`, so the rules stand here alone:

- `prompt` is a list of `{role, content}` (roles system, user, assistant; a plain string is one user message). A system
  message only stands first. The last message is the user's, because a response answers it: an assistant message there
  would be a half-written answer that chat templates close. At least one user message is not blank.
- A ranking line has 2–9 responses with distinct ids. A response may be empty (models do answer nothing). A plain
  string is a response with this text; one without id is called by its place in the line, r1, r2 and so on.
- `ranking` names responses of the line, each once; those it does not name are unranked, and `unranked`, where given,
  must be exactly those. Two are placed, or `all_bad` is true. Without `ranking` the line is a task to be ranked.
- `strengths` has one entry per gap, 1–3 or null. Instants carry a time zone.
- `answer` of a prompt line is a text; a number is kept as its digits.
- Unknown keys of a line, a response or a message are kept; anywhere else they are refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from annotate.interchange.options import ExportOptions
from annotate.interchange.records import (
    MAX_ANNOTATOR_CHARACTERS,
    MAX_MODEL_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_RESPONSE_ID_CHARACTERS,
    MAX_RESPONSES,
    MIN_RESPONSES,
    AnnotatorKind,
    ImportedRecord,
    ImportedResponse,
    RecordError,
    RecordType,
    TaskKind,
    parse_json,
)
from annotate.interchange.streams import Read, Source, read_records
from annotate.preferences import SPLITS, Answer, Rewrite, Split, ranking_faults

FORMAT = "plackett"
VERSION = "plackett/1"
ROLES = ("system", "user", "assistant")
TYPES: tuple[RecordType, ...] = ("ranking", "demonstration", "prompt")
MARKERS = ("superseded", "withdrawn")
KINDS: tuple[TaskKind, ...] = ("normal", "gold", "repeat")
ANNOTATOR_KINDS: tuple[AnnotatorKind, ...] = ("human", "machine", "imported", "example")
MAX_WEIGHT = 100

# The order in which keys are written; a snapshot's hash depends on it.
KEYS = (
    "format", "type", "id", "project", "task", "external_id", "split_group", "split", "kind", "counted",
    "prompt", "responses", "response", "answer", "tests",
    "ranking", "unranked", "strengths", "all_bad", "ratings", "flags", "rationale", "rewrite",
    "annotator", "annotator_kind", "weight", "revision", "superseded_by", "guideline_version", "presented_order",
    "seconds", "change", "submitted_at",
)  # fmt: skip


def read(source: Source) -> Read:
    """Yield the records of a native file, bad ones as reports, in constant memory.

    A marker of the change feed (`type` superseded or withdrawn) is reported too: it takes back what another line said.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def one(text: str, line: int, item: int | None) -> Read:
        yield record_from_object(parse_json(text), line=line, item=item)

    return read_records(source, one)


def record_from_object(value: Any, *, line: int = 0, item: int | None = None) -> ImportedRecord:
    """Check one parsed JSON object and return it as a record.

    Raises:
        RecordError: the first rule that it breaks.
    """
    if not isinstance(value, dict):
        raise RecordError("not a JSON object")
    fields = _Fields(value)
    if (version := fields.name("format")) not in (None, VERSION):
        raise RecordError(f"format {version!r} is not {VERSION!r}")
    if (marker := value.get("type")) in MARKERS:
        raise RecordError(f"a {marker} marker: it takes back another line, which an import does not do")
    record_type = cast(RecordType, fields.choice("type", TYPES, default="ranking"))
    known: dict[str, Any] = _about(fields) | {"prompt": prompt_from(fields.take("prompt"))}
    if record_type == "ranking":
        known |= _ranking(fields)
    elif record_type == "demonstration":
        known |= {"responses": (_demonstration(fields.take("response")),)}
    else:
        known |= _checkable(fields)
    return ImportedRecord(type=record_type, extra=fields.rest(), line=line, item=item, **known)


def _about(fields: "_Fields") -> dict[str, Any]:
    return {
        "id": fields.name("id"),
        "project": fields.name("project"),
        "task": fields.name("task"),
        "external_id": fields.name("external_id"),
        "split_group": fields.text("split_group"),
        "split": cast(Split | None, fields.choice("split", SPLITS)),
        "kind": cast(TaskKind, fields.choice("kind", KINDS, default="normal")),
        "counted": fields.yes_or_no("counted", default=True),
        "annotator": fields.name("annotator", limit=MAX_ANNOTATOR_CHARACTERS),
        "annotator_kind": cast(AnnotatorKind, fields.choice("annotator_kind", ANNOTATOR_KINDS, default="human")),
        "weight": fields.number("weight", maximum=MAX_WEIGHT, default=1.0),
        "revision": fields.whole("revision", minimum=1, default=1),
        "guideline_version": fields.whole("guideline_version"),
        "seconds": fields.number("seconds"),
        "change": fields.whole("change"),
        "submitted_at": fields.instant("submitted_at"),
    }


# --- the parts of a record --------------------------------------------------------------------------------------


def prompt_from(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the messages of a prompt, checked as the module says.

    Raises:
        RecordError: with the number of the message, from 1.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise RecordError('prompt must be a text or a list of messages, {"role": "user", "content": "…"}')
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RecordError(f"prompt message {number} must be an object with a text as content")
        if message.get("role") not in ROLES:
            raise RecordError(f"prompt message {number} has the role {message.get('role')!r}, not {' / '.join(ROLES)}")
        if message["role"] == "system" and number > 1:
            raise RecordError(f"prompt message {number} is a system message, which only stands first")
    if value[-1]["role"] != "user":
        raise RecordError(f"the last prompt message is the {value[-1]['role']}'s, not the user's")
    if not any(message["content"].strip() for message in value if message["role"] == "user"):
        raise RecordError("the prompt is blank")
    return tuple(value)


def responses_from(value: Any) -> tuple[ImportedResponse, ...]:
    """Return the 2–9 candidate responses of a task.

    Raises:
        RecordError: wrong number, types or ids.
    """
    if not isinstance(value, list):
        raise RecordError('responses must be a list: ["…", "…"] or [{"id": "r1", "text": "…"}, …]')
    if not MIN_RESPONSES <= len(value) <= MAX_RESPONSES:
        raise RecordError(f"{len(value)} responses, not {MIN_RESPONSES} to {MAX_RESPONSES}")
    found = tuple(_response(_with_id(part, number), f"response {number}") for number, part in enumerate(value, 1))
    ids = [response.id for response in found]
    for name in ids:
        if ids.count(name) > 1:
            raise RecordError(f"two responses have the id {name!r}")
    return found


def _with_id(value: Any, number: int) -> Any:
    """A response as an object with an id: a text alone is one, and one without id is called by its place."""
    if isinstance(value, str):
        value = {"text": value}
    if isinstance(value, dict) and value.get("id") is None:
        return value | {"id": f"r{number}"}
    return value


def _response(value: Any, where: str) -> ImportedResponse:
    if not isinstance(value, dict):
        raise RecordError(f'{where} is {_kind(value)}; write "…" or {{"id": "r1", "text": "…"}}')
    fields = _Fields(value, where)
    name, text = fields.name("id", limit=MAX_RESPONSE_ID_CHARACTERS), fields.text("text")
    if name is None or text is None:
        raise RecordError(f'{where} has no text; write {{"id": {json.dumps(name or "r1")}, "text": "…"}}')
    settings = fields.take("settings")
    if settings is not None and not isinstance(settings, dict):
        raise RecordError(f"{where}: settings must be an object")
    model = fields.name("model", limit=MAX_MODEL_CHARACTERS)
    return ImportedResponse(name, text, fields.text("thinking"), model, settings, fields.rest())


def _kind(value: Any) -> str:
    """What a JSON value is that should have been something else."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "a number"


def _demonstration(value: Any) -> ImportedResponse:
    found = _response(_with_id(value, 1), "response")
    if not found.text.strip():
        raise RecordError("the demonstration is blank")
    return found


def _checkable(fields: "_Fields") -> dict[str, Any]:
    answer = fields.take("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not isinstance(answer, str):
        raise RecordError("answer must be a text or a number")
    if "responses" in fields:
        raise RecordError("a prompt line has no responses (without `type` it would be a task to be ranked)")
    return {"answer": answer, "tests": fields.take("tests")}


def _ranking(fields: "_Fields") -> dict[str, Any]:
    responses = responses_from(fields.take("responses"))
    ids = [response.id for response in responses]
    order = fields.names("presented_order")
    if order is not None and sorted(order) != sorted(ids):
        raise RecordError("presented_order must name every response once")
    tiers = fields.take("ranking")
    given = {"responses": responses, "presented_order": order}
    if tiers is None:
        return given | _nothing_said(fields)
    if not isinstance(tiers, list) or not all(_are_names(tier) for tier in tiers):
        raise RecordError("ranking must be a list of tiers, each a list of response ids")
    placed = {name for tier in tiers for name in tier}
    unranked = fields.names("unranked")
    answer = Answer(
        ranking=tuple(map(tuple, tiers)),
        unranked=unranked if unranked is not None else tuple(name for name in ids if name not in placed),
        strengths=_strengths(fields.take("strengths"), gaps=max(len(tiers) - 1, 0)),
        all_bad=fields.yes_or_no("all_bad", default=False),
    )
    for path, message in ranking_faults(answer, responses=ids).items():
        raise RecordError(f"{path}: {message}")
    return given | {
        "ranking": answer.ranking,
        "unranked": answer.unranked,
        "strengths": answer.strengths,
        "all_bad": answer.all_bad,
        "ratings": _ratings(fields.take("ratings"), ids),
        "flags": _flags(fields.take("flags"), ids),
        "rationale": fields.text("rationale"),
        "rewrite": _rewrite(fields.take("rewrite"), ids),
    }


def _nothing_said(fields: "_Fields") -> dict[str, Any]:
    """Refuse the parts of an answer on a line without ranking: they would be lost."""
    for key in ("unranked", "strengths", "all_bad", "ratings", "flags", "rationale", "rewrite"):
        if fields.take(key):
            raise RecordError(f"{key} without a ranking")
    return {}


def _strengths(value: Any, *, gaps: int) -> tuple[Any, ...]:
    if value is None:
        return (None,) * gaps
    if not isinstance(value, list):
        raise RecordError("strengths must be a list")
    return tuple(value)


def _ratings(value: Any, ids: Sequence[str]) -> dict[str, dict[str, float]]:
    for name, ratings in _by_response(value, ids, "ratings").items():
        numbers = ratings.values() if isinstance(ratings, dict) else [None]
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            raise RecordError(f"ratings of {name!r} must be an object of numbers")
    return value or {}


def _flags(value: Any, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    flags = _by_response(value, ids, "flags")
    for name, names in flags.items():
        if not _are_names(names):
            raise RecordError(f"flags of {name!r} must be a list of texts")
    return {name: tuple(names) for name, names in flags.items()}


def _by_response(value: Any, ids: Sequence[str], key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordError(f"{key} must be an object with response ids as keys")
    for name in value:
        if name not in ids:
            raise RecordError(f"{key}: {name!r} is not a response of this line")
    return value


def _rewrite(value: Any, ids: Sequence[str]) -> Rewrite | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"of", "text"} or not isinstance(value["text"], str):
        raise RecordError("rewrite must be an object with of and text")
    if value["of"] not in ids:
        raise RecordError(f"rewrite: {value['of']!r} is not a response of this line")
    return Rewrite(value["of"], value["text"])


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


class _Fields:
    """Takes known keys out of a JSON object, with checks of their types; `rest` is what nobody asked for."""

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._values = dict(values)
        self._where = f"{where}: " if where else ""

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str) -> Any:
        return self._values.pop(key, None)

    def rest(self) -> dict[str, Any]:
        return self._values

    def text(self, key: str) -> str | None:
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def name(self, key: str, *, limit: int = MAX_NAME_CHARACTERS) -> str | None:
        value = self.text(key)
        if value is not None and not 0 < len(value) <= limit:
            raise self._wrong(key, f"a text of 1 to {limit} characters")
        return value

    def names(self, key: str) -> tuple[str, ...] | None:
        value = self.take(key)
        if value is None:
            return None
        if not _are_names(value):
            raise self._wrong(key, "a list of response ids")
        return tuple(value)

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str | None:
        value = self.take(key)
        if value is not None and value not in allowed:
            raise self._wrong(key, " / ".join(allowed))
        return default if value is None else cast(str, value)

    def yes_or_no(self, key: str, *, default: bool) -> bool:
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return default if value is None else value

    def whole(self, key: str, *, minimum: int = 0, default: int | None = None) -> int | None:
        value = self.take(key)
        if value is not None and (type(value) is not int or not minimum <= value < 2**63):
            raise self._wrong(key, f"a whole number, {minimum} or more")
        return default if value is None else value

    def number(self, key: str, *, maximum: float = 1e15, default: float | None = None) -> float | None:
        value = self.take(key)
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= maximum):
            raise self._wrong(key, f"a number from 0 to {maximum:g}")
        return default if value is None else float(value)

    def instant(self, key: str) -> datetime | None:
        value = self.text(key)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value).astimezone(UTC) if _has_zone(value) else None
        except (ValueError, OverflowError):
            moment = None
        if moment is None:
            raise self._wrong(key, "an instant with a time zone, 2026-01-31T12:00:00Z")
        return moment

    def _wrong(self, key: str, wanted: str) -> RecordError:
        return RecordError(f"{self._where}{key} must be {wanted}")


def _has_zone(value: str) -> bool:
    return datetime.fromisoformat(value).tzinfo is not None


# --- writing ----------------------------------------------------------------------------------------------------


# Of a table. Lists and objects stand in it as JSON text, so that nothing of them is lost; `extra` holds unknown keys.
_KINDS = {"counted": "yes", "all_bad": "yes", "weight": "number", "seconds": "number"}
_KINDS |= {"revision": "whole", "guideline_version": "whole", "change": "whole"}
_KINDS |= dict.fromkeys(
    ("prompt", "responses", "response", "tests", "ranking", "unranked", "strengths", "ratings", "flags", "rewrite",
     "presented_order"),
    "json",
)  # fmt: skip
COLUMNS: Mapping[str, str] = {key: _KINDS.get(key, "text") for key in KEYS} | {"extra": "json"}


def write(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield the one line of the `plackett` export: the canonical record itself, markers too."""
    found = dict(record)
    if not options.models and "responses" in record:
        found["responses"] = [dict(one) | {"model": None} for one in record["responses"]]
    if options.container != "jsonl":
        if isinstance(found.get("response"), str):
            found["response"] = {"text": found["response"]}
        unknown = {key: value for key, value in found.items() if key not in COLUMNS}
        found = {key: value for key, value in found.items() if key in COLUMNS and key != "extra"}
        found |= {"extra": unknown | ({"extra": record["extra"]} if "extra" in record else {}) or None}
    yield found


def canonical(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a native record with its known keys in the order of `KEYS` and the others after them, sorted."""
    known = {key: record[key] for key in KEYS if key in record}
    return known | {key: record[key] for key in sorted(record) if key not in known}


def object_from_record(record: ImportedRecord) -> dict[str, Any]:
    """Return the native object of a record; reading it again gives an equal record."""
    found: dict[str, Any] = dict(record.extra) | {
        "format": VERSION,
        "id": record.id,
        "project": record.project,
        "task": record.task,
        "external_id": record.external_id,
        "split_group": record.split_group,
        "split": record.split,
        "kind": record.kind,
        "counted": record.counted,
        "prompt": list(record.prompt),
    }
    if record.type == "ranking":
        found |= _ranking_object(record)
    elif record.type == "demonstration":
        found |= {"type": "demonstration", "response": _demonstration_object(record.responses[0])}
    else:
        found |= {"type": "prompt"}
        found |= {key: value for key in ("answer", "tests") if (value := getattr(record, key)) is not None}
    said = {key: getattr(record, key) for key in _ABOUT_THE_ANSWER}
    if record.ranking is None:
        said = {key: value for key, value in said.items() if value != _ABOUT_THE_ANSWER[key]}
    if record.submitted_at is not None:
        said["submitted_at"] = instant_text(record.submitted_at)
    return canonical(found | said)


_ABOUT_THE_ANSWER = {
    "annotator": None, "annotator_kind": "human", "weight": 1.0, "revision": 1, "guideline_version": None,
    "seconds": None, "change": None, "submitted_at": None,
}  # fmt: skip


def _ranking_object(record: ImportedRecord) -> dict[str, Any]:
    found: dict[str, Any] = {"responses": [_response_object(response) for response in record.responses]}
    if record.presented_order is not None:
        found["presented_order"] = list(record.presented_order)
    if record.ranking is None:
        return found
    return found | {
        "ranking": [list(tier) for tier in record.ranking],
        "unranked": list(record.unranked),
        "strengths": list(record.strengths),
        "all_bad": record.all_bad,
        "ratings": {name: dict(ratings) for name, ratings in record.ratings.items()},
        "flags": {name: list(flags) for name, flags in record.flags.items()},
        "rationale": record.rationale,
        "rewrite": {"of": record.rewrite.of, "text": record.rewrite.text} if record.rewrite else None,
    }


def _response_object(response: ImportedResponse) -> dict[str, Any]:
    found = {"id": response.id, "text": response.text, "thinking": response.thinking, "model": response.model}
    settings = {"settings": dict(response.settings)} if response.settings is not None else {}
    return found | settings | {key: response.extra[key] for key in sorted(response.extra)}


def _demonstration_object(response: ImportedResponse) -> str | dict[str, Any]:
    plain = ImportedResponse("r1", response.text)
    return response.text if response == plain else _response_object(response)


def instant_text(moment: datetime | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, ending in Z; None stays None.

    Raises:
        ValueError: the instant has no time zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("an instant without a time zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
