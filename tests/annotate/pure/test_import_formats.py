"""The readers of tables and foreign formats: what becomes of a line, and why one is not taken."""

import gzip
import io
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from annotate.interchange import FORMATS, read_file
from annotate.interchange.mapping import MappingError, mapping_from
from annotate.interchange.records import FileError, ImportedRecord
from tests.annotate.pure.judgements import parted, read_back
from tests.conftest import SHARED_DATA


def as_file(*values: Any) -> io.BytesIO:
    return io.BytesIO("\n".join(map(json.dumps, values)).encode())


def read(format: str, *values: Any, mapping: dict[str, str] | None = None) -> list[ImportedRecord]:
    return read_back(format, as_file(*values).getvalue(), mapping)


def reason(format: str, value: Any, mapping: dict[str, str] | None = None) -> str:
    good, bad = parted(read_file(format, as_file(value), mapping))
    assert not good and len(bad) == 1, (good, bad)
    return bad[0].reason if bad[0].fault else f"left out: {bad[0].reason}"


def tiers(record: ImportedRecord) -> list[list[str]]:
    shown = {one.id: one.text for one in record.responses}
    return [sorted(shown[name] for name in tier) for tier in record.ranking or ()]


# --- UltraFeedback, Nectar, Arena -------------------------------------------------------------------------------------


def completion(text: str, score: Any, **ratings: str) -> dict[str, Any]:
    annotations = {name: {"Rating": rating, "Rationale": "so"} for name, rating in ratings.items()}
    return {"model": f"m-{text}", "response": text, "overall_score": score, "annotations": annotations}


def test_ultrafeedback_is_ranked_by_the_overall_score_and_keeps_ratings_as_ratings() -> None:
    line = {"source": "evol", "instruction": "Tea?", "models": [], "completions": [
        completion("good", 8.5, honesty="5", help="N/A"), completion("bad", 3), completion("good too", 8.5),
        completion("unscored", None),
    ]}  # fmt: skip
    (found,) = read("ultrafeedback", line)
    assert tiers(found) == [["good", "good too"], ["bad"]]
    assert [one.text for one in found.responses if one.id in found.unranked] == ["unscored"]
    assert list(found.ratings.values()) == [{"honesty": 5.0}]
    assert (found.annotator_kind, found.extra["source"]) == ("machine", "evol")
    assert reason("ultrafeedback", line | {"completions": [completion("a", 1), completion("b", "N/A")]}).startswith(
        "left"
    )
    assert "not a number" in reason("ultrafeedback", line | {"completions": [completion("a", "x"), completion("b", 1)]})


def test_binarised_ultrafeedback_is_a_pair() -> None:
    asked = [{"role": "user", "content": "Tea?"}]
    pair = {key: [*asked, {"role": "assistant", "content": key}] for key in ("chosen", "rejected")}
    (found,) = read("ultrafeedback", {"prompt": "Tea?", **pair, "score_chosen": 8, "score_rejected": 5})
    assert tiers(found) == [["chosen"], ["rejected"]]
    (tied,) = read("ultrafeedback", {"prompt": "Tea?", **pair, "score_chosen": 8, "score_rejected": 8})
    assert tiers(tied) == [["chosen", "rejected"]]


def test_nectar_is_ranked_by_its_ranks_and_the_order_of_its_answers_is_lost() -> None:
    answers = [{"answer": text, "model": "m", "rank": rank} for text, rank in (("b", 1.0), ("a", 2.0), ("c", 2.0))]
    (found,) = read(
        "nectar", {"prompt": "\n\nHuman: Hi \n\nAssistant: Yes?\n\nHuman: Tea? \n\nAssistant: ", "answers": answers}
    )
    assert tiers(found) == [["b"], ["a", "c"]]
    assert [(one["role"], one["content"]) for one in found.prompt] == [
        ("user", "Hi"), ("assistant", "Yes?"), ("user", "Tea?"),
    ]  # fmt: skip
    (other,) = read("nectar", {"prompt": "\n\nHuman: Tea?\n\nAssistant: ", "answers": answers[::-1]})
    assert other.responses == found.responses


