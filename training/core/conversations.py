"""Reading a snapshot for SFT and PPO: demonstrations to imitate, and prompts to answer.

Both are sequences that read their lines when asked: what is in memory are numbers, not texts. One prompt never stands
on both sides of a split: where lines give it several, it stays in the one that is held out most (test, then
validation), and the lines of the others are dropped and counted.
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.core.errors import UsageError
from training.core.line_parts import (
    SPLITS,
    LineError,
    Message,
    Response,
    group_of,
    prompt_of,
    response_of,
    split_of,
    text,
)
from training.core.lines import TYPES, LinesAt, UsedLines, look_through, reason_to_drop, short_hash
from training.core.randomness import derive_seed
from training.core.records import ranking_of

DEMONSTRATION, REWRITE, RANKING = "demonstration", "rewrite", "ranking"
# What says how an answer is checked: two lines of one prompt must not say it in two ways.
CHECKS = ("answer", "tests")
# What a line says of itself and of responses, and nothing of its prompt.
_NOT_OF_THE_PROMPT = frozenset(
    ("format", "type", "prompt", "responses", "response", "ranking", "unranked", "strengths", "all_bad", "ratings")
    + ("flags", "rationale", "rewrite", "annotator", "annotator_kind", "weight", "revision", "superseded_by", "counted")
    + ("guideline_version", "presented_order", "seconds", "change", "submitted_at", "kind", "split", "split_group")
)


@dataclass(frozen=True)
class PromptRecord:
    """A prompt to answer, read from ``line``.

    ``record`` holds ``answer`` and ``tests``, where any line of the prompt gives them, and the other keys of its own
    line that are about the prompt or unknown, the line's id among them.
    """

    line: int
    split: str
    split_group: str
    prompt: tuple[Message, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Demonstration:
    """A response to imitate. ``source``: "demonstration", "rewrite" or "ranking" (the best-ranked response)."""

    line: int
    split: str
    split_group: str
    prompt: tuple[Message, ...]
    response: Response
    source: str


@dataclass
class PromptFile:
    """The prompts of a file, in its order; ``read`` lines are these and the ``dropped`` ones."""

    path: Path
    sha256: str
    read: int
    dropped: Counter[str]
    prompts: Sequence[PromptRecord]


@dataclass
class DemonstrationFile:
    """The demonstrations of a file, in its order; ``read`` lines are these and the ``dropped`` ones."""

    path: Path
    sha256: str
    read: int
    dropped: Counter[str]
    demonstrations: Sequence[Demonstration]


# --- prompts ----------------------------------------------------------------------------------------------------------


def read_prompts(path: Path) -> PromptFile:
    """Look through a file for its distinct prompts, over all types of lines.

    Dropped and counted by reason are lines as in ``read_rankings`` (markers, ``withdrawn``, ``superseded``,
    ``uncounted``, ``gold``, ``repeat``), but neither tasks that nobody ranked nor rankings of weight 0: both say
    nothing against the prompt. Further ``same_prompt``, a line of a prompt that is there already, and
    ``prompt_held_out``, one of a prompt that another line holds out more.

    Raises:
        UsageError: the file cannot be read, a line breaks the format, or two lines give one prompt different answers
            or tests; the message names the line, or both.
    """

    def look(value: dict[str, Any], number: int) -> str | None:
        reason = reason_to_drop(value, types=TYPES, excused=("unanswered", "zero_weight"))
        if reason is None:
            _prompt_record(value, number)
        return reason

    lines = UsedLines(path)
    look_through(lines, look)
    found = _Prompts(path)
    every = LinesAt(path, lines.used_lines, lines.offsets, _prompt_record)
    for record, number, offset in zip(every, lines.used_lines, lines.offsets, strict=True):
        lines.dropped.update(found.add(record, number, offset))
    prompts = LinesAt(path, found.numbers, found.offsets, _prompt_record, beside=found.beside, join=_with_checks)
    return PromptFile(path, lines.sha256, lines.read, lines.dropped, prompts)


class _Prompts:
    """Distinct prompts on their way: from which line each is read, and which lines beside it say how to check it."""

    def __init__(self, path: Path) -> None:
        self.numbers, self.offsets, self._splits = array("q"), array("q"), array("b")
        self.beside: dict[int, list[tuple[int, int]]] = {}
        self._path = path
        self._places: dict[int, int] = {}
        self._said: dict[tuple[int, str], tuple[int, int]] = {}

    def add(self, record: PromptRecord, number: int, offset: int) -> list[str]:
        """Take in a line; for each line that is thereby dropped, the reason."""
        key, split = _key_of(record.prompt), SPLITS.index(record.split)
        new = self._note_checks(key, record)
        place = self._places.setdefault(key, len(self.numbers))
        if place == len(self.numbers):
            for column, value in ((self.numbers, number), (self.offsets, offset), (self._splits, split)):
                column.append(value)
            return []
        before = self._splits[place]
        if split > before:
            # What the line before said of answers is of the prompt, wherever that stands.
            self.beside.setdefault(place, []).append((self.numbers[place], self.offsets[place]))
            self.numbers[place], self.offsets[place], self._splits[place] = number, offset, split
        elif new:
            self.beside.setdefault(place, []).append((number, offset))
        return ["same_prompt" if split == before else "prompt_held_out"]

    def _note_checks(self, key: int, record: PromptRecord) -> bool:
        """Remember what a line says of answers; whether it says something that was not said yet.

        Raises:
            UsageError: an earlier line says otherwise.
        """
        new = False
        for name in CHECKS:
            if name not in record.record:
                continue
            value = short_hash(json.dumps(record.record[name], sort_keys=True))
            earlier, said = self._said.setdefault((key, name), (record.line, value))
            if said != value:
                raise UsageError(f"{self._path}: lines {earlier} and {record.line} give one prompt different {name}s")
            new = new or earlier == record.line
        return new


def _prompt_record(value: dict[str, Any], line: int) -> PromptRecord:
    split, prompt = split_of(value), prompt_of(value.get("prompt"))
    about = {name: kept for name, kept in value.items() if name not in _NOT_OF_THE_PROMPT and kept is not None}
    answer = about.get("answer")
    # A number is its digits, as the import reads it.
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        about["answer"] = str(answer)
    elif answer is not None:
        text(answer, "answer")
    return PromptRecord(line, split, group_of(value, prompt), prompt, about)


def _with_checks(record: PromptRecord, beside: PromptRecord) -> PromptRecord:
    checks = {name: beside.record[name] for name in CHECKS if name in beside.record}
    return replace(record, record={**record.record, **checks})


def _key_of(prompt: tuple[Message, ...], *further: str) -> int:
    return short_hash(*(part for message in prompt for part in (message.role, message.content)), "", *further)


# --- demonstrations ---------------------------------------------------------------------------------------------------


def read_demonstrations(path: Path, *, seed: int, thinking: bool = True) -> DemonstrationFile:
    """Look through a file for what SFT imitates: demonstrations, and one response of every ranking.

    A ranking gives its rewrite if it has one, else its best-ranked response: whoever rewrote a response has said what
    the best answer would have been, and one judgement is imitated once. Of several in the best tier one is drawn, by
    ``seed`` and the ranking's id alone. ``all_bad`` gives no response, but a rewrite still counts. Rankings of
    machine annotators count like those of people.

    Dropped and counted by reason: lines as in ``read_rankings`` (``prompt`` lines among them), ``all_bad``, ``no_best``
    (nothing was placed), ``empty`` (the response is), ``prompt_held_out`` (another line holds the prompt out more) and
    ``same_pair`` (an equal response to an equal prompt is there already).

    Args:
        thinking: whether two responses that differ in thinking alone are two.

    Raises:
        UsageError: the file cannot be read, or a line breaks the format; the message names the line.
    """

    def make(value: dict[str, Any], number: int) -> Demonstration:
        made = _demonstration(value, number, seed=seed)
        return made if thinking else replace(made, response=Response(made.response.text))

    def look(value: dict[str, Any], number: int) -> str | None:
        reason = reason_to_drop(value, types=("ranking", "demonstration"))
        if reason is None and (reason := _nothing_to_imitate(value, number)) is None:
            reason = None if make(value, number).response.text.strip() else "empty"
        return reason

    lines = UsedLines(path)
    look_through(lines, look)
    every = LinesAt(path, lines.used_lines, lines.offsets, make)
    prompts, pairs, splits = array("q"), array("q"), array("b")
    held: dict[int, int] = {}
    for made in every:
        key, split = _key_of(made.prompt), SPLITS.index(made.split)
        held[key] = max(split, held.get(key, split))
        for column, value in ((prompts, key), (splits, split), (pairs, _pair_key(made))):
            column.append(value)
    numbers, offsets, seen = array("q"), array("q"), set[int]()
    for place in range(len(every)):
        if splits[place] < held[prompts[place]]:
            lines.dropped["prompt_held_out"] += 1
        elif pairs[place] in seen:
            lines.dropped["same_pair"] += 1
        else:
            seen.add(pairs[place])
            numbers.append(lines.used_lines[place])
            offsets.append(lines.offsets[place])
    return DemonstrationFile(path, lines.sha256, lines.read, lines.dropped, LinesAt(path, numbers, offsets, make))


def _pair_key(made: Demonstration) -> int:
    return _key_of(made.prompt, made.response.text, made.response.thinking or "")


def _nothing_to_imitate(value: dict[str, Any], number: int) -> str | None:
    """Why a line that counts has no response to imitate, or None."""
    if value.get("type") == "demonstration" or value.get("rewrite") is not None:
        return None
    if not isinstance(value.get("all_bad", False), bool):
        raise LineError("all_bad must be true or false")
    if value.get("all_bad"):
        ranking_of(value, number)
        return "all_bad"
    return None if ranking_of(value, number).tiers else "no_best"


def _demonstration(value: dict[str, Any], line: int, *, seed: int) -> Demonstration:
    if value.get("type") == "demonstration":
        response = value.get("response")
        found = response_of({"text": response} if isinstance(response, str) else response)
        split, prompt = split_of(value), prompt_of(value.get("prompt"))
        return Demonstration(line, split, group_of(value, prompt), prompt, found, DEMONSTRATION)
    ranking = ranking_of(value, line)
    if value.get("rewrite") is not None:
        found, source = _rewrite(value["rewrite"], value["responses"]), REWRITE
    else:
        best = ranking.tiers[0]
        drawn = derive_seed(seed, "best of tie", short_hash(str(value.get("id") or f"line {line}")))
        found, source = ranking.responses[best[drawn % len(best)]], RANKING
    return Demonstration(line, ranking.split, ranking.split_group, ranking.prompt, found, source)


def _rewrite(value: Any, responses: Sequence[Mapping[str, Any]]) -> Response:
    if not isinstance(value, dict) or value.get("of") not in [response["id"] for response in responses]:
        raise LineError("rewrite must be an object with of (the id of a response of this line) and text")
    rewritten = text(value.get("text"), "rewrite text")
    if not rewritten.strip():
        raise LineError("the rewrite is empty")
    return Response(rewritten)
