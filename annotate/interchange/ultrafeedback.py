"""UltraFeedback: an instruction, completions of several models, and what a model judge said of each.

Whole records (`instruction`, `completions`) become one ranking by `overall_score`, the judge's verdict on the whole
completion; equal scores are a tie, completions without one are unranked. The ratings of single criteria are kept as
ratings and never ranked by: people who rate and rank contradict themselves. A record in which fewer than two
completions have an `overall_score` is left out. Binarised records (`chosen`, `rejected` as messages) become one pair.

The judge is a model, so the annotator `UltraFeedback` is a machine: snapshots take such rankings when asked to.

Written: one line per ranking of two placed responses or more. `overall_score` is 10 for the best tier, 9 for the next
and so on; `instruction` is the prompt as one text, as `trl` writes it; `source` is the project. Not carried: who
ranked, strengths, *all are bad*, flags, rationale, rewrite, thinking, split.

Source: https://github.com/OpenBMB/UltraFeedback
"""

from collections.abc import Iterator, Mapping
from typing import Any

from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import in_neutral_order, number_from, object_from, short_text, text_from, tiers_of
from annotate.interchange.options import ExportOptions
from annotate.interchange.pairs import model_name, prompt_text
from annotate.interchange.records import MAX_MODEL_CHARACTERS, BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "ultrafeedback"
ANNOTATOR = "UltraFeedback"
BEST_SCORE = 10


def read(source: Source) -> Read:
    """Yield one record per line, in constant memory.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def one(text: str, line: int, item: int | None) -> Read:
        value = object_from(parse_json(text))
        found = _binarised(value) if "chosen" in value else _whole(value)
        if len([name for tier in found["ranking"] for name in tier]) < 2:
            yield BadRecord(line, "fewer than two completions have an overall_score", item, fault=False)
        else:
            yield record_from_object(found, line=line, item=item)

    return read_records(source, one)


def _whole(value: Mapping[str, Any]) -> dict[str, Any]:
    completions = value.get("completions")
    if not isinstance(completions, list) or not all(isinstance(one, dict) for one in completions):
        raise RecordError("completions must be a list of objects")
    responses, ids = in_neutral_order([_response(one) for one in completions])
    scores = [number_from(one.get("overall_score"), "overall_score") for one in completions]
    ratings = {name: _ratings(one.get("annotations")) for name, one in zip(ids, completions, strict=True)}
    return {
        "prompt": text_from(value, "instruction"),
        "responses": responses,
        "ranking": tiers_of(ids, scores),
        "ratings": {name: given for name, given in ratings.items() if given},
        "annotator": ANNOTATOR,
        "annotator_kind": "machine",
        **_source(value),
    }


def _response(completion: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "text": text_from(completion, "response"),
        "model": short_text(completion.get("model"), MAX_MODEL_CHARACTERS),
    }
    asked = {key: completion[key] for key in ("principle", "custom_system_prompt") if completion.get(key)}
    return found | asked


def _ratings(annotations: Any) -> dict[str, float]:
    """The criteria that were rated with a number."""
    if not isinstance(annotations, dict):
        return {}
    rated = {name: given.get("Rating") for name, given in annotations.items() if isinstance(given, dict)}
    found = {name: number_from(rating, f"the rating {name}") for name, rating in rated.items()}
    return {name: number for name, number in found.items() if number is not None}


def _binarised(value: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = (_messages(value, key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise RecordError("chosen and rejected do not share the conversation up to the last answer")
    texts = [{"text": messages[-1]["content"]} for messages in (chosen, rejected)]
    responses, ids = in_neutral_order(texts)
    scores = [number_from(value.get(key), key) for key in ("score_chosen", "score_rejected")]
    tied = scores[0] is not None and scores[0] == scores[1]
    return {
        "prompt": chosen[:-1],
        "responses": responses,
        "ranking": [sorted(ids)] if tied else [[ids[0]], [ids[1]]],
        "annotator": ANNOTATOR,
        "annotator_kind": "machine",
        **_source(value),
    }


def _messages(value: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    messages = value.get(key)
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise RecordError(f"{key} must be a list of messages")
    if messages[-1].get("role") != "assistant" or not isinstance(messages[-1].get("content"), str):
        raise RecordError(f"{key} must end with the assistant's message")
    return messages


def _source(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": value["source"]} if isinstance(value.get("source"), str) else {}


# --- writing ----------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Any] = {
    "source": "text",
    "instruction": "text",
    "models": ["text"],
    "completions": [
        {
            "model": "text",
            "principle": "text",
            "custom_system_prompt": "text",
            "response": "text",
            "annotations": "json",
            "overall_score": "number",
        }
    ],
    "correct_answers": ["text"],
    "incorrect_answers": ["text"],
}


def write(record: Mapping[str, Any], options: ExportOptions) -> Iterator[dict[str, Any]]:
    """Yield the one line of a ranking in which two responses or more are placed."""
    scores = {name: BEST_SCORE - place for place, tier in enumerate(record["ranking"]) for name in tier}
    if len(scores) < 2:
        return
    ratings = record.get("ratings") or {}
    named = [model_name(one) if options.models else None for one in record["responses"]]
    yield {
        "source": record.get("project"),
        "instruction": prompt_text(record["prompt"]),
        "models": named,
        "completions": [
            {
                "model": model,
                "principle": response.get("principle"),
                "custom_system_prompt": response.get("custom_system_prompt"),
                "response": response["text"],
                "annotations": _annotations(ratings.get(response["id"], {})),
                "overall_score": scores.get(response["id"]),
            }
            for response, model in zip(record["responses"], named, strict=True)
        ],
        "correct_answers": [],
        "incorrect_answers": [],
    }


def _annotations(ratings: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """Ratings as texts, whole numbers without a point, as the published data has them."""
    return {name: {"Rating": str(int(one) if one == int(one) else one)} for name, one in ratings.items()}
