"""Native rankings for tests, drawn or fixed, and what is compared of them."""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from annotate.interchange import export_lines, read_file
from annotate.interchange.records import BadRecord, ImportedRecord

#: Everything that has to survive: quotes, separators, line breaks of every kind, other scripts, no half pairs and NULs.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters | st.sampled_from(['"', ",", ";", "\n", "\r", "\t", "'", "=", "{", "["]), max_size=12)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@st.composite
def conversations(draw: st.DrawFn, *, system: bool = True, turns: int = 2) -> list[dict[str, str]]:
    """Messages that end with the user's; one user message with `turns` 0."""
    found = [{"role": "user", "content": f"{draw(texts)}?"}]
    for _ in range(draw(st.integers(0, turns))):
        found = [{"role": "user", "content": draw(texts)}, {"role": "assistant", "content": draw(texts)}, *found]
    return [{"role": "system", "content": draw(texts)}, *found] if system and draw(st.booleans()) else found


@st.composite
def judgements(draw: st.DrawFn, prompts: st.SearchStrategy[Any] | None = None) -> dict[str, Any]:
    """A counted ranking of a normal task, with everything that an annotator can say."""
    count = draw(st.integers(2, 5))
    ids = [f"r{number}" for number in range(1, count + 1)]
    shuffled = draw(st.permutations(ids))
    placed = draw(st.integers(2, count))
    cuts = sorted(draw(st.sets(st.integers(1, placed - 1))))
    tiers = [sorted(shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, placed], strict=True)]
    return {
        "format": "plackett/1", "id": draw(words), "project": "demo", "task": draw(words),
        "split": draw(st.sampled_from(["train", "validation", "test"])), "kind": "normal", "counted": True,
        "prompt": draw(prompts if prompts is not None else conversations()),
        "responses": [
            {"id": name, "text": draw(texts), "thinking": draw(st.none() | texts), "model": draw(st.none() | words)}
            for name in ids
        ],
        "ranking": tiers, "unranked": sorted(shuffled[placed:]),
        "strengths": [draw(st.sampled_from([None, 1, 2, 3])) for _ in tiers[1:]], "all_bad": draw(st.booleans()),
        "ratings": draw(st.dictionaries(st.sampled_from(ids), st.dictionaries(words, st.integers(0, 9), min_size=1))),
        "flags": draw(st.dictionaries(st.sampled_from(ids), st.lists(words, min_size=1, max_size=2))),
        "rationale": draw(st.none() | texts.map("{}.".format)),
        "rewrite": draw(st.none() | st.builds(lambda text: {"of": "r1", "text": f"{text}."}, texts)),
        "annotator": draw(words), "annotator_kind": draw(st.sampled_from(["human", "machine", "imported"])),
        "weight": draw(st.floats(0, 100)), "revision": draw(st.integers(1, 9)),
        "presented_order": draw(st.permutations(ids)), "seconds": draw(st.none() | st.floats(0, 1e6)),
        "change": draw(st.integers(0, 2**40)), "submitted_at": "2026-01-31T12:00:00Z",
    }  # fmt: skip


def exported(format: str, *records: Mapping[str, Any], **options: str) -> bytes:
    return b"".join(export_lines(format, iter(records), **options))


def rows(format: str, *records: Mapping[str, Any], **options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(format, *records, **options).splitlines()]


def read_back(format: str, data: bytes, mapping: Mapping[str, str] | None = None) -> list[ImportedRecord]:
    """The records of a file, all of which must be good."""
    found = list(read_file(format, io.BytesIO(data), mapping))
    assert not [one for one in found if isinstance(one, BadRecord)], found
    return [one for one in found if isinstance(one, ImportedRecord)]


def parted(found: Iterable[ImportedRecord | BadRecord]) -> tuple[list[ImportedRecord], list[BadRecord]]:
    everything = list(found)
    good = [one for one in everything if isinstance(one, ImportedRecord)]
    return good, [one for one in everything if isinstance(one, BadRecord)]


def said(record: Mapping[str, Any] | ImportedRecord) -> tuple[Any, Any]:
    """Tiers of (text, model), and the rest: what a format of rankings must carry, whatever responses are called."""
    if isinstance(record, ImportedRecord):
        shown = {one.id: (one.text, one.model) for one in record.responses}
        ranking, unranked = record.ranking or (), record.unranked
    else:
        shown = {one["id"]: (one["text"], one["model"]) for one in record["responses"]}
        ranking, unranked = record["ranking"], record["unranked"]
    return [sorted(map(str, (shown[name] for name in tier))) for tier in ranking], sorted(
        str(shown[n]) for n in unranked
    )


#: Two strict tiers, a tie in the second, one response left out.
RECORD: dict[str, Any] = {
    "format": "plackett/1", "id": "1", "project": "demo", "task": "7", "kind": "normal", "counted": True,
    "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
    "responses": [
        {"id": name, "text": f"answer {name}", "thinking": "hm", "model": f"model {name}"}
        for name in ("r1", "r2", "r3", "r4")
    ],
    "ranking": [["r2"], ["r1", "r4"]], "unranked": ["r3"], "strengths": [2], "all_bad": False,
    "annotator": "ann", "weight": 1.0, "submitted_at": "2026-01-31T12:00:00Z",
}  # fmt: skip
LONGER = RECORD | {
    "id": "2",
    "prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ],
    "ranking": [["r1"], ["r2"], ["r3"], ["r4"]],
    "unranked": [],
    "strengths": [1, None, 3],
}
