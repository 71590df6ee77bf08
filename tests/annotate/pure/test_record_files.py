"""Files as a whole: gzip, encodings, lists, long lines, duplicates and memory."""

import codecs
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.interchange import native, streams
from annotate.interchange.records import MAX_RECORD_BYTES, BadRecord, FileError, ImportedRecord, SeenKeys
from annotate.interchange.streams import RecordText, read_texts


def line(number: int, text: str = "an answer") -> str:
    responses = [{"id": "r1", "text": text}, {"id": "r2", "text": "another"}]
    record = {"external_id": f"x-{number}", "prompt": f"Question {number}?", "responses": responses}
    return json.dumps(record | {"ranking": [["r2"], ["r1"]]}, ensure_ascii=False)


FIVE = "".join(line(number, "Grüße, 世界 😀") + "\n" for number in range(5))


def read(data: bytes) -> list[ImportedRecord | BadRecord]:
    return list(native.read(io.BytesIO(data)))


def ids(found: list[ImportedRecord | BadRecord]) -> list[str | None]:
    return [one.external_id for one in found if isinstance(one, ImportedRecord)]


ALL = [f"x-{number}" for number in range(5)]


# --- good files ---


@pytest.mark.parametrize(
    "data",
    [
        FIVE.encode(),
        codecs.BOM_UTF8 + FIVE.encode(),
        FIVE.replace("\n", "\r\n").encode(),
        FIVE.replace("\n", "\n\n \t\n").encode(),
        FIVE.rstrip("\n").encode(),
        gzip.compress(FIVE.encode(), mtime=0),
        gzip.compress(codecs.BOM_UTF8 + FIVE.encode(), mtime=0),
        gzip.compress(FIVE[: FIVE.index("\n") + 1].encode(), mtime=0)
        + gzip.compress(FIVE[FIVE.index("\n") + 1 :].encode(), mtime=0),
        f"[{','.join(FIVE.splitlines())}]".encode(),
        codecs.BOM_UTF8 + b"\n [" + FIVE.rstrip("\n").replace("\n", "\n,\n").encode() + b"]\n",
        json.dumps([json.loads(one) for one in FIVE.splitlines()], indent=2).encode(),
        gzip.compress(json.dumps([json.loads(one) for one in FIVE.splitlines()]).encode(), mtime=0),
    ],
)
def test_every_accepted_layout_gives_the_same_records(data, tmp_path):
    plain = read(FIVE.encode())
    assert ids(plain) == ALL
    assert read(data) == plain
    for file_name in ("records", "records.jsonl"):
        path = tmp_path / file_name
        path.write_bytes(data)
        assert list(native.read(path)) == plain
        assert list(native.read(str(path))) == plain


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b"[]", b" [ ]\n", gzip.compress(b"", mtime=0)],
    ids=["empty", "blank", "list", "spaced list", "gzip"],
)
def test_a_file_without_records_is_empty(data):
    assert read(data) == []


def test_a_stream_that_was_handed_in_stays_open():
    stream = io.BytesIO(gzip.compress(FIVE.encode(), mtime=0))
    list(native.read(stream))
    assert not stream.closed