def battle(winner: Any, **more: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": "Tea?"}
    sides = {f"conversation_{side}": [asked, {"role": "assistant", "content": side}] for side in "ab"}
    return {"question_id": "q", "model_a": "x", "model_b": "y", "winner": winner, "judge": "ann", **sides,
            "tstamp": 1_700_000_000.5} | more  # fmt: skip


@pytest.mark.parametrize(
    ("winner", "wanted", "all_bad"),
    [
        ("model_a", [["a"], ["b"]], False), ("model_b", [["b"], ["a"]], False), ("tie", [["a", "b"]], False),
        ("tie (bothbad)", [["a", "b"]], True),
    ],
)  # fmt: skip
def test_a_battle_is_a_ranking_of_two(winner: str, wanted: list[list[str]], all_bad: bool) -> None:
    (found,) = read("arena", battle(winner))
    assert (tiers(found), found.all_bad, found.annotator) == (wanted, all_bad, "ann")
    assert found.submitted_at == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert {one.text: one.model for one in found.responses} == {"a": "x", "b": "y"}


def test_battles_that_are_none() -> None:
    assert "winner is 'me'" in reason("arena", battle("me"))
    assert "no time" in reason("arena", battle("tie", tstamp=1e18))
    other = [{"role": "user", "content": "Milk?"}, {"role": "assistant", "content": "b"}]
    assert "left out: the conversations part" in reason("arena", battle("tie", conversation_b=other))


# --- AlpacaEval, PandaLM ----------------------------------------------------------------------------------------------


def output(instruction: str, generator: str) -> dict[str, str]:
    return {"instruction": instruction, "output": f"{generator} on {instruction}", "generator": generator}


def test_outputs_of_several_files_are_joined_to_tasks() -> None:
    files = [as_file(*(output(asked, name) for asked in ("a?", "b?"))) for name in ("x", "y", "z")]
    found, bad = parted(read_file("alpaca-eval", [*files, as_file(output("c?", "x"))]))
    assert sorted((one.prompt[0]["content"], len(one.responses)) for one in found) == [("a?", 3), ("b?", 3)]
    assert {one.ranking for one in found} == {None}
    assert [(one.reason, one.fault) for one in bad] == [("only one output to the instruction", False)]


def test_annotated_pairs_of_alpaca_eval_are_rankings() -> None:
    pair = {"instruction": "a?", "output_1": "one", "output_2": "two", "generator_1": "x", "generator_2": "y"}
    for preference, wanted in ((1, [["one"], ["two"]]), (1.9, [["two"], ["one"]]), (1.5, [["one", "two"]])):
        (found,) = read("alpaca-eval", pair | {"preference": preference, "annotator": "gpt"})
        assert (tiers(found), found.annotator, found.annotator_kind) == (wanted, "gpt", "machine")
    assert "not from 1 to 2" in reason("alpaca-eval", pair | {"preference": 3}).replace("not 0 and ", "")


def test_each_label_of_a_pandalm_pair_is_a_ranking() -> None:
    pair = {
        "idx": 1,
        "cmp_key": "x-7b_y",
        "instruction": "Fix it.",
        "input": "Teh",
        "response1": "one",
        "response2": "two",
    }
    found = read("pandalm", pair | {"annotator1": 1, "annotator2": 2, "annotator3": 0, "annotator4": None})
    assert [(one.annotator, tiers(one)) for one in found] == [
        ("annotator1", [["one"], ["two"]]), ("annotator2", [["two"], ["one"]]), ("annotator3", [["one", "two"]]),
    ]  # fmt: skip
    assert found[0].prompt[0]["content"] == "Fix it.\n\nTeh"
    assert {one.text: one.model for one in found[0].responses} == {"one": "x-7b", "two": "y"}
    assert read("pandalm", pair)[0].ranking is None
    assert "3 is not 0, 1 or 2" in reason("pandalm", pair | {"annotator1": 3})


@pytest.mark.skipif(not SHARED_DATA.exists(), reason=f"real data absent: {SHARED_DATA}")
def test_the_real_pandalm_and_alpaca_eval() -> None:
    found, bad = parted(read_file("pandalm", SHARED_DATA / "pandalm" / "testset-v1.json"))
    assert (len(found), bad) == (2997, [])
    first = [one for one in found if one.annotator == "annotator1"]
    assert sum(len(one.ranking or ()) == 1 for one in first) > 90
    files = sorted((SHARED_DATA / "alpaca_eval").glob("*.json"))
    tasks, bad = parted(read_file("alpaca-eval", files))
    assert (Counter(len(one.responses) for one in tasks), bad) == (Counter({6: 805}), [])


# --- Label Studio, Argilla --------------------------------------------------------------------------------------------

ITEMS = [
    {"id": "x", "title": "Title x", "body": "text x"},
    {"id": "y", "body": "text y"},
    {"id": "z", "body": "text z"},
]


def annotation(value: dict[str, Any], kind: str = "ranker", **more: Any) -> dict[str, Any]:
    result = [{"from_name": "r", "to_name": "l", "type": kind, "value": value}]
    return {"id": 5, "completed_by": 7, "result": result, "was_cancelled": False, "lead_time": 12.5,
            "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:05:00Z"} | more  # fmt: skip


def studio(*annotations: Any, **data: Any) -> dict[str, Any]:
    return {"id": 3, "data": {"prompt": "Tea?", "items": ITEMS} | data, "annotations": list(annotations)}


def test_label_studio_rankings_keep_annotator_time_and_revisions() -> None:
    ranked = {"ranker": {"rank": ["y", "x", "z"]}}
    later = annotation({"ranker": {"rank": ["x", "y", "z"]}}, created_at="2026-02-01T12:00:00Z")
    other = annotation(ranked, completed_by={"id": 8, "email": "ann@example.org"})
    found = read("label-studio", studio(later, annotation(ranked), other))
    assert [(one.annotator, one.revision) for one in found] == [("7", 1), ("ann@example.org", 1), ("7", 2)]
    assert tiers(found[0]) == [["text y"], ["text x"], ["text z"]]
    assert found[0].submitted_at == datetime(2026, 1, 31, 12, 5, tzinfo=UTC) and found[0].seconds == 12.5
    assert {one.external_id for one in found} == {"label-studio:3"}


def test_label_studio_buckets_have_to_be_mapped_to_tiers() -> None:
    task = studio(annotation({"ranker": {"good": ["x", "y"], "poor": ["z"], "_": []}}))
    assert "map each to its tier" in reason("label-studio", task)
    (found,) = read("label-studio", task, mapping={"good": "tier_1", "poor": "tier_2"})
    assert tiers(found) == [["text x", "text y"], ["text z"]]
    (found,) = read("label-studio", task, mapping={"poor": "tier_1", "good": "tier_2"})
    assert tiers(found) == [["text z"], ["text x", "text y"]]


def test_label_studio_pairs_by_the_usual_names_or_a_mapping() -> None:
    chosen = annotation({"selected": "right"}, "pairwise")
    pair = {"id": 4, "data": {"prompt": "Tea?", "text1": "one", "text2": "two"}, "annotations": [chosen]}
    assert tiers(read("label-studio", pair)[0]) == [["two"], ["one"]]
    odd = {"id": 4, "data": {"q": "Tea?", "l": "one", "r": "two"}, "annotations": [chosen]}
    assert "map its name to prompt" in reason("label-studio", odd)
    mapped = {"q": "prompt", "l": "response_1", "r": "response_2"}
    assert tiers(read("label-studio", odd, mapping=mapped)[0]) == [["two"], ["one"]]


def test_what_label_studio_annotators_did_not_say_leaves_a_task_to_be_ranked() -> None:
    cancelled = annotation({"ranker": {"rank": ["x", "y", "z"]}}, was_cancelled=True)
    good, bad = parted(
        read_file("label-studio", as_file(studio(cancelled, annotation({"selected": "none"}, "pairwise"))))
    )
    assert [one.ranking for one in good] == [None]
    assert [(one.reason, one.fault) for one in bad] == [
        ("annotation 5 was cancelled", False), ("annotation 5 has neither a rank nor a choice", False),
    ]  # fmt: skip


FIELDS = {"prompt": "Tea?", "response-1": "one", "response-2": "two", "response-3": "three"}


def test_argilla_answers_of_the_server_with_ties_users_and_times() -> None:
    value = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}, {"value": "response-3", "rank": 2}]
    answer = {"values": {"preference": {"value": value}, "comment": {"value": "nice"}}, "status": "submitted",
              "user_id": "u-1", "updated_at": "2026-01-31T12:00:00.123"}  # fmt: skip
    draft = answer | {"status": "draft", "user_id": "u-2"}
    good, bad = parted(read_file("argilla", as_file({"id": "r-1", "fields": FIELDS, "responses": [answer, draft]})))
    (found,) = good
    assert tiers(found) == [["two"], ["one", "three"]]
    assert (found.annotator, found.external_id) == ("u-1", "argilla:r-1")
    assert found.submitted_at == datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    assert [(one.reason, one.fault) for one in bad] == [("an answer is draft, not submitted", False)]


