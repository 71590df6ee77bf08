"""Open-Assistant trees and HH pairs: small files of our own, and the real ones where they are at hand."""

import io
import json
from collections import Counter
from typing import Any

import pytest

from annotate.interchange import hh, native, oasst, read_file
from annotate.interchange.records import BadRecord, ImportedRecord
from annotate.interchange.streams import Read
from annotate.preferences import comparisons_of
from tests.conftest import SHARED_DATA

OASST = SHARED_DATA / "oasst" / "en_100_tree.jsonl"
HH = SHARED_DATA / "hh_helpful" / "helpful.first1852.json"


def parted(found: Read) -> tuple[list[ImportedRecord], list[BadRecord]]:
    everything = list(found)
    return (
        [one for one in everything if isinstance(one, ImportedRecord)],
        [one for one in everything if isinstance(one, BadRecord)],
    )


def as_file(*values: Any) -> io.BytesIO:
    return io.BytesIO("\n".join(map(json.dumps, values)).encode())


# --- Open-Assistant ---


def message(name: str, role: str, *replies: Any, rank: int | None = None, **more: Any) -> dict[str, Any]:
    found = {"message_id": name, "text": f"text of {name}", "role": role, "lang": "en", "deleted": False}
    return found | {"synthetic": False, "replies": list(replies)} | ({"rank": rank} if rank is not None else {}) | more


def tree(root: Any, name: str = "tree") -> dict[str, Any]:
    return {"message_tree_id": name, "tree_state": "ready_for_export", "prompt": root}


