"""Rows of a table to native records: what each column means is a mapping from its name to a field of ours.

A column whose name is a field needs no mapping; one that is neither mapped nor a field is kept as an unknown key. An
empty cell is no value. Beside the keys of the native record there are fields for the shapes that tables have:

- `system`: a system message before the prompt.
- `response_1` … `response_9` with `model_1` …, and of the ranking one of: `rank_1` … (1 the best, equal ranks a tie, no
  rank: unranked); `winner` (a number, a letter, `left`, `right`, `model_a`, `tie`, `both_bad`).
- `chosen` and `rejected`, as texts or as messages (then the prompt may be left out), with `chosen_model` …
- `response` alone: a demonstration.
- `strength`: how much better, 1 to 3, where there are two tiers.

Lists and objects (`prompt` as messages, `responses`, `ranking`, `ratings` …) are JSON in a CSV cell.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from annotate.interchange.mapping import NOTHING, numbered
from annotate.interchange.native import KEYS, record_from_object
from annotate.interchange.neutral import in_neutral_order, number_from, tiers_of
from annotate.interchange.records import (
    MAX_RECORD_BYTES,
    MAX_RESPONSES,
    ImportedRecord,
    RecordError,
    check_nested,
    parse_json,
)

_SHAPES = ("system", *numbered("response", "model", "rank"), "winner", "chosen", "rejected", "chosen_model",
           "rejected_model", "strength", "extra")  # fmt: skip
FIELDS = (*KEYS, *_SHAPES)
#: Names that other tables use; for a form's first guess, never applied unasked.
USUAL = {
    "question": "prompt", "instruction": "prompt", "input": "prompt", "query": "prompt", "messages": "prompt",
    "response_a": "response_1", "response_b": "response_2", "answer_a": "response_1", "answer_b": "response_2",
    "output_1": "response_1", "output_2": "response_2", "response1": "response_1", "response2": "response_2",
    "model_a": "model_1", "model_b": "model_2", "generator_1": "model_1", "generator_2": "model_2",
    "preference": "winner", "label": "winner", "better": "winner", "worker": "annotator", "rater": "annotator",
    "user": "annotator", "judge": "annotator", "completion": "response", "lang": "language",
}  # fmt: skip

_JSON = ("responses", "ranking", "unranked", "strengths", "ratings", "flags", "rewrite", "presented_order", "extra")
_EITHER = ("prompt", "response", "chosen", "rejected", "tests")
_NUMBERS = ("weight", "seconds")
_WHOLES = ("revision", "guideline_version", "change", "strength")
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WINNERS = {"left": 1, "right": 2, "model_a": 1, "model_b": 2, "first": 1, "second": 2}
_TIES = {"tie": False, "0": False, "draw": False, "both_bad": True, "bothbad": True, "tie (bothbad)": True}


def fields_of(columns: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Column → field; a column that is not here is an unknown key, one with the field `-` is left out."""
    taken = set(mapping.values())
    own = {column: column if column not in taken else NOTHING for column in columns if column in FIELDS}
    return own | {column: field for column, field in mapping.items() if column in columns}


def guessed(columns: Sequence[str]) -> dict[str, str]:
    """A first guess of what columns mean: their own names, else the usual ones, each field once."""
    found: dict[str, str] = {column: column for column in columns if column in FIELDS}
    for column in columns:
        field = USUAL.get(column.strip().lower())
        if column not in found and field in FIELDS and field not in found.values():
            found[column] = field
    return found


def record_of(row: Mapping[str, Any], fields: Mapping[str, str], *, line: int) -> ImportedRecord:
    """Check one row and return it as a record.

    Args:
        row: column → cell; texts of a CSV file, or whatever a Parquet file holds.
        fields: as `fields_of`.

    Raises:
        RecordError: the first rule that it breaks.
    """
    found: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for column, cell in row.items():
        value = _plain(cell)
        field = fields.get(column)
        if field is None:
            unknown |= {column: value} if value is not None else {}
        elif field != NOTHING and value is not None:
            found[field] = _value(field, value)
    _check_size(row)
    check_nested([found, unknown])
    return record_from_object(_native(found, unknown), line=line)


