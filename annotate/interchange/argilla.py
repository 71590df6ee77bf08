"""Moving house from Argilla: records with a ranking question, as the SDK writes them to JSON or the server lists them.

A record is a prompt with its responses, each submitted answer to the ranking question one ranking. Drafts and discarded
answers are left out; a record without an answer becomes a task to be ranked.

- The SDK's file (`to_json`): `responses` is an object of questions, each a list of `{"value", "user_id"}`; a value is a
  list of options, best first, and tells neither ties nor times.
- The server's records (the `items` of `/api/v1/…/records`) and Argilla 1: `responses` is a list of `{"values":
  {question: {"value": [{"value", "rank"}]}}, "status", "user_id", "updated_at"}`; equal ranks are a tie, options
  without a rank are unranked.

An option stands for the field of the same name (letters, digits, case and punctuation aside); where names differ, map
the field to its option: `--map answer_a=option_1` with option 1 being the first in the order of their names. `question`
names the question if there are several, `prompt` the field with the prompt.

Source: https://github.com/argilla-io/argilla, argilla/src/argilla/records, argilla-server/src/argilla_server/api
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from annotate.interchange.mapping import columns_of, first_known, numbered
from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import object_from, tiers_of
from annotate.interchange.records import (
    MAX_ANNOTATOR_CHARACTERS,
    MAX_NAME_CHARACTERS,
    BadRecord,
    RecordError,
    parse_json,
)
from annotate.interchange.streams import Read, Source, first_objects, read_records

FORMAT = "argilla"
FIELDS = ("prompt", "question", *numbered("option"))
PROMPTS = ("prompt", "instruction", "question", "query", "input", "text", "messages", "conversation")


def read(source: Source, *, mapping: Mapping[str, str] | None = None) -> Read:
    """Yield one record per submitted ranking of each record, in constant memory.

    Args:
        source: a JSON list of records, or one record a line.
        mapping: field → `prompt`, `option_1` …; question → `question`.

    Raises:
        FileError: the file as a whole cannot be read.
    """
    fields = columns_of(mapping or {})

    def record(text: str, line: int, item: int | None) -> Read:
        value = object_from(parse_json(text))
        answers = list(_answers(value, fields.get("question")))
        taken = [one for one in answers if one.status == "submitted"]
        for one in answers:
            if one.status != "submitted":
                yield BadRecord(line, f"an answer is {one.status}, not submitted", item, fault=False)
        task = _task(value, fields, taken)
        for one in taken:
            yield record_from_object(task | _said(one), line=line, item=item)
        if not taken:
            yield record_from_object(task, line=line, item=item)

    return read_records(source, record)


def names_in_file(source: Source) -> list[str]:
    """The names that a mapping may name: fields and questions of the first readable record.

    Raises:
        FileError: the file cannot be read.
    """
    for value in first_objects(source):
        if isinstance(value.get("fields"), dict):
            given = value.get("responses")
            questions = list(given) if isinstance(given, dict) else []
            for one in given if isinstance(given, list) else []:
                questions += one["values"] if isinstance(one, dict) and isinstance(one.get("values"), dict) else []
            return list(dict.fromkeys([*value["fields"], *questions]))
    return []


class _Answer(NamedTuple):
    """What somebody said to a ranking question: option → rank, 1 the best; None for no rank."""

    user: str
    ranks: dict[str, float | None]
    status: str
    submitted_at: Any = None


def _answers(value: Mapping[str, Any], question: str | None) -> Iterator[_Answer]:
    responses = value.get("responses") or {}
    if isinstance(responses, dict):
        asked = question or _only([name for name, given in responses.items() if any(map(_ranks_of, _values(given)))])
        for one in _values(responses.get(asked)) if asked else []:
            if ranks := _ranks_of(one):
                yield _Answer(_user(one.get("user_id")), ranks, str(one.get("status") or "submitted"))
        return
    for response in _values(responses):
        values = response.get("values") or {}
        if not isinstance(values, dict):
            raise RecordError("the values of a response must be an object")
        asked = question or _only([name for name, one in values.items() if _ranks_of(one)])
        if asked and (ranks := _ranks_of(values.get(asked))):
            instant = response.get("updated_at") or response.get("inserted_at")
            yield _Answer(_user(response.get("user_id")), ranks, str(response.get("status") or "submitted"), instant)


def _values(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RecordError("responses must be a list of objects, or an object of such lists")
    return value


def _only(names: list[str]) -> str | None:
    if len(names) > 1:
        raise RecordError(f"several ranking questions ({', '.join(sorted(names))}): map the one to take to question")
    return names[0] if names else None


def _ranks_of(answer: Any) -> dict[str, float | None]:
    """Option → rank of an answer to a ranking question; nothing for another kind of question."""
    value = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(value, list) or len(value) < 2:
        return {}
    if all(isinstance(one, str) for one in value):
        return {name: float(place) for place, name in enumerate(value, 1)}
    if not all(isinstance(one, dict) and isinstance(one.get("value"), str) for one in value):
        return {}
    ranks = {one["value"]: one.get("rank") for one in value}
    if all(rank is None for rank in ranks.values()):
        return {name: float(place) for place, name in enumerate(ranks, 1)}
    for rank in ranks.values():
        if rank is not None and type(rank) is not int:
            raise RecordError(f"the rank {rank!r} is not a whole number")
    return ranks


def _user(value: Any) -> str:
    return str(value)[:MAX_ANNOTATOR_CHARACTERS] if isinstance(value, str | int) and str(value) else "unknown"


# --- the task ---------------------------------------------------------------------------------------------------------


def _task(value: Mapping[str, Any], fields: Mapping[str, str], answers: list[_Answer]) -> dict[str, Any]:
    data = value.get("fields")
    if not isinstance(data, dict):
        raise RecordError("not a record of Argilla: fields is missing")
    prompt = fields.get("prompt") or first_known(PROMPTS, data)
    if prompt is None or prompt not in data:
        raise RecordError(f"no prompt in fields ({', '.join(sorted(data))}): map its name to prompt")
    name = value.get("external_id") or value.get("id")
    options = _options(data, fields, answers, prompt)
    return {
        "external_id": f"argilla:{name}"[:MAX_NAME_CHARACTERS] if isinstance(name, int | str) else None,
        "prompt": data[prompt],
        "responses": [{"id": option, "text": data[field]} for option, field in sorted(options.items())],
    }


def _options(data: Mapping[str, Any], fields: Mapping[str, str], answers: list[_Answer], prompt: str) -> dict[str, str]:
    """Option → field. Without an answer, each text beside the prompt is an option."""
    names = sorted({option for one in answers for option in one.ranks})
    mapped = {number: fields[key] for number, key in enumerate(numbered("option")) if key in fields}
    if not names:
        texts = [field for field, text in data.items() if isinstance(text, str) and field != prompt]
        return {field: field for field in list(mapped.values()) or texts}
    same = {_letters(field): field for field in data if field != prompt}
    found: dict[str, str] = {}
    for number, option in enumerate(names):
        field = mapped.get(number) or same.get(_letters(option))
        if field is None or not isinstance(data.get(field), str):
            raise RecordError(f"no field for the option {option!r}: map its field to option_{number + 1}")
        found[option] = field
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _said(one: _Answer) -> dict[str, Any]:
    names = list(one.ranks)
    return {
        "ranking": tiers_of(names, list(one.ranks.values()), best="lowest"),
        "annotator": one.user,
        "annotator_kind": "imported",
        "submitted_at": _with_zone(one.submitted_at) if isinstance(one.submitted_at, str) else None,
    }


def _with_zone(instant: str) -> str:
    """Argilla's server writes UTC without saying so."""
    return instant if re.search(r"(Z|[+-]\d\d:?\d\d)$", instant) else f"{instant}Z"
