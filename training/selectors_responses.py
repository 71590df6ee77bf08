"""Reads: what the models of a sampling run answered, from its files, prompt by prompt."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.models import Run, RunInput, Try
from training.selectors_store import result_file

RESPONSES_NAME = "responses.jsonl"
# Which prompt a line is about; it stands near the beginning, so that a line need not be parsed to find it.
_PROMPT = re.compile(rb'"prompt_index": (\d+)')
_HEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class SampledText:
    """One response; `model` is its model's place among those of the run, from 0."""

    model: int
    sample: int
    text: str
    thinking: str | None
    ended: bool
    tokens: int
    score: float | None


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt with all responses to it, model by model."""

    number: int
    messages: list[dict[str, Any]]
    split: str | None
    split_group: str | None
    responses: list[SampledText]

    def by_model(self, models: int) -> list[list[SampledText]]:
        """The responses of each model."""
        return [[one for one in self.responses if one.model == place] for place in range(models)]


class SampledResponses:
    """The responses of a run whose files are there; in memory are only the places of lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[int, list[int]] = {}
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if (found := _PROMPT.search(line[:_HEAD_BYTES])) is not None:
                    self._offsets.setdefault(int(found[1]), []).append(offset)
                offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def prompts(self, *, start: int = 0, stop: int | None = None) -> Iterator[AnsweredPrompt]:
        """The prompts from `start` up to `stop`, in the order of the snapshot."""
        with self._path.open("rb") as file:
            for number in sorted(self._offsets)[start:stop]:
                rows = []
                for offset in self._offsets[number]:
                    file.seek(offset)
                    rows.append(json.loads(file.readline()))
                yield _answered(number, rows)


class TriedResponses:
    """The responses of a try, from its stored result; which split they are in, the project decides."""

    def __init__(self, tried: Try) -> None:
        self._tried = tried

    def __len__(self) -> int:
        return 1

    def prompts(self, *, start: int = 0, stop: int | None = None) -> Iterator[AnsweredPrompt]:
        """The conversation with all responses to it."""
        rows = (self._tried.result or {}).get("responses", [])
        answered = AnsweredPrompt(
            0, self._tried.messages, None, self._tried.split_group, [said_in(row) for row in rows]
        )
        yield from [answered][start:stop]


def responses_of(run: Run) -> SampledResponses | TriedResponses | None:
    """What the models of a sampling run answered; None while there is nothing to be read."""
    tried = Try.objects.filter(pk=run.pk).first()
    if tried is not None:
        return None if tried.result is None else TriedResponses(tried)
    path = result_file(run, RESPONSES_NAME) if run.kind == Run.Kind.SAMPLE else None
    return None if path is None else SampledResponses(path)


def models_sampled(run: Run) -> list[str]:
    """What the models of a sampling run are called, in their order: `registry:ID`, or as they were named."""
    inputs = {one.role: one for one in run.inputs.all()}
    others = (RunInput.Role.MODEL_2, RunInput.Role.MODEL_3, RunInput.Role.MODEL_4)
    named = [(run.base_model, run.base_version_id)]
    named += [(inputs[role].name, inputs[role].version_id) for role in others if role in inputs]
    return [name if version is None else f"registry:{version}" for name, version in named]


def _answered(number: int, rows: list[dict[str, Any]]) -> AnsweredPrompt:
    first = rows[0]
    return AnsweredPrompt(number, first["prompt"], first["split"], first["split_group"], [said_in(row) for row in rows])


def said_in(row: Mapping[str, Any]) -> SampledText:
    """The response that a row of responses.jsonl holds."""
    return SampledText(
        model=row["model_index"], sample=row["sample"], text=row["text"], thinking=row["thinking"],
        ended=row["ended"], tokens=row["tokens"], score=row["score"],
    )  # fmt: skip
