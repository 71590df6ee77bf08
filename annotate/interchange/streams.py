"""Bytes in, records' texts out, and lines back: constant memory whatever the size of the file.

Accepted: UTF-8 with or without a byte order mark, plain or gzip (told by its first two bytes, not its name), as one
JSON object a line or as one JSON list of objects.
"""

import codecs
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, cast

import orjson

from annotate.interchange.records import (
    MAX_RECORD_BYTES,
    BadRecord,
    FileError,
    ImportedRecord,
    RecordError,
    SeenKeys,
    parse_json,
)

Source = str | os.PathLike[str] | BinaryIO
Read = Iterator[ImportedRecord | BadRecord]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 16
#: What unpacks to more than so many bytes, and to more than so many times its size, was made to wear out who reads it:
#: texts pack to a tenth, the same line again and again to a hundredth or two.
UNPACKED_BYTES = 100_000_000
UNPACKED_TIMES = 400


class RecordText(NamedTuple):
    """The text of one record, None if it is over `MAX_RECORD_BYTES`; the line where it starts, and its list place."""

    line: int
    item: int | None
    text: str | None


def read_records(source: Source, record_from: Callable[[str, int, int | None], Read]) -> Read:
    """Turn each record's text into records; bad ones, and keys that stood in the file before, into reports.

    Args:
        source: a path, or a binary stream, which is left open.
        record_from: gets text, line and item; yields what it makes of them; may raise `RecordError`.

    Raises:
        FileError: the file cannot be read; what was yielded before must be undone.
    """
    seen = SeenKeys()
    for line, item, text in read_texts(source):
        if text is None:
            yield BadRecord(line, f"longer than {MAX_RECORD_BYTES // 1_000_000} MB", item)
            continue
        try:
            for record in record_from(text, line, item):
                yield first_of_its_key(record, seen)
        except RecordError as error:
            yield BadRecord(line, str(error), item)


def first_of_its_key(record: ImportedRecord | BadRecord, seen: SeenKeys) -> ImportedRecord | BadRecord:
    """The record, or the report that what names it stood in the file before."""
    if isinstance(record, ImportedRecord):
        for key in record.answer_keys:
            if not seen.add(*key):
                reason = f"duplicate {key[0]}: {', '.join(key[1:])!r} stood earlier in this file"
                return BadRecord(record.line, reason, record.item)
    return record


def read_texts(source: Source) -> Iterator[RecordText]:
    """Yield the text of every record of a file of lines or of one JSON list; blank lines are passed over.

    Raises:
        FileError: encoding, gzip, read error, or a list that is cut off.
    """
    with opened(source) as stream, faults_named():
        head = stream.peek(CHUNK_BYTES)
        if b"\0" in head[:2]:
            raise FileError("not UTF-8: it looks like UTF-16 or UTF-32")
        if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            yield from _list_items(stream)
        else:
            yield from _lines(stream)


def first_objects(source: Source, *, limit: int = 20) -> Iterator[dict[str, Any]]:
    """Yield the first JSON objects of a file, those that can be read.

    Raises:
        FileError: the file cannot be read so far.
    """
    for _, (_, _, text) in zip(range(limit), read_texts(source), strict=False):
        with suppress(RecordError):
            value = parse_json(text) if text is not None else None
            if isinstance(value, dict):
                yield value


# --- opening ----------------------------------------------------------------------------------------------------


