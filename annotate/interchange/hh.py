"""Anthropic HH pairs to native records: two whole dialogues that differ in their last Assistant turn.

Two layouts: lines of `{"chosen", "rejected"}`, as first published, and a list of `{"text": [a, b], "score": [x, y]}`,
as re-packed since (the higher score is the chosen one, equal scores are a tie).

In both the chosen text always stands first in the file. Here the responses stand in the order of the sha256 of their
texts and are named r1, r2 in that order, so neither place nor name tells which was chosen. Blanks around a turn are
dropped. A pair whose dialogues differ before the last Assistant turn is a bad record, since it has no one prompt.

Source: https://github.com/anthropics/hh-rlhf
"""

import hashlib
import re
from typing import Any

from annotate.interchange.native import record_from_object
from annotate.interchange.records import BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "hh"
ANNOTATOR = "hh crowd worker"
ROLES = {"Human": "user", "Assistant": "assistant"}

_TURN = re.compile(r"\n\n(Human|Assistant):")


def read(source: Source) -> Read:
    """Yield one record per pair, in constant memory; a pair of equal texts is left out as no fault.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def pair(text: str, line: int, item: int | None) -> Read:
        chosen, rejected, tied = _texts(parse_json(text))
        prompt, better = _split(chosen)
        other_prompt, worse = _split(rejected)
        if prompt != other_prompt:
            raise RecordError("the two texts do not share the dialogue up to the last Assistant turn")
        if better == worse:
            yield BadRecord(line, "both texts are the same", item, fault=False)
        else:
            yield record_from_object(_native(prompt, better, worse, tied=tied), line=line, item=item)

    return read_records(source, pair)


def _texts(value: Any) -> tuple[str, str, bool]:
    """Return the chosen text, the rejected one, and whether neither was."""
    if not isinstance(value, dict):
        raise RecordError("not a JSON object")
    texts, scores = value.get("text"), value.get("score")
    if "chosen" in value:
        texts, scores = [value["chosen"], value.get("rejected")], [1, 0]
    if not isinstance(texts, list) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise RecordError("needs chosen and rejected, or text and score with two entries each")
    if not isinstance(scores, list) or len(scores) != 2 or not all(type(score) in (int, float) for score in scores):
        raise RecordError("score must hold two numbers")
    first, second = texts if scores[0] >= scores[1] else reversed(texts)
    return first, second, scores[0] == scores[1]


def _split(dialogue: str) -> tuple[list[dict[str, str]], str]:
    """Return the messages before the last Assistant turn, and that turn."""
    before, *parts = _TURN.split(dialogue)
    if before.strip() or not parts:
        raise RecordError("a text does not start with a Human or Assistant turn")
    turns = [{"role": ROLES[name], "content": text.strip()} for name, text in zip(parts[::2], parts[1::2], strict=True)]
    if turns[-1]["role"] != "assistant":
        raise RecordError("a text does not end with an Assistant turn")
    return turns[:-1], turns[-1]["content"]


def _native(prompt: list[dict[str, str]], better: str, worse: str, *, tied: bool) -> dict[str, Any]:
    texts = sorted([better, worse], key=_sha256)
    names = {text: f"r{number}" for number, text in enumerate(texts, 1)}
    dialogue = "".join(f"\n\n{message['role']}: {message['content']}" for message in prompt)
    return {
        "external_id": f"hh:{_sha256(chr(0).join([dialogue, *texts]))}",
        "prompt": prompt,
        "responses": [{"id": names[text], "text": text} for text in texts],
        "ranking": [["r1", "r2"]] if tied else [[names[better]], [names[worse]]],
        "annotator": ANNOTATOR,
        "annotator_kind": "imported",
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
