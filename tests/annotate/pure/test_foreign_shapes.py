"""Formats that are read and never written: files of their shape are drawn from opinions, and the opinions come out."""

import io
import json
from collections import Counter
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.interchange import EXPORTS, FORMATS, read_file
from annotate.interchange.records import ImportedRecord
from tests.annotate.pure.judgements import conversations, parted, read_back, texts, words

few = settings(max_examples=25)
questions = texts.map("{}?".format)  # no prompt is blank
instants = st.integers(10, 59).map("2026-01-31T12:00:{}Z".format)


class Opinion(NamedTuple):
    """Responses by place, and tiers of their places, best first; those in no tier are unranked."""

    texts: list[str]
    tiers: list[list[int]]


@st.composite
def opinions(draw: st.DrawFn, *, least: int = 2, most: int = 5, ties: bool = True, whole: bool = True) -> Opinion:
    shown = draw(st.lists(texts, min_size=least, max_size=most))
    order = draw(st.permutations(range(len(shown))))
    placed = len(shown) if whole else draw(st.integers(2, len(shown)))
    cuts = sorted(draw(st.sets(st.integers(1, placed - 1)))) if ties else list(range(1, placed))
    return Opinion(shown, [list(order[a:b]) for a, b in zip([0, *cuts], [*cuts, placed], strict=True)])


def ranks(opinion: Opinion) -> dict[int, int]:
    return {place: rank for rank, tier in enumerate(opinion.tiers, 1) for place in tier}


def meant(opinion: Opinion) -> list[list[str]]:
    return [sorted(opinion.texts[place] for place in tier) for tier in opinion.tiers]


def said(record: ImportedRecord) -> list[list[str]]:
    shown = {one.id: one.text for one in record.responses}
    return [sorted(shown[name] for name in tier) for tier in record.ranking or ()]


def as_json(*values: Any) -> bytes:
    return json.dumps(list(values)).encode()


def read_whole(format: str, data: bytes, mapping: dict[str, str] | None = None) -> list[ImportedRecord]:
    """The records, where something may be left out but nothing is wrong."""
    good, rest = parted(read_file(format, io.BytesIO(data), mapping))
    assert not [one for one in rest if one.fault], rest
    return good


def test_every_format_has_a_property_of_its_own() -> None:
    here = {"oasst", "alpaca-eval", "pandalm", "label-studio", "argilla"}
    round_trips = {"plackett", "csv", "parquet", "hh", "ultrafeedback", "nectar", "arena"}
    assert here | round_trips == set(FORMATS) and round_trips - {"csv", "parquet"} == set(EXPORTS) & set(FORMATS)


@few
@given(conversations(system=False), opinions(), words, st.integers(0, 3))
def test_open_assistant_trees(prompt: list[dict[str, str]], opinion: Opinion, tree: str, first_rank: int) -> None:
    replies = [
        {"message_id": f"r{place}", "role": "assistant", "text": text, "rank": ranks(opinion)[place] * 2 + first_rank}
        for place, text in enumerate(opinion.texts)
    ]
    node: dict[str, Any] = {}
    for number in reversed(range(len(prompt))):
        role = {"user": "prompter", "assistant": "assistant"}[prompt[number]["role"]]
        node = {"message_id": f"m{number}", "role": role, "text": prompt[number]["content"], "replies": replies}
        replies = [node]
    (found,) = read_whole("oasst", json.dumps({"message_tree_id": tree, "prompt": node}).encode())
    assert said(found) == meant(opinion) and list(found.prompt) == prompt
    assert (found.external_id, found.split_group) == (f"m{len(prompt) - 1}", tree)


@few
@given(
    st.dictionaries(questions, st.dictionaries(words, texts, min_size=2, max_size=5), min_size=1, max_size=3), st.data()
)
def test_alpaca_eval_outputs(outputs: dict[str, dict[str, str]], data: st.DataObject) -> None:
    lines = [
        {"instruction": instruction, "output": text, "generator": model}
        for instruction, answers in outputs.items()
        for model, text in answers.items()
    ]
    found = read_back("alpaca-eval", as_json(*data.draw(st.permutations(lines))))
    assert {one.prompt[0]["content"]: {r.model: r.text for r in one.responses} for one in found} == outputs
    assert all(one.ranking is None for one in found)


@few
@given(opinions(most=2), questions, words, words, st.floats(1, 1.49))
def test_alpaca_eval_annotations(opinion: Opinion, asked: str, model: str, judge: str, first: float) -> None:
    preference = 1.5 if len(opinion.tiers) == 1 else first if opinion.tiers[0] == [0] else 3 - first
    value = {f"output_{place}": text for place, text in enumerate(opinion.texts, 1)}
    value |= {"instruction": asked, "generator_1": model, "preference": preference, "annotator": judge}
    (found,) = read_back("alpaca-eval", as_json(value))
    assert said(found) == meant(opinion) and (found.annotator, found.annotator_kind) == (judge, "machine")
    assert found.prompt[0]["content"] == asked and {one.model for one in found.responses} == {model, None}


