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
from annotate.interchange.records import (
    MAX_COLUMNS,
    MAX_RECORD_BYTES,
    BadRecord,
    FileError,
    RecordError,
    SeenKeys,
    first_repeated,
)
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
    if len(columns) > MAX_COLUMNS:
        raise FileError(f"the first row names {len(columns):,} columns; there may be {MAX_COLUMNS:,}")
    if not all(name.strip() for name in columns):
        raise FileError("the first row has a column without a name")
    if (twice := first_repeated(columns)) is not None:
        raise FileError(f"the first row names the column {twice!r} twice")
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
    """Cut the file into rows; blank ones are passed over. What is too long is looked at and not kept."""
    quotes = _Quotes(delimiter)
    decoder = codecs.getincrementaldecoder("utf-8")()
    row = _Row(line=1)
    first = True
    for block in iter(lambda: stream.read(CHUNK_BYTES), b""):
        block = block.removeprefix(codecs.BOM_UTF8) if first else block
        first = False
        decoder.decode(block)  # of what is too long to be kept, too
        begun = 0
        for end in quotes.row_ends(block):
            row.add(block[begun:end])
            yield from row.texts()
            row, begun = _Row(line=row.next_line), end
        row.add(block[begun:])
    decoder.decode(b"", final=True)
    if quotes.open:
        raise FileError(f"the file ends inside a quoted cell of the row that begins in line {row.line}")
    yield from row.texts()


class _Row:
    """A row as it comes in, block by block; no more of it is held than a record may have."""

    def __init__(self, *, line: int) -> None:
        self.line = self.next_line = line
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self.next_line += part.count(b"\n")
        self._size += len(part)
        if self._size <= _MAX_ROW_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()

    def texts(self) -> Iterator[RowText]:
        """The whole row, unless it is blank."""
        if self._size > _MAX_ROW_BYTES:
            yield RowText(self.line, None)
        elif text := b"".join(self._parts).decode().strip("\r\n"):
            yield RowText(self.line, text)


#: With its line break.
_MAX_ROW_BYTES = MAX_RECORD_BYTES + 2


class _Quotes:
    """Follows cells and quotes block by block; `open` where a line break would be part of a cell.

    It goes from quote to quote and from line break to line break outside of quotes, so that its work follows their
    number, and looks at each byte a bounded number of times whatever a file is made of.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._before_cell = (delimiter, b"\n")
        self._state = "plain"
        self._last = b"\n"

    @property
    def open(self) -> bool:
        return self._state == "quoted"

    def row_ends(self, block: bytes) -> Iterator[int]:
        """Yield the places after the line breaks that end a row."""
        place, line_break, quote = 0, -1, -1
        while place < len(block):
            if self._state == "quoted":
                place = _after(block, b'"', place)
                self._state = "quote" if block[place - 1 : place] == b'"' else "quoted"
                continue
            if self._state == "quote" and block[place : place + 1] == b'"':
                self._state, place = "quoted", place + 1
                continue
            self._state = "plain"
            line_break = line_break if line_break > place else _after(block, b"\n", place)
            quote = quote if quote > place else _after(block, b'"', place)
            place = min(line_break, quote)
            if block[place - 1 : place] == b"\n":
                yield place
            elif block[place - 1 : place] == b'"' and self._before(block, place - 1) in self._before_cell:
                self._state = "quoted"
        self._last = block[-1:] or self._last

    def _before(self, block: bytes, place: int) -> bytes:
        return block[place - 1 : place] if place else self._last


def _after(block: bytes, sign: bytes, place: int) -> int:
    """The place after the next such sign, the block's end if there is none."""
    return block.find(sign, place) + 1 or len(block)
