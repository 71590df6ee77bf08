"""How much work a file makes follows its size and nothing else, however it is built. Counted, not timed."""

import csv
import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.interchange import FORMATS, csv_files, read_file, streams
from annotate.interchange.records import (
    MAX_COLUMNS,
    MAX_REASON_CHARACTERS,
    BadRecord,
    FileError,
    ImportedRecord,
    RecordError,
    parse_json,
)
from tests.annotate.pure.judgements import parted

HEAD = "prompt,response\n"


def read(data: bytes) -> tuple[list[ImportedRecord], list[BadRecord]]:
    return parted(read_file("csv", io.BytesIO(data)))


def work_of(act: Callable[[], Any]) -> int:
    """Calls of functions written in C, one that looks through a list counted as the list's length."""
    work = 0

    def seen(_frame: Any, event: str, called: Any) -> None:
        nonlocal work
        if event == "c_call":
            of = getattr(called, "__self__", None)
            work += len(of) if isinstance(of, list) and called.__name__ in {"count", "index"} else 1

    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(None)
    return work


@pytest.mark.parametrize(
    "cell",
    ["\n", ",", "x\r\n", ',x"'],
    ids=["line breaks", "commas", "lines", "quotes inside of cells"],
)
@pytest.mark.parametrize("opened", ["", '"'], ids=["plain", "quoted"])
def test_a_long_row_costs_its_blocks_not_its_lines_and_cells(cell: str, opened: str) -> None:
    """Twice as much of the same: so many blocks of 64 KiB more, each looked at a few times."""
    if opened and '"' in cell:
        cell = cell.replace('"', "'")
    if not opened and "\n" in cell:
        cell = cell.replace("\n", " ")

    def look(copies: int) -> int:
        data = f"{HEAD}{opened}{cell * copies}{opened},x\nTea?,Yes.\n".encode()
        return work_of(lambda: FORMATS["csv"].check(io.BytesIO(data)))

    copies = 500_000 // len(cell)
    quotes = 2 * copies if '"' in cell else 0
    assert look(2 * copies) - look(copies) < 300 + 10 * quotes


def test_repeated_names_are_found_in_one_pass() -> None:
    def object_of(keys: int) -> None:
        pairs = ",".join(f'"k{number}":0' for number in range(keys))
        with pytest.raises(RecordError, match="'k1999' stands twice|'k3999' stands twice"):
            parse_json(f'{{{pairs},"k{keys - 1}":1}}')

    assert work_of(lambda: object_of(4_000)) < 40_000  # a search for each would be 16 million

    def table_of(columns: int) -> None:
        names = [f"c{number}" for number in range(columns)]
        with pytest.raises(FileError, match="twice"):
            FORMATS["csv"].check(io.BytesIO(",".join([*names, names[-1]]).encode()))

    assert work_of(lambda: table_of(MAX_COLUMNS - 1)) < 20 * MAX_COLUMNS


def test_a_table_has_no_more_columns_than_a_page_can_ask_about() -> None:
    names = [f"c{number}" for number in range(MAX_COLUMNS + 1)]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: [1] for name in names}), file)
    for format, data in (("csv", ",".join(names).encode()), ("parquet", file.getvalue())):
        for look in (FORMATS[format].check, FORMATS[format].columns):
            assert look is not None
            with pytest.raises(FileError, match="501 columns; there may be 500"):
                look(io.BytesIO(data))
    within = FORMATS["csv"].columns
    assert within is not None and within(io.BytesIO(",".join(names[1:]).encode())) == names[1:]


def test_a_cell_of_nothing_but_line_breaks_is_one_bad_record_with_its_line() -> None:
    breaks = 11_000_000
    good, bad = read(f'{HEAD}Tea?,Yes.\n"{chr(10) * breaks}",x\nMilk?,No.\nshort\n'.encode())
    assert [(one.line, one.reason) for one in bad] == [
        (3, "longer than 10 MB"),
        (5 + breaks, "1 cells, not 2"),
    ]
    assert [one.line for one in good] == [2, 4 + breaks]


def test_a_cell_that_is_never_closed_is_told_with_its_row() -> None:
    text = f'{HEAD}Tea?,Yes.\nMilk?,"{chr(10) * 1000}\nthe rest\n'
    with pytest.raises(FileError, match="inside a quoted cell of the row that begins in line 3"):
        read(text.encode())


