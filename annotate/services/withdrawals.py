"""Withdrawal, the one way to remove: texts are blanked, hashes stay, the feed says so, and snapshots lose their files.

Everything here locks the project's withdrawals, so that no snapshot is recorded past one, and ends with the feed.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from django.db import transaction
from django.db.models import Count
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict
from annotate.models import (
    Change,
    Demonstration,
    Draft,
    IdentityLeak,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Skip,
    Slot,
    TaskFlag,
    User,
)
from annotate.rendered import cache_keys, forget
from annotate.services.counters import record_changes
from annotate.services.events import tell_of_withdrawals
from annotate.services.locks import lock_open_slots, lock_withdrawals
from annotate.services.snapshots import snapshots_holding, withdraw_snapshot


@transaction.atomic
def withdraw_ranking(*, ranking: Ranking, by: User | None = None) -> None:
    """Withdraws an annotator's answer to a task, in all its revisions. Its slot stays done.

    Blanks rationale, rewrite and unknown keys; the order itself stays in the database but leaves every export.
    Snapshots that hold it are withdrawn. `by` is whoever asked for it.

    Raises:
        Conflict: it was withdrawn before.
    """
    project = ranking.project
    lock_withdrawals(project)
    revisions = Ranking.objects.filter(task=ranking.task_id, annotator=ranking.annotator_id, withdrawn_at=None)
    rankings = list(revisions.select_for_update().order_by("revision").values_list("pk", flat=True))
    if not rankings:
        raise Conflict(_("This ranking was withdrawn before."), code="withdrawn")
    Draft.objects.filter(task=ranking.task_id, annotator=ranking.annotator_id).delete()
    _withdraw_snapshots(project=project, rankings=rankings)
    _forget_on_commit(_texts_of_rankings(rankings))
    _record(project, _blank_rankings(rankings))


@transaction.atomic
def withdraw_prompt(*, prompt: Prompt, by: User | None = None) -> None:
    """Withdraws a prompt with its responses, demonstrations and the rankings of its tasks.

    Its tasks are held and lose every slot that is not done; drafts go, notes of skips and flags are blanked. Snapshots
    that hold any of it are withdrawn. `by` is whoever asked for it.

    Raises:
        Conflict: it was withdrawn before; or (code `busy`) somebody was handing a task of it in or back for seconds.
    """
    project = prompt.project
    lock_withdrawals(project)
    if not Prompt.objects.select_for_update().filter(pk=prompt.pk, withdrawn_at=None).exists():
        raise Conflict(_("This prompt was withdrawn before."), code="withdrawn")
    withdraw_prompts(project=project, prompts=[prompt.pk])


def withdraw_prompts(*, project: Project, prompts: Collection[int]) -> None:
    """As withdraw_prompt, for several that are locked and not yet withdrawn, in a transaction that ends with this."""
    tasks = list(RankingTask.objects.filter(prompt__in=prompts).order_by("pk").values_list("pk", flat=True))
    _close_tasks(tasks)
    rankings = list(
        Ranking.objects.select_for_update()
        .filter(task__in=tasks, withdrawn_at=None)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    _withdraw_snapshots(project=project, rankings=rankings, prompts=prompts)
    _forget_on_commit(chain(_texts_of_rankings(rankings), _texts_of_prompts(prompts)))
    changes = _blank_rankings(rankings)
    Demonstration.objects.filter(prompt__in=prompts, withdrawn_at=None).update(text="", withdrawn_at=Now())
    Response.objects.filter(prompt__in=prompts, withdrawn_at=None).update(
        text="", thinking=None, extra={}, withdrawn_at=Now()
    )
    IdentityLeak.objects.filter(response__prompt__in=prompts).delete()  # the phrase is of the text
    Prompt.objects.filter(pk__in=prompts).update(
        messages=[], answer=None, tests=None, tags=[], extra={}, withdrawn_at=Now()
    )
    changes += [{"kind": Change.Kind.WITHDRAWAL, "prompt_id": pk} for pk in sorted(prompts)]
    _record(project, changes)


def _record(project: Project, changes: list[dict[str, Any]]) -> None:
    recorded = record_changes(project=project, changes=changes)
    if recorded.has_webhooks:
        tell_of_withdrawals(project, changes, last=recorded.last)


def _blank_rankings(rankings: Collection[int]) -> list[dict[str, Any]]:
    """Blanks what rankings say in words, and returns the changes to record."""
    Ranking.objects.filter(pk__in=rankings).update(
        rationale=None, rewrite_of=None, rewrite_text=None, extra={}, withdrawn_at=Now()
    )
    return [{"kind": Change.Kind.WITHDRAWAL, "ranking_id": pk} for pk in rankings]


def _close_tasks(tasks: Collection[int]) -> None:
    """Takes tasks out of the queue for good."""
    Slot.objects.filter(pk__in=lock_open_slots(RankingTask.objects.filter(pk__in=tasks))).delete()
    done = dict(Slot.objects.filter(task__in=tasks, beyond_overlap=False).values_list("task").annotate(Count("pk")))
    for overlap in {0, *done.values()}:
        of_this = [task for task in tasks if done.get(task, 0) == overlap]
        RankingTask.objects.filter(pk__in=of_this).update(overlap=overlap, state=RankingTask.State.HELD, expected=None)
    Draft.objects.filter(task__in=tasks).delete()
    Skip.objects.filter(task__in=tasks).exclude(note="").update(note="")
    TaskFlag.objects.filter(task__in=tasks).exclude(note="").update(note="")


def _withdraw_snapshots(*, project: Project, rankings: Collection[int], prompts: Collection[int] = ()) -> None:
    for snapshot in snapshots_holding(project=project, rankings=rankings, prompts=prompts):
        withdraw_snapshot(snapshot=snapshot)


def _texts_of_prompts(prompts: Collection[int]) -> Iterator[str]:
    for messages in Prompt.objects.filter(pk__in=prompts).values_list("messages", flat=True).iterator():
        yield from (message["content"] for message in messages)
    of_responses = Response.objects.filter(prompt__in=prompts).values_list("text", "thinking")
    for text, thinking in of_responses.iterator():
        yield text
        yield thinking or ""
    yield from Demonstration.objects.filter(prompt__in=prompts).values_list("text", flat=True).iterator()


def _texts_of_rankings(rankings: Collection[int]) -> Iterator[str]:
    said = Ranking.objects.filter(pk__in=rankings).values_list("rationale", "rewrite_text")
    yield from (text or "" for texts in said.iterator() for text in texts)


def _forget_on_commit(texts: Iterable[str]) -> None:
    """What pages made of the texts goes from the cache too, once the texts are gone."""
    keys = cache_keys(texts)
    transaction.on_commit(partial(forget, keys), robust=True)
