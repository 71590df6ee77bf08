"""The formats that are read: each with its reader, what a mapping may name, and how a whole file is looked at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from annotate.interchange import (
    alpaca_eval,
    arena,
    argilla,
    csv_files,
    hh,
    label_studio,
    native,
    nectar,
    oasst,
    pandalm,
    parquet_files,
    ultrafeedback,
)
from annotate.interchange.mapping import check_mapping
from annotate.interchange.streams import Read, Source, read_texts


def check_texts(source: Source) -> None:
    """Read a file of lines or of one list to its end, looking at bytes and encoding, not at records.

    Raises:
        FileError: it cannot be read.
    """
    for _ in read_texts(source):
        pass


@dataclass(frozen=True, slots=True)
class ImportFormat:
    """One format.

    Attributes:
        fields: what columns or names of a file may be mapped to; empty where names are fixed.
        check: reads a file to its end or raises FileError.
        columns: the names in a file that a mapping may name, where it takes one.
        is_table: whether those are columns, each a field of its own.
        joins: whether what belongs together may lie in several files, which are then one batch.
    """

    name: str
    reader: Callable[..., Read]
    fields: tuple[str, ...] = ()
    check: Callable[[Source], None] = check_texts
    columns: Callable[[Source], list[str]] | None = None
    joins: bool = False
    is_table: bool = False

    def read(self, source: Source | Sequence[Source], mapping: Mapping[str, str] | None = None) -> Read:
        """Yield the records of a file (of all files, where the format joins them), bad ones as reports.

        Raises:
            MappingError: the mapping names what the format does not know.
            FileError: while reading; what was yielded before must then be undone.
        """
        check_mapping(mapping or {}, format=self.name, fields=self.fields)
        options: dict[str, Any] = {"mapping": mapping} if self.fields else {}
        return self.reader(source, **options)


def _table(module: Any) -> ImportFormat:
    return ImportFormat(module.FORMAT, module.read, module.FIELDS, module.check, module.columns_of_file, is_table=True)


def _house(module: Any) -> ImportFormat:
    return ImportFormat(module.FORMAT, module.read, module.FIELDS, columns=module.names_in_file)


_ALL = (
    ImportFormat(native.FORMAT, native.read),
    _table(csv_files),
    _table(parquet_files),
    ImportFormat(oasst.FORMAT, oasst.read),
    ImportFormat(hh.FORMAT, hh.read),
    ImportFormat(ultrafeedback.FORMAT, ultrafeedback.read),
    ImportFormat(nectar.FORMAT, nectar.read),
    ImportFormat(arena.FORMAT, arena.read),
    ImportFormat(alpaca_eval.FORMAT, alpaca_eval.read, joins=True),
    ImportFormat(pandalm.FORMAT, pandalm.read),
    _house(label_studio),
    _house(argilla),
)
FORMATS: Mapping[str, ImportFormat] = MappingProxyType({one.name: one for one in _ALL})


def read_file(format: str, source: Source | Sequence[Source], mapping: Mapping[str, str] | None = None) -> Read:
    """Yield the records of a file (a path, or a binary stream) in one of `FORMATS`, bad ones as reports.

    Raises:
        KeyError: no such format.
        MappingError: the mapping names what the format does not know.
        FileError: while reading; what was yielded before must then be undone.
    """
    return FORMATS[format].read(source, mapping)
