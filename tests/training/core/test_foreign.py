"""Pairs in other people's files become native records, or an error that names the record."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.core.errors import UsageError
from training.core.foreign import is_foreign, write_native
from training.core.records import read_rankings

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "?"}]


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def native(path: Path) -> list[tuple[list[tuple[str, str]], str, str]]:
    """Prompt, better and worse text of each record."""
    write_native(path, path.with_suffix(".native"))
    found = []
    for record in read_rankings(path.with_suffix(".native")).rankings():
        better, worse = (record.responses[tier[0]].text for tier in record.tiers)
        found.append(([(message.role, message.content) for message in record.prompt], better, worse))
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"input": "Q", "output_1": "x", "output_2": "y", "label": 1}, ([("user", "Q")], "x", "y")),
        ({"input": "Q", "output_1": "x", "output_2": "y", "label": 2}, ([("user", "Q")], "y", "x")),
        ({"prompt": "Q", "chosen": "x", "rejected": "y"}, ([("user", "Q")], "x", "y")),
        (
            {"prompt": TURNS, "chosen": [answer("x")], "rejected": [answer("y")]},
            ([("user", "Hi"), ("assistant", "Hello"), ("user", "?")], "x", "y"),
        ),
        (
            {"chosen": [*TURNS, answer("x")], "rejected": [*TURNS, answer("y")]},
            ([("user", "Hi"), ("assistant", "Hello"), ("user", "?")], "x", "y"),
        ),
        (
            {"prompt": "Hi", "chosen": [TURNS[0], answer("x")], "rejected": [TURNS[0], answer("y")]},
            ([("user", "Hi")], "x", "y"),
        ),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_each_form_is_read(tmp_path: Path, value: dict[str, Any], expected: Any, as_list: bool) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([value], indent=1) if as_list else json.dumps(value) + "\n\n" + json.dumps(value))
    assert is_foreign(path)
    assert native(path) == [expected] * (1 if as_list else 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"input": "Q", "output_1": "x", "output_2": "y", "label": 3}, "label must be 1 or 2"),
        ({"input": "Q", "output_1": "x", "label": 1}, "no output_2"),
        ({"chosen": "x", "rejected": "y"}, "without a prompt"),
        ({"chosen": [*TURNS, answer("x")], "rejected": [answer("y")]}, "differ in their last turn"),
        ({"prompt": "Q", "chosen": TURNS, "rejected": [answer("y")]}, "end with the assistant"),
        ({"prompt": "Q"}, "neither output_1"),
        ({"input": "Q", "output_1": "x", "output_2": "y", "label": True}, "label must be 1 or 2"),
        ({"input": "Q", "output_1": "x", "output_2": "y", "label": 1.0}, "label must be 1 or 2"),
        ({"input": "Q", "output_1": "x", "output_2": None, "label": 1}, "output_2 must be a text, not None"),
        ({"input": None, "output_1": "x", "output_2": "y", "label": 1}, "input must be a text or a list of messages"),
        ({"prompt": "Q", "chosen": None, "rejected": "y"}, "chosen must be a text"),
        ({"prompt": "Q", "chosen": "x", "rejected": 5}, "rejected must be a text"),
        ({"prompt": "Q", "chosen": [answer("x") | {"content": None}], "rejected": "y"}, "chosen: content must be a"),
        ({"prompt": "Q", "chosen": "x", "rejected": "\ud800"}, "rejected holds half a surrogate pair"),
        ({"prompt": "Q", "chosen": [*TURNS, answer("x")], "rejected": [*TURNS, answer("y")]}, "the answer alone"),
        ({"prompt": "Q", "chosen": [answer("x")], "rejected": [answer("a"), answer("y")]}, "the answer alone"),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, "prompt must be a text or a list of messages"),
        ({"prompt": "Q", "chosen": ["x"], "rejected": ["y"]}, "chosen must be a text or a list of messages"),
        (["x"], "not an object"),
    ],
)
def test_a_record_that_lacks_something_is_named(tmp_path: Path, value: Any, words: str) -> None:
    good = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(value) + "\n")
    with pytest.raises(UsageError, match="pairs.jsonl record 2: ") as error:
        write_native(path, tmp_path / "native")
    assert words in str(error.value)


@pytest.mark.parametrize("as_list", [False, True])
def test_each_record_keeps_the_place_where_it_stood(tmp_path: Path, as_list: bool) -> None:
    """Blank lines are lines; a list has none."""
    values = [json.dumps({"prompt": "Q", "chosen": word, "rejected": "y"}) for word in "abc"]
    path = tmp_path / "pairs.json"
    path.write_text(f"[{', '.join(values)}]" if as_list else "\n" + "\n\n".join(values))
    assert write_native(path, tmp_path / "native") == ([1, 2, 3] if as_list else [2, 4, 6])
    read = list(read_rankings(tmp_path / "native").rankings())
    assert [(record.line, record.responses[0].text) for record in read] == [(1, "a"), (2, "b"), (3, "c")]


def test_a_snapshot_is_not_foreign_and_what_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "responses": [], "ranking": []}))
    assert not is_foreign(path)
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="not JSON"):
        is_foreign(path)
    path.write_text("prompt,chosen,rejected\n")
    with pytest.raises(UsageError, match="line 1: not JSON"):
        is_foreign(path)
    with pytest.raises(UsageError, match="absent"):
        is_foreign(tmp_path / "absent.json")
