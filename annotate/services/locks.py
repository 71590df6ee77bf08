"""Locks that last until the transaction ends: for rules that no single row stands for, and for whole tasks."""

import time
from contextlib import suppress

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from annotate.errors import Conflict
from annotate.models import Project, RankingTask, Slot

#: How often, and how far apart, it is tried to get hold of tasks that others are working on.
ATTEMPTS, PAUSE_SECONDS = 100, 0.03


def lock_imports(project: Project) -> None:
    """One chunk of records at a time is written into a project, so that two imports of one file do not collide."""
    _lock(f"imports of {project.pk}")


def lock_withdrawals(project: Project) -> None:
    """A withdrawal and the recording of a snapshot exclude each other, so that no snapshot misses a withdrawal."""
    _lock(f"withdrawals of {project.pk}")


def lock_members(project: Project) -> None:
    """Changes of who may do what come one after the other, so that two cannot each see another manager left."""
    _lock(f"members of {project.pk}")


def lock_decisions(task: RankingTask) -> None:
    """Two managers decide about one task one after the other."""
    _lock(f"decisions about {task.pk}")


def _lock(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"plackett {name}"])


def lock_open_slots(tasks: QuerySet[RankingTask]) -> list[int]:
    """Locks the tasks and all their slots that are not done, never waiting while it holds one of them.

    Whoever hands a slot back holds it and then waits for the task's free ones, in no order that could be shared.

    Returns:
        The ids of the slots.

    Raises:
        Conflict: somebody was in the way for seconds (`busy`).
    """
    for _attempt in range(ATTEMPTS):
        with suppress(_InTheWay), transaction.atomic():
            return _lock_at_once(tasks)
        time.sleep(PAUSE_SECONDS)
    raise Conflict(_("Somebody is handing this task in or back right now; try again."), code="busy")


def _lock_at_once(tasks: QuerySet[RankingTask]) -> list[int]:
    locked = list(tasks.select_for_update(of=("self",), no_key=True, skip_locked=True).values_list("pk", flat=True))
    slots = Slot.objects.filter(task__in=tasks.values("pk")).exclude(state=Slot.State.DONE)
    held = list(slots.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
    if len(locked) < tasks.count() or len(held) < slots.count():
        raise _InTheWay  # undoes the savepoint, which gives the locks back
    return held


class _InTheWay(Exception):
    """Somebody else holds a task or one of its slots."""