def test_argilla_records_of_the_sdk() -> None:
    answers = {"preference": [{"value": ["Response 2", "Response 1"], "user_id": "u-1"}]}
    record = {"id": "9", "fields": FIELDS, "metadata": {}, "suggestions": {}, "responses": answers, "vectors": {}}
    (found,) = read("argilla", record)
    assert tiers(found) == [["two"], ["one"]]
    (task,) = read("argilla", record | {"responses": {}})
    assert task.ranking is None and len(task.responses) == 3


def test_argilla_names_that_differ_are_mapped() -> None:
    answers = {"a": [{"value": ["B", "A"], "user_id": "u"}], "b": [{"value": ["A", "B"], "user_id": "u"}]}
    record = {"id": "9", "fields": {"q": "Tea?", "left": "one", "right": "two"}, "responses": answers}
    assert "several ranking questions (a, b)" in reason("argilla", record)
    assert "map its name to prompt" in reason("argilla", record, {"a": "question"})
    assert "'A': map its field to option_1" in reason("argilla", record, {"a": "question", "q": "prompt"})
    mapping = {"a": "question", "q": "prompt", "left": "option_1", "right": "option_2"}
    assert tiers(read("argilla", record, mapping=mapping)[0]) == [["two"], ["one"]]


def test_the_names_that_can_be_mapped_are_found_in_the_file() -> None:
    task = studio(annotation({"ranker": {"good": ["x"], "poor": ["z"], "_": []}}))
    named = FORMATS["label-studio"].columns
    assert named is not None and named(as_file(7, task)) == ["prompt", "items", "good", "poor"]
    named = FORMATS["argilla"].columns
    record = {"id": "9", "fields": FIELDS, "responses": {"preference": []}}
    assert named is not None and named(as_file(record)) == [*FIELDS, "preference"]


