"""Pairs in other people's files, as native records: LLMBar's {input, output_1, output_2, label} and chosen/rejected."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from training.core.errors import UsageError
from training.core.records import FORMAT

Record = dict[str, Any]


def is_foreign(path: Path) -> bool:
    """Whether a file holds pairs in a form of another project; told by its first record.

    Raises:
        UsageError: the file cannot be read.
    """
    first = next(_values(path), None)
    return isinstance(first, dict) and ("output_1" in first or "chosen" in first)


def write_native(path: Path, target: Path) -> None:
    """Write the pairs of a file as a snapshot whose every record is of the split ``test``.

    Raises:
        UsageError: the file cannot be read, or a record lacks something; the message names the record by its number.
    """
    with open(target, "w", encoding="utf-8") as file:
        for number, value in enumerate(_values(path), 1):
            try:
                record = _native(value)
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path} record {number}: {_words(error)}") from None
            file.write(json.dumps({"format": FORMAT, "split": "test", "id": str(number), **record}) + "\n")


def _values(path: Path) -> Iterator[Any]:
    """The records of a JSON list or of JSON lines."""
    try:
        with open(path, encoding="utf-8") as file:
            if _first_character(file) == "[":
                yield from json.load(file)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error})") from None


def _first_character(file: Any) -> str:
    character = " "
    while character and character.isspace():
        character = file.read(1)
    file.seek(0)
    return character


def _native(value: Any) -> Record:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    forms: Iterable[tuple[str, Callable[[Mapping[str, Any]], Record]]] = (
        ("output_1", _from_llmbar),
        ("chosen", _from_chosen),
    )
    for key, read in forms:
        if key in value:
            return read(value)
    raise ValueError("neither output_1 and output_2 nor chosen and rejected")


def _from_llmbar(value: Mapping[str, Any]) -> Record:
    if value["label"] not in (1, 2):
        raise ValueError(f"label must be 1 or 2, not {value['label']!r}")
    best = "ab"[value["label"] - 1]
    return _pair(_messages(value["input"]), value["output_1"], value["output_2"], best)


def _from_chosen(value: Mapping[str, Any]) -> Record:
    """``prompt`` as text or messages; without it, what both conversations share is the prompt."""
    chosen, rejected = value["chosen"], value["rejected"]
    if value.get("prompt") is not None:
        return _pair(_messages(value["prompt"]), _last_text(chosen), _last_text(rejected), "a")
    if not isinstance(chosen, list) or not isinstance(rejected, list) or chosen[:-1] != rejected[:-1]:
        raise ValueError("without a prompt, chosen and rejected must be conversations that differ in their last turn")
    return _pair(chosen[:-1], _last_text(chosen), _last_text(rejected), "a")


def _messages(prompt: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _last_text(answer: Any) -> str:
    """An answer as text, or as a conversation that ends with it."""
    if isinstance(answer, list):
        if not answer or answer[-1]["role"] != "assistant":
            raise ValueError("a conversation must end with the assistant's turn")
        answer = answer[-1]["content"]
    return str(answer)


def _pair(prompt: list[dict[str, str]], first: str, second: str, best: str) -> Record:
    responses = [{"id": "a", "text": first}, {"id": "b", "text": second}]
    return {"prompt": prompt, "responses": responses, "ranking": [[best], ["b" if best == "a" else "a"]]}


def _words(error: Exception) -> str:
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
