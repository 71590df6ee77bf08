"""Moving house from Label Studio: its JSON export, with rankings (Ranker) and pairs (Pairwise).

A task is a prompt with its responses, each annotation one ranking: `completed_by` is the annotator (the e-mail address
or name if the export has it, else the number), the last change its time, `lead_time` its seconds, a text area its
rationale. Several annotations by one person are revisions, in the order in which they were made. Cancelled annotations
and annotations without a rank or choice are left out; a task without any becomes a task to be ranked.

- Ranker: the responses are the one list in `data` whose items have the ids that were ranked (`html`, `body`, `text` or
  `title` is the text, `model` the model). Without buckets the list was an order, and the order is the ranking. Buckets
  have no order that an export tells: say which is which tier, `--map best=tier_1 --map good=tier_2`. Items of other
  buckets, and those left in the list (`_`), are unranked.
- Pairwise: `left` and `right` are the first and the second response: `response_1` and `response_2` in the mapping, else
  whichever of the usual pairs of names `data` has. A choice taken back (`none`) says nothing.

The prompt is the field mapped to `prompt`, else the first of the usual names. The export does not hold the labelling
configuration, so names that are not usual have to be mapped.

Source: https://labelstud.io/guide/export, https://labelstud.io/tags/ranker, https://labelstud.io/tags/pairwise
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from annotate.interchange.mapping import columns_of, first_known, numbered
from annotate.interchange.native import record_from_object
from annotate.interchange.neutral import number_from, object_from
from annotate.interchange.records import MAX_ANNOTATOR_CHARACTERS, BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, first_objects, read_records

FORMAT = "label-studio"
FIELDS = ("prompt", "responses", "response_1", "response_2", *numbered("tier"))
PROMPTS = ("prompt", "question", "instruction", "query", "input", "text", "dialogue", "messages")
PAIRS = (
    ("response_1", "response_2"), ("response1", "response2"), ("answer1", "answer2"), ("answer_1", "answer_2"),
    ("text1", "text2"), ("output1", "output2"), ("option1", "option2"), ("left", "right"),
)  # fmt: skip
TEXTS = ("html", "body", "text", "value", "title")


def read(source: Source, *, mapping: Mapping[str, str] | None = None) -> Read:
    """Yield one record per annotation of each task, in constant memory.

    Args:
        source: a JSON export, a list of tasks (or one task a line).
        mapping: data field → `prompt`, `responses`, `response_1`, `response_2`; bucket → `tier_1` ….

    Raises:
        FileError: the file as a whole cannot be read.
    """
    fields = columns_of(mapping or {})

    def task(text: str, line: int, item: int | None) -> Read:
        value = object_from(parse_json(text))
        annotations = _annotations(value)
        answered = False
        for said in _answers(value, annotations, fields):
            if isinstance(said, str):
                yield BadRecord(line, said, item, fault=False)
                continue
            answered = True
            yield record_from_object(said, line=line, item=item)
        if not answered:
            yield record_from_object(_task(value, fields), line=line, item=item)

    return read_records(source, task)


def names_in_file(source: Source) -> list[str]:
    """The names that a mapping may name: those of the first readable task's data, and buckets of its annotations.

    Raises:
        FileError: the file cannot be read.
    """
    for value in first_objects(source):
        if isinstance(value.get("data"), dict):
            given = value.get("annotations")
            said = [_choice(one) for one in given if isinstance(one, dict)] if isinstance(given, list) else []
            buckets = [list(one["ranker"]) for one in said if one and "ranker" in one and len(one["ranker"]) > 1]
            return list(dict.fromkeys([*value["data"], *(name for names in buckets for name in names if name != "_")]))
    return []


def _annotations(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The annotations, oldest first."""
    found = value.get("annotations", value.get("completions")) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RecordError("annotations must be a list of objects")
    if not isinstance(value.get("data"), dict):
        raise RecordError("not a task of Label Studio's JSON export: data is missing")
    return sorted(found, key=lambda one: str(one.get("created_at") or ""))


def _answers(
    value: Mapping[str, Any], annotations: list[dict[str, Any]], fields: Mapping[str, str]
) -> Iterator[dict[str, Any] | str]:
    """Yield each annotation's native record, or why it is left out."""
    revisions: Counter[str] = Counter()
    for one in annotations:
        name = f"annotation {one.get('id')}"
        result = _choice(one)
        if one.get("was_cancelled") is True:
            yield f"{name} was cancelled"
        elif result is None:
            yield f"{name} has neither a rank nor a choice"
        else:
            annotator = _annotator(one.get("completed_by"))
            revisions[annotator] += 1
            said = {"annotator": annotator, "annotator_kind": "imported", "revision": revisions[annotator]}
            yield _task(value, fields, ranked=result) | _ranking(value, result, fields) | said | _about(one)


