"""Responses that models gave here, made into ranking tasks: the one service through which training adds to a project.

It goes through the import, so doing it again changes nothing, and a manager can undo it while nothing of it was ranked.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.interchange.native import VERSION, record_from_object
from annotate.interchange.records import (
    MAX_MODEL_CHARACTERS,
    MAX_RESPONSES,
    MIN_RESPONSES,
    BadRecord,
    ImportedRecord,
    RecordError,
)
from annotate.models import Project, User
from annotate.services.imports import import_records

# In words: the import's report counts reasons without their numbers.
TOO_FEW, TOO_MANY = "fewer than two different responses", "more than nine different responses"


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """A response, and the model and settings that made it, which annotators do not see."""

    text: str
    thinking: str | None
    model: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SampledPrompt:
    """A prompt with its responses; `external_id` names it among all that was ever sent to the project.

    Where `split_group` or `split` is None, the project decides, as of any prompt that is imported.
    """

    external_id: str
    messages: Sequence[Mapping[str, Any]]
    split_group: str | None
    split: str | None
    responses: Sequence[SampledResponse]


@dataclass(slots=True)
class Taken:
    """What became of the prompts.

    Attributes:
        made: new ranking tasks.
        known: prompts that were sent before.
        merged: responses that said the same as another to their prompt, and stand with it as one.
        skipped: prompts that made no task, by reason.
        batch: the import's id, None if nothing was made.
    """

    made: int = 0
    known: int = 0
    merged: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    batch: int | None = None


def take_sampled(*, project: Project, prompts: Iterable[SampledPrompt], source: str, created_by: User | None) -> Taken:
    """Makes a ranking task of each prompt with 2 to 9 different responses, with the project's overlap.

    Locks and writes as import_records does, a few hundred prompts a transaction; call it outside of one.

    Args:
        prompts: read once.
        source: what the list of imports calls it.
    """
    taken = Taken()
    report = import_records(
        project=project, records=_records(prompts, taken), source=source, created_by=created_by,
    )  # fmt: skip
    taken.made, taken.known, taken.batch = report.written, report.unchanged, report.batch_id
    taken.skipped.update(report.reasons)
    return taken


def _records(prompts: Iterable[SampledPrompt], taken: Taken) -> Iterator[ImportedRecord | BadRecord]:
    for number, prompt in enumerate(prompts, start=1):
        responses = _distinct(prompt.responses)
        taken.merged += len(prompt.responses) - len(responses)
        if len(responses) < MIN_RESPONSES or len(responses) > MAX_RESPONSES:
            yield BadRecord(number, TOO_FEW if len(responses) < MIN_RESPONSES else TOO_MANY, fault=False)
            continue
        try:
            yield record_from_object(_native(prompt, responses), line=number)
        except RecordError as why:
            yield BadRecord(number, str(why))


def _distinct(responses: Sequence[SampledResponse]) -> list[tuple[SampledResponse, str]]:
    """Each different response once, in the order of their texts, which tells nothing of the models; with the names of
    all models that gave it."""
    models: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], SampledResponse] = {}
    for response in responses:
        key = (response.text, response.thinking or "")
        first.setdefault(key, response)
        names = models.setdefault(key, [])
        if response.model not in names:
            names.append(response.model)
    return [(first[key], " = ".join(models[key])[:MAX_MODEL_CHARACTERS]) for key in sorted(models)]


def _native(prompt: SampledPrompt, responses: Sequence[tuple[SampledResponse, str]]) -> dict[str, Any]:
    return {
        "format": VERSION,
        "type": "ranking",
        "external_id": prompt.external_id,
        "split_group": prompt.split_group,
        "split": prompt.split,
        "prompt": list(prompt.messages),
        "responses": [
            {
                "id": f"r{place}",
                "text": response.text,
                "thinking": response.thinking,
                "model": model,
                "settings": dict(response.settings),
            }
            for place, (response, model) in enumerate(responses, start=1)
        ],
    }