def _plain(cell: Any) -> Any:
    """A cell as JSON has it; None for an empty one."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, float) and not math.isfinite(cell):
        raise RecordError(f"holds {cell}, which is no number")
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).isoformat()
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, Decimal):
        return _plain(float(cell))
    if isinstance(cell, list | tuple):
        return [_nested(one) for one in cell]
    if isinstance(cell, dict):
        return {str(key): _nested(one) for key, one in cell.items()}
    if not isinstance(cell, str | int | float):
        raise RecordError(f"a cell of type {type(cell).__name__} cannot be read")
    return cell


def _nested(cell: Any) -> Any:
    return cell if isinstance(cell, str) else _plain(cell)


def _check_size(row: Mapping[str, Any]) -> None:
    if sum(len(cell) for cell in row.values() if isinstance(cell, str)) > MAX_RECORD_BYTES:
        raise RecordError(f"longer than {MAX_RECORD_BYTES // 1_000_000} MB")


def _value(field: str, value: Any) -> Any:
    """The cell of a field as the native record wants it."""
    if not isinstance(value, str):
        return value if isinstance(value, bool | list | dict) or field in _NOT_TEXTS else _written(value)
    if field in _JSON:
        return parse_json(value)
    if field in _EITHER and value.lstrip()[:1] in ("[", "{"):
        return _json_or_text(value)
    if field in _NUMBERS:
        return number_from(value, field)
    if field in _WHOLES:
        return _whole(value, field)
    if field in _SWITCH_FIELDS:
        if value.strip().lower() not in _SWITCHES:
            raise RecordError(f"{field} is {value[:40]!r}, not true or false")
        return _SWITCHES[value.strip().lower()]
    return value


_SWITCH_FIELDS = ("counted", "all_bad")
_NOT_TEXTS = (*_NUMBERS, *_WHOLES, *_SWITCH_FIELDS)


def _written(number: int | float) -> str:
    """A number where a text is wanted; ids that a table made into 17.0 are 17 again."""
    return str(int(number) if number == int(number) else number)


def _json_or_text(value: str) -> Any:
    """Messages or another JSON value; a text that only begins like one is a text."""
    try:
        json.loads(value)
    except RecursionError:
        pass  # said by parse_json
    except ValueError:
        return value
    found = parse_json(value)
    return found if isinstance(found, dict) or all(isinstance(one, dict) for one in found) else value


def _whole(value: Any, name: str) -> int:
    number = number_from(value, name)
    if number is None or number != int(number):
        raise RecordError(f"{name} is {str(value)[:40]!r}, not a whole number")
    return int(number)


# --- the shapes of tables ---------------------------------------------------------------------------------------------


def _native(found: dict[str, Any], unknown: dict[str, Any]) -> dict[str, Any]:
    shapes = {name: found.pop(name) for name in _SHAPES if name in found}
    extra = shapes.pop("extra", {})
    if not isinstance(extra, dict):
        raise RecordError("extra must be a JSON object")
    record = {key: value for key, value in unknown.items() if key not in KEYS} | extra | found
    if "response" in record:
        record.setdefault("type", "demonstration")
    elif "responses" not in record:
        record |= _pair(record, shapes) if "chosen" in shapes else _listed(shapes)
    if "system" in shapes and record.get("prompt") is not None:
        record["prompt"] = [{"role": "system", "content": shapes["system"]}, *_messages(record["prompt"])]
    if "strength" in shapes and "strengths" not in record:
        record["strengths"] = [_whole(shapes["strength"], "strength")]
    return record


def _messages(prompt: Any) -> list[Any]:
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def _listed(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Responses in columns of their own, with a rank each or a winner."""
    places = [number for number in range(1, MAX_RESPONSES + 1) if f"response_{number}" in shapes]
    if not places:
        return {}
    names = [f"r{number}" for number in places]
    responses = [
        {"id": f"r{number}", "text": shapes[f"response_{number}"], "model": shapes.get(f"model_{number}")}
        for number in places
    ]
    ranks = [number_from(shapes.get(f"rank_{number}"), f"rank_{number}") for number in places]
    if any(rank is not None for rank in ranks):
        return {"responses": responses, "ranking": tiers_of(names, ranks, best="lowest")}
    return {"responses": responses} | (_won(shapes["winner"], names) if "winner" in shapes else {})


def _won(winner: Any, names: Sequence[str]) -> dict[str, Any]:
    """The winner above all others, or all in one tier."""
    said = str(winner).strip().lower()
    if said in _TIES:
        return {"ranking": [list(names)], "all_bad": _TIES[said]}
    letter = ord(said) - ord("a") + 1 if len(said) == 1 and said.isalpha() and said.isascii() else None
    number = letter or _WINNERS.get(said) or (int(said) if said.isascii() and said.isdecimal() and len(said) < 3 else 0)
    if f"r{number}" not in names:
        raise RecordError(f"winner is {str(winner)[:40]!r}: write the number or letter of a response, tie or both_bad")
    return {"ranking": [[f"r{number}"], [name for name in names if name != f"r{number}"]]}


def _pair(record: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """A chosen and a rejected response; messages bring their prompt along."""
    if "rejected" not in shapes:
        raise RecordError("chosen without rejected")
    found: dict[str, Any] = {}
    texts = []
    for key in ("chosen", "rejected"):
        before, text = _last(shapes[key], key)
        if before and record.get("prompt") is None and found.setdefault("prompt", before) != before:
            raise RecordError("chosen and rejected do not share the conversation up to the last answer")
        texts.append({"text": text, "model": shapes.get(f"{key}_model")})
    responses, ids = in_neutral_order(texts)
    return found | {"responses": responses, "ranking": [[ids[0]], [ids[1]]]}


def _last(value: Any, key: str) -> tuple[list[Any], str]:
    if isinstance(value, str):
        return [], value
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or not isinstance(last.get("content"), str):
        raise RecordError(f"{key} must be a text or a list of messages")
    return value[:-1], last["content"]
