"""What goes in comes out: each format written from drawn rankings and read again.

What a format cannot carry stands in its module and in docs/formats.md; here it is what a property leaves out of its
comparison, or what its strategy does not draw.
"""

from collections import Counter
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from annotate.interchange import native
from annotate.interchange.records import ImportedRecord
from annotate.interchange.tables import csv_lines
from annotate.preferences import comparisons_of
from tests.annotate.pure.judgements import conversations, exported, judgements, read_back, rows, said, texts

#: Each example writes and reads a file: fewer of them do.
few = settings(max_examples=25)
TWO_TEXTS = {"question": "text", "response": "text"}
one_message = conversations(system=False, turns=0)
#: Dialogues as texts lose blanks around turns, and a turn's own mark would make two of one.
dialogue_texts = st.text("ab \n:?", max_size=8).map(str.strip)


def strict_pairs(record: dict[str, Any]) -> Counter[tuple[str, str]]:
    shown = {one["id"]: one["text"] for one in record["responses"]}
    return Counter((shown[pair.first], shown[pair.second]) for pair in comparisons_of(record["ranking"]))


def pair_of(record: ImportedRecord) -> tuple[str, str]:
    shown = {one.id: one.text for one in record.responses}
    (better,), (worse,) = record.ranking or ((), ())
    return shown[better], shown[worse]


# --- native, in every container ---


@few
@given(judgements())
def test_native_lines_carry_everything(record: dict[str, Any]) -> None:
    (found,) = read_back("plackett", exported("plackett", record))
    assert found == native.record_from_object(record)


@few
@given(
    st.lists(judgements(), min_size=1, max_size=3, unique_by=lambda one: one["id"]), st.sampled_from(["csv", "parquet"])
)
def test_native_tables_carry_everything(records: list[dict[str, Any]], container: str) -> None:
    # A cell without a text is no value, and two answers of one annotator to one task need two revisions.
    assume(len({(one["task"], one["annotator"], one["revision"]) for one in records}) == len(records))
    found = read_back(container, exported("plackett", *records, **{"as": container}))
    assert found == [native.record_from_object(record) for record in records]


# --- pairs ---


@few
@given(judgements())
def test_pairs_as_messages_are_the_strict_preferences(record: dict[str, Any]) -> None:
    lines = rows("trl-conversational", record)
    assert Counter((one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in lines) == strict_pairs(
        record
    )
    assert all(one["prompt"] == record["prompt"] for one in lines)
    whole = rows("openrlhf", record)
    assert [(one["chosen"][:-1], one["chosen"][-1:], one["rejected"][-1:]) for one in whole] == [
        (record["prompt"], one["chosen"], one["rejected"]) for one in lines
    ]


@few
@given(judgements(prompts=one_message), st.sampled_from(["csv", "parquet"]))
def test_pairs_in_tables_are_read_as_rankings_of_two(record: dict[str, Any], container: str) -> None:
    for one in record["responses"]:
        one["text"] += "."
    assume(len({one["text"] for one in record["responses"]}) == len(record["responses"]))
    for format in ("trl", "trl-conversational", "openrlhf"):
        found = read_back(container, exported(format, record, **{"as": container}))
        assert Counter(map(pair_of, found)) == strict_pairs(record)
        assert {one.prompt[-1]["content"] for one in found} <= {record["prompt"][-1]["content"]}


@st.composite
def dialogue_judgements(draw: st.DrawFn) -> dict[str, Any]:
    record: dict[str, Any] = draw(judgements(prompts=conversations(system=False)))
    for message in record["prompt"]:
        message["content"] = draw(dialogue_texts)
    record["prompt"][-1]["content"] += "?"
    for number, one in enumerate(record["responses"]):
        one["text"] = f"{draw(dialogue_texts)}{number}"
    return record


@few
@given(dialogue_judgements())
def test_hh_pairs_come_back(record: dict[str, Any]) -> None:
    found = read_back("hh", exported("hh", record))
    assert Counter(map(pair_of, found)) == strict_pairs(record)
    assert all([dict(message) for message in one.prompt] == record["prompt"] for one in found)


# --- whole rankings ---


@few
@given(judgements(prompts=one_message))
def test_ultrafeedback_carries_tiers_ratings_and_models(record: dict[str, Any]) -> None:
    (found,) = read_back("ultrafeedback", exported("ultrafeedback", record))
    assert said(found) == said(record)
    assert found.prompt == tuple(record["prompt"])
    assert Counter(map(str, found.ratings.values())) == Counter(
        str({name: float(number) for name, number in one.items()}) for one in record["ratings"].values()
    )


@few
@given(dialogue_judgements())
def test_nectar_carries_tiers_and_models(record: dict[str, Any]) -> None:
    (found,) = read_back("nectar", exported("nectar", record))
    assert said(found)[0] == said(record)[0]  # responses left unranked are not carried
    assert [dict(message) for message in found.prompt] == record["prompt"]


@few
@given(judgements())
def test_arena_carries_every_pair_with_its_ties_annotator_and_time(record: dict[str, Any]) -> None:
    found = read_back("arena", exported("arena", record))
    wanted = comparisons_of(record["ranking"], ties="soft")
    shown = {one["id"]: (one["text"], one["model"]) for one in record["responses"]}
    pairs = Counter(str(sorted([shown[one.first], shown[one.second]], key=str)) for one in wanted)
    assert Counter(str(sorted([(r.text, r.model) for r in one.responses], key=str)) for one in found) == pairs
    assert sum(len(one.ranking or ()) == 1 for one in found) == sum(one.outcome == "tie" for one in wanted)
    for one in found:
        assert [dict(message) for message in one.prompt] == record["prompt"]
        assert one.annotator == record["annotator"] and one.submitted_at is not None
        assert one.all_bad == (record["all_bad"] and len(one.ranking or ()) == 1)


# --- single responses ---


@few
@given(judgements())
def test_kto_labels_the_ends_and_sft_imitates_one_of_the_best(record: dict[str, Any]) -> None:
    labels = Counter((one["completion"][0]["content"], one["label"]) for one in rows("kto", record))
    shown = {one["id"]: one["text"] for one in record["responses"]}
    if record["all_bad"]:
        assert labels == Counter((text, False) for text in shown.values())
    elif len(record["ranking"]) == 1:
        assert not labels
    else:
        ends = [(name, True) for name in record["ranking"][0]] + [(name, False) for name in record["ranking"][-1]]
        assert labels == Counter((shown[name], label) for name, label in ends)
    imitated = [one["completion"][0]["content"] for one in rows("sft", record)]
    if record["rewrite"]:
        assert imitated == [record["rewrite"]["text"]]
    elif record["all_bad"]:
        assert imitated == []
    else:
        assert len(imitated) == 1 and imitated[0] in {shown[name] for name in record["ranking"][0]}


@few
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_cells_of_a_csv_file_come_back_whatever_is_in_them(cells: list[tuple[str, str]]) -> None:
    asked = [(f"{number} {one}?", f"{other}.") for number, (one, other) in enumerate(cells)]
    table = csv_lines([{"question": one, "response": other} for one, other in asked], TWO_TEXTS)
    found = read_back("csv", b"".join(table), {"question": "prompt"})
    assert [(one.prompt[-1]["content"], one.responses[0].text) for one in found] == asked
