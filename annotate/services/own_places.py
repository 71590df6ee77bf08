"""Places that machines make for themselves, beyond the overlap, so that no person's place is ever taken by one.

A machine goes through the project's tasks by priority and then in the order of their ids. QueueCursor remembers how far
it has come, in a lane of its own for each priority: tasks of that priority up to there are nothing for it any more.
Whatever comes back (a lease that ended, a task that was held or closed) moves the cursors back.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from annotate.assignment import presented_order
from annotate.models import Membership, Project, QueueCursor, RankingTask, User
from annotate.prepared import prepared_cursor

Priority = RankingTask.Priority
#: In this order; most tasks are of the normal one. (People's lanes begin at 0.)
LANES = {Priority.URGENT: -2, Priority.HIGH: -3, Priority.NORMAL: -1, Priority.LOW: -4}
#: Numbers of places: those of the overlap end at 50.
FIRST_NUMBER = 1001
#: A cursor is moved only when it would save passing over this many tasks.
CURSOR_STEP = 32

# A transaction that makes tasks may commit after one that made later ones; none takes so long.
_SETTLED = "interval '10 minutes'"

_PASSED = "SELECT lane, offer FROM annotate_queuecursor WHERE project_id = %s AND annotator_id = %s AND lane < 0"

# Repeats are for one person alone. The task's row is held, so that it is not closed or withdrawn meanwhile. The
# priority is part of the text, so that the planner sees whether the index of tasks that are not of the normal one will
# do.
_NEXT = """
    SELECT task.id, ARRAY(SELECT response_id FROM annotate_taskresponse WHERE task_id = task.id ORDER BY response_id)
    FROM annotate_rankingtask task
    WHERE task.project_id = %(project)s AND task.priority = {priority} AND task.id > %(after)s
        AND task.state = 'open' AND task.overlap > 0 AND task.kind <> 'repeat'
        AND NOT EXISTS (SELECT 1 FROM annotate_slot mine
                        WHERE mine.task_id = task.id AND mine.holder_id = %(annotator)s OFFSET 0)
        AND NOT EXISTS (SELECT 1 FROM annotate_skip skip
                        WHERE skip.task_id = task.id AND skip.annotator_id = %(annotator)s OFFSET 0)
        AND NOT EXISTS (SELECT 1 FROM annotate_ranking done
                        WHERE done.task_id = task.id AND done.annotator_id = %(annotator)s OFFSET 0)
    ORDER BY task.id LIMIT 1 FOR SHARE OF task
"""

# The last task before the first one that is not settled. Both are looked for from the cursor on: what lies behind it,
# and all that a great import has just brought, is not gone through.
_SETTLED_UP_TO = f"""
    SELECT id FROM annotate_rankingtask
    WHERE project_id = %(project)s AND id > %(passed)s AND id <= %(up_to)s AND id < COALESCE(
        (SELECT id FROM annotate_rankingtask
         WHERE project_id = %(project)s AND id > %(passed)s AND created_at >= statement_timestamp() - {_SETTLED}
         ORDER BY id LIMIT 1), %(up_to)s + 1)
    ORDER BY id DESC LIMIT 1
"""

_ANY_LEFT = """
    SELECT EXISTS (SELECT 1 FROM annotate_rankingtask
                   WHERE project_id = %(project)s AND priority = {priority} AND id > %(after)s)
"""

_LEASE = """
    INSERT INTO annotate_lease (id, task_id, annotator_id, version_id, presented_order, leased_at)
    SELECT %(lease)s, %(task)s, %(annotator)s, version.id, %(order)s::bigint[], statement_timestamp()
    FROM annotate_projectversion version WHERE version.project_id = %(project)s
    ORDER BY version.number DESC LIMIT 1
"""

_PLACE = """
    INSERT INTO annotate_slot (task_id, project_id, number, state, holder_id, reserved_for_id, lease_id, version_id,
        presented_order, expires_at, lane, offer, beyond_overlap)
    SELECT lease.task_id, %(project)s, %(number)s, 'leased', lease.annotator_id, lease.annotator_id, lease.id,
        lease.version_id, lease.presented_order, statement_timestamp() + make_interval(secs => %(seconds)s), 0, 0, true
    FROM annotate_lease lease WHERE lease.id = %(lease)s RETURNING id
