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
        about: in a few words, for people.
        fields: what columns or names of a file may be mapped to; empty where names are fixed.
        check: reads a file to its end or raises FileError.
        columns: the names that a file's columns have, where it has columns.
        joins: whether what belongs together may lie in several files, which are then one batch.
    """

    name: str
    about: str
    reader: Callable[..., Read]
    fields: tuple[str, ...] = ()
    check: Callable[[Source], None] = check_texts
    columns: Callable[[Source], list[str]] | None = None
    joins: bool = False

    def read(self, source: Source | Sequence[Source], mapping: Mapping[str, str] | None = None) -> Read:
        """Yield the records of a file (of all files, where the format joins them), bad ones as reports.

        Raises:
            MappingError: the mapping names what the format does not know.
            FileError: while reading; what was yielded before must then be undone.
        """
        check_mapping(mapping or {}, format=self.name, fields=self.fields)
        options: dict[str, Any] = {"mapping": mapping} if self.fields else {}
        return self.reader(source, **options)


def _table(module: Any, about: str) -> ImportFormat:
    return ImportFormat(
        module.FORMAT, about, module.read, module.FIELDS, check=module.check, columns=module.columns_of_file
    )


_ALL = (
    ImportFormat(native.FORMAT, "Plackett: one JSON object a line", native.read),
    _table(csv_files, "CSV: one row for each task or answer"),
    _table(parquet_files, "Parquet: one row for each task or answer"),
    ImportFormat(oasst.FORMAT, "Open-Assistant trees", oasst.read),
    ImportFormat(hh.FORMAT, "HH-RLHF pairs", hh.read),
    ImportFormat(ultrafeedback.FORMAT, "UltraFeedback: completions with scores", ultrafeedback.read),
    ImportFormat(nectar.FORMAT, "Nectar: answers with ranks", nectar.read),
    ImportFormat(arena.FORMAT, "Chatbot Arena battles", arena.read),
    ImportFormat(alpaca_eval.FORMAT, "AlpacaEval outputs or annotations", alpaca_eval.read, joins=True),
    ImportFormat(pandalm.FORMAT, "PandaLM: pairs with several annotators", pandalm.read),
    ImportFormat(label_studio.FORMAT, "Label Studio: JSON export", label_studio.read, label_studio.FIELDS),
    ImportFormat(argilla.FORMAT, "Argilla records", argilla.read, argilla.FIELDS),
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
