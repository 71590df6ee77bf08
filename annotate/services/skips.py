"""Passing a task on, and asking the manager to look at it."""

import uuid

from django.db import transaction
from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.models import Change, Ranking, RankingTask, Skip, Slot, TaskFlag, User
from annotate.services.counters import record_changes
from annotate.services.queue import free_slots, hold_task, lease_ended, locked_slot, one_call_at_a_time, own_lease

MACHINE = User.Kind.MACHINE


@transaction.atomic
def skip_task(*, lease_id: uuid.UUID, annotator: User, reason: str, note: str = "") -> Skip:
    """Frees the slot and never offers the task to this annotator again; holds the task at the project's skip limit.

    Works also when the time ran out and the place is gone: pages bring back what was begun, and a person must be able
    to be rid of it.

    Raises:
        Invalid: an unknown reason.
        NotFound, Conflict: as _own_task; or the annotator has ranked the task (`lease_ended`).
    """
    if reason not in Skip.Reason.values:
        raise Invalid(_("Say why you skip it."), fields={"reason": f"One of {', '.join(Skip.Reason.values)}."})
    task, slot = _own_task(lease_id=lease_id, annotator=annotator)
    if slot is None and Ranking.objects.filter(task=task, annotator=annotator).exists():
        raise lease_ended()
    project = task.project
    skip = Skip.objects.create(project=project, task=task, annotator=annotator, reason=reason, note=note)
    if annotator.kind != MACHINE:  # what a machine passes on is still there for people
        by_people = Skip.objects.filter(task=task).exclude(annotator__kind=MACHINE)
        if by_people.count() >= project.skip_limit or reason == Skip.Reason.UNSAFE:
            hold_task(task.pk)
    if slot is not None:
        free_slots(project=project, slots=[slot])
    record_changes(project=project, changes=[{"kind": Change.Kind.SKIP, "skip_id": skip.pk}])
    return skip


@transaction.atomic
def flag_task(*, lease_id: uuid.UUID, annotator: User, kind: str, note: str = "") -> TaskFlag:
    """Asks the manager to look at the task; `unsafe` holds it at once. The lease stays.

    Works also when the time ran out, and after the answer: whoever looks at it again may see what they had missed.

    Raises:
        Invalid: an unknown kind.
        NotFound, Conflict: as _own_task.
    """
    if kind not in TaskFlag.Kind.values:
        raise Invalid(_("Say what is wrong with it."), fields={"kind": f"One of {', '.join(TaskFlag.Kind.values)}."})
    task, _slot = _own_task(lease_id=lease_id, annotator=annotator)
    said_again = {"note": note, "settled_at": None, "settled_by": None}
    flag, _made = TaskFlag.objects.update_or_create(task=task, annotator=annotator, kind=kind, defaults=said_again)
    if kind == TaskFlag.Kind.UNSAFE and annotator.kind != MACHINE:
        hold_task(task.pk)
    return flag


def _own_task(*, lease_id: uuid.UUID, annotator: User) -> tuple[RankingTask, Slot | None]:
    """The task of this lease, and the slot under it, locked; None if the time ran out or the task was answered.

    Holds back the annotator's other calls, so that nothing is answered and skipped at once.

    Raises:
        NotFound: the lease is not this annotator's.
        Conflict: they skipped the task, hold it under another lease, or the prompt was withdrawn (`lease_ended`).
    """
    lease = own_lease(lease_id=lease_id, annotator=annotator)
    task = lease.task
    one_call_at_a_time(project=task.project, annotator=annotator)
    slot = locked_slot(lease, annotator=annotator)
    if slot is None:
        elsewhere = Slot.objects.filter(task=task, holder=annotator, state=Slot.State.LEASED)
        skipped = Skip.objects.filter(task=task, annotator=annotator)
        if elsewhere.exists() or skipped.exists() or task.prompt.withdrawn_at is not None:
            raise lease_ended()
    return task, slot
