"""Nectar: a dialogue as one text, and up to nine answers with ranks, 1 the best.

Each line becomes one ranking; equal ranks are a tie, an answer without a rank is unranked. The ranks of the published
data are a model's, so the annotator `Nectar` is a machine. The dialogue has the turns of HH (`\\n\\nHuman: …`).

Written: one line per ranking of two placed responses or more; the rank is the number of the tier. Not carried: who
ranked, strengths, *all are bad*, ratings, flags, rationale, rewrite, thinking, split, and responses left unranked.
`good_natured` is null, since nobody was asked; a system message stands at the start of the first Human turn.

Source: https://huggingface.co/datasets/berkeley-nest/Nectar
"""

from collections.abc import Iterator, Mapping
from typing import Any

from annotate.interchange.dialogues import dialogue_text, messages_from
from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import in_neutral_order, number_from, object_from, short_text, text_from, tiers_of
from annotate.interchange.options import ExportOptions
from annotate.interchange.pairs import model_name
from annotate.interchange.records import MAX_MODEL_CHARACTERS, BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "nectar"
ANNOTATOR = "Nectar"


def read(source: Source) -> Read:
    """Yield one record per line, in constant memory; one with fewer than two ranked answers is left out.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def one(text: str, line: int, item: int | None) -> Read:
        found = _native(object_from(parse_json(text)))
        if len([name for tier in found["ranking"] for name in tier]) < 2:
            yield BadRecord(line, "fewer than two answers have a rank", item, fault=False)
        else:
            yield record_from_object(found, line=line, item=item)

    return read_records(source, one)


def _native(value: Mapping[str, Any]) -> dict[str, Any]:
    answers = value.get("answers")
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise RecordError("answers must be a list of objects")
    given = [
        {"text": text_from(one, "answer"), "model": short_text(one.get("model"), MAX_MODEL_CHARACTERS)}
        for one in answers
    ]
    responses, ids = in_neutral_order(given)
    ranks = [number_from(one.get("rank"), "rank") for one in answers]
    kept = {key: value[key] for key in ("source", "good_natured") if value.get(key) is not None}
    return kept | {
        "prompt": _prompt(text_from(value, "prompt")),
        "responses": responses,
        "ranking": tiers_of(ids, ranks, best="lowest"),
        "annotator": ANNOTATOR,
        "annotator_kind": "machine",
    }


def _prompt(dialogue: str) -> list[dict[str, str]]:
    """The dialogue's messages; the Assistant turn at its end, which is still to come, is none."""
    messages = messages_from(dialogue)
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
        messages.pop()
    return messages


# --- writing ----------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Any] = {
    "prompt": "text",
    "answers": [{"answer": "text", "model": "text", "rank": "number"}],
    "turns": "whole",
    "num_responses": "whole",
    "source": ["text"],
    "good_natured": "yes",
}


def write(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield the one line of a ranking in which two responses or more are placed."""
    ranks = {name: float(place) for place, tier in enumerate(record["ranking"], 1) for name in tier}
    if len(ranks) < 2:
        return
    answers = [
        {
            "answer": response["text"],
            "model": model_name(response) if options.models else None,
            "rank": ranks[response["id"]],
        }
        for response in record["responses"]
        if response["id"] in ranks
    ]
    yield {
        "prompt": dialogue_text([*record["prompt"], {"role": "assistant", "content": ""}]),
        "answers": answers,
        "turns": sum(message["role"] == "user" for message in record["prompt"]),
        "num_responses": len(answers),
        "source": [record["project"]] if record.get("project") else [],
        "good_natured": None,
    }
