"""What each export format writes of one ranking, what options change, and what a majority says."""

import io
import json
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.interchange import EXPORTS, export_lines
from annotate.interchange.options import OPTIONS, ExportOptions, OptionError
from annotate.interchange.pairs import pairs_of_task, votes_of
from annotate.interchange.tables import GROUP_ROWS, parquet_blocks
from tests.annotate.pure.judgements import LONGER, RECORD, exported, judgements, rows

TURNS = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Why?\n\nAssistant: "
DIALOGUE = "\n\nHuman: Be brief.\n\nHi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: "


def test_pairs_as_texts_one_for_each_strict_preference() -> None:
    assert rows("trl", RECORD) == [
        {"prompt": "Why is the sky blue?", "chosen": "answer r2", "rejected": "answer r1"},
        {"prompt": "Why is the sky blue?", "chosen": "answer r2", "rejected": "answer r4"},
    ]
    assert len(rows("trl", LONGER)) == 6 and {row["prompt"] for row in rows("trl", LONGER)} == {TURNS}


def test_pairs_as_messages_and_as_whole_conversations() -> None:
    record = LONGER | {"prompt": [{"role": "user", "content": "Hi", "mine": 1}]}
    asked = [{"role": "user", "content": "Hi"}]
    chosen, rejected = ([{"role": "assistant", "content": f"answer {name}"}] for name in ("r1", "r2"))
    assert rows("trl-conversational", record)[0] == {"prompt": asked, "chosen": chosen, "rejected": rejected}
    assert rows("openrlhf", record)[0] == {"chosen": asked + chosen, "rejected": asked + rejected}


def test_pairs_as_dialogues_take_the_system_message_into_the_first_turn() -> None:
    assert rows("hh", LONGER)[0] == {"chosen": f"{DIALOGUE}answer r1", "rejected": f"{DIALOGUE}answer r2"}


def test_labelled_and_imitated_responses() -> None:
    labels = [(row["completion"][0]["content"], row["label"]) for row in rows("kto", RECORD)]
    assert labels == [("answer r1", False), ("answer r2", True), ("answer r4", False)]
    assert [row["completion"][0]["content"] for row in rows("sft", LONGER)] == ["answer r1"]
    rewritten = LONGER | {"rewrite": {"of": "r1", "text": "better"}, "all_bad": True}
    assert [row["completion"][0]["content"] for row in rows("sft", rewritten)] == ["better"]
    shown = {"type": "demonstration", "prompt": LONGER["prompt"], "response": "so"}
    assert [row["completion"][0]["content"] for row in rows("sft", shown)] == ["so"]


def test_whole_rankings_as_scores_and_ranks() -> None:
    (line,) = rows("ultrafeedback", RECORD | {"ratings": {"r2": {"help": 4}}})
    assert [one["overall_score"] for one in line["completions"]] == [9, 10, None, 9]
    assert line["completions"][1]["annotations"] == {"help": {"Rating": "4"}}
    assert line["models"] == [f"model r{number}" for number in range(1, 5)]
    (line,) = rows("nectar", RECORD)
    assert [(one["answer"], one["rank"]) for one in line["answers"]] == [
        ("answer r1", 2.0), ("answer r2", 1.0), ("answer r4", 2.0),
    ]  # fmt: skip
    assert line["prompt"] == "\n\nHuman: Why is the sky blue?\n\nAssistant: " and line["num_responses"] == 3


