"""The lines of a file in the native format ``plackett/1``: which of them count, and what every kind of line says alike.

Every line is either used or dropped with a counted reason; a line that breaks the format is an error that names it. A
file is looked through once for the lines that count, and those are read again when they are asked for: its texts are
never in memory together, so that a million lines need no more of it than their numbers do.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, overload

from training.core.errors import UsageError
from training.core.line_parts import LineError, one_of, text

Item = TypeVar("Item")

FORMAT = "plackett/1"
TYPES = ("ranking", "demonstration", "prompt")
MARKERS = ("superseded", "withdrawn")
KINDS = ("normal", "gold", "repeat")


@dataclass
class UsedLines:
    """What a file holds: how many lines, why some are left out, and where those to use stand.

    ``used_lines`` are their numbers, from 1, and ``offsets`` the bytes of the file before each.
    """

    path: Path
    sha256: str = ""
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    used_lines: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))

    def values(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and JSON object of each line to use, in the file's order, read anew at each call."""
        wanted = iter(self.used_lines)
        following = next(wanted, None)
        for number, raw in raw_lines(self.path):
            if number == following:
                yield number, parse(raw, f"{self.path} line {number}")
                following = next(wanted, None)


def look_through(lines: UsedLines, look: Callable[[dict[str, Any], int], str | None]) -> None:
    """Fill in what the file of ``lines`` holds.

    Dropped are those that ``look`` gives a reason for, markers and what they take back, and earlier revisions of an
    answer, also of one that is itself dropped.

    Args:
        look: the reason to drop a line, given its object and number, or None; LineError where it breaks the format.

    Raises:
        UsageError: the file cannot be read, or a line breaks the format; the message names the line.
    """
    found = _Found()
    digest = hashlib.sha256()
    offset = 0
    for number, raw in raw_lines(lines.path):
        digest.update(raw)
        if raw.strip():
            lines.read += 1
            where = f"{lines.path} line {number}"
            reason = _look_at(parse(raw, where), where, number, offset, found, look)
            lines.dropped.update([reason] if reason else [])
        offset += len(raw)
    lines.sha256 = digest.hexdigest()
    for place, number in enumerate(found.lines):
        reason = found.taken_back.get(found.ids[place]) or ("superseded" if found.is_older(place) else None)
        if reason:
            lines.dropped[reason] += 1
        else:
            lines.used_lines.append(number)
            lines.offsets.append(found.offsets[place])


class _Found:
    """What is kept of each line while a file is looked through: hashes instead of names."""

    def __init__(self) -> None:
        self.lines, self.offsets, self.ids = array("q"), array("q"), array("q")
        self.answers, self.revisions = array("q"), array("q")
        self.newest: dict[int, int] = {}
        self.taken_back: dict[int, str] = {}

    def note(self, identity: Mapping[str, Any]) -> int:
        """Remember the revision of a ranking, used or not; the number of the answer that it is a revision of."""
        task, annotator, revision = identity["task"], identity["annotator"], identity["revision"]
        answer = 0 if task is None or annotator is None else short_hash(task, annotator)
        self.newest[answer] = max(self.newest.get(answer, revision), revision)
        return answer

    def add(self, number: int, offset: int, identity: Mapping[str, Any], *, is_answer: bool) -> None:
        """Note the line ``number``, which may be used."""
        self.lines.append(number)
        self.offsets.append(offset)
        self.ids.append(short_hash(str(identity["id"])))
        self.answers.append(self.note(identity) if is_answer else 0)
        self.revisions.append(identity["revision"])

    def is_older(self, place: int) -> bool:
        """Whether the file also holds a later revision of the same person's answer to the same task."""
        answer = self.answers[place]
        return answer != 0 and self.revisions[place] < self.newest[answer]


def _look_at(
    value: dict[str, Any],
    where: str,
    number: int,
    offset: int,
    found: _Found,
    look: Callable[[dict[str, Any], int], str | None],
) -> str | None:
    """Note what a line says; the reason why it is dropped, if it is."""
    try:
        if value.get("type") in MARKERS:
            # A later version of the format may take things back in another way.
            check_format(value)
            found.taken_back[short_hash(str(value.get("id")))] = value["type"]
            return "marker"
        reason = look(value, number)
        if reason is None:
            found.add(number, offset, _identity(value), is_answer=_is_normal_ranking(value))
        elif _is_normal_ranking(value):
            # Who took an answer back, or whose last one does not count, did not go back to the one before.
            found.note(_identity(value))
    except LineError as error:
        raise UsageError(f"{where}: {error}") from None
    return reason