def ask(name: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return message(name, "prompter", *replies, **more)


def reply(name: str, rank: int | None = None, *replies: Any, **more: Any) -> dict[str, Any]:
    return message(name, "assistant", *replies, rank=rank, **more)


TREE = tree(
    ask("q1", reply("b", 1, ask("q2", reply("z", 0), reply("y", 2), reply("x", 1, synthetic=True, model_name="m"))),
        reply("a", 0)))  # fmt: skip


def test_each_ranked_group_becomes_one_ranking_with_its_conversation():
    (first, second), bad = parted(oasst.read(as_file(TREE)))
    assert bad == []
    assert first.ranking == (("a",), ("b",)) and second.ranking == (("z",), ("x",), ("y",))
    assert (first.external_id, second.external_id) == ("q1", "q2")
    assert first.split_group == second.split_group == "tree"
    assert [(m["role"], m["content"]) for m in second.prompt] == [
        ("user", "text of q1"), ("assistant", "text of b"), ("user", "text of q2"),
    ]  # fmt: skip
    assert (second.annotator, second.annotator_kind) == ("oasst consensus", "imported")
    assert {r.id: r.model for r in second.responses} == {"x": "m", "y": "human", "z": "human"}


def test_the_order_of_the_responses_does_not_tell_the_ranks():
    (first, second), _ = parted(oasst.read(as_file(TREE)))
    assert [r.id for r in first.responses] == ["a", "b"]
    assert [r.id for r in second.responses] == ["x", "y", "z"]


def test_equal_ranks_are_a_tie():
    (record,), _ = parted(oasst.read(as_file(tree(ask("q", reply("a", 3), reply("b", 1), reply("c", 3))))))
    assert record.ranking == (("b",), ("a", "c"))


def test_groups_without_all_ranks_are_left_out_as_no_fault():
    value = tree(ask("q", reply("a", 0), reply("b", None, ask("r", reply("c"), reply("d"))), reply("e", 1)))
    records, bad = parted(oasst.read(as_file(value, tree(ask("s", reply("f", 0)), "t2"), tree(ask("u"), "t3"))))
    assert records == []
    assert [(one.line, one.reason, one.fault) for one in bad] == [
        (1, "replies to q: only some replies have a rank", False),
        (1, "replies to r: no ranks", False),
        (2, "replies to s: only one reply", False),
    ]


def test_groups_without_all_ranks_can_come_as_tasks_to_be_ranked():
    value = tree(ask("q", reply("a", 0), reply("b", None, ask("r", reply("c"), reply("d"))), reply("e", 1)))
    records, bad = parted(oasst.read(as_file(value), include_unranked=True))
    assert bad == []
    assert [(one.external_id, one.ranking, one.annotator) for one in records] == [("q", None, None), ("r", None, None)]


def test_deleted_messages_go_with_all_that_hangs_on_them():
    gone = reply("b", 1, ask("q2", reply("x", 0), reply("y", 1)), deleted=True)
    (record,), bad = parted(oasst.read(as_file(tree(ask("q", reply("a", 0), gone, reply("c", 2))))))
    assert record.ranking == (("a",), ("c",))
    assert [(one.reason, one.fault) for one in bad] == [("message b is deleted", False)]


BAD_TREES = [
    ({"prompt": ask("q")}, "message_tree_id"),
    (tree(None), "without message_id"),
    (tree(ask("q") | {"text": None}), "message q has no text"),
    (tree(message("q", "moderator")), "role 'moderator'"),
    (tree(ask("q") | {"replies": {"a": 1}}), "replies must be a list"),
    (tree(ask("q", *(reply(f"a{n}", n) for n in range(10)))), "replies to q: 10 responses, not 2 to 9"),
    (tree(ask("q", reply("a", 0), reply("a", 1))), "two responses have the id 'a'"),
    (tree(ask("q", reply("a", 0), reply("b", rank="1"))), "not a whole number"),  # type: ignore[arg-type]
    (tree(ask("q", reply("a", 0), reply("b", 1), text=" ")), "blank"),
]


@pytest.mark.parametrize(("value", "part"), BAD_TREES)
def test_a_bad_tree_or_group_is_reported_and_the_rest_read(value, part):
    records, bad = parted(oasst.read(as_file(value, tree(ask("s", reply("c", 0), reply("d", 1)), "t2"))))
    assert [one.external_id for one in records] == ["s"]
    assert len(bad) == 1 and bad[0].fault and bad[0].line == 1
    assert part in bad[0].reason


def test_a_bad_group_spoils_no_other_group_of_its_tree():
    value = tree(ask("q", reply("a", 0, ask("r", reply("c", 0), reply("d", 1))), reply("b", 1, text=7)))
    records, bad = parted(oasst.read(as_file(value)))
    assert [one.external_id for one in records] == ["r"]
    assert {one.reason for one in bad} >= {"replies to q: message b has no text"}


@pytest.mark.skipif(not OASST.exists(), reason=f"real data absent: {OASST}")
def test_the_real_trees_give_the_published_counts():
    records, bad = parted(read_file("oasst", OASST))
    assert len(records) == 211
    assert Counter(len(one.responses) for one in records) == {2: 57, 3: 116, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1}
    assert sum(len(comparisons_of(one.ranking or ())) for one in records) == 751
    reasons = Counter(one.reason.partition(": ")[2] for one in bad)
    assert reasons == {"only one reply": 40, "no ranks": 2, "only some replies have a rank": 1}
    assert not any(one.fault for one in bad)
    assert len({one.external_id for one in records}) == 211
    assert all(len(one.unranked) == 0 for one in records)


@pytest.mark.skipif(not OASST.exists(), reason=f"real data absent: {OASST}")
def test_the_real_trees_agree_with_the_ranks_in_the_file():
    replies: dict[str, dict[str, tuple[str, int]]] = {}
    waiting = [json.loads(one)["prompt"] for one in OASST.read_text().splitlines()]
    while waiting:
        node = waiting.pop()
        waiting += node["replies"]
        replies[node["message_id"]] = {one["message_id"]: (one["text"], one.get("rank")) for one in node["replies"]}
    for record in parted(read_file("oasst", OASST))[0]:
        group = replies[str(record.external_id)]
        ranked = [[group[name][1] for name in tier] for tier in record.ranking or ()]
        assert ranked == [[rank] for rank in range(len(group))]
        assert {one.id: one.text for one in record.responses} == {name: text for name, (text, _) in group.items()}


# --- HH ---

CHOSEN = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Because."
REJECTED = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: No idea.\n"


def texts_by_preference(record: ImportedRecord) -> list[list[str]]:
    texts = {one.id: one.text for one in record.responses}
    return [[texts[name] for name in tier] for tier in record.ranking or ()]


@pytest.mark.parametrize(
    "value",
    [
        {"chosen": CHOSEN, "rejected": REJECTED},
        [{"text": [CHOSEN, REJECTED], "score": [1.0, 0.0]}],
        [{"text": [REJECTED, CHOSEN], "score": [0.0, 1.0]}],
    ],
)
def test_a_pair_is_split_at_the_last_assistant_turn(value):
    (record,), bad = parted(hh.read(as_file(value)))
    assert bad == []
    assert [(m["role"], m["content"]) for m in record.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Why?"),
    ]
    assert texts_by_preference(record) == [["Because."], ["No idea."]]
    assert record.annotator_kind == "imported"


def test_neither_place_nor_name_tells_which_was_chosen():
    (one,), _ = parted(hh.read(as_file({"chosen": CHOSEN, "rejected": REJECTED})))
    (other,), _ = parted(hh.read(as_file({"chosen": REJECTED, "rejected": CHOSEN})))
    assert one.responses == other.responses and one.external_id == other.external_id
    assert one.ranking == tuple(reversed(other.ranking or ()))


def test_equal_scores_are_a_tie():
    (record,), _ = parted(hh.read(as_file([{"text": [CHOSEN, REJECTED], "score": [0.5, 0.5]}])))
    assert record.ranking == (("r1", "r2"),)


BAD_PAIRS = [
    ({"chosen": CHOSEN, "rejected": REJECTED.replace("Hi", "Ho")}, "do not share the dialogue", True),
    ({"chosen": CHOSEN, "rejected": "\n\nHuman: Hi\n\nAssistant: Ho"}, "do not share the dialogue", True),
    ({"chosen": CHOSEN, "rejected": CHOSEN}, "both texts are the same", False),
    ({"chosen": CHOSEN, "rejected": CHOSEN + "\n\nHuman: Ah"}, "does not end with an Assistant turn", True),
    ({"chosen": "Human: Hi", "rejected": REJECTED}, "does not start with", True),
    ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "prompt must be", True),
    ({"chosen": "\n\nHuman: \n\nAssistant: a", "rejected": "\n\nHuman: \n\nAssistant: b"}, "blank", True),
    ({"chosen": CHOSEN}, "needs chosen and rejected", True),
    ({"text": [CHOSEN, REJECTED, ""], "score": [1, 0, 0]}, "two entries each", True),
    ({"text": [CHOSEN, REJECTED], "score": ["1", "0"]}, "two numbers", True),
    ({"text": [CHOSEN, REJECTED]}, "two numbers", True),
    ([CHOSEN, REJECTED], "not a JSON object", True),
]


