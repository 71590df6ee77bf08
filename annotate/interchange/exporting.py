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
from annotate.interchange.pairs import (
    Pair,
    added_by_options,
    columns_of_pairs,
    pairs_of,
    pairs_of_task,
    plain,
    prompt_text,
)
from annotate.interchange.streams import encode_line
from annotate.interchange.tables import csv_lines, parquet_blocks

Record = Mapping[str, Any]
Row = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]
#: What a ranking gives so many lines of: see selectors.line_counts.
Counted = Literal["records", "pairs", "battles", "placed", "labels", "imitated"]
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format. It writes either rankings (`write`) or pairs (`prompt` once for all of a ranking, `line` for each).

    Attributes:
        counted: what there is one line of.
        options: names of the options that mean something here.
        models: whether models are named unless told otherwise.
        columns: the schema of its rows, which options may add to.
        write: record, options → rows.
        prompt: messages → how the format says them.
        line: such a prompt, pair → row.
        demonstrations: whether demonstrations give lines, too.
    """

    name: str
    counted: Counted
    options: frozenset[str]
    columns: Callable[[ExportOptions], Mapping[str, Any]]
    write: Callable[[Record, ExportOptions], Iterator[Row]] | None = None
    prompt: Callable[[Messages], Any] | None = None
    line: Callable[[Any, Pair], Row] | None = None
    models: bool = False
    demonstrations: bool = False

    def options_from(self, given: Mapping[str, str]) -> ExportOptions:
        """Check what was asked, as `options.options_from`.

        Raises:
            OptionError: the first option that cannot be.
        """
        return options_from(given, format=self.name, allowed=self.options, models=self.models)

    def rows(self, records: Iterable[Record], options: ExportOptions) -> Iterator[Row]:
        """Yield the rows of canonical native records, in constant memory; see `rows_of_tasks` for pairs by task.

        Nothing but the native format is given markers, bare prompts, uncounted rankings, gold and repeats: what a
        reader of plain lines cannot tell apart must not reach it.
        """
        for record in records:
            if self.name != native.FORMAT and not _is_for_others(record, demonstrations=self.demonstrations):
                continue
            if self.write is not None:
                yield from self.write(record, options)
            else:
                yield from self._lines(record, pairs_of(record, options), options)

    def rows_of_tasks(self, tasks: Iterable[Sequence[Record]], options: ExportOptions) -> Iterator[Row]:
        """Yield the rows of tasks, each given as its rankings: a pair depends on all of them."""
        for rankings in tasks:
            yield from self._lines(rankings[0], pairs_of_task(rankings, options), options)

    def _lines(self, record: Record, pairs: Iterable[Pair], options: ExportOptions) -> Iterator[Row]:
        assert self.prompt is not None and self.line is not None
        prompt, line = self.prompt(record["prompt"]), self.line
        if not columns_of_pairs(options):
            return (line(prompt, pair) for pair in pairs)
        return (line(prompt, pair) | added_by_options(pair, options) for pair in pairs)


def _is_for_others(record: Record, *, demonstrations: bool) -> bool:
    kind = record.get("type", "ranking")
    if kind == "demonstration":
        return demonstrations
    counts = record.get("kind", "normal") == "normal" and record.get("counted", True)
    return bool(kind == "ranking" and counts and record.get("ranking") is not None)


def _pairs(name: str, prompt: Any, line: Any, columns: Mapping[str, Any]) -> ExportFormat:
    return ExportFormat(
        name,
        "pairs",
        frozenset(OF_PAIRS),
        lambda options: {**columns, **columns_of_pairs(options)},
        prompt=prompt,
        line=line,
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
    _pairs("trl", prompt_text, trl.text_line, trl.COLUMNS_OF_TEXTS),
    _pairs("trl-conversational", plain, trl.message_line, trl.COLUMNS_OF_MESSAGES),
    _pairs("openrlhf", plain, openrlhf.line, openrlhf.COLUMNS),
    _pairs("hh", list, hh.line, hh.COLUMNS),
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
    rows = chosen.rows(map(native.canonical, records), options)
    return encoded(rows, format=chosen, options=options)
