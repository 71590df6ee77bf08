"""Reads: tries, what they say so far, and what a waiting one waits for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import NotFound
from annotate.models import Project, Prompt, User
from annotate.selectors.projects import get_project_for
from annotate.selectors.prompts import group_named_of, open_prompts
from training.models import Run, RunInput, Try, Worker
from training.selectors import seconds_left
from training.selectors_responses import SampledText, models_sampled, said_in
from training.selectors_workers import CPU, Held, held_by, living_workers
from training.token_lists import Listed, key_of, pieces_since

OPENING, CLOSING = "<think>", "</think>"  # as training.core.thinking
_TOO_LONG = re.compile(r"\btoo_long\b|\d+ too long")
PROMPTS_OFFERED = 30
OTHERS = (RunInput.Role.MODEL_2, RunInput.Role.MODEL_3, RunInput.Role.MODEL_4)


def tries_of(project: Project) -> QuerySet[Try]:
    """The project's tries, the newest first."""
    found = Try.objects.filter(run__project=project).select_related("run__started_by", "run__project")
    return _with_models(found).order_by("-pk")


def _with_models(tries: QuerySet[Try]) -> QuerySet[Try]:
    """The same, loaded with what models_tried reads."""
    return tries.select_related("run__base_version").prefetch_related("run__inputs__version")


def models_tried(run: Run) -> list[str]:
    """What the models of a sampling run are called on pages, in their order."""
    others = sorted((one for one in run.inputs.all() if one.role in OTHERS), key=lambda one: one.role)
    named = [(run.base_model, run.base_version), *((one.name, one.version) for one in others)]
    return [name if version is None else f"{version.name} ({version.pk})" for name, version in named]


def is_sent(run: Run) -> bool:
    """Whether ranking tasks were made of its responses, and are still there."""
    return Prompt.objects.filter(project=run.project_id, external_id__startswith=f"run-{run.pk}-").exists()


def get_try_for(user: User, slug: str, run_id: int) -> Try:
    """A try of the project, for its engineer.

    Raises:
        NotFound: no such try in it, or the project is none of the caller's business.
        Forbidden: a member who is no engineer.
    """
    project = get_project_for(user, slug, engineer=True)
    tried = tries_of(project).filter(pk=run_id).first()
    if tried is None:
        raise NotFound(_("There is no such try; they are removed a week after they ended."))
    return tried


# --- prompts of the project -------------------------------------------------------------------------------------------


def offered_prompts(project: Project) -> list[Prompt]:
    """The project's newest prompts that are not withdrawn."""
    return list(open_prompts(project).order_by("-pk")[:PROMPTS_OFFERED])


def prompt_in(project: Project, prompt_id: int) -> Prompt | None:
    """A prompt of the project that is not withdrawn."""
    return open_prompts(project).filter(pk=prompt_id).first()


def group_of(project: Project, prompt_id: int | None, messages: Sequence[Mapping[str, str]]) -> str | None:
    """The split group of the prompt that was taken from the project, if the messages are still its own."""
    prompt = prompt_in(project, prompt_id) if prompt_id is not None else None
    if prompt is None or [dict(message) for message in messages] != prompt.messages:
        return None
    return group_named_of(prompt)


# --- the place in line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ahead:
    """A living worker of the queue, and what it holds; `left` in seconds, where it can be told."""

    worker: str
    held: Held | None
    left: float | None


@dataclass(frozen=True, slots=True)
class InLine:
    """Why a try waits: `place` 1 is next, and `cpu` says that a worker of processors could take it instead."""

    queue: str
    place: int
    workers: Sequence[Ahead]
    cpu: bool


def line_of(tried: Try, *, user: User) -> InLine | None:
    """What a waiting try waits for; None if it does not wait. The name of a run only if the user may see it."""
    run = tried.run
    if run.state != Run.State.QUEUED:
        return None
    before = Q(queued_at__lt=run.queued_at) | Q(queued_at=run.queued_at, pk__lt=run.pk)
    place = 1 + Run.objects.filter(before, queue=run.queue, state=Run.State.QUEUED).count()
    workers = list(living_workers(run.queue))
    held = held_by(workers, user=user)
    ahead = [_ahead(worker, next(iter(held[worker.name]), None)) for worker in workers]
    return InLine(run.queue, place, ahead, cpu=run.queue != CPU and living_workers(CPU).exists())


def _ahead(worker: Worker, held: Held | None) -> Ahead:
    return Ahead(worker.name, held, seconds_left(held.run) if held is not None and held.run is not None else None)


# --- what the models say ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spoken:
    """One response as far as it is known; `said` is None until it is whole."""

    model: int
    sample: int
    text: str
    thinking: str | None
    said: SampledText | None


@dataclass(frozen=True, slots=True)
class Column:
    """The responses of one model; `seconds` is how long it took to sample them. `named` is as whoever began it named
    the model, `name` as pages do."""

    named: str
    name: str
    responses: Sequence[Spoken]
    seconds: float | None


def listed(run: Run, *, since: int) -> Listed:
    """The pieces of the run's current attempt from number `since` on."""
    return pieces_since(key_of(run.pk, run.attempt, run.created_at), since)


def columns_of(tried: Try) -> tuple[list[Column], int]:
    """What each model says: in the end the run's result, until then the pieces; and the number of the next piece."""
    named = list(zip(models_sampled(tried.run), models_tried(tried.run), strict=True))
    if tried.result is not None:
        said, seconds = [spoken_of(row) for row in tried.result["responses"]], tried.result["seconds"]
        return [
            Column(*names, [one for one in said if one.model == place], seconds[place])
            for place, names in enumerate(named)
        ], 0
    found = listed(tried.run, since=0)
    texts: dict[tuple[int, int], str] = {}
    for piece in found.pieces:
        texts[piece.model, piece.sample] = texts.get((piece.model, piece.sample), "") + piece.text
    samples = range(int(tried.run.config["samples_per_prompt"]))
    return [
        Column(*names, [_so_far(place, sample, texts.get((place, sample), "")) for sample in samples], None)
        for place, names in enumerate(named)
    ], found.next


def spoken_of(row: Mapping[str, Any]) -> Spoken:
    """A response of the stored result."""
    said = said_in(row)
    return Spoken(said.model, said.sample, said.text, said.thinking, said)


def _so_far(model: int, sample: int, text: str) -> Spoken:
    """Thinking and answer of an unfinished response: thinking stands at its beginning, between two tags."""
    start = text.lstrip()
    if not start.startswith(OPENING):
        return Spoken(model, sample, text, None, None)
    thinking, closed, answer = start.removeprefix(OPENING).partition(CLOSING)
    return Spoken(model, sample, answer.lstrip() if closed else "", thinking.strip(), None)


def why_it_failed(run: Run) -> str:
    """The reason of a failed try in words for whoever wrote the prompt."""
    if _TOO_LONG.search(run.reason):
        words = _(
            "The conversation is too long for a model: with the longest response it may take %(tokens)d tokens, or as "
            "many as the model takes. Shorten it, or ask for shorter responses."
        )
        return words % {"tokens": run.config["max_length"]}
    return run.reason