# --- tables -----------------------------------------------------------------------------------------------------------


def table(text: str, **mapping: str) -> list[ImportedRecord]:
    return read_back("csv", text.encode(), mapping)


def test_ranks_winners_and_chosen_columns_are_rankings() -> None:
    ranks = "prompt,response_1,response_2,response_3,rank_1,rank_2,rank_3,annotator\nTea?,a,b,c,2,1,,ann\n"
    (found,) = table(ranks)
    assert tiers(found) == [["b"], ["a"]] and found.unranked == ("r3",) and found.annotator == "ann"
    for winner, wanted in (("b", [["two"], ["one"]]), ("1", [["one"], ["two"]]), ("tie", [["one", "two"]])):
        (found,) = table(f"prompt;response_1;response_2;winner\nTea?;one;two;{winner}\n")
        assert tiers(found) == wanted
    (found,) = table("prompt\tchosen\trejected\tstrength\tsystem\nTea?\tyes\tno\t2\tBe brief.\n")
    assert tiers(found) == [["yes"], ["no"]] and found.strengths == (2,)
    assert [one["role"] for one in found.prompt] == ["system", "user"]


def test_columns_are_mapped_kept_or_left_out() -> None:
    text = "question,answer a,answer b,better,junk,prompt,topic\nTea?,one,two,left,x,other,drinks\n"
    mapping = {
        "question": "prompt",
        "answer a": "response_1",
        "answer b": "response_2",
        "better": "winner",
        "junk": "-",
    }
    (found,) = read_back("csv", text.encode(), mapping)
    assert tiers(found) == [["one"], ["two"]] and found.prompt[0]["content"] == "Tea?"
    assert found.extra == {"topic": "drinks"}


