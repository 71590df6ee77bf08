"""Reading a snapshot: what is used, what is dropped and counted, and errors that name the line."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import record, write_jsonl
from training.core.errors import UsageError
from training.core.records import Response, read_rankings


def test_a_ranking_is_read_with_its_tiers_as_positions(tmp_path: Path) -> None:
    line = record(1, split="train", ranking=[["r2"], ["r0", "r1"]], weight=2, annotator=None)
    path = write_jsonl(tmp_path / "data.jsonl", [line])
    snapshot = read_rankings(path)
    (ranking,) = snapshot.rankings()
    assert ranking.tiers == ((2,), (0, 1))
    assert (ranking.split, ranking.split_group, ranking.weight, ranking.line) == ("train", "group 1", 2.0, 1)
    assert (ranking.unranked, ranking.strengths, ranking.annotator, ranking.task) == ((), (None,), None, "t1")
    assert snapshot.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_not_to_be_trained_on_is_dropped_by_reason(tmp_path: Path) -> None:
    lines = [
        record(0, split="train"),
        record(1, split="train", counted=False),
        record(2, split="train", kind="gold"),
        record(3, split="train", kind="repeat"),
        record(4, split="train", weight=0),
        record(5, split="train", superseded_by="k9"),
        record(6, split="train", ranking=None),
        record(7, split="train", revision=1),
        record(7, split="train", revision=2, id="k7b"),
        record(8, split="train"),
        {"type": "withdrawn", "id": "k8"},
        {"type": "prompt", "prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"},
        {"type": "demonstration", "prompt": [{"role": "user", "content": "2+2?"}], "response": "4"},
    ]
    snapshot = read_rankings(write_jsonl(tmp_path / "data.jsonl", lines))
    assert [ranking.line for ranking in snapshot.rankings()] == [1, 9]
    assert snapshot.read == len(lines)
    assert snapshot.dropped == {
        "uncounted": 1, "gold": 1, "repeat": 1, "zero_weight": 1, "superseded": 2, "unanswered": 1, "withdrawn": 1,
        "marker": 1, "prompt": 1, "demonstration": 1,
    }  # fmt: skip
    assert snapshot.read == len(snapshot.used_lines) + snapshot.dropped.total()


@pytest.mark.parametrize(
    ("newer", "reason"),
    [
        ({"withdrawn_at": "2026-01-01T00:00:00Z"}, "withdrawn"),
        ({"counted": False}, "uncounted"),
        ({"weight": 0}, "zero_weight"),
        ({"ranking": None}, "unanswered"),
        ({"superseded_by": "k9"}, "superseded"),
    ],
)
def test_an_older_revision_does_not_come_back(tmp_path: Path, newer: dict[str, Any], reason: str) -> None:
    """Whatever becomes of the newer one, and wherever it stands."""
    first, second = record(0, split="train"), record(0, split="train", id="k0b", revision=2, **newer)
    for lines in ([first, second], [second, first]):
        snapshot = read_rankings(write_jsonl(tmp_path / "data.jsonl", lines))
        assert not list(snapshot.rankings())
        assert snapshot.dropped == (Counter([reason]) + Counter(["superseded"]))


def test_a_dropped_line_takes_back_nothing_but_its_own_answer(tmp_path: Path) -> None:
    """Neither another's answer to the task, nor an answer without a name, nor gold and repeated tasks."""
    lines = [
        record(0, split="train"),
        record(0, split="train", annotator="bob", revision=2, counted=False),
        record(1, split="train", annotator=None),
        record(1, split="train", annotator=None, revision=2, counted=False),
        record(2, split="train"),
        record(2, split="train", kind="repeat", revision=2),
        record(2, split="train", kind="gold", revision=2, withdrawn_at="2026-01-01T00:00:00Z"),
    ]
    snapshot = read_rankings(write_jsonl(tmp_path / "data.jsonl", lines))
    assert [ranking.line for ranking in snapshot.rankings()] == [1, 3, 5]
    assert snapshot.read == len(snapshot.used_lines) + snapshot.dropped.total()


def test_an_empty_thinking_is_none(tmp_path: Path) -> None:
    responses = [{"id": "r0", "text": "4", "thinking": ""}, {"id": "r1", "text": "4"}]
    line = record(1, split="train", responses=responses, ranking=[["r0"], ["r1"]])
    (ranking,) = read_rankings(write_jsonl(tmp_path / "data.jsonl", [line])).rankings()
    assert ranking.responses == (Response("4"), Response("4"))


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in record(1, split="train").items() if name != key}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (without("split"), "no split"),
        (record(1, split="dev"), "split must be"),
        (record(1, split="train", format="plackett/2"), "plackett/2"),
        (record(1, split="train", ranking=[["r0"], ["r9"]]), "'r9'"),
        (record(1, split="train", ranking=[["r0"], ["r0"]]), "twice"),
        (record(1, split="train", ranking=["r0"]), "tiers"),
        (record(1, split="train", weight=-1), "weight"),
        (record(1, split="train", weight=False), "weight"),
        (record(1, split="train", kind="silver"), "kind"),
        (record(1, split="train", revision="2"), "revision"),
        (record(1, split="train", revision=2**40), "revision"),
        (record(1, split="train", k=3, strengths=[1]), "list of 2"),
        (record(1, split="train", k=3, strengths=[1, 4]), "strength must be"),
        (record(1, split="train", k=3, strengths=[True, 1]), "strength must be"),
        (record(1, split="train", task={"id": 1}), "task must be a text"),
        (record(1, split="train", responses=[{"id": "r0", "text": "a"}, {"id": "r0", "text": "b"}]), "'r0'"),
        (record(1, split="train", prompt=[]), "prompt"),
        (record(1, split="train", prompt=[{"role": "user", "content": 3}]), "content"),
        (record(1, split="train", prompt="\ud800"), "surrogate"),
        (record(1, split="train", responses=[{"id": "a", "text": "a", "thinking": 0}] * 2), "thinking must be a text"),
        ([1], "JSON object"),
    ],
)
def test_a_line_that_breaks_the_format_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(record(0, split="train")) + "\n\n" + json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="data.jsonl line 3: ") as error:
        read_rankings(path)
    assert message in str(error.value)


@pytest.mark.parametrize("raw", [b"{", b'{"weight": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_json_are_named_by_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(raw + b"\n")
    with pytest.raises(UsageError, match="line 1: not JSON"):
        read_rankings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing.jsonl"):
        read_rankings(tmp_path / "missing.jsonl")


def test_what_was_left_unranked_and_strengths_are_read(tmp_path: Path) -> None:
    lines = [
        record(0, split="train", k=4, ranking=[["r2"], ["r0", "r1"]], strengths=[3], annotator_kind="model"),
        record(1, split="train", k=4, ranking=[["r2"], [], ["r0"]], strengths=[3, 1]),
    ]
    first, second = read_rankings(write_jsonl(tmp_path / "data.jsonl", lines)).rankings()
    assert (first.unranked, first.strengths, first.machine, first.annotator) == ((3,), (3,), True, "anna")
    # An empty tier is no tier; which gap the strengths beside it meant cannot be said.
    assert (second.unranked, second.tiers, second.strengths, second.machine) == ((1, 3), ((2,), (0,)), (None,), False)