@pytest.mark.parametrize(("value", "part", "fault"), BAD_PAIRS)
def test_a_bad_pair_is_reported_and_the_rest_read(value, part, fault):
    good = {"chosen": CHOSEN, "rejected": REJECTED}
    for source in (as_file([value, good]), as_file({}, value, good)):
        records, bad = parted(hh.read(source))
        assert len(records) == 1
        assert part in bad[-1].reason and bad[-1].fault == fault


@pytest.mark.skipif(not HH.exists(), reason=f"real data absent: {HH}")
def test_the_real_pairs():
    records, bad = parted(read_file("hh", HH))
    assert (len(records), len(bad)) == (1843, 9)
    assert {one.reason for one in bad} == {"the two texts do not share the dialogue up to the last Assistant turn"}
    pairs = json.loads(HH.read_text())
    kept = [pair for number, pair in enumerate(pairs, 1) if number not in {one.item for one in bad}]
    for record, pair in zip(records, kept, strict=True):
        best, worst = (tier[0] for tier in texts_by_preference(record))
        assert pair["text"][0].rstrip().endswith(best) and pair["text"][1].rstrip().endswith(worst)
    # Were place independent of preference: 921.5 with a standard deviation of 21.5.
    assert abs(sum(one.ranking == (("r1",), ("r2",)) for one in records) - 921.5) < 4 * 21.5


# --- all formats ---


@pytest.mark.parametrize(("name", "path"), [("oasst", OASST), ("hh", HH)])
def test_imported_records_are_good_native_records(name, path):
    if not path.exists():
        pytest.skip(f"real data absent: {path}")
    records, _ = parted(read_file(name, path))
    lines = as_file(*map(native.object_from_record, records))
    again, bad = parted(native.read(lines))
    assert bad == [] and again == records
