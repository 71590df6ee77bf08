"""What a manager decides about tasks that were held, flagged, or should not be ranked any further."""

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict
from annotate.models import RankingTask, Slot, TaskFlag, TaskResponse, User
from annotate.services.locks import lock_decisions, lock_open_slots
from annotate.services.overlaps import add_places
from annotate.services.own_places import offer_again
from annotate.services.queue import release_hold


@transaction.atomic
def release_task(*, task: RankingTask, by: User) -> None:
    """Puts a held task back into the queue and settles its flags. Locks its free slots and the offer counter.

    Raises:
        Conflict: it is not held (`not_held`), or its prompt was withdrawn (`withdrawn`).
    """
    lock_decisions(task)
    now = RankingTask.objects.select_related("project", "prompt").get(pk=task.pk)
    if now.prompt.withdrawn_at is not None:
        raise Conflict(_("The prompt was withdrawn, so the task stays out of the queue."), code="withdrawn")
    if now.state != RankingTask.State.HELD:
        raise Conflict(_("This task is not held."), code="not_held")
    settle_flags(task=now, by=by)
    release_hold(task=now)


@transaction.atomic
def close_task(*, task: RankingTask, by: User) -> None:
    """Takes a task out of the queue: free and leased places go, what is done stays and still counts.

    `reopen_task` undoes it. Whoever holds the task can go on; their answer is then kept as an extra. Settles the task's
    flags. Locks the task and its slots, and deletes slots.

    Raises:
        Conflict: it is closed already (`closed`), or somebody is handing it in or back right now (`busy`).
    """
    lock_decisions(task)
    if RankingTask.objects.filter(pk=task.pk, state=RankingTask.State.CLOSED).exists():
        raise Conflict(_("This task is closed already."), code="closed")
    settle_flags(task=task, by=by)
    Slot.objects.filter(pk__in=lock_open_slots(RankingTask.objects.filter(pk=task.pk))).delete()
    done = Slot.objects.filter(task=task, beyond_overlap=False).count()
    RankingTask.objects.filter(pk=task.pk).update(state=RankingTask.State.CLOSED, overlap=done)


@transaction.atomic
def reopen_task(*, task: RankingTask) -> int:
    """Puts a closed task back into the queue, with the project's overlap or as many places as are done if more.

    The new places are offered anew, also to whoever had the task open when it was closed. An answer that came in
    meanwhile stays an extra. Locks the task and the offer counter, and writes slots.

    Returns:
        How many places are free now.

    Raises:
        Conflict: it is not closed (`not_closed`), its prompt or one of its responses was withdrawn (`withdrawn`), or it
            is a repeat, which one person alone can answer (`repeat`).
    """
    lock_decisions(task)
    locked = RankingTask.objects.select_for_update(of=("self",), no_key=True)
    now = locked.select_related("project", "prompt").get(pk=task.pk)
    if now.state != RankingTask.State.CLOSED:
        raise Conflict(_("This task is not closed."), code="not_closed")
    if now.prompt.withdrawn_at is not None:
        raise Conflict(_("The prompt was withdrawn, so the task stays out of the queue."), code="withdrawn")
    shown = TaskResponse.objects.filter(task=now, response__withdrawn_at__isnull=False)
    if shown.exists():
        raise Conflict(_("A response was withdrawn, so the task stays out of the queue."), code="withdrawn")
    if now.kind == RankingTask.Kind.REPEAT:
        raise Conflict(_("A repeat is meant for one person alone and is not opened again."), code="repeat")
    done = list(Slot.objects.filter(task=now, beyond_overlap=False).values_list("number", flat=True))
    now.state, now.overlap = RankingTask.State.OPEN, max(now.project.overlap, len(done))
    now.save(update_fields=["state", "overlap"])
    add_places(project=now.project, tasks=[now], numbers={now.pk: done}, overlap=now.overlap)
    offer_again(project=now.project, task=now.pk)
    return now.overlap - len(done)


def settle_flags(*, task: RankingTask, by: User) -> int:
    """Marks the task's open flags as looked at, and returns how many there were. The task's state stays."""
    return TaskFlag.objects.filter(task=task, settled_at=None).update(settled_at=Now(), settled_by=by)
