"""The native format: what goes in comes out, and each kind of bad record is refused with its reason."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.interchange import native
from annotate.interchange.options import ExportOptions
from annotate.interchange.records import BadRecord, ImportedRecord, ImportedResponse, RecordError, parse_json
from annotate.interchange.streams import encode_line
from annotate.preferences import Rewrite

GOOD: dict[str, Any] = {
    "format": "plackett/1", "id": "k1", "project": "demo", "task": "17", "external_id": "x-1", "split_group": "g",
    "split": "train", "kind": "normal", "counted": True,
    "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
    "responses": [
        {"id": "r1", "text": "Scattering.", "thinking": None, "model": "m"},
        {"id": "r2", "text": "", "thinking": "hm", "model": None},
        {"id": "r3", "text": "It is not.", "thinking": None, "model": "m"},
        {"id": "r4", "text": "Ask again.", "thinking": None, "model": "m"},
    ],
    "ranking": [["r2"], ["r1", "r4"]], "unranked": ["r3"], "strengths": [2], "all_bad": False,
    "ratings": {"r1": {"helpful": 5}}, "flags": {"r1": ["unsafe"]}, "rationale": None,
    "rewrite": {"of": "r2", "text": "Light scatters."},
    "annotator": "p-7", "annotator_kind": "human", "weight": 1.0, "revision": 1, "guideline_version": 3,
    "presented_order": ["r4", "r1", "r2", "r3"], "seconds": 41.5, "change": 812,
    "submitted_at": "2026-01-31T12:00:00Z",
}  # fmt: skip


def read(*lines: bytes) -> list[ImportedRecord | BadRecord]:
    return list(native.read(io.BytesIO(b"\n".join(lines))))


def read_one(value: Any) -> ImportedRecord | BadRecord:
    (found,) = read(json.dumps(value).encode())
    return found


def reason(value: Any) -> str:
    found = read_one(value)
    assert isinstance(found, BadRecord), found
    assert found.fault and found.line == 1
    return found.reason


# --- round trips ---


def test_a_full_record_comes_out_as_it_went_in():
    record = read_one(GOOD)
    assert isinstance(record, ImportedRecord)
    assert native.object_from_record(record) == GOOD
    assert list(native.object_from_record(record)) == list(GOOD)


def test_the_fields_of_a_full_record():
    record = read_one(GOOD)
    assert isinstance(record, ImportedRecord)
    assert record.ranking == (("r2",), ("r1", "r4"))
    assert record.unranked == ("r3",)
    assert record.rewrite == Rewrite("r2", "Light scatters.")
    assert record.submitted_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert record.responses[1] == ImportedResponse("r2", "", "hm", None)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
name = text.filter(bool)
numbers = st.floats(0, 1e9, allow_nan=False)
values = st.recursive(st.none() | st.booleans() | st.integers() | numbers | text, lambda child: (
    st.lists(child, max_size=3) | st.dictionaries(text, child, max_size=3)), max_leaves=5)  # fmt: skip
unknown_keys = st.dictionaries(text.map(lambda key: f"my {key}"), values, max_size=2)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[dict[str, Any], ...]:
    roles = draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=3))
    system = draw(st.booleans())
    messages = [{"role": role, "content": draw(text)} for role in [*["system"] * system, *roles]]
    last = {"role": "user", "content": draw(text) + "?"} | draw(unknown_keys)
    return *messages, last


@st.composite
def rankings(draw: st.DrawFn) -> ImportedRecord:
    ids = draw(st.lists(name, min_size=2, max_size=9, unique=True))
    responses = tuple(
        ImportedResponse(
            one, draw(text), draw(st.none() | text), draw(st.none() | name),
            draw(st.none() | st.dictionaries(text, values, max_size=2)), draw(unknown_keys),
        )
        for one in ids
    )  # fmt: skip
    shuffled = draw(st.permutations(ids))
    placed = draw(st.integers(2, len(ids)))
    cuts = sorted(draw(st.sets(st.integers(1, placed - 1))))
    tiers = tuple(tuple(shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, placed], strict=True))
    return ImportedRecord(
        prompt=draw(prompts()),
        responses=responses,
        ranking=tiers,
        unranked=tuple(shuffled[placed:]),
        strengths=tuple(draw(st.sampled_from([None, 1, 2, 3])) for _ in tiers[1:]),
        all_bad=draw(st.booleans()),
        ratings=draw(st.dictionaries(st.sampled_from(ids), st.dictionaries(text, st.integers(0, 9), max_size=2))),
        flags=draw(st.dictionaries(st.sampled_from(ids), st.lists(text, max_size=2).map(tuple))),
        rationale=draw(st.none() | text),
        rewrite=draw(st.none() | st.builds(Rewrite, st.sampled_from(ids), text)),
        presented_order=draw(st.none() | st.permutations(ids).map(tuple)),
        **draw(abouts()),
    )


@st.composite
def abouts(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "id": draw(st.none() | name),
        "project": draw(st.none() | name),
        "task": draw(st.none() | name),
        "external_id": draw(st.none() | name),
        "split_group": draw(st.none() | text),
        "split": draw(st.sampled_from([None, "train", "validation", "test"])),
        "kind": draw(st.sampled_from(["normal", "gold", "repeat"])),
        "counted": draw(st.booleans()),
        "annotator": draw(st.none() | name),
        "annotator_kind": draw(st.sampled_from(["human", "machine", "imported", "example"])),
        "weight": draw(st.floats(0, 100)),
        "revision": draw(st.integers(1, 99)),
        "guideline_version": draw(st.none() | st.integers(0, 99)),
        "seconds": draw(st.none() | numbers),
        "change": draw(st.none() | st.integers(0, 2**62)),
        "submitted_at": draw(st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(
            lambda moment: moment.replace(tzinfo=UTC))),
        "extra": draw(unknown_keys),
    }  # fmt: skip


@st.composite
def other_records(draw: st.DrawFn) -> ImportedRecord:
    about, prompt = draw(abouts()), draw(prompts())
    kind = draw(st.sampled_from(["task", "demonstration", "prompt"]))
    if kind == "task":
        responses = tuple(ImportedResponse(one, draw(text)) for one in ("r1", "r2", "r3"))
        return ImportedRecord(prompt=prompt, responses=responses, **about)
    if kind == "demonstration":
        response = ImportedResponse(draw(name), draw(text) + "!", draw(st.none() | text))
        return ImportedRecord(prompt=prompt, type="demonstration", responses=(response,), **about)
    answer, tests = draw(st.none() | text), draw(st.none() | st.lists(text))
    return ImportedRecord(prompt=prompt, type="prompt", answer=answer, tests=tests, **about)


@given(rankings() | other_records())
def test_any_record_survives_being_written_and_read(record):
    written = encode_line(native.object_from_record(record))
    assert written.count(b"\n") == 1
    (again,) = read(written)
    assert again == record
    assert encode_line(native.object_from_record(again)) == written


@given(rankings())
def test_a_key_order_of_the_writer_is_that_of_any_other(record):
    value = native.object_from_record(record)
    backwards = dict(reversed(value.items()))
    assert encode_line(native.canonical(backwards)) == encode_line(native.canonical(value))
    assert list(native.write(backwards, ExportOptions(models=True))) == [value]


@pytest.mark.parametrize("breaker", ["\u2028", "\u2029", "\x85", "\x0b", "\x1e", "\n", "\r\n"])
def test_a_line_stays_one_line_for_every_reader(breaker):
    line = encode_line({"text": f"a{breaker}b"})
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {"text": f"a{breaker}b"}


def test_nothing_that_is_not_json_is_written():
    for value in (float("nan"), float("inf"), "\ud800"):
        with pytest.raises(ValueError, match=r"JSON|surrogates"):
            encode_line({"value": value})


# --- what may be left out ---


def test_the_least_that_a_ranking_needs():
    record = read_one({"prompt": GOOD["prompt"], "responses": [{"id": "a", "text": "A"}, {"id": "b", "text": "B"},
                       {"id": "c", "text": "C"}], "ranking": [["b"], ["a"]]})  # fmt: skip
    assert isinstance(record, ImportedRecord)
    assert (record.unranked, record.strengths) == (("c",), (None,))
    assert (record.counted, record.kind, record.weight, record.revision) == (True, "normal", 1.0, 1)


def test_a_plain_text_is_a_prompt_of_one_user_message():
    record = read_one({"type": "prompt", "prompt": "Add 1 and 1.", "answer": 2})
    assert isinstance(record, ImportedRecord)
    assert record.prompt == ({"role": "user", "content": "Add 1 and 1."},)
    assert record.answer == "2"


def test_a_demonstration_is_a_text_or_an_object():
    one = read_one({"type": "demonstration", "prompt": "Hi", "response": "Hello."})
    two = read_one({"type": "demonstration", "prompt": "Hi", "response": {"text": "Hello.", "model": "m"}})
    assert isinstance(one, ImportedRecord) and isinstance(two, ImportedRecord)
    assert one.responses == (ImportedResponse("r1", "Hello."),)
    assert two.responses == (ImportedResponse("r1", "Hello.", model="m"),)
    assert native.object_from_record(one)["response"] == "Hello."


def test_all_bad_may_place_nothing():
    record = read_one(GOOD | {"ranking": [], "unranked": ["r1", "r2", "r3", "r4"], "strengths": [], "all_bad": True})
    assert isinstance(record, ImportedRecord)
    assert record.ranking == () and record.all_bad


def test_an_offset_of_time_becomes_utc():
    record = read_one(GOOD | {"submitted_at": "2026-01-31T14:00:00.5+02:00"})
    assert isinstance(record, ImportedRecord)
    assert native.object_from_record(record)["submitted_at"] == "2026-01-31T12:00:00.500000Z"


# --- keys ---


def test_the_task_key_prefers_what_the_importer_gave():
    def key(**changes: Any) -> str:
        record = read_one({k: v for k, v in (GOOD | changes).items() if v is not None})
        assert isinstance(record, ImportedRecord)
        return record.task_key

    assert key() == "x-1"
    assert key(external_id=None) == "17"
    content = key(external_id=None, task=None)
    assert content.startswith("sha256:") and content == key(external_id=None, task=None, id="k2", annotator="other")
    assert content == key(external_id=None, task=None, responses=list(reversed(GOOD["responses"])))
    assert content != key(external_id=None, task=None, prompt="Why?")


def test_the_id_of_a_task_to_be_ranked_names_the_task():
    record = read_one({"id": "q1", "prompt": "Hi", "responses": GOOD["responses"]})
    assert isinstance(record, ImportedRecord)
    assert record.ranking is None and record.task_key == "q1"


@pytest.mark.parametrize("second", [{}, {"task": "18", "external_id": None}, {"id": "k2"}])
def test_a_second_record_with_the_same_key_is_a_duplicate(second):
    first, bad = read(json.dumps(GOOD).encode(), json.dumps(GOOD | second).encode())
    assert isinstance(first, ImportedRecord) and isinstance(bad, BadRecord)
    assert bad.line == 2 and "duplicate" in bad.reason


@pytest.mark.parametrize("second", [{"id": "k2", "annotator": "p-8"}, {"id": "k2", "revision": 2}])
def test_another_annotator_or_revision_is_no_duplicate(second):
    assert not [
        one for one in read(*(json.dumps(v).encode() for v in (GOOD, GOOD | second))) if isinstance(one, BadRecord)
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "prompt", "prompt": "Add 1 and 1."},
        {"type": "demonstration", "prompt": "Hi", "response": "Hello."},
        {"prompt": "Hi", "responses": GOOD["responses"]},
        {"prompt": "Hi", "responses": GOOD["responses"], "external_id": "x-1"},
    ],
)
def test_the_same_nameless_content_twice_is_a_duplicate(value):
    first, bad = read(json.dumps(value).encode(), json.dumps(value | {"seconds": 3}).encode())
    assert isinstance(first, ImportedRecord) and isinstance(bad, BadRecord)
    assert "duplicate" in bad.reason


def test_anonymous_answers_with_ids_of_their_own_are_no_duplicates():
    lines = [json.dumps(GOOD | {"annotator": None, "id": one}).encode() for one in ("k1", "k2")]
    assert all(isinstance(one, ImportedRecord) for one in read(*lines))


# --- bad records ---

WRONG_TYPES = [
    ("prompt", None), ("prompt", []), ("prompt", 7), ("prompt", [7]), ("prompt", [{"role": "user"}]),
    ("prompt", [{"role": "user", "content": 7}]), ("responses", None), ("responses", "a"),
    ("ranking", "r1"), ("ranking", ["r1", "r2"]), ("ranking", [[1], [2]]), ("unranked", "r3"), ("strengths", 2),
    ("strengths", ["2"]), ("strengths", [1.0]), ("all_bad", "yes"), ("ratings", []), ("ratings", {"r1": 5}),
    ("ratings", {"r1": {"helpful": "5"}}), ("ratings", {"r1": {"helpful": True}}), ("flags", ["r1"]),
    ("flags", {"r1": "unsafe"}), ("rationale", 7), ("rewrite", "text"), ("rewrite", {"of": "r1"}),
    ("rewrite", {"of": "r1", "text": 7}), ("annotator", 7), ("annotator_kind", "robot"), ("weight", "1"),
    ("weight", -1), ("weight", 101), ("weight", True), ("revision", 0), ("revision", 1.5), ("revision", True),
    ("guideline_version", "3"), ("presented_order", "r1"), ("presented_order", ["r1", "r2"]),
    ("presented_order", ["r1", "r1", "r2", "r3"]), ("seconds", -0.5), ("seconds", "41"), ("change", -1),
    ("change", 2**63), ("submitted_at", 1_700_000_000), ("submitted_at", "yesterday"),
    ("submitted_at", "2026-01-31T12:00:00"),
    ("submitted_at", "2026-13-31T12:00:00Z"), ("submitted_at", "0001-01-01T00:00:00+14:00"),
    ("id", 7), ("id", ""), ("id", "x" * 256), ("external_id", 7), ("task", 17), ("split", "dev"), ("split_group", 7),
    ("kind", "silver"), ("counted", 1), ("format", "plackett/2"), ("type", "battle"),
]  # fmt: skip


def test_responses_without_ids_are_called_by_their_place():
    responses = ["A drink.", {"text": "A leaf.", "model": "m"}, {"id": "x", "text": ""}]
    found = read_one({"prompt": "Tea?", "responses": responses, "ranking": [["r2"], ["x", "r1"]]})
    drink, leaf = ImportedResponse("r1", "A drink."), ImportedResponse("r2", "A leaf.", model="m")
    assert found.responses == (drink, leaf, ImportedResponse("x", ""))
    assert found.ranking == (("r2",), ("x", "r1"))


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_a_wrong_value_is_refused_and_named(key, value):
    assert key in reason(GOOD | {key: value})


BROKEN_RULES = [
    ({"responses": [1, 2]}, 'response 1 is a number; write "…" or {"id": "r1", "text": "…"}'),
    ({"responses": ["a", None]}, "response 2 is null; write"),
    ({"responses": "a"}, 'responses must be a list: ["…", "…"]'),
    ({"responses": GOOD["responses"][:1]}, "1 responses, not 2 to 9"),
    ({"responses": [{"id": f"r{n}", "text": "t"} for n in range(10)]}, "10 responses, not 2 to 9"),
    ({"responses": [*GOOD["responses"], GOOD["responses"][0]]}, "two responses have the id 'r1'"),
    ({"responses": [{"id": "r1"}, {"id": "r2", "text": ""}]}, 'response 1 has no text; write {"id": "r1", "text"'),
    ({"responses": [{"id": "r2", "text": ""}, "a"]}, "two responses have the id 'r2'"),
    ({"responses": [{"id": "a", "text": "", "settings": [1]}, {"id": "b", "text": ""}]}, "settings"),
    ({"responses": [{"id": "a", "text": "", "model": "m" * 201}, {"id": "b", "text": ""}]}, "model"),
    ({"ranking": [["r2"], ["r9"]]}, "'r9' is not a response"),
    ({"ranking": [["r2"], ["r1", "r2", "r4"]]}, "'r2' is named twice"),
    ({"ranking": [["r2"], []]}, "An empty tier"),
    ({"ranking": [["r2"]], "strengths": [], "unranked": ["r1", "r3", "r4"]}, "at least two"),
    ({"unranked": []}, "Neither placed nor left unranked: r3"),
    ({"strengths": []}, "0 strengths for 1 gaps"),
    ({"strengths": [4]}, "strengths.0"),
    ({"ratings": {"r9": {"helpful": 5}}}, "'r9' is not a response"),
    ({"flags": {"r9": []}}, "'r9' is not a response"),
    ({"rewrite": {"of": "r9", "text": "t"}}, "'r9' is not a response"),
    ({"rewrite": {"of": "r1", "text": "t", "by": "me"}}, "rewrite"),
    ({"ranking": None}, "without a ranking"),
    ({"prompt": [{"role": "tool", "content": "42"}]}, "role 'tool'"),
    ({"prompt": [{"role": "human", "content": "hi"}]}, "role 'human'"),
    (
        {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "assistant's, not the user's",
    ),
    ({"prompt": [{"role": "system", "content": "a"}]}, "system's, not the user's"),
    ({"prompt": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "only stands first"),
    ({"prompt": " \n "}, "blank"),
    ({"type": "demonstration"}, "response"),
    ({"type": "demonstration", "response": " "}, "blank"),
    ({"type": "prompt"}, "has no responses"),
    ({"type": "prompt", "answer": ["4"]}, "answer"),
    ({"type": "superseded"}, "superseded marker"),
    ({"type": "withdrawn"}, "withdrawn marker"),
]


@pytest.mark.parametrize(("changes", "part"), BROKEN_RULES)
def test_a_broken_rule_is_named(changes, part):
    assert part in reason(GOOD | changes)


LINE = json.dumps(GOOD)
BAD_LINES = [
    ("[]", "not a JSON object"),
    ("7", "not a JSON object"),
    ("null", "not a JSON object"),
    ("{", "not JSON"),
    (LINE[:-1], "not JSON"),
    (LINE + "}", "not JSON"),
    (LINE.replace("41.5", "NaN"), "NaN"),
    (LINE.replace("41.5", "Infinity"), "Infinity"),
    (LINE.replace("41.5", "-Infinity"), "-Infinity"),
    (LINE.replace("41.5", "1e999"), "too large"),
    (LINE.replace("812", "8" * 5000), "too many digits"),
    (LINE.replace("{", '{"mine": NaN, ', 1), "NaN"),
    (LINE.replace("Scattering.", "a\\u0000b"), "NUL"),
    (LINE.replace("Scattering.", "a\0b"), "NUL"),
    (LINE.replace("{", '{"mine": {"\\u0000": 1}, ', 1), "NUL"),
    (LINE.replace("Scattering.", "a\\ud83d b"), "lone surrogate"),
    (LINE.replace("Scattering.", "\\ude00\\ud83d"), "lone surrogate"),
    (LINE.replace("{", '{"mine": ["\\udc80"], ', 1), "lone surrogate"),
    (LINE.replace("{", '{"id": "k0", ', 1), "'id' stands twice"),
    (LINE.replace('"text": ""', '"text": "", "text": "x"'), "'text' stands twice"),
    (LINE.replace("{", '{"mine": ' + "[" * 250 + "]" * 250 + ", ", 1), "nested deeper"),
    (LINE.replace("{", '{"mine": ' + "[" * 100_000 + "]" * 100_000 + ", ", 1), "nested deeper"),
    (LINE.replace("{", '{"mine": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + ", ", 1), "nested deeper"),
    (LINE.replace("Scattering.", "tab\there"), "not JSON"),
]


@pytest.mark.parametrize(("line", "part"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_spoils_itself_alone(line, part):
    before, bad, after = read(LINE.encode(), line.encode(), LINE.replace("k1", "k2").replace("p-7", "p-8").encode())
    assert isinstance(before, ImportedRecord) and isinstance(after, ImportedRecord)
    assert isinstance(bad, BadRecord)
    assert bad.line == 2 and after.line == 3
    assert part in bad.reason


def test_a_pair_of_surrogate_escapes_is_one_character():
    assert parse_json('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_nesting_up_to_the_limit_is_kept():
    assert parse_json("[" * 200 + "]" * 200)
    with pytest.raises(RecordError, match="nested"):
        parse_json("[" * 201 + "]" * 201)
