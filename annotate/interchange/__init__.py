"""Preference data in and out of foreign formats: one module per format, streams in, lines out, no database.

A new format is a module here with `FORMAT` and `read` or `write`, and its line in `FORMATS` or `EXPORTS`.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from annotate.interchange import hh, native, oasst, trl
from annotate.interchange.streams import Read, Source, encode_line

Reader = Callable[[Source], Read]
Writer = Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]

FORMATS: Mapping[str, Reader] = MappingProxyType({module.FORMAT: module.read for module in (native, oasst, hh)})
EXPORTS: Mapping[str, Writer] = MappingProxyType(
    {native.FORMAT: native.write, "trl": trl.write, "trl-conversational": trl.write_conversational}
)


def read_file(format: str, source: Source) -> Read:
    """Yield the records of a file (a path, or a binary stream) in one of `FORMATS`, bad ones as reports.

    Raises:
        KeyError: no such format.
        FileError: while reading; what was yielded before must then be undone.
    """
    return FORMATS[format](source)


def export_lines(format: str, records: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the encoded lines of native records in one of `EXPORTS`; constant memory.

    Raises:
        KeyError: no such format.
    """
    write = EXPORTS[format]
    return (encode_line(line) for record in records for line in write(record))
