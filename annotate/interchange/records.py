"""What a reader yields: records that keep every rule of the native format, and reports of those that do not.

A bad *record* is skipped and reported (`BadRecord`); a bad *file* ends the reading (`FileError`), and the import that
consumes it must then change nothing.
"""

import hashlib
import json
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NoReturn

from annotate.preferences import Rewrite, Split, text_fault

MAX_RECORD_BYTES = 10_000_000
MAX_NAME_CHARACTERS = 255
MAX_RESPONSE_ID_CHARACTERS = 100
MAX_MODEL_CHARACTERS = 200
MAX_ANNOTATOR_CHARACTERS = 150
MAX_DEPTH = 200
MAX_REASON_CHARACTERS = 500
#: Of a table. People say of each what it means, on one page.
MAX_COLUMNS = 500
MIN_RESPONSES, MAX_RESPONSES = 2, 9

RecordType = Literal["ranking", "demonstration", "prompt"]
TaskKind = Literal["normal", "gold", "repeat"]
AnnotatorKind = Literal["human", "machine", "imported", "example"]


class FileError(Exception):
    """The file as a whole cannot be read: encoding, gzip, a read error, a list that is not JSON."""


class RecordError(Exception):
    """One record breaks a rule; the message says which, for a person to read."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that was left out.

    `line` counts from 1; `item` is the place in a JSON list, None in a file of lines. `fault` is False where nothing
    is wrong with the record and the format's rule leaves it out (a group without ranks); strictness concerns faults.
    A reason that quotes a long text is cut: reports hold hundreds of them.
    """

    line: int
    reason: str
    item: int | None = None
    fault: bool = True

    def __post_init__(self) -> None:
        if len(self.reason) > MAX_REASON_CHARACTERS:
            object.__setattr__(self, "reason", self.reason[: MAX_REASON_CHARACTERS - 1] + "…")


@dataclass(frozen=True, slots=True)
class ImportedResponse:
    """One candidate response; `settings` are the sampling settings, `extra` the keys that we do not know."""

    id: str
    text: str
    thinking: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """One line of the native format, checked. JSON-ready where it nests: messages are plain mappings.

    `type` ranking: 2–9 responses, and in `ranking` tiers of their ids, best first, with `unranked` holding the rest;
    `ranking` None: a task still to be ranked. `strengths` has one entry per gap. `type` demonstration: the one
    response is the demonstration. `type` prompt: no responses; `answer` or `tests` may say what is right.
    `extra` keeps the keys that we do not know. `line` (and `item`, in a JSON list) say where it stood.
    """

    prompt: tuple[Mapping[str, Any], ...]
    type: RecordType = "ranking"
    responses: tuple[ImportedResponse, ...] = ()
    ranking: tuple[tuple[str, ...], ...] | None = None
    unranked: tuple[str, ...] = ()
    strengths: tuple[int | None, ...] = ()
    all_bad: bool = False
    ratings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rationale: str | None = None
    rewrite: Rewrite | None = None
    id: str | None = None
    project: str | None = None
    task: str | None = None
    external_id: str | None = None
    split_group: str | None = None
    split: Split | None = None
    kind: TaskKind = "normal"
    counted: bool = True
    annotator: str | None = None
    annotator_kind: AnnotatorKind = "human"
    weight: float = 1.0
    revision: int = 1
    guideline_version: int | None = None
    presented_order: tuple[str, ...] | None = None
    seconds: float | None = None
    change: int | None = None
    submitted_at: datetime | None = None
    answer: str | None = None
    tests: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    line: int = field(default=0, compare=False)
    item: int | None = field(default=None, compare=False)

    @property
    def content_key(self) -> str:
        """A hash of the prompt and its responses (ids, texts, thinking), whatever order the responses stand in."""
        responses = sorted([response.id, response.text, response.thinking] for response in self.responses)
        content = json.dumps([self.type, self.prompt, responses], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def task_key(self) -> str:
        """What names the task (or prompt, or demonstration) across lines and files.

        `external_id`, else `task`, else the `id` of a record that is no ranking (a ranking's `id` names the answer),
        else `sha256:` and the content key.
        """
        own_id = self.id if self.ranking is None else None
        return self.external_id or self.task or own_id or f"sha256:{self.content_key}"

    @property
    def answer_keys(self) -> tuple[tuple[str, ...], ...]:
        """What may stand once in a file: the `id`; and task, annotator and revision, unless it is an anonymous answer
        that has an `id` of its own."""
        own = (("id", self.id),) if self.id is not None else ()
        if self.ranking is None:
            return own or ((self.type, self.task_key),)
        if own and self.annotator is None:
            return own
        return *own, ("answer", self.task_key, self.annotator or "nobody", str(self.revision))


def parse_json(text: str) -> Any:
    """Parse strictly: no NaN or infinity, no key twice, no NUL or lone surrogate, no nesting beyond `MAX_DEPTH`.

    Raises:
        RecordError: saying what is wrong.
    """
    if "\0" in text:
        raise RecordError("holds a NUL character")
    try:
        value = _STRICT.decode(text)
    except RecursionError:
        raise RecordError(f"nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError:
        raise RecordError("holds a number with too many digits") from None
    # Raw text is valid UTF-8: only an escape can bring in half a pair or a NUL, only many brackets a deep nest.
    if _RISKY_ESCAPE.search(text) or text.count("[") + text.count("{") > MAX_DEPTH:
        check_nested(value)
    return value


_RISKY_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RecordError(f"the key {first_repeated(name for name, _ in pairs)!r} stands twice in one object")
    return found


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that stood before; None if each is there once. Looks at each name once: there may be millions."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise RecordError(f"holds {name}, which is not JSON")


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise RecordError(f"the number {digits[:20]} is too large")
    return number


#: Made once: json.loads would make one for every text.
_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite_number)


def check_nested(value: Any) -> None:
    """Check every string and the depth of a parsed value, without recursion.

    Raises:
        RecordError: a NUL, half of a surrogate pair, or too deep a nest.
    """
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, str):
            if fault := text_fault(part):
                raise RecordError(fault[0].lower() + fault[1:].rstrip("."))
        elif isinstance(part, dict | list):
            if depth > MAX_DEPTH:
                raise RecordError(f"nested deeper than {MAX_DEPTH} levels")
            waiting += ((child, depth + 1) for child in _children(part))


def _children(part: dict[str, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part
        yield from part.values()
    else:
        yield from part


class SeenKeys:
    """A set of keys that only remembers 64-bit hashes, 11 to 32 bytes a key, so that a million cost about 24 MB.

    Two different keys are taken for one with probability about n² / 2⁶⁵: 3 in 10⁸ at a million keys.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def add(self, *key: str) -> bool:
        """Remember a key; return False if it was known."""
        parts = json.dumps(key).encode()
        # 0 marks an empty slot, so no hash may be 0.
        digest = int.from_bytes(hashlib.blake2b(parts, digest_size=8).digest()) or 1
        if not self._put(digest):
            return False
        self._count += 1
        if self._count * 4 > len(self._slots) * 3:
            self._grow()
        return True

    def _put(self, digest: int) -> bool:
        mask = len(self._slots) - 1
        place = digest & mask
        while self._slots[place]:
            if self._slots[place] == digest:
                return False
            place = (place + 1) & mask
        self._slots[place] = digest
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(8 * 2 * len(old)))
        for digest in old:
            if digest:
                self._put(digest)
