"""Tries: a short sampling run that answers one conversation, for somebody who watches it being written.

A try that nobody looks at for ABANDONED while it waits is cancelled by whichever worker looks for runs next. A week
after its end a try is removed with its files: what was sent to annotators by then stands in the project.
"""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid
from annotate.models import Project, User
from training.models import Run, RunInput, Try
from training.selectors_workers import CPU, living_workers
from training.services.doorbell import ring_on_commit
from training.services.placement import queue_for
from training.services.run_inputs import BASE, Inputs, checked_inputs
from training.services.run_settings import Role, checked_config
from training.services.runs import MAX_NAME_CHARACTERS, cancel_run

ABANDONED = timedelta(minutes=5)
KEEP = timedelta(days=7)
SEEN_EVERY = timedelta(seconds=10)
MOST_WAITING = 3  # of one person in one project
MOST_SAMPLES = 4
MOST_CHARACTERS = 100_000
MOST_MESSAGES = 50
LONGEST_RESPONSE = 2_048  # tokens
LONGEST = 8_192  # tokens of prompt and response; a model that takes fewer has its own limit
ROLES = ("system", "user", "assistant")
_FIELDS = {BASE: "model", Role.MODEL_2: "model_2", Role.REWARD: "reward_model"}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be tried.

    Attributes:
        model, model_2, reward_model: as training.base_models names them; "" for none.
        messages: [{role, content}, …], the last one calls for a response.
        split_group: of the project's prompt that the messages are, if they are one with a group of its own.
        samples: of each model.
        max_response_length: in tokens.
        seed: None draws one.
    """

    model: str
    messages: Sequence[Mapping[str, str]]
    model_2: str = ""
    reward_model: str = ""
    split_group: str | None = None
    samples: int = 1
    temperature: float = 1.0
    max_response_length: int = 256
    shows_thinking: bool = False
    seed: int | None = None


@transaction.atomic
def start_try(wish: Wish, *, project: Project, started_by: User) -> Try:
    """Queues the run after checking all that can be checked before a worker has it; wakes a worker on commit.

    Locks the rows of runs whose models it names.

    Raises:
        Invalid: with one message per wrong field.
        Conflict: the person has several tries waiting.
    """
    given = {BASE: wish.model, Role.MODEL_2: wish.model_2, Role.REWARD: wish.reward_model}
    names = {role: name.strip() for role, name in given.items() if name.strip() or role == BASE}
    models = checked_inputs(project, Run.Kind.SAMPLE, names)
    config, wrong = checked_config(Run.Kind.SAMPLE, _settings_of(wish), inputs=names.keys() - {BASE})
    faults = {name.removeprefix("config."): text for name, text in wrong.items()}
    if "samples_per_prompt" in faults:
        faults["samples"] = faults.pop("samples_per_prompt")
    faults |= _limits(wish) | {_FIELDS[role]: text for role, text in _model_faults(models).items()}
    if fault := messages_fault(wish.messages):
        faults["messages"] = fault
    if faults:
        raise Invalid(_("Nothing was started."), fields=faults)
    _check_waiting(project, started_by)
    run = Run.objects.create(
        project=project,
        name=_name_of(wish.messages),
        kind=Run.Kind.SAMPLE,
        base_model=names[BASE],
        base_version=models.named[BASE].version,
        config=config,
        queue=_queue(),
        started_by=started_by,
        queued_at=Now(),
    )
    for role, one in models.named.items():
        if role != BASE:
            RunInput.objects.create(run=run, role=role, name=one.name, version=one.version)
    messages = [{"role": message["role"], "content": message["content"]} for message in wish.messages]
    tried = Try.objects.create(
        run=run, messages=messages, split_group=wish.split_group, shows_thinking=wish.shows_thinking
    )
    ring_on_commit(run.queue)
    return Try.objects.select_related("run__project", "run__started_by").get(pk=tried.pk)


def _settings_of(wish: Wish) -> dict[str, Any]:
    return {
        "samples_per_prompt": wish.samples,
        "temperature": wish.temperature,
        "max_response_length": wish.max_response_length,
        "max_length": LONGEST,
        "seed": random.SystemRandom().randrange(2**31) if wish.seed is None else wish.seed,
        "split": "all",
    }


def _limits(wish: Wish) -> dict[str, str]:
    """What a sampling run may be told and a try may not."""
    words, faults = _("At most %(limit)d."), {}
    if wish.samples > MOST_SAMPLES:
        faults["samples"] = words % {"limit": MOST_SAMPLES}
    if wish.max_response_length > LONGEST_RESPONSE:
        faults["max_response_length"] = words % {"limit": LONGEST_RESPONSE}
    return faults


def _model_faults(models: Inputs) -> dict[str, str]:
    waits = _("The run that is to make this model has not succeeded yet.")
    awaited = {role: waits for role, one in models.named.items() if one.run is not None and one.version is None}
    return awaited | models.faults


def messages_fault(messages: Sequence[Mapping[str, str]]) -> str:
    """What is wrong with a conversation that is to be answered; "" if nothing."""
    if not messages or not any(message["content"].strip() for message in messages if message["role"] == "user"):
        return _("Write a prompt.")
    if any(message["role"] not in ROLES for message in messages):
        return _("The role of a message is one of %(roles)s.") % {"roles": ", ".join(ROLES)}
    if any(message["role"] == "system" for message in messages[1:]):
        return _("Only the first message can be the system's.")
    if messages[-1]["role"] != "user":
        return _("The last message must be the user's: it is what the models answer.")
    if any(not message["content"].strip() for message in messages):
        return _("A message is empty.")
    if any("\0" in message["content"] or _is_broken(message["content"]) for message in messages):
        return _("The text holds a character that is none (NUL, or half of a surrogate pair).")
    length = sum(len(message["content"]) for message in messages)
    if length > MOST_CHARACTERS or len(messages) > MOST_MESSAGES:
        words = _("Too long: at most %(characters)d characters in %(messages)d messages.")
        return words % {"characters": MOST_CHARACTERS, "messages": MOST_MESSAGES}
    return ""


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_waiting(project: Project, user: User) -> None:
    waiting = Try.objects.filter(run__project=project, run__started_by=user, run__state=Run.State.QUEUED).count()
    if waiting >= MOST_WAITING:
        words = _("%(count)d of your tries are waiting for a worker; cancel one of them, or wait.")
        raise Conflict(words % {"count": waiting})


def _name_of(messages: Sequence[Mapping[str, str]]) -> str:
    asked = " ".join(messages[-1]["content"].split())
    name = _("Try: %(prompt)s") % {"prompt": asked}
    return name if len(name) <= MAX_NAME_CHARACTERS else name[: MAX_NAME_CHARACTERS - 1] + "…"


def _queue() -> str:
    """The first that this server has, unless only workers of processors live."""
    usual = queue_for({}, needed=None, processes=1)
    return CPU if living_workers(CPU).exists() and not living_workers(usual).exists() else usual


# --- while it waits --------------------------------------------------------------------------------------------------


def mark_seen(tried: Try) -> None:
    """Notes that somebody looks, at most every few seconds."""
    Try.objects.filter(pk=tried.pk, seen_at__lt=Now() - SEEN_EVERY).update(seen_at=Now())


@transaction.atomic
def move_to_cpu(tried: Try) -> Run:
    """Has a waiting try answered by a worker of processors; it keeps its time in line. Wakes that worker on commit.

    Locks the run's row.

    Raises:
        Conflict: it waits no more, or no such worker lives.
    """
    run = Run.objects.select_for_update(of=("self",)).select_related("project").get(pk=tried.pk)
    if run.state != Run.State.QUEUED:
        raise Conflict(_("It waits no more; its state is: %(state)s.") % {"state": run.get_state_display().lower()})
    if run.queue != CPU:
        if not living_workers(CPU).exists():
            raise Conflict(_("No worker of the queue %(queue)s is alive now.") % {"queue": CPU})
        run.queue = CPU
        run.save(update_fields=["queue"])
    ring_on_commit(run.queue)
    return run


def cancel_try(tried: Try) -> Run:
    """As services.runs.cancel_run."""
    return cancel_run(tried.run)


def cancel_abandoned() -> int:
    """Cancels the waiting tries that nobody looks at any more, in one statement; returns how many."""
    abandoned = Try.objects.filter(seen_at__lt=Now() - ABANDONED).values("run_id")
    # The state is asked of the row itself: one that a worker claims at this moment is left alone.
    return Run.objects.filter(state=Run.State.QUEUED, pk__in=abandoned).update(
        state=Run.State.CANCELLED,
        cancel_requested_at=Now(),
        finished_at=Now(),
        reason=f"Nobody looked at it for {ABANDONED.total_seconds() / 60:.0f} minutes while it waited.",
    )


# --- when it is over -------------------------------------------------------------------------------------------------


def forget_tries() -> int:
    """Removes the tries that ended a week ago, with their files; returns how many. Beat calls it."""
    cancel_abandoned()
    old = list(Run.objects.filter(tried__isnull=False, state__in=Run.FINISHED, finished_at__lt=Now() - KEEP))
    for run in old:
        shutil.rmtree(run.folder, ignore_errors=True)
        run.delete()
    return len(old)
