"""Every import format, broken in every way that files break: a bad record spoils itself alone, a bad file all of it."""

import gzip
import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.interchange import FORMATS, read_file
from annotate.interchange.records import BadRecord, FileError, ImportedRecord
from tests.annotate.pure.judgements import RECORD, exported, parted

PAIR = {"idx": 1, "instruction": "Tea?", "response1": "one", "response2": "two", "annotator1": 1}
RANKED = [{"type": "ranker", "value": {"ranker": {"rank": ["x", "y"]}}}]
ITEMS = [{"id": "x", "body": "one"}, {"id": "y", "body": "two"}]
ANSWER = {"rank": [{"value": ["a", "b"], "user_id": "u"}]}
#: A line of each format of JSON, with MARK where a text stands.
LINES: dict[str, Any] = {
    "plackett": {"external_id": "x", "prompt": "MARK?", "responses": ["one", "two"], "ranking": [["r1"], ["r2"]]},
    "oasst": {"message_tree_id": "t", "prompt": {"message_id": "q", "role": "prompter", "text": "MARK?", "replies": [
        {"message_id": name, "role": "assistant", "text": name, "rank": place} for place, name in enumerate("ab")]}},
    "hh": {"chosen": "\n\nHuman: MARK?\n\nAssistant: a", "rejected": "\n\nHuman: MARK?\n\nAssistant: b"},
    "ultrafeedback": {"instruction": "MARK?", "completions": [
        {"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 2}]},
    "nectar": {"prompt": "\n\nHuman: MARK?\n\nAssistant: ", "answers": [
        {"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]},
    "arena": {"question_id": "q", "winner": "tie"} | {f"conversation_{side}": [
        {"role": "user", "content": "MARK?"}, {"role": "assistant", "content": side}] for side in "ab"},
    "alpaca-eval": {"instruction": "MARK?", "output_1": "a", "output_2": "b", "preference": 1},
    "pandalm": PAIR | {"instruction": "MARK?"},
    "label-studio": {"id": 1, "data": {"prompt": "MARK?", "items": ITEMS}, "annotations": [{"result": RANKED}]},
    "argilla": {"id": "1", "fields": {"prompt": "MARK?", "a": "one", "b": "two"}, "responses": ANSWER},
}  # fmt: skip
OF_JSON = sorted(LINES)


def line(format: str, text: str = "Tea") -> str:
    """A good line; the text is put in as it is, so that it can hold any escape. Its keys are new in each place."""
    first, *rest = json.dumps(LINES[format], ensure_ascii=False).split("MARK")
    return first + "".join(text.replace('"x"', f'"x{number}"') + part for number, part in enumerate(rest))


def good_file(format: str, count: int = 3) -> bytes:
    if format in LINES:
        names = ('"external_id": "x"', '"message_id": "q"', '"question_id": "q"', '"id": 1', '"id": "1"')
        parts = [line(format, f"Tea {number}") for number in range(count)]
        for name in names:
            at = len(name) - name.endswith('"')
            parts = [one.replace(name, f"{name[:at]}{number + 1}{name[at:]}") for number, one in enumerate(parts)]
        return "\n".join(parts).encode()
    records = [RECORD | {"id": str(number), "external_id": str(number)} for number in range(count)]
    return exported("plackett", *records, **{"as": format})


def read(format: str, data: bytes) -> tuple[list[ImportedRecord], list[BadRecord]]:
    return parted(read_file(format, io.BytesIO(data)))


def test_every_format_is_tried_here() -> None:
    assert set(FORMATS) == {*LINES, "csv", "parquet"}
    for format in FORMATS:
        good, bad = read(format, good_file(format))
        assert len(good) == 3 and bad == [], (format, bad)


# --- bad files ---


def assert_bad_file(format: str, data: bytes) -> None:
    """Both the look before an import and the reading itself refuse it."""
    with pytest.raises(FileError):
        FORMATS[format].check(io.BytesIO(data))
    with pytest.raises(FileError):
        read(format, data)


@pytest.mark.parametrize("format", sorted({*FORMATS} - {"parquet"}))
def test_gzip_that_ends_early_or_is_damaged_and_other_encodings_are_bad_files(format: str) -> None:
    whole = good_file(format)
    packed = gzip.compress(whole, mtime=0)
    assert read(format, packed) == read(format, whole)
    for end in (3, len(packed) // 2, len(packed) - 1):
        assert_bad_file(format, packed[:end])
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert_bad_file(format, bytes(damaged))
    assert_bad_file(format, whole + "\nGrüße".encode("latin-1"))
    assert_bad_file(format, whole.decode().encode("utf-16"))


@pytest.mark.parametrize("cut", [1, 100, -5])
def test_parquet_that_ends_early_is_damaged_or_is_something_else_is_a_bad_file(cut: int) -> None:
    whole = good_file("parquet")
    assert_bad_file("parquet", whole[:cut])
    assert_bad_file("parquet", b"PAR1" + b"\0" * 100 + b"PAR1")
    assert_bad_file("parquet", good_file("csv"))
    assert_bad_file("parquet", gzip.compress(whole))


@settings(max_examples=40)
@given(st.integers(4, 3_000), st.integers(1, 255))
def test_a_flipped_byte_in_parquet_never_breaks_the_reader(place: int, change: int) -> None:
    data = bytearray(PARQUET)
    data[place % len(data)] ^= change
    with suppress(FileError):
        read("parquet", bytes(data))


PARQUET = good_file("parquet")


# --- bad records ---

#: What the text is replaced with, and what the report says.
SPOILT = [
    ("\\u0000", "NUL"),
    ("\0", "NUL"),
    ("\\ud800", "surrogate"),
    ("\\udc00\\ud800", "surrogate"),
    ('", "x": NaN, "y": "', "NaN"),
    ('", "x": 1e999, "y": "', "too large"),
    ('", "x": ' + "[" * 300 + "]" * 300 + ', "y": "', "nested deeper"),
    ('", "x": ' + "[" * 100_000 + "]" * 100_000 + ', "y": "', "nested deeper"),
    ('", "x": ' + "9" * 5_000 + ', "y": "', "too many digits"),
    ('", "x": 1, "x": "', "twice"),
]


@pytest.mark.parametrize("format", OF_JSON)
def test_a_spoilt_text_spoils_its_record_alone(format: str) -> None:
    for text, words in SPOILT:
        spoilt = line(format, text).replace('"y": "', '"y1": "', 1)
        for data in (f"{spoilt}\n{line(format)}", f"[{spoilt},\n{line(format)}]"):
            good, bad = read(format, data.encode())
            assert len(good) == 1, (text[:40], bad)
            assert [words in one.reason for one in bad] == [True], (text[:40], bad)
    good, bad = read(format, f"{line(format, chr(34))}\n{line(format)}".encode())
    assert len(good) == 1 and "not JSON" in bad[0].reason


@pytest.mark.parametrize("format", OF_JSON)
def test_a_record_twice_is_reported_the_second_time(format: str) -> None:
    good, bad = read(format, f"{line(format)}\n{line(format)}".encode())
    assert len(good) == 1 and len(bad) == 1 and "duplicate" in bad[0].reason and bad[0].line == 2


@pytest.mark.parametrize("format", OF_JSON)
def test_other_json_is_bad_records(format: str) -> None:
    values = (
        None,
        7,
        "text",
        [],
        {},
        [1],
        {"prompt": 1},
        {"responses": {}},
        {"data": 1},
        {"fields": [], "responses": 3},
    )
    good, bad = read(format, "\n".join(json.dumps(one) for one in values).encode())
    assert good == [] and len(bad) == len(values) and all(one.fault for one in bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda child: st.lists(child, max_size=2) | st.dictionaries(st.text(max_size=2), child, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60)
@given(st.sampled_from(OF_JSON), st.data())
def test_a_part_that_is_something_else_never_breaks_a_reader(format: str, data: st.DataObject) -> None:
    value = json.loads(line(format))
    part, key = data.draw(st.sampled_from(list(places(value))))
    part[key] = data.draw(json_values)
    good, bad = read(format, json.dumps(value).encode())
    assert good or bad or format == "oasst"  # a message without replies is nothing to report
    assert all(isinstance(one.reason, str) and one.reason for one in bad)


def places(value: Any) -> Any:
    """Every place in a value where something could stand."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in parts:
        yield value, key
        yield from places(child)


@pytest.mark.parametrize("format", ["csv", *OF_JSON[:2]])
def test_a_line_of_50_mb_spoils_itself_alone(format: str) -> None:
    """One reader of lines serves all formats of JSON; tables have their own."""
    if format == "csv":
        makers: list[Callable[[str], str]] = [lambda text: f'"{text}?",a,b', lambda text: f"{text}?,a,b"]
        files = [f"prompt,response_1,response_2\n{make('x' * 50_000_000)}\nTea?,a,b\n" for make in makers]
    else:
        files = [f"{line(format, 'x' * 50_000_000)}\n{line(format)}\n"]
    for text in files:
        good, bad = read(format, text.encode())
        assert len(good) == 1 and [one.reason for one in bad] == ["longer than 10 MB"]


def test_spoilt_cells_spoil_their_row_alone() -> None:
    rows = ["a\0b", '"[{""role"": ""user"", ""content"": ""\\ud800""}]"', '"[{""role"": 7}]"']
    text = (
        "prompt,response_1,response_2,weight\n"
        + "".join(f"{one},a,b,1\n" for one in rows)
        + "Tea?,a,b,NaN\nTea?,a,b,\n"
    )
    good, bad = read("csv", text.encode())
    assert len(good) == 1 and [one.line for one in bad] == [2, 3, 4, 5]
    assert "NUL" in bad[0].reason and "not a number" in bad[3].reason


def test_a_row_twice_is_reported_the_second_time() -> None:
    text = "external_id,prompt,response_1,response_2,winner,annotator\n" + "x,Tea?,a,b,a,ann\n" * 2
    good, bad = read("csv", text.encode())
    assert len(good) == 1 and "duplicate" in bad[0].reason


def test_parquet_cells_that_no_text_can_hold_spoil_their_row_alone() -> None:
    file = io.BytesIO()
    prompts = ["Tea?", "a\0b", None, "x" * 11_000_000]
    columns = {"prompt": prompts, "response_1": ["a"] * 4, "response_2": ["b"] * 4}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    good, bad = read("parquet", file.getvalue())
    assert len(good) == 1
    assert [(one.line, one.reason.split(" ")[0]) for one in bad] == [(2, "holds"), (3, "prompt"), (4, "longer")]


@settings(max_examples=60)
@given(st.sampled_from(["csv", *OF_JSON]), st.binary(max_size=120))
def test_any_bytes_are_records_bad_records_or_a_bad_file(format: str, data: bytes) -> None:
    for packed in (data, b"prompt,response_1,response_2\n" + data, b"[" + data, b"{" + data):
        try:
            read(format, packed)
        except FileError:
            continue
