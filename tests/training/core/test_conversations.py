"""Prompts and demonstrations of a file: what counts, what is dropped and why, and which lines contradict each other."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import record, write_jsonl
from training.core.conversations import DemonstrationFile, PromptFile, read_demonstrations, read_prompts
from training.core.errors import UsageError
from training.core.records import Message, Response


def prompt(content: str, split: str = "train", **keys: Any) -> dict[str, Any]:
    return {"type": "prompt", "prompt": [{"role": "user", "content": content}], "split": split, **keys}


def demonstration(content: str, response: Any, split: str = "train", **keys: Any) -> dict[str, Any]:
    return {"type": "demonstration", "prompt": content, "response": response, "split": split, **keys}


def prompts_of(tmp_path: Path, *lines: dict[str, Any]) -> PromptFile:
    return read_prompts(write_jsonl(tmp_path / "data.jsonl", lines))


def demonstrations_of(tmp_path: Path, *lines: dict[str, Any], seed: int = 0) -> DemonstrationFile:
    return read_demonstrations(write_jsonl(tmp_path / "data.jsonl", lines), seed=seed)


def texts_of(file: DemonstrationFile) -> list[tuple[str, str]]:
    return [(made.response.text, made.source) for made in file.demonstrations]


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_of_all_types_of_lines_each_once_and_in_order(tmp_path: Path) -> None:
    kind = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "2+2?"}]
    lines = [
        prompt("2+2?", answer=4, id="p1", external_id="sum", difficulty="easy", tests=None),
        record(1, split="train", prompt="why?", ranking=None),
        record(2, split="validation", prompt=kind),
        record(3, split="train", prompt="why?"),
        demonstration("how?", "so"),
        record(4, split="train", prompt="gold?", kind="gold"),
        record(5, split="train", prompt="weightless?", weight=0),
        record(6, split="train", prompt="gone?", id="k6"),
        {"type": "withdrawn", "id": "k6"},
    ]  # fmt: skip
    file = prompts_of(tmp_path, *lines)
    assert [found.prompt[-1].content for found in file.prompts] == ["2+2?", "why?", "2+2?", "how?", "weightless?"]
    assert file.prompts[0].record == {"id": "p1", "external_id": "sum", "difficulty": "easy", "answer": "4"}
    assert (file.prompts[0].line, file.prompts[0].split, file.prompts[0].split_group) == (1, "train", "2+2?")
    assert file.prompts[2].prompt == (Message("system", "Be kind."), Message("user", "2+2?"))
    assert (file.prompts[2].split, file.prompts[2].split_group) == ("validation", "group 2")
    assert file.dropped == {"same_prompt": 1, "gold": 1, "withdrawn": 1, "marker": 1}
    assert file.read == len(lines) == len(file.prompts) + file.dropped.total()
    assert file.prompts[1:3] == list(file.prompts)[1:3]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_a_prompt_stays_where_it_is_held_out_most(tmp_path: Path, order: tuple[int, ...]) -> None:
    """And what any of its lines says of its answer is kept."""
    lines = [
        prompt("a?", "train", answer="1"),
        prompt("a?", "validation", split_group="the held one"),
        prompt("a?", "train"),
        prompt("a?", "validation", tests=["assert"], split_group="the held one"),
    ]
    file = prompts_of(tmp_path, *(lines[place] for place in order))
    (found,) = file.prompts
    assert (found.split, found.split_group) == ("validation", "the held one")
    assert found.record == {"answer": "1", "tests": ["assert"]}
    assert file.dropped.total() == 3
    assert set(file.dropped) <= {"same_prompt", "prompt_held_out"}


def test_two_answers_to_one_prompt_name_both_lines(tmp_path: Path) -> None:
    lines = [prompt("a?", answer="1"), prompt("b?", answer="1"), prompt("a?"), prompt("a?", "test", answer="2")]
    with pytest.raises(UsageError, match="lines 1 and 4 give one prompt different answers"):
        prompts_of(tmp_path, *lines)
    assert len(prompts_of(tmp_path, *lines[:3], prompt("a?", answer=1)).prompts) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (prompt("a?", split=None), "no split"),  # type: ignore[arg-type]
        (prompt("a?", answer=["4"]), "answer must be a text"),
        (prompt("a?", answer=True), "answer must be a text"),
        (demonstration("a?", "b", split="dev"), "split must be"),
        ({"type": "poem", "prompt": "a?", "split": "train"}, "type must be"),
    ],
)
def test_a_prompt_line_that_breaks_the_format_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"data.jsonl line 2: .*{message}"):
        prompts_of(tmp_path, prompt("fine?"), line)


# --- demonstrations ---------------------------------------------------------------------------------------------------


def test_what_sft_imitates(tmp_path: Path) -> None:
    rewrite = {"of": "r0", "text": "better"}
    two: dict[str, Any] = {"responses": [{"id": "x", "text": " "}, {"id": "y", "text": "best"}]}
    lines = [
        demonstration("a?", "text alone"),
        demonstration("b?", {"id": "r1", "text": "object", "thinking": "hm"}),
        record(3, split="validation", ranking=[["y"], ["x"]], annotator_kind="machine", **two),
        record(4, split="train", rewrite=rewrite),
        record(5, split="train", all_bad=True),
        record(6, split="train", all_bad=True, ranking=[], rewrite=rewrite),
        record(7, split="train", ranking=[]),
        record(8, split="train", ranking=[["x"], ["y"]], **two),
        record(9, split="train", kind="repeat"),
        record(10, split="train", ranking=None),
        prompt("c?"),
    ]  # fmt: skip
    file = demonstrations_of(tmp_path, *lines)
    assert texts_of(file) == [
        ("text alone", "demonstration"), ("object", "demonstration"), ("best", "ranking"), ("better", "rewrite"),
        ("better", "rewrite"),
    ]  # fmt: skip
    assert file.demonstrations[1].response == Response("object", "hm")
    assert [made.line for made in file.demonstrations] == [1, 2, 3, 4, 6]
    assert (file.demonstrations[2].split, file.demonstrations[2].split_group) == ("validation", "group 3")
    assert file.dropped == {"all_bad": 1, "no_best": 1, "empty": 1, "repeat": 1, "unanswered": 1, "prompt": 1}
    assert file.read == len(lines) == len(file.demonstrations) + file.dropped.total()


def test_one_of_the_best_tier_is_drawn_by_seed_and_id_alone(tmp_path: Path) -> None:
    def best(seed: int, *before: dict[str, Any]) -> list[str]:
        tied = [record(n, split="train", k=3, ranking=[["r0", "r1"], ["r2"]], responses=[
            {"id": f"r{place}", "text": f"{n} {place}"} for place in range(3)
        ]) for n in range(100)]  # fmt: skip
        found = demonstrations_of(tmp_path, *before, *tied, seed=seed).demonstrations
        return [made.response.text.split()[1] for made in found[len(before) :]]

    first = best(0)
    assert set(first) == {"0", "1"}
    # Of 100 fair draws, 20 to 80 on one side but once in 10⁹ seeds.
    assert 20 < first.count("0") < 80
    assert best(0, demonstration("x?", "another line in front")) == first != best(1)


def test_equal_pairs_count_once_and_a_held_out_prompt_is_not_trained_on(tmp_path: Path) -> None:
    lines = [
        demonstration("a?", "b"),
        demonstration("a?", "b"),
        demonstration("a?", {"id": "r1", "text": "b", "thinking": "hm"}),
        demonstration("a?", "c"),
        demonstration("held?", "seen"),
        demonstration("held?", "unseen", "test"),
    ]
    path = write_jsonl(tmp_path / "data.jsonl", lines)
    shown, hidden = read_demonstrations(path, seed=0), read_demonstrations(path, seed=0, thinking=False)
    assert [made.line for made in shown.demonstrations] == [1, 3, 4, 6]
    assert [made.line for made in hidden.demonstrations] == [1, 4, 6]
    assert hidden.dropped == {"same_pair": 2, "prompt_held_out": 1}


def test_a_ranking_that_was_revised_or_taken_back_is_not_imitated(tmp_path: Path) -> None:
    lines = [
        record(1, split="train"),
        record(1, split="train", id="k1b", revision=2, all_bad=True),
        record(2, split="train"),
        {"type": "withdrawn", "id": "k2"},
        demonstration("a?", "b", id="d1"),
        {"type": "withdrawn", "id": "d1"},
    ]
    file = demonstrations_of(tmp_path, *lines)
    assert not len(file.demonstrations)
    assert file.dropped == Counter({"superseded": 1, "all_bad": 1, "withdrawn": 2, "marker": 2})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (demonstration("a?", None), "response must be"),
        (demonstration("a?", {"id": "r1"}), "response text must be a text"),
        (demonstration("a?", "b", split=None), "no split"),  # type: ignore[arg-type]
        (demonstration([], "b"), "prompt must be"),  # type: ignore[arg-type]
        (record(1, split="train", rewrite={"of": "r9", "text": "b"}), "rewrite must be"),
        (record(1, split="train", rewrite={"of": "r0", "text": "  "}), "rewrite is empty"),
        (record(1, split="train", rewrite={"of": "r0"}), "rewrite text must be a text"),
        (record(1, split="train", all_bad="yes"), "all_bad must be"),
    ],
)
def test_a_line_of_no_use_for_imitation_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"data.jsonl line 2: .*{message}"):
        demonstrations_of(tmp_path, demonstration("fine?", "yes"), line)