def reason_to_drop(value: Mapping[str, Any], *, types: Collection[str], excused: Collection[str] = ()) -> str | None:
    """Why a line is not to be used, or None; beyond that only its names and its revision are looked at.

    Other types than ``types`` give their name; then ``withdrawn``, ``superseded``, ``unanswered`` (of rankings),
    ``uncounted``, ``gold``, ``repeat`` and ``zero_weight``, but none of ``excused``.
    """
    check_format(value)
    line_type = one_of(value.get("type") or "ranking", TYPES, "type")
    if line_type not in types:
        return line_type
    return next((reason for reason in _reasons(value, line_type) if reason not in excused), None)


def _reasons(value: Mapping[str, Any], line_type: str) -> Iterator[str]:
    if value.get("withdrawn") or value.get("withdrawn_at"):
        yield "withdrawn"
    if value.get("superseded_by") is not None:
        yield "superseded"
    if line_type == "ranking" and value.get("ranking") is None:
        yield "unanswered"
    if value.get("counted", True) is not True:
        yield "uncounted"
    if (kind := one_of(value.get("kind") or "normal", KINDS, "kind")) != "normal":
        yield kind
    if value.get("weight") == 0 and value["weight"] is not False:
        yield "zero_weight"


def check_format(value: Mapping[str, Any]) -> None:
    """Refuse a line of another format.

    Raises:
        LineError: it names one.
    """
    if value.get("format", FORMAT) != FORMAT:
        raise LineError(f"format {value['format']!r} is not {FORMAT!r}")


def _is_normal_ranking(value: Mapping[str, Any]) -> bool:
    """Gold and repeated tasks are tasks of their own: an answer to one is no revision of an answer to be used."""
    return (value.get("type") or "ranking") == "ranking" and (value.get("kind") or "normal") == "normal"


def _identity(value: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: value.get(key) for key in ("id", "task", "annotator")}
    revision = value.get("revision")
    for key, name in names.items():
        if name is not None:
            text(name, key)
    if revision is not None and (type(revision) is not int or not 0 <= revision < 2**31):
        raise LineError(f"revision must be a whole number from 0, not {revision!r}")
    return names | {"revision": 1 if revision is None else revision}


# --- lines again, in any order ----------------------------------------------------------------------------------------


class LinesAt(Sequence[Item]):
    """Items read from one line each (or from several, that belong together) when they are asked for."""

    def __init__(
        self,
        path: Path,
        numbers: "array[int]",
        offsets: "array[int]",
        make: Callable[[dict[str, Any], int], Item],
        *,
        beside: Mapping[int, Sequence[tuple[int, int]]] | None = None,
        join: Callable[[Item, Item], Item] | None = None,
    ) -> None:
        """Args:
        numbers: of the lines, and ``offsets`` the bytes before each.
        beside: further lines of some items, (number, offset) each, whose items are joined onto the first by ``join``.
        """
        self._path, self._numbers, self._offsets, self._make = path, numbers, offsets, make
        self._beside, self._join = beside or {}, join

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        places = range(len(self))[index]
        with _opened(self._path) as file:
            if isinstance(places, range):
                return [self._item(file, place) for place in places]
            return self._item(file, places)

    def __iter__(self) -> Iterator[Item]:
        with _opened(self._path) as file:
            for place in range(len(self)):
                yield self._item(file, place)

    def _item(self, file: IO[bytes], place: int) -> Item:
        item = self._read(file, self._numbers[place], self._offsets[place])
        for number, offset in self._beside.get(place, ()):
            assert self._join is not None
            item = self._join(item, self._read(file, number, offset))
        return item

    def _read(self, file: IO[bytes], number: int, offset: int) -> Item:
        file.seek(offset)
        where = f"{self._path} line {number}"
        try:
            return self._make(parse(file.readline(), where), number)
        except LineError as error:
            raise UsageError(f"{where}: {error}") from None


def _opened(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")  # noqa: SIM115 closed by those who asked
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


# --- bytes ------------------------------------------------------------------------------------------------------------


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of the file as bytes with their numbers, from 1.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with _opened(path) as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        UsageError: it holds none; the message begins with ``where``.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON in UTF-8 ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def short_hash(*names: str) -> int:
    """63 bits of a hash, never 0: that two of a million names meet is less likely than one in ten million."""
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1
