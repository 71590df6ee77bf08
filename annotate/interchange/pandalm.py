"""Pairs that several people labelled, as in PandaLM's test set: one ranking for each of `annotator1`, `annotator2` ….

A label is 1 (the first response is better), 2, or 0 for a tie; an annotator whose label is null said nothing. `input`
follows the instruction after a blank line. `cmp_key` names the two models where it holds exactly one underscore. A
record without any label becomes a task to be ranked.

Source: https://github.com/WeOpenML/PandaLM, data/testset-v1.json
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import in_neutral_order, object_from, sha256_of, short_text, text_from
from annotate.interchange.records import MAX_MODEL_CHARACTERS, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "pandalm"
_ANNOTATOR = re.compile(r"annotator_?\d{1,4}")


def read(source: Source) -> Read:
    """Yield one record per annotator of each pair, in constant memory.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def pair(text: str, line: int, item: int | None) -> Read:
        value = object_from(parse_json(text))
        task, ids = _task(value)
        labels = {name: label for name, label in value.items() if _ANNOTATOR.fullmatch(name) and label is not None}
        answers = [{"ranking": _tiers(label, ids), "annotator": name} for name, label in labels.items()]
        for said in answers or [{}]:
            about = {"annotator_kind": "imported"} if said else {}
            yield record_from_object(task | said | about, line=line, item=item)

    return read_records(source, pair)


def _task(value: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    models = str(value.get("cmp_key") or "").split("_")
    named = [short_text(model, MAX_MODEL_CHARACTERS) for model in models] if len(models) == 2 else [None, None]
    texts = [_response(value, "response1"), _response(value, "response2")]
    given = [{"text": text, "model": model} for text, model in zip(texts, named, strict=True)]
    responses, ids = in_neutral_order(given)
    asked = [text_from(value, "instruction"), *([text_from(value, "input")] if value.get("input") else [])]
    # Models say the same at times: two items with equal texts are two all the same.
    item = json.dumps([value.get("idx"), value.get("cmp_key"), asked, texts])
    return {"external_id": f"pandalm:{sha256_of(item)[:32]}", "prompt": "\n\n".join(asked), "responses": responses}, ids


def _response(value: Mapping[str, Any], key: str) -> str:
    """The text; in the published file a few answers (True, 7) have become JSON values."""
    return str(value[key]) if isinstance(value.get(key), bool | int | float) else text_from(value, key)


def _tiers(label: Any, ids: list[str]) -> list[list[str]]:
    if type(label) is not int or label not in (0, 1, 2):
        raise RecordError(f"the label {label!r} is not 0, 1 or 2")
    return [sorted(ids)] if label == 0 else [[ids[label - 1]], [ids[2 - label]]]