"""


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """A place that a machine holds, and the lease on it."""

    slot: int
    lease: uuid.UUID


def machine_of(*, project: Project, user: User) -> Membership | None:
    """The membership of a machine; None for people, who cost no query."""
    if user.kind != User.Kind.MACHINE:
        return None
    return Membership.objects.filter(project=project, user=user).first()


def makes_own_places(*, project: Project, user: User) -> bool:
    """Whether this is a machine that fills no place of the overlap."""
    machine = machine_of(project=project, user=user)
    return machine is not None and not machine.fills_places


def claim_own_places(*, project: Project, machine: Membership, wanted: int) -> list[OwnPlace]:
    """Leases up to `wanted` tasks to a machine, each on a new place of its own.

    The caller holds back the machine's other calls. Writes leases, slots and the machine's cursor; holds the tasks.
    """
    number = _number_of(machine)
    claimed: list[OwnPlace] = []
    with prepared_cursor() as cursor:
        cursor.execute(_PASSED, [project.pk, machine.user_id])
        passed = dict(cursor.fetchall())
        for priority, lane in LANES.items():
            if len(claimed) == wanted:
                break
            who = {"project": project.pk, "annotator": machine.user_id, "lane": lane, "passed": passed.get(lane, 0)}
            for task, responses in _tasks_of(cursor, who, priority=priority, wanted=wanted - len(claimed)):
                lease = uuid.uuid4()
                order = presented_order(responses, seed=str(task), row=number - 1)
                cursor.execute(_LEASE, who | {"lease": lease, "task": task, "order": order})
                slot = _place(cursor, lease, project=project, number=number)
                claimed.append(OwnPlace(slot, lease))
    return claimed


def _tasks_of(cursor: Any, who: dict[str, Any], *, priority: int, wanted: int) -> list[tuple[int, list[int]]]:
    """Up to `wanted` tasks of one priority that the machine may take, with their responses; moves its cursor there."""
    found: list[tuple[int, list[int]]] = []
    after = who["passed"]
    while len(found) < wanted:
        cursor.execute(_NEXT.format(priority=int(priority)), who | {"after": after})
        if (row := cursor.fetchone()) is None:
            break
        found.append(row)
        after = row[0]
    if found:
        _move_on(cursor, who, up_to=found[0][0] - 1)
    else:
        cursor.execute(_ANY_LEFT.format(priority=int(priority)), who | {"after": after})
        if cursor.fetchone()[0]:  # all of them are done, or not to be had now
            _move_on(cursor, who, up_to=2**62)
    return found


def place_for_late(*, lease_id: uuid.UUID, task: int, project: Project, machine: Membership) -> int | None:
    """A place for an answer whose lease ended; None if the task is not open any more."""
    open_tasks = RankingTask.objects.select_for_update(of=("self",), no_key=True).filter(pk=task)
    if open_tasks.filter(state=RankingTask.State.OPEN).only("pk").first() is None:
        return None
    with prepared_cursor() as cursor:
        return _place(cursor, lease_id, project=project, number=_number_of(machine))


def offer_again(*, project: Project, task: int, machine: int | None = None) -> None:
    """The task may come to these machines again: to one, or to all of the project."""
    passed = QueueCursor.objects.filter(project=project, lane__in=LANES.values(), offer__gte=task)
    (passed if machine is None else passed.filter(annotator=machine)).update(offer=task - 1)


def _place(cursor: Any, lease: uuid.UUID, *, project: Project, number: int) -> int:
    values = {"lease": lease, "project": project.pk, "number": number, "seconds": project.lease_seconds}
    cursor.execute(_PLACE, values)
    slot: int = cursor.fetchone()[0]
    return slot


def _number_of(machine: Membership) -> int:
    """Each machine of a project has its number, so that no two want the same place of a task."""
    earlier = Membership.objects.filter(project=machine.project_id, user__kind=User.Kind.MACHINE, pk__lt=machine.pk)
    return FIRST_NUMBER + earlier.count()


def _move_on(cursor: Any, who: dict[str, Any], *, up_to: int) -> None:
    if up_to - who["passed"] < CURSOR_STEP:
        return
    cursor.execute(_SETTLED_UP_TO, who | {"up_to": up_to})
    settled = (cursor.fetchone() or (0,))[0]
    if settled - who["passed"] < CURSOR_STEP:
        return
    cursor.execute(
        """INSERT INTO annotate_queuecursor (project_id, annotator_id, lane, offer)
           VALUES (%(project)s, %(annotator)s, %(lane)s, %(offer)s)
           ON CONFLICT (project_id, annotator_id, lane) DO UPDATE SET offer = excluded.offer""",
        who | {"offer": settled},
    )