class _Raw(io.RawIOBase):
    """Anything with `read(n)`, as a raw stream; closing it leaves the thing itself open."""

    def __init__(self, source: BinaryIO, *, packed: "_Raw | None" = None) -> None:
        self._source = source
        self._packed = packed
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # Filled to the brim, so that a look at the first bytes sees them all even on a slow connection.
        filled = 0
        while filled < len(buffer) and (data := self._source.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        self.size += filled
        if self._packed is not None:
            check_unpacked(self.size, of=self._packed.size)
        return filled


def check_unpacked(size: int, *, of: int) -> None:
    """Check what so many bytes unpack to.

    Raises:
        FileError: to far more than texts do.
    """
    if size > max(UNPACKED_BYTES, UNPACKED_TIMES * of):
        raise FileError(f"it unpacks to more than {UNPACKED_TIMES} times its size")


@contextmanager
def opened(source: Source) -> Iterator[io.BufferedReader]:
    """A path or a binary stream as bytes to be read, unpacked if it is gzip; a stream stays open.

    Raises:
        FileError: it cannot be opened.
    """
    if not isinstance(source, str | os.PathLike):
        yield _unpacked(source, expect_gzip=False)
        return
    with _opened_file(source) as file:
        yield _unpacked(file, expect_gzip=os.fspath(source).endswith(".gz"))


def _opened_file(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise FileError(f"cannot be opened: {error.strerror}") from error


def _unpacked(source: BinaryIO, *, expect_gzip: bool) -> io.BufferedReader:
    """Return the stream, unpacked if it is gzip; a name that promises gzip (or an empty rest of one) is held to it."""
    with faults_named():
        raw = _Raw(source)
        stream: io.BufferedReader = io.BufferedReader(raw, CHUNK_BYTES)
        if stream.peek(2)[:2] == GZIP_MAGIC:
            unpacked = gzip.GzipFile(fileobj=cast(BinaryIO, stream))
            return io.BufferedReader(_Raw(cast(BinaryIO, unpacked), packed=raw), CHUNK_BYTES)
    if expect_gzip:
        raise FileError("named .gz, but not a gzip file")
    return stream


@contextmanager
def faults_named() -> Iterator[None]:
    """Turns what reading and decoding raise into FileError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise FileError(f"not UTF-8 (byte 0x{error.object[error.start]:02x})") from error
    except EOFError as error:
        raise FileError("the gzip file ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"the gzip file is damaged: {error}") from error
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}") from error


# --- lines ------------------------------------------------------------------------------------------------------


_BLANK = (b"\n", b"\r\n")


def _lines(stream: io.BufferedReader) -> Iterator[RecordText]:
    number = 0
    while start := stream.readline(MAX_RECORD_BYTES + 2):
        number += 1
        if start in _BLANK:
            continue
        raw = start.removeprefix(codecs.BOM_UTF8) if number == 1 else start
        if len(raw.rstrip(b"\r\n")) > MAX_RECORD_BYTES:
            _pass_over_line(stream, start)
            yield RecordText(number, None, None)
        elif text := raw.decode().strip(" \t\r\n"):
            yield RecordText(number, None, text)


def _pass_over_line(stream: io.BufferedReader, start: bytes) -> None:
    """Read on to the end of a line that is too long; its encoding still decides whether the file is good."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    part = start
    while part:
        decoder.decode(part)
        if part.endswith(b"\n"):
            return
        part = stream.readline(CHUNK_BYTES)


# --- lists ------------------------------------------------------------------------------------------------------

_STRUCTURE = re.compile(r'["\[\]{},]')
_STRING_END = re.compile(r'["\\]')


def _list_items(stream: io.BufferedReader) -> Iterator[RecordText]:
    """Split a JSON list into the texts of its items by following brackets and strings, parsing nothing.

    So an item that is not JSON, or too long to hold, spoils itself alone, as long as its brackets close.
    """
    splitter = _ListSplitter()
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    while data := stream.read(CHUNK_BYTES):
        yield from splitter.feed(decoder.decode(data))
    yield from splitter.feed(decoder.decode(b"", final=True))
    if not splitter.closed:
        raise FileError("the list ends too early")


class _ListSplitter:
    def __init__(self) -> None:
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._parts: list[str] = []
        self._size = 0
        self._line = 1
        self._newlines = 0
        self._item = 0

    def feed(self, text: str) -> Iterator[RecordText]:
        """Take the next piece of the file and yield the items that end in it."""
        start = place = 0
        if self._escaped and text:
            self._escaped, place = False, 1
        while not self.closed and (found := (_STRING_END if self._in_string else _STRUCTURE).search(text, place)):
            sign, place = found.group(), found.end()
            if sign == "\\":
                self._escaped = place == len(text)
                place += 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif sign in "[{":
                self._depth += 1
                if self._depth == 1:
                    self._line += text.count("\n", start, place)
                    start = place
            elif sign in "]}":
                self._depth -= 1
                self.closed = self._depth == 0
            if self.closed or (sign == "," and self._depth == 1):
                self._keep(text[start : place - 1])
                start = place
                if not self.closed or self._item or not self._blank():
                    yield self._finish()
        if self.closed and text[start:].strip():
            raise FileError("something follows the end of the list")
        self._keep(text[start:])

    def _keep(self, part: str) -> None:
        self._size += len(part)
        self._newlines += part.count("\n")
        if self._size <= MAX_RECORD_BYTES:
            self._parts.append(part)

    def _blank(self) -> bool:
        return self._size <= MAX_RECORD_BYTES and not "".join(self._parts).strip()

    def _finish(self) -> RecordText:
        text = "".join(self._parts)
        body = text.lstrip()
        line = self._line + text.count("\n", 0, len(text) - len(body))
        too_long = self._size > MAX_RECORD_BYTES or len(body.rstrip().encode()) > MAX_RECORD_BYTES
        self._item += 1
        self._line += self._newlines
        self._parts, self._size, self._newlines = [], 0, 0
        return RecordText(line, self._item, None if too_long else body.rstrip())


# --- writing ----------------------------------------------------------------------------------------------------

# Valid inside a JSON string, but some readers of lines break there: U+0085, U+2028, U+2029.
_LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def encode_line(record: Mapping[str, Any]) -> bytes:
    """Encode one record as a line of UTF-8 JSON: keys in the order given, no spaces, no NaN, one `\\n` at its end.

    Equal mappings in equal order give equal bytes, which is what snapshots hash.

    Raises:
        ValueError: a NaN or an infinity as a value of the record itself, or a lone surrogate anywhere. (Inside its
            values there is no NaN: they were JSON in Postgres, which knows none.)
    """
    for value in record.values():
        if type(value) is float and not math.isfinite(value):
            raise ValueError(f"{value} is no JSON")
    try:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, which is refused here too, or a whole number of more than 64 bits
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if not line.isascii():
        for character, escape in _LINE_BREAKS:
            line = line.replace(character, escape)
    return line