@given(st.text(alphabet='a,"\né', max_size=40), st.integers(1, 7))
def test_rows_are_those_of_the_csv_module_whatever_the_blocks(text: str, block: int) -> None:
    """Where each row begins and what it holds; blank lines are none. The oracle reads more than we do (it closes a cell
    at the end of the file), so what it alone accepts is left out."""
    whole = HEAD + text
    reader = csv.reader(io.StringIO(whole, newline=""))
    wanted = []
    line = 1
    for cells in reader:
        if cells:
            wanted.append((line, len(cells)))
        line = reader.line_num + 1
    found = rows_of(whole.encode(), csv_files.CHUNK_BYTES)
    assert rows_of(whole.encode(), block) == found
    if found is None:
        with pytest.raises(csv.Error):
            list(csv.reader(io.StringIO(whole, newline=""), strict=True))
    else:
        assert found == wanted


def rows_of(data: bytes, block: int) -> list[tuple[int, int]] | None:
    """(line, number of cells) of each row; None if the file cannot be read."""
    usual, csv_files.CHUNK_BYTES = csv_files.CHUNK_BYTES, block
    try:
        columns, delimiter, rows = csv_files._table(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
        head = [(1, len(columns))]
        return head + [(line, len(next(csv.reader([text or ""], delimiter=delimiter)))) for line, text in rows]
    except FileError:
        return None
    finally:
        csv_files.CHUNK_BYTES = usual


def test_a_reason_that_quotes_a_long_text_is_cut() -> None:
    line = '{"prompt": [{"role": "%s", "content": "x"}], "responses": ["a", "b"]}\n' % ("r" * 1_000_000)
    ((), (bad,)) = parted(read_file("plackett", io.BytesIO(line.encode())))
    assert len(bad.reason) == MAX_REASON_CHARACTERS and bad.reason.startswith("prompt message 1 has the role 'rrr")


# --- what unpacks to far more than it is ------------------------------------------------------------------------------


@pytest.fixture
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNPACKED_BYTES", 2_000_000)


@pytest.mark.parametrize("filling", [b"\n", b" "], ids=["line breaks", "blanks"])
def test_what_unpacks_to_far_more_than_texts_do_is_a_bad_file(filling: bytes, small_bombs: None) -> None:
    bomb = gzip.compress(b"prompt,response\n" + filling * 2_500_000)
    for format in ("plackett", "csv"):
        with pytest.raises(FileError, match="unpacks to more than 400 times its size"):
            FORMATS[format].check(io.BytesIO(bomb))
    assert len(bomb) < 3_500 and streams.UNPACKED_TIMES == 400


def test_what_packs_well_is_read(small_bombs: None) -> None:
    """The same line again and again, and what is no more than a few megabytes."""
    lines = b"".join(b'{"prompt": "Question %d", "type": "prompt"}\n' % number for number in range(60_000))
    for text in (lines, b"\n" * 1_900_000):
        FORMATS["plackett"].check(io.BytesIO(gzip.compress(text)))


def parquet_file(*prompts: str) -> bytes:
    file = io.BytesIO()
    columns = {"prompt": prompts, "response_1": ["a"] * len(prompts), "response_2": ["b"] * len(prompts)}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, compression="zstd", dictionary_pagesize_limit=10**9)
    return file.getvalue()


def test_a_parquet_file_that_unpacks_to_far_more_is_a_bad_file(small_bombs: None) -> None:
    for act in (FORMATS["parquet"].check, lambda file: list(read_file("parquet", file))):
        with pytest.raises(FileError, match="unpacks to more than 400 times its size"):
            act(io.BytesIO(parquet_file("x" * 3_000_000)))


def test_a_long_text_that_parquet_holds_once_for_many_rows_is_not_held_for_all_of_them() -> None:
    """41 MB a row, 20 rows, in a file of some kilobytes: what Python holds of them is less than one."""
    data = parquet_file(*["x" * 41_000_000] * 20)
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        found = list(read_file("parquet", io.BytesIO(data)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(one.line, one.reason) for one in found if isinstance(one, BadRecord)] == [
        (line, "longer than 10 MB") for line in range(1, 21)
    ]
    assert peak < 41_000_000


def test_rows_that_are_large_together_are_read_one_by_one() -> None:
    texts = [f"{number} " + "x" * 3_000_000 for number in range(20)]
    good, bad = parted(read_file("parquet", io.BytesIO(parquet_file(*texts))))
    assert [one.prompt[0]["content"] for one in good] == texts and not bad
