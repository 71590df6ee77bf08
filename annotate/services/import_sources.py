"""Where an import reads from: files whose records can be read again and again, looked at whole first."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from annotate.errors import Invalid
from annotate.interchange import FORMATS, ImportFormat
from annotate.interchange.mapping import MappingError, check_mapping
from annotate.interchange.records import BadRecord, FileError, ImportedRecord
from annotate.interchange.streams import Source

Chunk = TypeVar("Chunk")


def check_files(*, files: Sequence[Source], format: str, mapping: Mapping[str, str] | None = None) -> None:
    """Reads every file to its end, looking at bytes and encoding, not at records.

    Raises:
        Invalid: an unknown format, or a mapping that it does not take.
        FileError: a file cannot be read.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise Invalid(f"There is no format {format!r}; there are {known}.", fields={"format": f"One of {known}."})
    try:
        check_mapping(mapping or {}, format=format, fields=FORMATS[format].fields)
    except MappingError as error:
        raise Invalid(f"The mapping is not valid: {error}.", fields={"map": f"{error}."}) from None
    for file in files:
        with _named(file):
            FORMATS[format].check(_from_start(file))


@dataclass(frozen=True, slots=True)
class Files:
    """Files whose records can be read again and again: one, or all those that a format joins."""

    format: ImportFormat
    files: tuple[Source, ...]
    mapping: Mapping[str, str]

    @property
    def name(self) -> str:
        """The last parts of their paths; nothing for a stream."""
        return ", ".join(name for file in self.files if (name := _name_of(file)))

    def __iter__(self) -> Iterator[ImportedRecord | BadRecord]:
        sources = [_from_start(file) for file in self.files]
        with _named(*self.files):
            yield from self.format.read(sources if self.format.joins else sources[0], self.mapping)


def readable(files: Sequence[Source], format: str, mapping: Mapping[str, str] | None) -> list[Files]:
    """The sources of an import: each file by itself, or all together where the format joins them."""
    chosen = FORMATS[format]
    parts = [tuple(files)] if chosen.joins and files else [(file,) for file in files]
    return [Files(chosen, part, mapping or {}) for part in parts]


def one_ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks; while one is being written to the database the next is read, in a thread of its own.

    What reading raises is raised where the chunk would have come.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import") as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def _name_of(file: Source) -> str:
    return os.path.basename(os.fspath(file)) if isinstance(file, str | os.PathLike) else ""


def _from_start(file: Source) -> Source:
    if not isinstance(file, str | os.PathLike):
        file.seek(0)
    return file


@contextmanager
def _named(*files: Source) -> Iterator[None]:
    """Says in a FileError which file it is about, where there is one."""
    try:
        yield
    except FileError as error:
        name = _name_of(files[0]) if len(files) == 1 else ""
        raise FileError(f"{name}: {error}" if name else str(error)) from error
