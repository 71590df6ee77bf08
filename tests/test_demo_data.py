"""The demo project's files: whole, valid for the importer, and what its script makes of the hand-made parts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from annotate.interchange import native
from annotate.interchange.records import ImportedRecord
from annotate.preferences import normalise_split_text, split_for_group
from tools import make_demo

DEMO = Path(__file__).parents[1] / "annotate" / "demo"
CATEGORIES = {
    "explanation", "code", "arithmetic", "advice", "rewriting", "summary", "conversation", "mathematics", "languages",
    "facts", "instructions",
}  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return make_demo.read_jsonl(DEMO / "demo.jsonl")


@pytest.fixture(scope="module")
def rankings() -> list[dict[str, Any]]:
    return make_demo.read_jsonl(DEMO / "example_rankings.jsonl")


def test_at_least_forty_prompts_of_every_kind(records: list[dict[str, Any]]) -> None:
    assert len(records) >= 40
    assert len({record["external_id"] for record in records}) == len(records)
    assert len({record["split_group"] for record in records}) == len(records)
    assert {record["category"] for record in records} >= CATEGORIES


def test_the_prompts_are_those_that_were_written(records: list[dict[str, Any]]) -> None:
    written = {prompt["external_id"]: prompt for prompt in make_demo.read_jsonl(DEMO / "prompts.jsonl")}
    assert {record["external_id"] for record in records} == set(written)
    for record in records:
        assert {key: record[key] for key in ("external_id", "category", "prompt")} == written[record["external_id"]]


def test_conversations_a_system_message_and_other_scripts_are_among_them(records: list[dict[str, Any]]) -> None:
    roles = [[message["role"] for message in record["prompt"]] for record in records]
    assert sum(turns.count("user") + turns.count("assistant") >= 3 for turns in roles) >= 3
    assert any(turns[0] == "system" for turns in roles)
    text = "".join(message["content"] for record in records for message in record["prompt"])
    assert any("\u0600" <= character <= "\u06ff" for character in text), "nothing written from right to left"
    assert any("\u4e00" <= character <= "\u9fff" for character in text), "no Chinese characters"
    assert "LaTeX" in text and "markdown table" in text


@pytest.mark.parametrize("name", ["demo.jsonl", "example_rankings.jsonl"])
def test_the_importer_takes_every_line(name: str) -> None:
    read = list(native.read(DEMO / name))
    assert [record for record in read if not isinstance(record, ImportedRecord)] == []
    ranked = [record for record in read if isinstance(record, ImportedRecord) and record.ranking is not None]
    assert len(ranked) == (0 if name == "demo.jsonl" else len(read))


def test_four_or_five_different_responses_with_their_settings(records: list[dict[str, Any]]) -> None:
    for record in records:
        responses = record["responses"]
        assert len(responses) in (4, 5)
        assert [response["id"] for response in responses] == [f"r{n}" for n in range(1, len(responses) + 1)]
        assert len({response["text"] for response in responses}) == len(responses)
        for response in responses:
            assert response["text"].strip() and "\0" not in response["text"] and "\ufffd" not in response["text"]
            response["text"].encode()
            settings = response["settings"]
            assert {"temperature", "top_p", "seed", "max_new_tokens", "finish_reason"} < settings.keys()
        assert len({response["settings"]["temperature"] for response in responses}) == len(responses)


def test_the_id_of_a_response_tells_nothing_of_its_setting(records: list[dict[str, Any]]) -> None:
    greedy = Counter(
        response["id"]
        for record in records
        for response in record["responses"]
        if not response["settings"]["temperature"]
    )
    # 59 prompts over four or five places: about 13 each; all in one place would be 59.
    assert len(greedy) == 5 and max(greedy.values()) < len(records) / 2


def test_the_splits_follow_the_rule_and_each_has_enough(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert record["split_group"] == normalise_split_text(record["prompt"])
        assert record["split"] == split_for_group(record["split_group"])
    sizes = Counter(record["split"] for record in records)
    assert sizes["train"] >= 30 and sizes["validation"] >= 5 and sizes["test"] >= 4


def test_every_prompt_has_one_example_ranking_marked_as_an_example(
    records: list[dict[str, Any]], rankings: list[dict[str, Any]]
) -> None:
    assert len(rankings) == len(records)
    for record, ranking in zip(records, rankings, strict=True):
        assert {key: ranking[key] for key in record} == record
        assert (ranking["annotator"], ranking["annotator_kind"]) == ("example rankings", "example")
        assert ranking["counted"] is True and ranking["rationale"]


def test_ties_unranked_responses_and_sets_of_bad_ones_occur(rankings: list[dict[str, Any]]) -> None:
    assert any(len(tier) > 1 for ranking in rankings for tier in ranking["ranking"])
    assert any(ranking["unranked"] for ranking in rankings)
    assert any(ranking["all_bad"] for ranking in rankings)
    given = {strength for ranking in rankings for strength in ranking["strengths"]}
    assert given >= {1, 2, 3}


def test_the_example_rankings_are_what_the_script_makes_of_the_judgements(tmp_path: Path) -> None:
    judgements = json.loads((DEMO / "judgements.json").read_text(encoding="utf-8"))
    again = tmp_path / "again.jsonl"
    make_demo.write_jsonl(again, make_demo.combine(make_demo.read_jsonl(DEMO / "demo.jsonl"), judgements))
    assert again.read_bytes() == (DEMO / "example_rankings.jsonl").read_bytes()


@pytest.mark.parametrize(
    "judgement",
    [
        {},
        {"ranking": [["r1"], ["r2"]]},
        {"ranking": [["r1"], ["r1", "r2"]], "unranked": ["r3"]},
        {"ranking": [["r1"], ["r2"]], "unranked": ["r3"], "strengths": []},
    ],
)
def test_the_script_refuses_a_judgement_that_does_not_fit(judgement: dict[str, Any]) -> None:
    record = {"external_id": "demo-001", "responses": [{"id": "r1"}, {"id": "r2"}, {"id": "r3"}]}
    with pytest.raises(make_demo.DemoError, match="demo-001"):
        make_demo.combine([record], {"demo-001": {"note": "…"} | judgement})


def test_a_judgement_without_a_prompt_is_refused() -> None:
    with pytest.raises(make_demo.DemoError, match="demo-002"):
        make_demo.combine([], {"demo-002": {}})


def test_a_token_is_drawn_by_inverse_cdf_from_the_nucleus() -> None:
    # Probabilities 0.5, 0.3, 0.15, 0.05, out of order; a nucleus of 0.7 holds the first two, with a mass of 0.8.
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log().repeat(4, 1)
    setting = make_demo.Setting("test", temperature=1.0, top_p=0.7)
    uniforms = torch.tensor([0.0, 0.62, 0.63, 0.999999], dtype=torch.float64)
    assert make_demo.choose_tokens(logits, setting, uniforms).tolist() == [1, 1, 3, 3]
    whole = make_demo.Setting("test", temperature=1.0, top_p=1.0)
    uniforms = torch.tensor([0.49, 0.51, 0.94, 0.96], dtype=torch.float64)
    assert make_demo.choose_tokens(logits, whole, uniforms).tolist() == [1, 3, 0, 2]


def test_repetition_makes_a_token_less_likely_whatever_its_sign() -> None:
    logits, tokens = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 1]])
    assert make_demo.penalise_repetition(logits, tokens, 2.0).tolist() == [[1.0, -4.0, 1.0]]


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 600_000
