"""The word-level difference of two texts: nothing is lost, nothing made up, and long texts end in time."""

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from annotate import differences
from annotate.differences import difference

texts = st.text(alphabet="ab c\n.,日本", max_size=60) | st.text(max_size=40)


def told(first: str, second: str) -> list[tuple[str, str]]:
    return [(piece.side, piece.text) for piece in difference(first, second).pieces]


@given(texts, texts)
def test_the_pieces_make_up_both_texts(first: str, second: str) -> None:
    found = difference(first, second)
    assert "".join(piece.text for piece in found.pieces if piece.side != "second") == first
    assert "".join(piece.text for piece in found.pieces if piece.side != "first") == second
    assert found.identical == (first == second)
    sides = [piece.side for piece in found.pieces]
    assert all(one != other for one, other in zip(sides, sides[1:], strict=False))
    assert all(piece.text for piece in found.pieces)


def test_words_are_compared_whole() -> None:
    assert told("the quick brown fox", "the slow brown fox") == [
        ("both", "the "),
        ("first", "quick"),
        ("second", "slow"),
        ("both", " brown fox"),
    ]
    found = difference("one two, three", "one, three four five")
    assert (found.only_first, found.only_second) == (1, 2)


def test_neighbouring_changes_are_one() -> None:
    assert told("keep old words here", "keep new things here") == [
        ("both", "keep "),
        ("first", "old words"),
        ("second", "new things"),
        ("both", " here"),
    ]


def test_white_space_is_kept() -> None:
    assert told("a\n\n  b", "a\n  b") == [("both", "a"), ("first", "\n\n  "), ("second", "\n  "), ("both", "b")]


def test_chinese_and_japanese_are_compared_by_character() -> None:
    assert told("我喜欢茶", "我爱喝茶") == [("both", "我"), ("first", "喜欢"), ("second", "爱喝"), ("both", "茶")]
    assert difference("日本語テスト", "日本語のテスト").only_second == 1
    assert told("Python编程", "Rust编程") == [("first", "Python"), ("second", "Rust"), ("both", "编程")]


def test_in_long_texts_the_lines_that_differ_are_compared_by_words() -> None:
    lines = [f"line {number} of many that are all alike\n" for number in range(9_000)]
    changed = ["first line\n", *lines[1:-1], "last line\n"]
    found = difference("".join(lines), "".join(changed))
    assert not found.identical and found.only_second > 0
    assert max(len(piece.text) for piece in found.pieces if piece.side != "both") < 50


@pytest.mark.parametrize("kind", ["words", "characters", "no common line"])
def test_texts_of_100_kb_end_in_time(kind: str) -> None:
    draw = random.Random(kind)
    if kind == "words":
        words = [f"w{number}" for number in range(3000)]
        first, second = (" ".join(draw.choices(words, k=17_000)) for _ in range(2))
    elif kind == "characters":
        first, second = ("".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(100_000)) for _ in range(2))
    else:
        first, second = (" ".join(draw.choices("abc", k=100_000)) for _ in range(2))
    before = time.process_time()
    found = difference(first, second)
    assert time.process_time() - before < 20  # a hang, not a speed
    assert not found.identical
    assert "".join(piece.text for piece in found.pieces if piece.side != "second") == first


def test_texts_of_very_many_lines_are_not_compared_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    opcodes = LCSseq.opcodes

    def counted(ones: list[str], others: list[str]) -> Any:
        compared.append(len(ones) * len(others))
        assert compared[-1] <= differences.MAX_TOKENS**2  # before it takes hundreds of megabytes
        return opcodes(ones, others)

    monkeypatch.setattr(differences.LCSseq, "opcodes", counted)
    monkeypatch.setattr(differences, "MAX_TOKENS", 200)
    ones = "".join(f"line {number}\n" for number in range(8_000))
    found = difference(f"same start\n{ones}same end\n", f"same start\n{ones.replace('line', 'row')}same end\n")
    assert [piece.side for piece in found.pieces] == ["both", "first", "second", "both"]
    assert (found.pieces[0].text, found.pieces[-1].text) == ("same start\n", "same end\n")
    assert (found.only_first, found.only_second) == (16_000, 16_000) and compared == []