def _choice(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The value of the first rank or choice in an annotation's result."""
    for part in _results(annotation):
        value = part.get("value")
        if part.get("type") == "ranker" and isinstance(value, dict) and isinstance(value.get("ranker"), dict):
            return {"ranker": value["ranker"]}
        if part.get("type") == "pairwise" and isinstance(value, dict) and value.get("selected") in ("left", "right"):
            return {"pairwise": value["selected"]}
    return None


def _results(annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = annotation.get("result")
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _annotator(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("email") or value.get("username") or value.get("id")
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value):
        return "unknown"
    return str(value)[:MAX_ANNOTATOR_CHARACTERS]


def _about(annotation: Mapping[str, Any]) -> dict[str, Any]:
    texts = [part["value"].get("text") for part in _results(annotation) if part.get("type") == "textarea"
             and isinstance(part.get("value"), dict)]  # fmt: skip
    said = [line for text in texts for line in (text if isinstance(text, list) else [text]) if isinstance(line, str)]
    seconds = number_from(annotation.get("lead_time"), "lead_time")
    return {
        "submitted_at": annotation.get("updated_at") or annotation.get("created_at"),
        "seconds": seconds if seconds is None or seconds >= 0 else None,
        "rationale": "\n".join(said) or None,
    }


# --- the task ---------------------------------------------------------------------------------------------------------


def _task(
    value: Mapping[str, Any], fields: Mapping[str, str], ranked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    data = value["data"]
    prompt = fields.get("prompt") or first_known(PROMPTS, data)
    if prompt is None or prompt not in data:
        raise RecordError(f"no prompt in data ({', '.join(sorted(map(str, data)))}): map its name to prompt")
    name = value.get("id")
    return {
        "external_id": f"label-studio:{name}" if isinstance(name, int | str) else None,
        "prompt": _prompt(data[prompt]),
        "responses": _pair(data, fields) if ranked and "pairwise" in ranked else _responses(data, fields),
    }


def _prompt(value: Any) -> Any:
    """A text, or a dialogue as Label Studio shows one: `{"author", "text"}` or `{"role", "content"}`."""
    if not isinstance(value, list):
        return value
    messages = [one if isinstance(one, dict) else {} for one in value]
    return [{"role": one.get("role", "user"), "content": one.get("content", one.get("text"))} for one in messages]


def _responses(data: Mapping[str, Any], fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """The items of the list; without one, the two texts of a pair."""
    named = fields.get("responses")
    lists = [one for key, one in data.items() if _is_list_of_items(one) and named in (None, key)]
    if len(lists) == 1:
        return [_response(one) for one in lists[0]]
    if len(lists) > 1:
        raise RecordError("several lists in data: map the one with the responses to responses")
    return _pair(data, fields)


def _is_list_of_items(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "id" in one for one in value)


def _response(item: Mapping[str, Any]) -> dict[str, Any]:
    key = first_known(TEXTS, item)
    if key is None or not isinstance(item[key], str):
        raise RecordError(f"the item {item['id']!r} has no text ({', '.join(TEXTS)})")
    return {"id": str(item["id"]), "text": item[key], "model": item.get("model")}


def _pair(data: Mapping[str, Any], fields: Mapping[str, str]) -> list[dict[str, Any]]:
    names = tuple(fields.get(f"response_{number}") for number in (1, 2))
    if None in names:
        names = next((pair for pair in PAIRS if all(name in data for name in pair)), names)
    if None in names or not all(isinstance(data.get(str(name)), str) for name in names):
        raise RecordError(
            f"no responses in data ({', '.join(sorted(map(str, data)))}): map the list to responses, "
            "or the two texts to response_1 and response_2"
        )
    return [{"id": place, "text": data[str(name)]} for place, name in zip(("left", "right"), names, strict=True)]


def _ranking(value: Mapping[str, Any], result: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    if "pairwise" in result:
        chosen = result["pairwise"]
        return {"ranking": [[chosen], ["right" if chosen == "left" else "left"]]}
    buckets = {name: ids for name, ids in result["ranker"].items() if name != "_"}
    for ids in buckets.values():
        if not isinstance(ids, list) or not all(isinstance(name, str | int) for name in ids):
            raise RecordError("a ranker must hold lists of ids")
    tiers = [bucket for number in numbered("tier") if (bucket := fields.get(number)) is not None]
    if not tiers and len(buckets) == 1 and "_" not in result["ranker"]:
        return {"ranking": [[str(name)] for ids in buckets.values() for name in ids]}
    if not tiers:
        raise RecordError(f"ranked by buckets ({', '.join(sorted(buckets))}): map each to its tier, NAME=tier_1")
    return {"ranking": [[str(name) for name in buckets.get(bucket, [])] for bucket in tiers if buckets.get(bucket)]}
