"""Anthropic HH pairs: two whole dialogues that differ in their last Assistant turn.

Two layouts are read: lines of `{"chosen", "rejected"}`, as first published, and a list of `{"text": [a, b], "score":
[x, y]}`, as re-packed since (the higher score is the chosen one, equal scores are a tie). In both the chosen text
always stands first in the file; here the order of the responses tells nothing (`neutral`). Blanks around a turn are
dropped. A pair whose dialogues differ before the last Assistant turn is a bad record, since it has no one prompt.

Written: a line of `{"chosen", "rejected"}` for each pair. Not carried: who ranked, ratings, flags, rationale, rewrite,
thinking, split; see `dialogues` for what becomes of system messages and blanks.

Source: https://github.com/anthropics/hh-rlhf
"""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.interchange.dialogues import dialogue_text, messages_from
from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import in_neutral_order, object_from, sha256_of
from annotate.interchange.pairs import Pair, answer
from annotate.interchange.records import BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "hh"
ANNOTATOR = "hh crowd worker"


def read(source: Source) -> Read:
    """Yield one record per pair, in constant memory; a pair of equal texts is left out as no fault.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def pair(text: str, line: int, item: int | None) -> Read:
        chosen, rejected, tied = _texts(object_from(parse_json(text)))
        prompt, better = _split(chosen)
        other_prompt, worse = _split(rejected)
        if prompt != other_prompt:
            raise RecordError("the two texts do not share the dialogue up to the last Assistant turn")
        if better == worse:
            yield BadRecord(line, "both texts are the same", item, fault=False)
        else:
            yield record_from_object(_native(prompt, better, worse, tied=tied), line=line, item=item)

    return read_records(source, pair)


def _texts(value: dict[str, Any]) -> tuple[str, str, bool]:
    """Return the chosen text, the rejected one, and whether neither was."""
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
    turns = messages_from(dialogue)
    if turns[-1]["role"] != "assistant":
        raise RecordError("a text does not end with an Assistant turn")
    return turns[:-1], turns[-1]["content"]


def _native(prompt: list[dict[str, str]], better: str, worse: str, *, tied: bool) -> dict[str, Any]:
    responses, ids = in_neutral_order([{"text": better}, {"text": worse}])
    dialogue = "".join(f"\n\n{message['role']}: {message['content']}" for message in prompt)
    return {
        "external_id": f"hh:{sha256_of(chr(0).join([dialogue, *(one['text'] for one in responses)]))}",
        "prompt": prompt,
        "responses": responses,
        "ranking": [["r1", "r2"]] if tied else [[ids[0]], [ids[1]]],
        "annotator": ANNOTATOR,
        "annotator_kind": "imported",
    }


# --- writing ----------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Any] = {"chosen": "text", "rejected": "text"}


def line(prompt: Sequence[Mapping[str, Any]], pair: Pair) -> dict[str, Any]:
    """Return the two dialogues of a pair."""
    return {key: dialogue_text([*prompt, answer(one)]) for key, one in pair.both.items()}