def test_battles_have_ties_too() -> None:
    found = rows("arena", RECORD)
    assert [(one["question_id"], one["winner"]) for one in found] == [
        ("7:r1:r2", "model_b"), ("7:r1:r4", "tie"), ("7:r2:r4", "model_a"),
    ]  # fmt: skip
    assert {one["judge"] for one in found} == {"ann"} and found[0]["tstamp"] == 1769860800.0
    assert [one["winner"] for one in rows("arena", RECORD | {"all_bad": True})][1] == "tie (bothbad)"


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "superseded"}, {"type": "withdrawn", "responses": None}, {"type": "prompt"}, {"ranking": None},
        {"counted": False}, {"kind": "gold"}, {"kind": "repeat"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", sorted({*EXPORTS} - {"plackett"}))
def test_what_is_no_counted_judgement_gives_no_line(format: str, changes: dict[str, Any]) -> None:
    assert rows(format, RECORD | changes) == []


def test_the_native_export_keeps_markers_and_unknown_keys() -> None:
    marker = {"change": 9, "mine": 1, "format": "plackett/1", "id": "1", "type": "superseded", "superseded_by": "2"}
    line = exported("plackett", marker)
    assert line == b'{"format":"plackett/1","type":"superseded","id":"1","superseded_by":"2","change":9,"mine":1}\n'


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
def test_lines_are_made_as_they_are_asked_for(container: str) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield RECORD

    lines = export_lines("trl", endless(), **{"as": container})
    assert next(lines) and next(lines)
    assert taken <= (GROUP_ROWS if container == "parquet" else 2)


# --- options ----------------------------------------------------------------------------------------------------------


def test_ties_are_left_out_written_both_ways_or_marked() -> None:
    assert len(rows("trl", RECORD)) == len(rows("trl", RECORD, ties="drop")) == 2
    both = [(one["chosen"], one["rejected"]) for one in rows("trl", RECORD, ties="both")]
    assert {("answer r1", "answer r4"), ("answer r4", "answer r1")} < set(both) and len(both) == 4
    soft = rows("trl", RECORD, ties="soft")
    assert sorted(one["preference"] for one in soft) == [0.5, 1.0, 1.0]


def test_a_margin_is_the_strength_stated_over_all_gaps() -> None:
    margins = {
        (one["chosen"][-1], one["rejected"][-1]): one["margin"] for one in rows("trl", LONGER, margin="strength")
    }
    assert margins == {
        ("1", "2"): 1.0,
        ("1", "3"): 1.0,
        ("1", "4"): 4.0,
        ("2", "3"): 0.0,
        ("2", "4"): 3.0,
        ("3", "4"): 3.0,
    }


def test_models_are_named_as_the_format_has_it_or_as_asked() -> None:
    assert rows("trl", RECORD, models="yes")[0]["rejected_model"] == "model r1"
    assert (
        "model" not in json.dumps(rows("kto", RECORD)) and rows("kto", RECORD, models="yes")[1]["model"] == "model r2"
    )
    for format in ("plackett", "ultrafeedback", "nectar", "arena"):
        assert "model r2" in json.dumps(rows(format, RECORD))
        assert "model r" not in json.dumps(rows(format, RECORD, models="no"))


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_an_option_is_taken_or_refused_by_name(format: str) -> None:
    values = {option.name: option.values[-1] if option.values else "0.5" for option in OPTIONS}
    values["annotator_kinds"] = "machine"
    for name, value in values.items():
        if name in EXPORTS[format].options:
            EXPORTS[format].options_from({name: value})
        else:
            with pytest.raises(OptionError, match=f"has no use for {name}"):
                EXPORTS[format].options_from({name: value})
    for wrong in ({"colour": "red"}, {"as": "xlsx"}, {"models": "maybe"}, {"split": "some"}):
        with pytest.raises(OptionError):
            EXPORTS[format].options_from(wrong)
    for wrong in ("2", "-1", "x", "nan", "inf"):
        with pytest.raises(OptionError):
            EXPORTS["trl"].options_from({"agreement": wrong})


# --- majority ---------------------------------------------------------------------------------------------------------


def by(annotator: str, *tiers: list[str], weight: float = 1.0, strengths: Any = None) -> dict[str, Any]:
    placed = {name for tier in tiers for name in tier}
    rest = [one["id"] for one in RECORD["responses"] if one["id"] not in placed]
    return RECORD | {
        "annotator": annotator, "ranking": list(tiers), "unranked": rest, "weight": weight,
        "strengths": strengths or [None] * (len(tiers) - 1),
    }  # fmt: skip


def pairs(*records: dict[str, Any], **options: Any) -> list[tuple[str, str, float]]:
    found = pairs_of_task(records, ExportOptions(**options))
    return [(one.chosen["id"], one.rejected["id"], round(one.preference, 3)) for one in found]


THREE = (by("a", ["r1"], ["r2"], ["r3"]), by("b", ["r1"], ["r3"], ["r2"]), by("c", ["r2"], ["r1", "r3"]))


def test_the_majority_of_three() -> None:
    """r1 over r2: 2 to 1; r1 over r3: 2, one tie; r2 over r3: 2 to 1 (b alone sees r3 before r2)."""
    majority = pairs(*THREE, votes="majority")
    assert majority == [("r1", "r2", 0.667), ("r1", "r3", 0.833), ("r2", "r3", 0.667)]
    assert pairs(*THREE, votes="majority", agreement=0.6666) == majority
    assert pairs(*THREE, votes="majority", agreement=2 / 3) == majority
    assert pairs(*THREE, votes="majority", agreement=0.7) == []


def test_where_nobody_prevails_a_pair_counts_as_tied() -> None:
    two = (by("a", ["r1"], ["r2"]), by("b", ["r2"], ["r1"]))
    assert pairs(*two, votes="majority") == []
    assert pairs(*two, votes="majority", ties="both") == [("r1", "r2", 1.0), ("r2", "r1", 1.0)]
    assert pairs(*two, votes="majority", ties="soft") == [("r1", "r2", 0.5)]


def test_votes_weigh_as_the_rankings_do_and_margins_are_of_the_winners() -> None:
    two = (by("a", ["r1"], ["r2"], weight=0.5, strengths=[3]), by("b", ["r2"], ["r1"], strengths=[1]))
    found = list(pairs_of_task(two, ExportOptions(votes="majority", margin=True)))
    assert [(one.chosen["id"], one.margin, round(one.preference, 3)) for one in found] == [("r2", 1.0, 0.667)]
    assert pairs(by("a", ["r1"], ["r2"], weight=0.0), votes="majority") == []
    tied = by("a", ["r1", "r2"], weight=0.5)
    assert pairs(tied, by("b", ["r1"], ["r2"]), votes="majority") == [("r1", "r2", 0.833)]


def test_agreement_filters_what_each_annotator_said() -> None:
    each = pairs(*THREE, agreement=0.6)
    assert sorted(each) == [("r1", "r2", 1.0)] * 2 + [("r1", "r3", 1.0)] * 2 + [("r2", "r3", 1.0)] * 2
    tied = by("d", ["r1", "r3"])
    assert pairs(tied, agreement=1.0, ties="soft") == [("r1", "r3", 0.5)]


@settings(max_examples=30)
@given(judgements(), st.sampled_from(["drop", "both", "soft"]))
def test_one_annotators_majority_is_what_that_annotator_said(record: dict[str, Any], ties: str) -> None:
    record = record | {"weight": 2.0}
    alone = rows("trl", record, ties=ties, models="yes", margin="strength")
    options = EXPORTS["trl"].options_from({"ties": ties, "models": "yes", "margin": "strength", "votes": "majority"})
    together = list(EXPORTS["trl"].rows_of_tasks([[record]], options))
    assert sorted(map(str, map(no_order, alone))) == sorted(map(str, map(no_order, together)))
    assert all(votes.agreement == 1.0 for votes in votes_of([record]).values())


def no_order(row: dict[str, Any]) -> Any:
    """A tie that stands once may stand either way round."""
    if row.get("preference") == 0.5:
        sides = sorted([(row["chosen"], str(row["chosen_model"])), (row["rejected"], str(row["rejected_model"]))])
        return sides, row["margin"]
    return row


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_the_columns_of_a_table_are_the_keys_of_a_line(format: str) -> None:
    asked = {"ties": "soft", "margin": "strength"} if "ties" in EXPORTS[format].options else {}
    options = EXPORTS[format].options_from(asked | {"models": "yes"})
    (line, *_rest) = rows(format, RECORD, **asked, models="yes")
    named = list(EXPORTS[format].columns(options))
    assert set(line) <= set(named) if format == "plackett" else list(line) == named
    table = pyarrow.parquet.read_table(
        io.BytesIO(exported(format, RECORD, LONGER, **asked, models="yes", **{"as": "parquet"}))
    )
    assert table.column_names == named and table.num_rows == len(rows(format, RECORD, LONGER, **asked, models="yes"))


def test_parquet_comes_in_row_groups_as_they_fill_and_its_footer_last() -> None:
    blocks = list(parquet_blocks(({"text": str(number)} for number in range(2_500)), {"text": "text"}))
    assert len(blocks) == 4
    whole = pyarrow.parquet.ParquetFile(io.BytesIO(b"".join(blocks)))
    assert whole.num_row_groups == 3 and whole.metadata.num_rows == 2_500
    with pytest.raises(pyarrow.ArrowInvalid):
        pyarrow.parquet.ParquetFile(io.BytesIO(b"".join(blocks[:-1])))
    empty = pyarrow.parquet.read_table(io.BytesIO(b"".join(parquet_blocks([], {"text": "text"}))))
    assert (empty.num_rows, empty.column_names) == (0, ["text"])