class Trickle(io.RawIOBase):
    """A connection that gives a few bytes a time and cannot seek."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._size)


@pytest.mark.parametrize(
    "data", [FIVE.encode(), gzip.compress(FIVE.encode(), mtime=0), f"[{','.join(FIVE.splitlines())}]".encode()]
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_connection_may_give_a_few_bytes_a_time(data, size):
    assert ids(list(native.read(Trickle(data, size)))) == ALL


# --- bad files ---


@pytest.mark.parametrize("end", range(len(gzip.compress(FIVE.encode(), mtime=0))))
def test_a_truncated_gzip_is_a_bad_file_wherever_it_ends(end, tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(FIVE.encode(), mtime=0)[:end])
    with pytest.raises(FileError):
        list(native.read(path))


@pytest.mark.parametrize("place", [11, 60, -6, -1])
def test_a_damaged_gzip_is_a_bad_file(place):
    packed = bytearray(gzip.compress(FIVE.encode(), mtime=0))
    packed[place] ^= 0xFF
    with pytest.raises(FileError):
        read(bytes(packed))


def test_what_follows_a_gzip_must_be_gzip():
    with pytest.raises(FileError, match="damaged"):
        read(gzip.compress(FIVE.encode(), mtime=0) + b"tail")


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("as_list", [False, True])
def test_another_encoding_is_a_bad_file(encoding, as_list):
    text = "".join(line(number, "Grüße") + "\n" for number in range(3))
    data = f"[{','.join(text.splitlines())}]" if as_list else text
    with pytest.raises(FileError, match="UTF-8"):
        read(data.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_plain_letters_in_two_or_four_bytes_are_a_bad_file(encoding):
    # Without a mark and without accents these bytes are also good UTF-8, full of NULs.
    with pytest.raises(FileError, match="UTF-16"):
        read(line(0).encode(encoding))


def test_a_wrong_byte_far_down_is_a_bad_file_after_the_records_before_it():
    found = []
    with pytest.raises(FileError, match="0xfc"):
        found.extend(native.read(io.BytesIO(FIVE.encode() + "für".encode("latin-1"))))
    stream = native.read(io.BytesIO(FIVE.encode() + "für".encode("latin-1")))
    assert ids([next(stream) for _ in range(5)]) == ALL


@pytest.mark.parametrize("tail", ["", ",", ', {"a"', ', "b', ', "b\\'])
def test_a_list_that_is_cut_off_is_a_bad_file(tail):
    with pytest.raises(FileError, match="too early"):
        read(f"[{line(0)}{tail}".encode())


def test_what_follows_a_list_is_a_bad_file():
    with pytest.raises(FileError, match="follows"):
        read(f"[{line(0)}]\n{line(1)}".encode())


def test_a_missing_file_or_a_folder_is_a_bad_file(tmp_path):
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(FileError, match=r"cannot be (opened|read)"):
            list(native.read(path))


def test_a_read_error_in_the_middle_is_a_bad_file():
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(FileError, match="Input/output error"):
        list(native.read(Broken(FIVE.encode())))


def test_the_name_gz_is_a_promise(tmp_path):
    path = tmp_path / "plain.jsonl.gz"
    path.write_bytes(FIVE.encode())
    with pytest.raises(FileError, match="not a gzip file"):
        list(native.read(path))


# --- long records ---


def sized(size: int) -> bytes:
    """A record whose line is exactly so many bytes long."""
    padding = size - len(line(9, "").encode())
    return line(9, "x" * padding).encode()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_record_of_the_largest_size_is_read_and_a_larger_one_left_out(ending, pack):
    largest, larger = sized(MAX_RECORD_BYTES), sized(MAX_RECORD_BYTES + 1)
    first, bad, *_ = read(pack(largest + b"\n" + larger + ending))
    assert isinstance(first, ImportedRecord)
    assert bad == BadRecord(2, "longer than 10 MB")


def test_a_line_of_50_mb_spoils_itself_alone():
    found = read(line(0).encode() + b"\n" + sized(50_000_000) + b"\n" + line(1).encode())
    assert found[1] == BadRecord(2, "longer than 10 MB")
    assert ids(found) == ["x-0", "x-1"]


def test_a_list_item_that_is_too_long_spoils_itself_alone():
    data = b"[" + line(0).encode() + b",\n" + sized(MAX_RECORD_BYTES + 1) + b",\n" + line(1).encode() + b"]"
    found = read(data)
    assert found[1] == BadRecord(2, "longer than 10 MB", item=2)
    assert ids(found) == ["x-0", "x-1"]
    assert [one.line for one in found] == [1, 2, 3]


def test_the_encoding_of_a_long_line_still_counts():
    with pytest.raises(FileError, match="UTF-8"):
        read(sized(11_000_000).replace(b"xxx", b"\xff\xfe\xfd", 1) + b"\n")
    with pytest.raises(FileError, match="UTF-8"):
        read(sized(11_000_000)[:-20] + b"\xff\n")


# --- lists ---


def test_a_bad_item_spoils_itself_alone():
    data = f'\n\n[{line(0)},\n {{"a": NaN}},\n\n {{"b" 7}}, 7, , {line(1)},\n]'
    found = read(data.encode())
    assert ids(found) == ["x-0", "x-1"]
    assert [(one.line, one.item) for one in found] == [(3, 1), (4, 2), (6, 3), (6, 4), (6, 5), (6, 6), (7, 7)]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(['"', "\\", "[,]", '\\"']),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text('ab\\"[]{},'), child, max_size=3),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=5), st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 9))
def test_a_list_is_split_as_json_says_wherever_the_pieces_break(items, indent, ascii_only, size):
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    splitter = streams._ListSplitter()
    found: list[RecordText] = []
    for start in range(0, len(text), size):
        found += splitter.feed(text[start : start + size])
    assert splitter.closed
    assert [json.loads(one.text or "") for one in found] == items
    assert [one.item for one in found] == list(range(1, len(items) + 1))
    if indent is not None and items:
        lines = text.split("\n")
        assert all(lines[one.line - 1].strip().startswith((one.text or "").split("\n")[0]) for one in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_bad_records_or_a_bad_file(data):
    for packed in (data, b"[" + data, b"{" + data, gzip.compress(data), b"\x1f\x8b\x08" + data):
        try:
            found = list(native.read(io.BytesIO(packed)))
        except FileError:
            continue
        assert all(isinstance(one, BadRecord) for one in found)


# --- duplicates ---


def test_a_duplicate_id_is_left_out_and_its_line_named():
    found = read("\n".join([line(0), line(1), line(0, "other text")]).encode())
    assert ids(found) == ["x-0", "x-1"]
    assert isinstance(found[2], BadRecord) and found[2].line == 3 and "x-0" in found[2].reason


def test_a_record_that_was_left_out_is_no_first_of_its_id():
    broken = line(0).replace('"r1"', '"r2"', 1)
    bad, good = read(f"{broken}\n{line(0)}".encode())
    assert isinstance(bad, BadRecord) and isinstance(good, ImportedRecord)


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.text("ab", max_size=3)), max_size=60))
def test_seen_keys_are_a_set(keys):
    seen, known = SeenKeys(), set()
    for key in keys:
        assert seen.add(*key) == (key not in known)
        known.add(key)


def test_seen_keys_grow_and_stay_small():
    tracemalloc.start()
    try:
        seen = SeenKeys()
        assert all(seen.add("id", str(number)) for number in range(20_000))
        assert not any(seen.add("id", str(number)) for number in range(20_000))
        assert tracemalloc.get_traced_memory()[0] < 20_000 * 32
    finally:
        tracemalloc.stop()


# --- memory ---


class Endless(io.RawIOBase):
    """So many bytes of a file, made as they are asked for."""

    def __init__(self, piece: Callable[[int], bytes], total: int) -> None:
        self._piece, self._left, self._number, self._rest = piece, total, 0, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self._left > 0:
            made = self._piece(self._number)
            self._rest, self._number, self._left = self._rest + made, self._number + 1, self._left - len(made)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


TEXT = "x" * 50_000


def peak_of(source: BinaryIO) -> tuple[int, int]:
    """Read a native file to its end: the number of good records, and the peak of memory in bytes."""
    tracemalloc.start()
    try:
        count = sum(isinstance(one, ImportedRecord) for one in native.read(source))
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file():
    small = peak_of(Endless(lambda n: f"{line(n, TEXT)}\n".encode(), 2_000_000))
    large = peak_of(Endless(lambda n: f"{line(n, TEXT)}\n".encode(), 100_000_000))
    assert large[0] > 1_900 and small[0] > 30
    assert large[1] < small[1] + 200_000
    assert large[1] < 2_000_000


def test_memory_does_not_grow_with_a_list():
    def item(number: int) -> bytes:
        return f"{'[' if number == 0 else ','}{line(number, TEXT)}".encode()

    source = Endless(item, 30_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="too early"):
            for _ in read_texts(source):
                pass
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("start", [b"", b"[{", b'["'])
def test_memory_is_bounded_on_a_record_without_end(start):
    def piece(number: int) -> bytes:
        return (start if number == 0 else b"") + b"x\n"[: 1 + bool(start)] * 25_000

    tracemalloc.start()
    try:
        with suppress(FileError):
            for _ in read_texts(Endless(piece, 60_000_000)):
                pass
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_RECORD_BYTES
    finally:
        tracemalloc.stop()
