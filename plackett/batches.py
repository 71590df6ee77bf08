"""Records on their way to the server: lines, gathered into requests of bounded size."""

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

BATCH_BYTES = 4_000_000
BATCH_LINES = 5_000
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Batch:
    """One request's worth of lines; `first_line` counts from 1 over all of them."""

    body: bytes
    lines: int
    first_line: int


def lines_of(records: Iterable[Mapping[str, Any]] | str | Path | IO[bytes]) -> Iterator[bytes]:
    """One line for each record. Files are read as they come, also gzipped ones.

    Raises:
        OSError: the file cannot be read; gzip.BadGzipFile and EOFError among it, for one that is damaged.
    """
    if isinstance(records, str | Path):
        with open(records, "rb") as file:
            yield from lines_of(file)
    elif hasattr(records, "read"):
        yield from _lines_in(cast(IO[bytes], records))
    else:
        for record in records:
            yield json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _lines_in(file: IO[bytes]) -> Iterator[bytes]:
    whole = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    if whole.peek(2)[:2] == GZIP:
        whole = gzip.GzipFile(fileobj=whole)  # type: ignore[assignment]
    for line in whole:
        yield line if line.endswith(b"\n") else line + b"\n"


def batches_of(lines: Iterable[bytes]) -> Iterator[Batch]:
    """The lines in batches of at most about four megabytes, a single longer line apart."""
    held: list[bytes] = []
    size = first = 0
    for number, line in enumerate(lines, start=1):
        if held and (size + len(line) > BATCH_BYTES or len(held) >= BATCH_LINES):
            yield Batch(b"".join(held), len(held), first)
            held, size = [], 0
        if not held:
            first = number
        held.append(line)
        size += len(line)
    if held:
        yield Batch(b"".join(held), len(held), first)
