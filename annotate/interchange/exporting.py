"""The formats that rankings go out in: how each writes its lines, which options it knows, what its columns are."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from annotate.interchange import arena, hh, native, nectar, openrlhf, trl, ultrafeedback
from annotate.interchange.options import (
    OF_PAIRS,
    OF_RANKINGS,
    WITH_ANNOTATORS,
    ExportOptions,
    options_from,
)
from annotate.interchange.pairs import Pair, added_by_options, columns_of_pairs, pairs_of, pairs_of_task
from annotate.interchange.streams import encode_line
from annotate.interchange.tables import csv_lines, parquet_blocks

Record = Mapping[str, Any]
Row = dict[str, Any]
#: What a ranking gives so many lines of: see selectors.line_counts.
Counted = Literal["records", "pairs", "battles", "placed", "labels", "imitated"]
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format. It writes either rankings (`write`) or pairs (`line`).

    Attributes:
        counted: what there is one line of.
        options: names of the options that mean something here.
        models: whether models are named unless told otherwise.
        columns: the schema of its rows, which options may add to.
        write: record, options → rows.
        line: prompt, pair → row.
        demonstrations: whether demonstrations give lines, too.
    """

    name: str
    counted: Counted
    options: frozenset[str]
    columns: Callable[[ExportOptions], Mapping[str, Any]]
    write: Callable[[Record, ExportOptions], Iterator[Row]] | None = None
    line: Callable[[Sequence[Mapping[str, Any]], Pair], Row] | None = None
    models: bool = False
    demonstrations: bool = False

    def options_from(self, given: Mapping[str, str]) -> ExportOptions:
        """Check what was asked, as `options.options_from`.

        Raises:
            OptionError: the first option that cannot be.
        """
        return options_from(given, format=self.name, allowed=self.options, models=self.models)

    def rows(self, records: Iterable[Record], options: ExportOptions) -> Iterator[Row]:
        """Yield the rows of native records, in constant memory; see `rows_of_tasks` for pairs by task.

        Nothing but the native format is given markers, bare prompts, uncounted rankings, gold and repeats: what a
        reader of plain lines cannot tell apart must not reach it.
        """
        for record in records:
            if self.name == native.FORMAT or _is_for_others(record, demonstrations=self.demonstrations):
                yield from self._rows_of(record, options)

    def rows_of_tasks(self, tasks: Iterable[Sequence[Record]], options: ExportOptions) -> Iterator[Row]:
        """Yield the rows of tasks, each given as its rankings: a pair depends on all of them."""
        assert self.line is not None
        for rankings in tasks:
            for pair in pairs_of_task(rankings, options):
                yield self._line_of(rankings[0], pair, options)

    def _rows_of(self, record: Record, options: ExportOptions) -> Iterator[Row]:
        if self.write is not None:
            yield from self.write(record, options)
            return
        for pair in pairs_of(record, options):
            yield self._line_of(record, pair, options)

    def _line_of(self, record: Record, pair: Pair, options: ExportOptions) -> Row:
        assert self.line is not None
        return self.line(record["prompt"], pair) | added_by_options(pair, options)


def _is_for_others(record: Record, *, demonstrations: bool) -> bool:
    kind = record.get("type", "ranking")
    if kind == "demonstration":
        return demonstrations
    counts = record.get("kind", "normal") == "normal" and record.get("counted", True)
    return bool(kind == "ranking" and counts and record.get("ranking") is not None)


def _pairs(name: str, line: Any, columns: Mapping[str, Any]) -> ExportFormat:
    return ExportFormat(
        name, "pairs", frozenset(OF_PAIRS), lambda options: {**columns, **columns_of_pairs(options)}, line=line
    )


def _rankings(name: str, counted: Counted, module: Any, options: frozenset[str]) -> ExportFormat:
    return ExportFormat(name, counted, options, lambda _: module.COLUMNS, write=module.write, models=True)


_NATIVE = ExportFormat(
    native.FORMAT,
    "records",
    frozenset(WITH_ANNOTATORS),
    lambda _: native.COLUMNS,
    write=native.write,
    models=True,
)
_KTO = ExportFormat(
    "kto",
    "labels",
    frozenset(OF_RANKINGS),
    trl.kto_columns,
    write=trl.write_kto,
)
_SFT = ExportFormat(
    "sft",
    "imitated",
    frozenset(OF_RANKINGS),
    trl.sft_columns,
    write=trl.write_sft,
    demonstrations=True,
)

_ALL = (
    _NATIVE,
    _pairs("trl", trl.text_line, trl.COLUMNS_OF_TEXTS),
    _pairs("trl-conversational", trl.message_line, trl.COLUMNS_OF_MESSAGES),
    _pairs("openrlhf", openrlhf.line, openrlhf.COLUMNS),
    _pairs("hh", hh.line, hh.COLUMNS),
    _KTO,
    _SFT,
    _rankings("ultrafeedback", "placed", ultrafeedback, frozenset(OF_RANKINGS)),
    _rankings("nectar", "placed", nectar, frozenset(OF_RANKINGS)),
    _rankings("arena", "battles", arena, frozenset(WITH_ANNOTATORS)),
)
EXPORTS: Mapping[str, ExportFormat] = MappingProxyType({one.name: one for one in _ALL})


def encoded(rows: Iterable[Row], *, format: ExportFormat, options: ExportOptions) -> Iterator[bytes]:
    """Yield rows as bytes in the container that was asked for; what the rows raise is raised here."""
    if options.container == "csv":
        return csv_lines(rows, format.columns(options))
    if options.container == "parquet":
        return parquet_blocks(rows, format.columns(options))
    return map(encode_line, rows)


def export_lines(format: str, records: Iterable[Record], **given: str) -> Iterator[bytes]:
    """Yield native records in one of `EXPORTS`, with options as texts; constant memory.

    Raises:
        KeyError: no such format.
        OptionError: an option that cannot be.
    """
    chosen = EXPORTS[format]
    options = chosen.options_from(given)
    return encoded(chosen.rows(records, options), format=chosen, options=options)
