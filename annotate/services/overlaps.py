"""Another overlap for all tasks of a project, not only for those still to come."""

from collections.abc import Sequence

from django.db import transaction

from annotate.assignment import lane_of
from annotate.models import Counter, Project, RankingTask, Slot
from annotate.selectors.setup import OverlapEffect, effect_of, tasks_of_other_overlap
from annotate.services.counters import draw
from annotate.services.events import tell_of_completed

#: Tasks in one transaction: few enough that nobody who asks for the next task has to wait.
CHUNK = 200


def set_overlap_of_all(*, project: Project, overlap: int) -> OverlapEffect:
    """Gives every normal task that is ranked here this overlap.

    Raising adds free places; lowering removes free ones alone, so a task that more people hold or have ranked keeps
    what it has and gets no further ranking. Gold tasks, repeats and closed tasks stay as they are. Repeating it is
    harmless, also after it broke off in the middle. Must not run inside a transaction: it commits every CHUNK tasks.

    Returns:
        What it did.
    """
    done: list[tuple[int, int]] = []
    last = 0
    while tasks := list(tasks_of_other_overlap(project, overlap).filter(pk__gt=last).order_by("pk")[:CHUNK]):
        done += _set(project=project, tasks=[task.pk for task in tasks], overlap=overlap)
        last = tasks[-1].pk
    return effect_of(done, overlap)


@transaction.atomic
def _set(*, project: Project, tasks: Sequence[int], overlap: int) -> list[tuple[int, int]]:
    """Returns (overlap before, places taken) of each task. Locks the tasks, the free slots it removes, the counter.

    Slots that somebody is taking at this moment are left alone, and tasks that somebody is leasing are not waited for,
    so that neither side waits for the other.
    """
    locked = list(RankingTask.objects.select_for_update(no_key=True).filter(pk__in=tasks).order_by("pk"))
    numbers: dict[int, list[int]] = {task.pk: [] for task in locked}
    for pk, number in Slot.objects.filter(task__in=numbers, beyond_overlap=False).values_list("task", "number"):
        numbers[pk].append(number)
    surplus = {task.pk: len(numbers[task.pk]) - overlap for task in locked}
    removed = _remove_free({task: count for task, count in surplus.items() if count > 0})
    seen = []
    for task in locked:
        before = len(numbers[task.pk])
        task.overlap = max(before - removed.get(task.pk, 0), overlap)
        seen.append((before, task.overlap if task.overlap > overlap else 0))
    RankingTask.objects.bulk_update(locked, ["overlap"])
    add_places(
        project=project, tasks=[task for task in locked if surplus[task.pk] < 0], numbers=numbers, overlap=overlap
    )
    tell_of_completed(project, [task for task, count in removed.items() if count])
    return seen


def _remove_free(surplus: dict[int, int]) -> dict[int, int]:
    """Deletes up to so many free slots of each task, the last ones first; returns how many."""
    free = Slot.objects.select_for_update(skip_locked=True).filter(task__in=surplus, state=Slot.State.FREE)
    going: list[int] = []
    removed = dict.fromkeys(surplus, 0)
    for pk, task in free.order_by("task", "-number").values_list("pk", "task"):
        if removed[task] < surplus[task]:
            going.append(pk)
            removed[task] += 1
    Slot.objects.filter(pk__in=going).delete()
    return removed


def add_places(*, project: Project, tasks: Sequence[RankingTask], numbers: dict[int, list[int]], overlap: int) -> None:
    """Gives tasks that the caller has locked free slots up to the overlap, offered beyond every annotator's cursor.

    They have the lowest numbers that are free; `numbers`: those taken, by task. Locks the offer counter.
    """
    new: list[Slot] = []
    for task in tasks:
        taken = set(numbers[task.pk])
        free = [number for number in range(1, overlap + len(taken) + 1) if number not in taken]
        lane = lane_of(priority=task.priority, reoffered=True)
        wanted = free[: overlap - len(taken)]
        new += [Slot(task=task, project=project, number=number, lane=lane) for number in wanted]
    if not new:
        return
    first = draw(project=project, name=Counter.Name.OFFER, count=len(new))
    for offer, slot in enumerate(new, start=first):
        slot.offer = offer
    Slot.objects.bulk_create(new)