def test_a_mapping_that_cannot_be_is_refused_with_what_to_write() -> None:
    for pairs in (["question"], ["=prompt"], ["a=prompt", "a=winner"]):
        with pytest.raises(MappingError):
            mapping_from(pairs)
    for format, mapping in (
        ("csv", {"a": "nothing"}),
        ("csv", {"a": "prompt", "b": "prompt"}),
        ("hh", {"a": "prompt"}),
    ):
        with pytest.raises(MappingError):
            list(read_file(format, as_file({}), mapping))
    assert mapping_from(["a=b=prompt", "c=-"]) == {"a=b": "prompt", "c": "-"}


def test_rows_that_are_wrong_spoil_themselves_alone() -> None:
    text = 'prompt,response_1,response_2\nTea?,a,b\nshort,row\n"Milk?",a,"b"x\nWater?,a,"b\nc"\nWine?,a,\n'
    good, bad = parted(read_file("csv", io.BytesIO(text.encode())))
    assert [one.prompt[0]["content"] for one in good] == ["Tea?", "Water?"]
    assert good[1].responses[1].text == "b\nc"
    assert [(one.line, one.reason.partition(":")[0]) for one in bad] == [
        (3, "2 cells, not 3"), (4, "not CSV"), (7, "1 responses, not 2 to 9"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ['prompt,response\nTea?,"a\n', "prompt,prompt\na,b\n", "prompt,\na,b\n"])
def test_tables_that_cannot_be_read_as_a_whole(text: str) -> None:
    for data in (text.encode(), gzip.compress(text.encode())):
        with pytest.raises(FileError):
            list(read_file("csv", io.BytesIO(data)))
        if text.count('"'):
            with pytest.raises(FileError):
                FORMATS["csv"].check(io.BytesIO(data))


def parquet(columns: dict[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    file.seek(0)
    return file


def test_parquet_cells_of_every_type() -> None:
    moment = datetime(2026, 1, 31, 12)
    found, bad = parted(
        read_file(
            "parquet",
            parquet(
                {
                    "external_id": pyarrow.array([17.0, 18.0, 19.0]),
                    "prompt": [[{"role": "user", "content": "Tea?"}]] * 3,
                    "responses": [["a", "b"]] * 3,
                    "ranking": pyarrow.array([[["r2"], ["r1"]]] * 3),
                    "submitted_at": pyarrow.array([moment] * 3),
                    "seconds": pyarrow.array([1.5, float("nan"), None]),
                }
            ),
        )
    )
    assert [(one.external_id, tiers(one), one.seconds) for one in found] == [
        ("17", [["b"], ["a"]], 1.5), ("19", [["b"], ["a"]], None),
    ]  # fmt: skip
    assert found[0].submitted_at == moment.replace(tzinfo=UTC)
    assert [(one.line, one.reason) for one in bad] == [(2, "holds nan, which is no number")]
