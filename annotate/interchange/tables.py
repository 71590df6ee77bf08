"""Rows out as tables: CSV and Parquet, with a fixed schema for each format, streamed.

A schema maps column names to kinds: `text`, `number` (64-bit float), `whole` (64-bit integer), `yes` (true or false),
`json` (any value, as JSON text), `[kind]` for lists and `{name: kind}` for objects. Parquet nests as the kinds say; CSV
writes lists and objects as JSON text.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
Schema = Mapping[str, Any]

#: A row group ends after so many rows or characters: what a writer and a reader hold in memory.
GROUP_ROWS = 1_000
GROUP_CHARACTERS = 8_000_000


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_lines(rows: Iterable[Row], schema: Schema) -> Iterator[bytes]:
    """Yield the row of names, then the rows; lines end in CR LF, as RFC 4180 has it. None is an empty cell."""
    yield _csv_line(list(schema))
    for row in rows:
        yield _csv_line([_cell(row.get(name), kind) for name, kind in schema.items()])


def _csv_line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _cell(value: Any, kind: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_text(value) if kind == "json" or not isinstance(kind, str) else str(value)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet_blocks(rows: Iterable[Row], schema: Schema) -> Iterator[bytes]:
    """Yield a Parquet file in blocks, a row group at a time; the footer, without which it is none, comes last."""
    # Heavy, and of no use to whoever writes no Parquet.
    import pyarrow
    import pyarrow.parquet

    arrow = pyarrow.schema([(name, _arrow_type(kind)) for name, kind in schema.items()])
    sink = _Sink()
    with pyarrow.parquet.ParquetWriter(sink, arrow, compression="zstd") as writer:
        for group in _groups(rows, schema):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=arrow))
            yield sink.taken()
    yield sink.taken()


def _groups(rows: Iterable[Row], schema: Schema) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        value = {name: _as_kind(row.get(name), kind) for name, kind in schema.items()}
        group.append(value)
        size += _characters(value)
        if len(group) == GROUP_ROWS or size > GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_characters, parts))


def _as_kind(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json_text(value)
    if isinstance(kind, list):
        return [_as_kind(one, kind[0]) for one in value]
    if isinstance(kind, dict):
        return {name: _as_kind(value.get(name), inner) for name, inner in kind.items()}
    return float(value) if kind == "number" else value


def _arrow_type(kind: Any) -> Any:
    import pyarrow

    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct([(name, _arrow_type(inner)) for name, inner in kind.items()])
    plain = {"text": pyarrow.string(), "json": pyarrow.string(), "number": pyarrow.float64()}
    return plain.get(kind) or {"whole": pyarrow.int64(), "yes": pyarrow.bool_()}[kind]


class _Sink(io.RawIOBase):
    """A file that only remembers what was written since it was last asked."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        block = bytes(data)
        self._blocks.append(block)
        self._written += len(block)
        return len(block)

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)
