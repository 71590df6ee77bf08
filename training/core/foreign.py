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
    _, first = next(_values(path), (0, None))
    return isinstance(first, dict) and ("output_1" in first or "chosen" in first)


def write_native(path: Path, target: Path) -> list[int]:
    """Write the pairs of a file as a snapshot whose every record is of the split ``test``.

    Returns:
        Where each written line comes from, in order: the line of a file of JSON lines, the record's number in a list;
        both from 1.

    Raises:
        UsageError: the file cannot be read, or a record lacks something; the message names the record by its number.
    """
    sources = []
    with open(target, "w", encoding="utf-8") as file:
        for number, (line, value) in enumerate(_values(path), 1):
            try:
                record = _native(value)
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path} record {number}: {_words(error)}") from None
            file.write(json.dumps({"format": FORMAT, "split": "test", "id": str(number), **record}) + "\n")
            sources.append(line)
    return sources


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """The records of a JSON list with their numbers, or of JSON lines with their lines."""
    try:
        with open(path, encoding="utf-8") as file:
            if _first_character(file) == "[":
                yield from enumerate(json.load(file), 1)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parsed(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError) as error:
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
    label = value["label"]
    if type(label) is not int or label not in (1, 2):
        raise ValueError(f"label must be 1 or 2, not {label!r}")
    first, second = (_text(value[key], key) for key in ("output_1", "output_2"))
    return _pair(_messages(value["input"], "input"), first, second, "ab"[label - 1])


def _from_chosen(value: Mapping[str, Any]) -> Record:
    """``prompt`` as text or messages; without it, what both conversations share is the prompt."""
    answers = [_answer(value[key], key) for key in ("chosen", "rejected")]
    (before, chosen), (also_before, rejected) = answers
    if value.get("prompt") is None:
        if not before or before != also_before:
            raise ValueError(
                "without a prompt, chosen and rejected must be conversations that differ in their last turn"
            )
        return _pair(before, chosen, rejected, "a")
    prompt = _messages(value["prompt"], "prompt")
    # Some files repeat the prompt in front of each answer; other turns would be part of what is compared.
    if any(turns not in ([], prompt) for turns, _ in answers):
        raise ValueError("with a prompt, chosen and rejected must be the answer alone, or the prompt and the answer")
    return _pair(prompt, chosen, rejected, "a")


def _messages(value: Any, name: str) -> list[dict[str, str]]:
    """A prompt given as text, or as messages."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise ValueError(f"{name} must be a text or a list of messages, each with role and content")
    return [{key: _text(message.get(key), f"{name}: {key}") for key in ("role", "content")} for message in value]


def _answer(value: Any, name: str) -> tuple[list[dict[str, str]], str]:
    """The turns before an answer, none where it is given as text, and its text."""
    if isinstance(value, str):
        return [], _text(value, name)
    *before, last = _messages(value, name)
    if last["role"] != "assistant":
        raise ValueError(f"{name}: a conversation must end with the assistant's turn")
    return before, last["content"]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a surrogate pair") from None
    return value


def _pair(prompt: list[dict[str, str]], first: str, second: str, best: str) -> Record:
    responses = [{"id": "a", "text": first}, {"id": "b", "text": second}]
    return {"prompt": prompt, "responses": responses, "ranking": [[best], ["b" if best == "a" else "a"]]}


def _words(error: Exception) -> str:
    return f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
