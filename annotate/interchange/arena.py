"""Chatbot Arena battles: two conversations, and which model won, or a tie.

A battle becomes one ranking of two responses. `question_id` is the external id, `judge` the annotator, `tstamp` the
time; `tie (bothbad)` is a tie in which all are bad. Battles whose conversations part before the last answer have no
one prompt and are left out.

Written: one line for each pair of placed responses and each annotator, ties too. `question_id` names task and pair, so
that annotators of one pair share it. Side a is whichever response comes first in the task. Not carried: strengths,
ratings, flags, rationale, rewrite, thinking, split, responses left unranked, *all are bad* of a pair that is no tie.

Source: https://github.com/lm-sys/FastChat, fastchat/serve/monitor/clean_battle_data.py
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from annotate.interchange.native import instant_text, record_from_object
from annotate.interchange.neutral import in_neutral_order, number_from, object_from, short_text
from annotate.interchange.options import ExportOptions
from annotate.interchange.pairs import answer, model_name, plain
from annotate.interchange.records import (
    MAX_ANNOTATOR_CHARACTERS,
    MAX_MODEL_CHARACTERS,
    MAX_NAME_CHARACTERS,
    BadRecord,
    RecordError,
    parse_json,
)
from annotate.interchange.streams import Read, Source, read_records
from annotate.interchange.trl import MESSAGES

FORMAT = "arena"
ANNOTATOR = "arena"
TIES = {"tie": False, "tie (bothbad)": True, "bothbad": True, "both_bad": True}


def read(source: Source) -> Read:
    """Yield one record per battle, in constant memory.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def battle(text: str, line: int, item: int | None) -> Read:
        value = object_from(parse_json(text))
        sides = [_conversation(value, f"conversation_{side}") for side in "ab"]
        if sides[0][:-1] != sides[1][:-1]:
            yield BadRecord(line, "the conversations part before the last answer", item, fault=False)
        else:
            yield record_from_object(_native(value, sides), line=line, item=item)

    return read_records(source, battle)


def _conversation(value: Mapping[str, Any], key: str) -> list[dict[str, str]]:
    messages = value.get(key)
    if not isinstance(messages, list) or len(messages) < 2:
        raise RecordError(f"{key} must be a list of messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RecordError(f"{key} has a message without text")
    if messages[-1].get("role") != "assistant":
        raise RecordError(f"{key} must end with the assistant's message")
    return [{"role": message.get("role"), "content": message["content"]} for message in messages]


def _native(value: Mapping[str, Any], sides: list[list[dict[str, str]]]) -> dict[str, Any]:
    models = [short_text(value.get(f"model_{side}"), MAX_MODEL_CHARACTERS) for side in "ab"]
    texts = [{"text": side[-1]["content"], "model": model} for side, model in zip(sides, models, strict=True)]
    responses, ids = in_neutral_order(texts)
    winner = value.get("winner")
    if winner not in (*TIES, "model_a", "model_b"):
        raise RecordError(f"winner is {winner!r}, not model_a, model_b, {' or '.join(TIES)}")
    tiers = [sorted(ids)] if winner in TIES else [[ids[0]], [ids[1]]]
    return {
        "external_id": short_text(value.get("question_id"), MAX_NAME_CHARACTERS),
        "prompt": sides[0][:-1],
        "responses": responses,
        "ranking": tiers[::-1] if winner == "model_b" else tiers,
        "all_bad": TIES.get(winner, False),
        "annotator": short_text(value.get("judge"), MAX_ANNOTATOR_CHARACTERS) or ANNOTATOR,
        "annotator_kind": "imported",
        "submitted_at": _instant(value.get("tstamp")),
        "language": value.get("language") or None,
    }


def _instant(value: Any) -> str | None:
    """A Unix time, in seconds, as an instant."""
    seconds = number_from(value, "tstamp")
    try:
        return None if seconds is None else instant_text(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        raise RecordError(f"tstamp is {seconds:g}, which is no time") from None


# --- writing ----------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Any] = {
    "question_id": "text",
    "model_a": "text",
    "model_b": "text",
    "winner": "text",
    "judge": "text",
    "conversation_a": MESSAGES,
    "conversation_b": MESSAGES,
    "turn": "whole",
    "anony": "yes",
    "language": "text",
    "tstamp": "number",
}


def write(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield a battle for each pair of placed responses."""
    tiers = {name: place for place, tier in enumerate(record["ranking"]) for name in tier}
    placed = [response for response in record["responses"] if response["id"] in tiers]
    prompt = plain(record["prompt"])
    for one, other in combinations(placed, 2):
        yield {
            "question_id": f"{record['task']}:{one['id']}:{other['id']}",
            "model_a": model_name(one) if options.models else None,
            "model_b": model_name(other) if options.models else None,
            "winner": _winner(tiers[one["id"]] - tiers[other["id"]], all_bad=bool(record.get("all_bad"))),
            "judge": record.get("annotator"),
            "conversation_a": [*prompt, answer(one)],
            "conversation_b": [*prompt, answer(other)],
            "turn": sum(message["role"] == "user" for message in prompt),
            "anony": True,
            "language": record.get("language") or "",
            "tstamp": _seconds(record.get("submitted_at")),
        }


def _winner(apart: int, *, all_bad: bool) -> str:
    if apart == 0:
        return "tie (bothbad)" if all_bad else "tie"
    return "model_a" if apart < 0 else "model_b"


def _seconds(instant: str | None) -> float | None:
    return datetime.fromisoformat(instant).timestamp() if instant else None
