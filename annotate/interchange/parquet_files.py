"""Parquet: one record a row. What columns mean: `cells`.

Read 16 rows at a time, so memory follows the file's pages and not its size. The footer stands at a Parquet file's end,
so one that was cut off is a bad file from the start.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
from annotate.interchange.streams import Read, Source, check_unpacked, first_of_its_key

FORMAT = "parquet"
ROWS = 16
#: Rows that are together larger become texts of Python one by one, and the largest of them not at all. A text can be
#: stored once for a thousand rows, so the file says nothing of how large they are.
TOGETHER_BYTES = 16_000_000
MAX_ROW_BYTES = 4 * MAX_RECORD_BYTES  # a limit in characters, which have up to four bytes


def read(source: Source, *, mapping: Mapping[str, str] | None = None) -> Read:
    """Yield one record per row.

    Args:
        source: a path, or a binary stream that can seek, which is left open.
        mapping: column → field.

    Raises:
        FileError: the file as a whole cannot be read.
    """
    seen = SeenKeys()
    with _opened(source) as file, _faults_named():
        fields = fields_of(_columns(file), mapping or {})
        for line, row in enumerate(_rows(file), 1):
            try:
                if row is None:
                    raise RecordError(f"longer than {MAX_RECORD_BYTES // 1_000_000} MB")
                yield first_of_its_key(record_of(row, fields, line=line), seen)
            except RecordError as error:
                yield BadRecord(line, str(error))


def check(source: Source) -> None:
    """Read a file to its end.

    Raises:
        FileError: it cannot be read.
    """
    with _opened(source) as file, _faults_named():
        _columns(file)
        for _ in file.iter_batches(batch_size=ROWS, use_threads=False):
            pass


def columns_of_file(source: Source) -> list[str]:
    """The names of its columns.

    Raises:
        FileError: it cannot be read.
    """
    with _opened(source) as file, _faults_named():
        return _columns(file)


def _columns(file: Any) -> list[str]:
    names = list(file.schema_arrow.names)
    if len(names) > MAX_COLUMNS:
        raise FileError(f"there are {len(names):,} columns; there may be {MAX_COLUMNS:,}")
    if (twice := first_repeated(names)) is not None:
        raise FileError(f"there are two columns {twice!r}")
    return names


def _rows(file: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the rows, None for one that is far too long."""
    for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
        if batch.nbytes <= TOGETHER_BYTES:
            yield from batch.to_pylist()
            continue
        for place in range(batch.num_rows):
            row = batch.slice(place, 1)
            yield row.to_pylist()[0] if row.nbytes <= MAX_ROW_BYTES else None


def _check_unpacked(file: Any) -> None:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    packed = sum(group.column(number).total_compressed_size for group in groups for number in range(group.num_columns))
    check_unpacked(sum(group.total_byte_size for group in groups), of=packed)


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    # Heavy, and of no use to whoever brings no table.
    import pyarrow.parquet

    with _faults_named():
        file = pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 16)
    try:
        _check_unpacked(file)
        yield file
    finally:
        file.close()


@contextmanager
def _faults_named() -> Iterator[None]:
    import pyarrow

    try:
        yield
    except UnicodeDecodeError as error:
        raise FileError(f"not UTF-8 (byte 0x{error.object[error.start]:02x})") from error
    except FileNotFoundError as error:
        raise FileError("cannot be opened: there is no such file") from error
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise FileError(f"not a Parquet file, or damaged: {first[:200]}") from error
