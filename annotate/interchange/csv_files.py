"""CSV: one record a row, the first row the names of the columns. What columns mean: `cells`.

UTF-8, plain or gzip, cells between commas, semicolons or tabs (whichever the first row has most of), quoted with `"`
where they hold one of those, a line break or a quote, which is then doubled. A row with too many or too few cells, or
over 10 MB, is a bad record; a file that ends inside a quoted cell is a bad file.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from annotate.interchange.cells import FIELDS as FIELDS
from annotate.interchange.cells import fields_of, record_of
from annotate.interchange.records import MAX_RECORD_BYTES, BadRecord, FileError, RecordError, SeenKeys
from annotate.interchange.streams import CHUNK_BYTES, Read, Source, faults_named, first_of_its_key, opened

FORMAT = "csv"
DELIMITERS = (b",", b";", b"\t")

# The module's limit is one for the whole process, and smaller than what a record may be.
csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES + 1))


class RowText(NamedTuple):
    """The text of one row, None if it is too long; the line where it starts."""

    line: int
    text: str | None


def read(source: Source, *, mapping: Mapping[str, str] | None = None) -> Read:
    """Yield one record per row, in constant memory.

    Args:
        source: a path, or a binary stream, which is left open.
        mapping: column → field.

    Raises:
        FileError: the file as a whole cannot be read.
    """
    seen = SeenKeys()
    with opened(source) as stream, faults_named():
        columns, delimiter, rows = _table(stream)
        fields = fields_of(columns, mapping or {})
        for line, text in rows:
            try:
                cells = _cells(text, columns, delimiter)
                yield first_of_its_key(record_of(dict(zip(columns, cells, strict=True)), fields, line=line), seen)
            except RecordError as error:
                yield BadRecord(line, str(error))


def check(source: Source) -> None:
    """Read a file to its end, looking at encoding and quotes, not at cells.

    Raises:
        FileError: it cannot be read.
    """
    with opened(source) as stream, faults_named():
        for _ in _table(stream)[2]:
            pass


def columns_of_file(source: Source) -> list[str]:
    """The names in the first row.

    Raises:
        FileError: it cannot be read.
    """
    with opened(source) as stream, faults_named():
        return _table(stream)[0]


def _table(stream: io.BufferedReader) -> tuple[list[str], str, Iterator[RowText]]:
    """The columns, what stands between cells, and the rows after the first."""
    head = stream.peek(CHUNK_BYTES)
    if b"\0" in head[:2]:
        raise FileError("not UTF-8: it looks like UTF-16 or UTF-32")
    first_line = head.partition(b"\n")[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    rows = _rows(stream, delimiter)
    header = next(rows, None)
    if header is None:
        return [], ",", iter(())
    if header.text is None:
        raise FileError("the first row, which names the columns, is too long")
    try:
        columns = _split(header.text, delimiter.decode())
    except csv.Error as error:
        raise FileError(f"the first row, which names the columns, is not CSV: {error}") from None
    if twice := next((name for name in columns if not name.strip() or columns.count(name) > 1), None):
        raise FileError(f"the first row names the column {twice!r} twice")
    if "" in columns:
        raise FileError("the first row has a column without a name")
    return columns, delimiter.decode(), rows


def _split(text: str, delimiter: str) -> list[str]:
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


def _cells(text: str | None, columns: list[str], delimiter: str) -> list[str]:
    if text is None:
        raise RecordError(f"longer than {MAX_RECORD_BYTES // 1_000_000} MB")
    try:
        cells = _split(text, delimiter)
    except csv.Error as error:
        raise RecordError(f"not CSV: {error}") from None
    if len(cells) != len(columns):
        raise RecordError(f"{len(cells)} cells, not {len(columns)}")
    return cells


def _rows(stream: io.BufferedReader, delimiter: bytes) -> Iterator[RowText]:
    """Join physical lines to rows; blank ones are passed over. What is too long is looked at and not kept."""
    quotes = _Quotes(delimiter)
    decoder = codecs.getincrementaldecoder("utf-8")()
    parts: list[str] = []
    line = start = 1
    size = 0
    first = True
    for piece in iter(lambda: stream.readline(CHUNK_BYTES), b""):
        piece = piece.removeprefix(codecs.BOM_UTF8) if first else piece
        first = False
        quotes.feed(piece)
        size += len(piece)
        text = decoder.decode(piece)
        if size <= MAX_RECORD_BYTES + 2:
            parts.append(text)
        else:
            parts.clear()
        if not piece.endswith(b"\n"):
            continue
        line += 1
        if not quotes.open:
            yield from _row(start, parts, size)
            parts, size, start = [], 0, line
    decoder.decode(b"", final=True)
    if quotes.open:
        raise FileError("the file ends inside a quoted cell")
    yield from _row(start, parts, size)


def _row(start: int, parts: list[str], size: int) -> Iterator[RowText]:
    if size > MAX_RECORD_BYTES + 2:
        yield RowText(start, None)
    elif text := "".join(parts).strip("\r\n"):
        yield RowText(start, text)


class _Quotes:
    """Follows cells and quotes piece by piece; `open` where a line break would be part of a cell."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._state = "start"

    @property
    def open(self) -> bool:
        return self._state == "quoted"

    def feed(self, piece: bytes) -> None:
        if self._state != "quoted" and b'"' not in piece:
            self._state = "start" if piece.endswith((b"\n", self._delimiter)) else "cell"
            return
        place = 0
        while place < len(piece):
            place = self._step(piece, place)

    def _step(self, piece: bytes, place: int) -> int:
        """Go to the next sign that changes the state."""
        here = piece[place : place + 1]
        if self._state == "start":
            self._state = "quoted" if here == b'"' else "cell"
            return place + (here == b'"')
        if self._state == "quoted":
            found = piece.find(b'"', place)
            self._state = "quote" if found >= 0 else "quoted"
            return found + 1 if found >= 0 else len(piece)
        if self._state == "quote":
            self._state = "quoted" if here == b'"' else "cell"
            return place + (here == b'"')
        ends = [end for sign in (self._delimiter, b"\n") if (end := piece.find(sign, place)) >= 0]
        self._state = "start" if ends else "cell"
        return min(ends) + 1 if ends else len(piece)