@few
@given(st.lists(texts, min_size=2, max_size=2), st.lists(st.sampled_from([None, 0, 1, 2]), max_size=4), questions)
def test_pandalm_labels(shown: list[str], labels: list[int | None], asked: str) -> None:
    value = {"idx": 1, "cmp_key": "m1_m2", "instruction": asked, "input": "", "response1": shown[0]}
    value |= {"response2": shown[1]} | {f"annotator{number}": label for number, label in enumerate(labels, 1)}
    found = read_back("pandalm", as_json(value))
    tiers = {0: [[0, 1]], 1: [[0], [1]], 2: [[1], [0]]}
    wanted = {f"annotator{n}": meant(Opinion(shown, tiers[one])) for n, one in enumerate(labels, 1) if one is not None}
    assert {one.annotator: said(one) for one in found if one.ranking} == wanted
    assert len(found) == max(len(wanted), 1) and len({one.external_id for one in found}) == 1
    assert all({r.model: r.text for r in one.responses} == dict(zip(("m1", "m2"), shown, strict=True)) for one in found)


def labelled(items: list[str], *results: dict[str, Any], **about: Any) -> dict[str, Any]:
    """A task of Label Studio, whose responses are a list of items."""
    data = {"prompt": "Tea?", "items": [{"id": f"i{place}", "body": text} for place, text in enumerate(items)]}
    said = [{"id": n, "result": [result], "created_at": f"2026-01-31T12:00:{n}Z"} | about for n, result in
            enumerate(results, 10)]  # fmt: skip
    return {"id": 3, "data": data, "annotations": said}


@few
@given(opinions(ties=False), st.data(), words, st.floats(0, 1e6), instants)
def test_label_studio_orders_and_their_revisions(
    first: Opinion, data: st.DataObject, person: str, seconds: float, instant: str
) -> None:
    orders = [[tier[0] for tier in first.tiers], list(data.draw(st.permutations(range(len(first.texts)))))]
    results = [{"type": "ranker", "value": {"ranker": {"rank": [f"i{place}" for place in order]}}} for order in orders]
    about = {"completed_by": {"email": person}, "lead_time": seconds, "updated_at": instant}
    found = read_back("label-studio", as_json(labelled(first.texts, *results, **about)))
    assert [said(one) for one in found] == [[[first.texts[place]] for place in order] for order in orders]
    assert [(one.revision, one.annotator, one.seconds) for one in found] == [(1, person, seconds), (2, person, seconds)]
    assert all(one.submitted_at is not None and one.submitted_at.second == int(instant[17:19]) for one in found)


@few
@given(opinions(whole=False))
def test_label_studio_buckets(opinion: Opinion) -> None:
    buckets = {f"b{rank}": [f"i{place}" for place in tier] for rank, tier in enumerate(opinion.tiers, 1)}
    left = [f"i{place}" for place in range(len(opinion.texts)) if place not in ranks(opinion)]
    result = {"type": "ranker", "value": {"ranker": buckets | {"_": left}}}
    mapping = {bucket: f"tier_{bucket[1:]}" for bucket in buckets}
    (found,) = read_back("label-studio", as_json(labelled(opinion.texts, result, completed_by=7)), mapping)
    assert said(found) == meant(opinion) and sorted(found.unranked) == sorted(left) and found.annotator == "7"


@few
@given(opinions(most=2, ties=False), words, words)
def test_label_studio_pairs_under_any_names(opinion: Opinion, left: str, right: str) -> None:
    names = (f"a {left}", f"b {right}")
    data = {"question": "Tea?"} | dict(zip(names, opinion.texts, strict=True))
    chosen = {"type": "pairwise", "value": {"selected": ("left", "right")[opinion.tiers[0][0]]}}
    task = {"id": 3, "data": data, "annotations": [{"id": 1, "completed_by": 7, "result": [chosen]}]}
    mapping = {names[0]: "response_1", names[1]: "response_2"}
    (found,) = read_back("label-studio", as_json(task), mapping)
    assert said(found) == meant(opinion)


def options_of(opinion: Opinion) -> dict[str, str]:
    return {"prompt": "Tea?"} | {f"answer-{place}": text for place, text in enumerate(opinion.texts)}


@few
@given(opinions(whole=False), st.lists(st.sampled_from(["submitted", "draft", "discarded"]), max_size=3), instants)
def test_argilla_answers_of_the_server(opinion: Opinion, states: list[str], instant: str) -> None:
    value = [{"value": f"answer-{n}", "rank": ranks(opinion).get(n)} for n in range(len(opinion.texts))]
    answers = [
        {"values": {"best": {"value": value}}, "status": state, "user_id": f"u{n}", "updated_at": instant.rstrip("Z")}
        for n, state in enumerate(states)
    ]
    found = read_whole("argilla", as_json({"id": "9", "fields": options_of(opinion), "responses": answers}))
    taken = [f"u{number}" for number, state in enumerate(states) if state == "submitted"]
    assert [one.annotator for one in found if one.ranking] == taken and len(found) == max(len(taken), 1)
    for one in found:
        assert said(one) == (meant(opinion) if taken else [])
        assert Counter(r.text for r in one.responses) == Counter(opinion.texts)
        assert not taken or str(one.submitted_at).startswith(instant[:10])


@few
@given(opinions(ties=False), words)
def test_argilla_records_of_the_sdk(opinion: Opinion, person: str) -> None:
    order = [f"answer-{tier[0]}" for tier in opinion.tiers]
    record = {"id": "9", "fields": options_of(opinion), "responses": {"best": [{"value": order, "user_id": person}]}}
    (found,) = read_back("argilla", as_json(record))
    assert said(found) == meant(opinion) and (found.annotator, found.external_id) == (person, "argilla:9")
