"""Who gets which task next. Every promise here is kept by the database: see Slot, and tests/annotate/test_queue.py.

The queue is the project's free slots in the order (lane, offer). An annotator is never offered a task on which they
hold a slot, made a skip or wrote a ranking. Those stay in the queue for others, so a plain search would pass over all
of them again at each call. QueueCursor remembers, per annotator and lane, the offer up to which there is nothing for
them for good; whatever becomes free again later gets a new offer, which is beyond every cursor. So a call looks at a
handful of rows, whether the project has a thousand tasks or a million.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.assignment import LANES, lane_of, presented_order
from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import (
    Counter,
    Lease,
    Project,
    QueueCursor,
    RankingTask,
    Slot,
    User,
)
from annotate.prepared import prepared_cursor
from annotate.selectors.leases import lease_contents
from annotate.services.counters import draw
from annotate.services.own_places import claim_own_places, machine_of, offer_again

#: Expired leases returned to the queue by one call: enough to keep up, few enough to stay quick.
EXPIRED_PER_CALL = 50
#: A cursor is written only when it would save passing over this many offers.
CURSOR_STEP = 32

# OFFSET 0 keeps each test a lookup per row: as a join the planner may read everything the annotator ever did first.
_NOT_FOR_ME = """
    EXISTS (SELECT 1 FROM annotate_slot mine
            WHERE mine.task_id = slot.task_id AND mine.holder_id = %(annotator)s OFFSET 0)
    OR EXISTS (SELECT 1 FROM annotate_skip skip
               WHERE skip.task_id = slot.task_id AND skip.annotator_id = %(annotator)s OFFSET 0)
    OR EXISTS (SELECT 1 FROM annotate_ranking done
               WHERE done.task_id = slot.task_id AND done.annotator_id = %(annotator)s OFFSET 0)
    OR EXISTS (SELECT 1 FROM annotate_rankingtask task
               WHERE task.id = slot.task_id AND task.state <> 'open' OFFSET 0)
"""

# For each lane: the cursor, the first offer for this annotator, and the last offer there is. One snapshot for all
# three: offers come in commit order, so nothing at or below `last` can appear later. And, on each row, whether a slot
# is reserved for the annotator; nobody else can take that one meanwhile.
_LOOK = f"""
    SELECT lane.number, COALESCE(passed.offer, 0), first.offer, last.offer,
        EXISTS (SELECT 1 FROM annotate_slot slot
                WHERE slot.project_id = %(project)s AND slot.reserved_for_id = %(annotator)s AND slot.state = 'free'
                  AND NOT ({_NOT_FOR_ME}))
    FROM unnest(ARRAY{list(LANES)}::smallint[]) AS lane(number)
    LEFT JOIN annotate_queuecursor passed
        ON passed.project_id = %(project)s AND passed.annotator_id = %(annotator)s AND passed.lane = lane.number
    LEFT JOIN LATERAL (
        SELECT slot.offer FROM annotate_slot slot
        WHERE slot.project_id = %(project)s AND slot.lane = lane.number AND slot.offer > COALESCE(passed.offer, 0)
          AND slot.state = 'free' AND slot.reserved_for_id IS NULL AND NOT ({_NOT_FOR_ME})
        ORDER BY slot.offer, slot.number LIMIT 1
    ) first ON true
    LEFT JOIN LATERAL (
        SELECT slot.offer FROM annotate_slot slot
        WHERE slot.project_id = %(project)s AND slot.lane = lane.number
          AND slot.state = 'free' AND slot.reserved_for_id IS NULL
        ORDER BY slot.offer DESC, slot.number DESC LIMIT 1
    ) last ON true
    ORDER BY lane.number
"""

_SHOWN = "ARRAY(SELECT response_id FROM annotate_taskresponse WHERE task_id = slot.task_id ORDER BY response_id)"
_TAKE = f"""
    SELECT slot.id, slot.task_id, slot.number, {_SHOWN} FROM annotate_slot slot
    WHERE slot.project_id = %(project)s AND slot.lane = %(lane)s AND slot.offer >= %(from)s
      AND slot.state = 'free' AND slot.reserved_for_id IS NULL AND NOT ({_NOT_FOR_ME})
    ORDER BY slot.offer, slot.number LIMIT 1 FOR UPDATE OF slot SKIP LOCKED
"""

_TAKE_RESERVED = f"""
    SELECT slot.id, slot.task_id, slot.number, {_SHOWN} FROM annotate_slot slot
    WHERE slot.project_id = %(project)s AND slot.reserved_for_id = %(annotator)s AND slot.state = 'free'
      AND NOT ({_NOT_FOR_ME})
    ORDER BY slot.id LIMIT 1 FOR UPDATE OF slot SKIP LOCKED
"""

_EXPIRED = """
    SELECT id FROM annotate_slot WHERE project_id = %s AND state = 'leased' AND expires_at < statement_timestamp()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
"""

# The rules now in force are pinned.
_LEASE = """
    WITH leased AS (
        INSERT INTO annotate_lease (id, task_id, annotator_id, version_id, presented_order, leased_at)
        SELECT %(lease)s, %(task)s, %(annotator)s, version.id, %(order)s::bigint[], statement_timestamp()
        FROM annotate_projectversion version WHERE version.project_id = %(project)s
        ORDER BY version.number DESC LIMIT 1 RETURNING version_id)
    UPDATE annotate_slot SET state = 'leased', holder_id = %(annotator)s, lease_id = %(lease)s,
        version_id = leased.version_id, presented_order = %(order)s::bigint[],
        expires_at = statement_timestamp() + make_interval(secs => %(seconds)s)
    FROM leased WHERE annotate_slot.id = %(slot)s
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that the annotator holds, and the lease on it."""

    slot: int
    lease: uuid.UUID


@transaction.atomic
def next_leases(*, project: Project, annotator: User, count: int = 1) -> list[Slot]:
    """The annotator's open leases first, then new ones, up to `count` in all; fewer when nothing is left.

    Repeating it is harmless: a lost reply costs nothing, because the same leases come again. An expired lease that
    nobody else has taken is still the annotator's and is renewed. One caller's calls run one after the other, so two
    tabs share their leases. A closed project hands out the open leases alone. The slots come with lease, task, prompt,
    version and project.

    Writes leases, slots and queue cursors; locks the slots it takes, and the caller's own queue.

    Raises:
        Invalid: count is not between 1 and the project's limit.
        Conflict: the project is closed, and the annotator holds nothing in it (code `project_closed`).
    """
    return _loaded(_hold_leases(project=project, annotator=annotator, count=count), project=project)


@transaction.atomic
def next_unseen_leases(
    *, project: Project, annotator: User, count: int, have: Collection[uuid.UUID]
) -> tuple[list[uuid.UUID], list[dict[str, Any]]]:
    """As next_leases, for a page that has some of the leases: the ids of all, and the contents of those not in `have`.

    The contents are those of selectors.leases.lease_contents.
    """
    leases = [held.lease for held in _hold_leases(project=project, annotator=annotator, count=count)]
    return leases, lease_contents([lease for lease in leases if lease not in have])


def _loaded(held: Sequence[Held], *, project: Project) -> list[Slot]:
    wanted = [one.slot for one in held]
    slots = Slot.objects.select_related("lease", "task__prompt", "version").in_bulk(wanted)
    for slot in slots.values():
        slot.project = project
    return [slots[pk] for pk in wanted]


def _hold_leases(*, project: Project, annotator: User, count: int) -> list[Held]:
    machine = machine_of(project=project, user=annotator)
    limit = (machine and machine.open_lease_limit) or project.open_lease_limit
    if not 1 <= count <= limit:
        raise Invalid(
            _("count must be from 1 to %(limit)d in this project.") % {"limit": limit},
            fields={"count": f"From 1 to {limit}."},
        )
    one_call_at_a_time(project=project, annotator=annotator)
    held = _renew_open_leases(project=project, annotator=annotator)
    if project.archived_at is not None and not held:
        raise Conflict(_("This project is closed; it takes the answers that were begun."), code="project_closed")
    if project.archived_at is None and len(held) < count:
        _free_expired_leases(project=project)
        if machine is not None and not machine.fills_places:
            own = claim_own_places(project=project, machine=machine, wanted=count - len(held))
            held += [Held(one.slot, one.lease) for one in own]
        else:
            held += _claim(project=project, annotator=annotator, wanted=count - len(held))
    return held[:count]


def one_call_at_a_time(*, project: Project, annotator: User) -> None:
    """Holds back the same annotator's other calls (tabs, retries) until this transaction ends."""
    with prepared_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [project.pk, annotator.pk])


def _renew_open_leases(*, project: Project, annotator: User) -> list[Held]:
    """The annotator's leased slots, oldest first, each with its full time again."""
    with prepared_cursor() as cursor:
        cursor.execute(
            """WITH renewed AS (
                   UPDATE annotate_slot SET expires_at = now() + make_interval(secs => %s)
                   WHERE holder_id = %s AND project_id = %s AND state = 'leased' RETURNING id, lease_id)
               SELECT renewed.id, lease.id FROM renewed JOIN annotate_lease lease ON lease.id = renewed.lease_id
               ORDER BY lease.leased_at, renewed.id""",
            [project.lease_seconds, annotator.pk, project.pk],
        )
        return [Held(slot, lease) for slot, lease in cursor.fetchall()]


def _lease_time(project: Project) -> timedelta:
    return timedelta(seconds=project.lease_seconds)


def _free_expired_leases(*, project: Project) -> None:
    with prepared_cursor() as cursor:
        cursor.execute(_EXPIRED, [project.pk, EXPIRED_PER_CALL])
        expired = [row[0] for row in cursor.fetchall()]
    if expired:
        free_slots(project=project, slots=list(Slot.objects.filter(pk__in=expired)))


def free_slots(*, project: Project, slots: list[Slot]) -> None:
    """Returns locked slots to the queue, and offers their tasks' other free slots anew.

    The others too: whoever held one of these may have a cursor beyond them and would never meet the task again. A
    machine's own place goes instead.
    """
    own = [slot for slot in slots if slot.beyond_overlap]
    Slot.objects.filter(pk__in=[slot.pk for slot in own]).delete()
    for slot in own:
        offer_again(project=project, task=slot.task_id, machine=slot.holder_id)
    tasks = {slot.task_id for slot in slots if not slot.beyond_overlap}
    Slot.objects.filter(pk__in=[slot.pk for slot in slots]).update(
        state=Slot.State.FREE, holder=None, lease=None, expires_at=None, version=None, presented_order=None
    )
    reoffer(project=project, tasks=tasks)


def reoffer(*, project: Project, tasks: Iterable[int]) -> None:
    """Gives every free slot of these tasks a new place in the queue, beyond every cursor. Locks the offer counter."""
    free = list(
        Slot.objects.select_for_update(of=("self",))
        .filter(task__in=list(tasks), state=Slot.State.FREE)
        .select_related("task")
        .order_by("task", "number")
    )
    if not free:
        return
    first = draw(project=project, name=Counter.Name.OFFER, count=len(free))
    for offer, slot in enumerate(free, start=first):
        slot.offer = offer
        slot.lane = lane_of(priority=slot.task.priority, reoffered=True)
    Slot.objects.bulk_update(free, ["offer", "lane"])


def _claim(*, project: Project, annotator: User, wanted: int) -> list[Held]:
    """Leases up to `wanted` new slots."""
    claimed: list[Held] = []
    reserved, starts = _look(project=project, annotator=annotator)
    while len(claimed) < wanted:
        free = _take(project=project, annotator=annotator, reserved=reserved, starts=starts)
        if free is None:
            break
        claimed.append(_lease(free, project=project, annotator=annotator))
    return claimed


def _look(*, project: Project, annotator: User) -> tuple[bool, list[tuple[int, int]]]:
    """Whether a slot is reserved for the annotator, and (lane, first offer) of each lane that has something for them.

    Moves the cursors past what has not.
    """
    with prepared_cursor() as cursor:
        cursor.execute(_LOOK, {"project": project.pk, "annotator": annotator.pk})
        rows = cursor.fetchall()
    for lane, passed, first, last, *_rest in rows:
        reached = (first - 1 if first is not None else last) or 0
        if reached - passed >= CURSOR_STEP:
            QueueCursor.objects.update_or_create(
                project=project, annotator=annotator, lane=lane, defaults={"offer": reached}
            )
    return rows[0][4], [(lane, first) for lane, _passed, first, *_rest in rows if first is not None]


#: A locked free slot: id, task, number, and the task's responses in the order of their ids.
Free = tuple[int, int, int, list[int]]


def _take(*, project: Project, annotator: User, reserved: bool, starts: list[tuple[int, int]]) -> Free | None:
    """Locks the first slot that nobody else is taking at this moment: reserved ones first, then lane by lane."""
    who: dict[str, Any] = {"project": project.pk, "annotator": annotator.pk}
    found: Free | None = None
    with prepared_cursor() as cursor:
        if reserved:
            cursor.execute(_TAKE_RESERVED, who)
            found = cursor.fetchone()
        for lane, first in starts:
            if found:
                break
            cursor.execute(_TAKE, who | {"lane": lane, "from": first})
            found = cursor.fetchone()
    return found


def _lease(free: Free, *, project: Project, annotator: User) -> Held:
    slot, task, number, responses = free
    order = presented_order(responses, seed=str(task), row=number - 1)
    held = Held(slot, uuid.uuid4())
    values: dict[str, Any] = {
        "lease": held.lease,
        "task": task,
        "slot": slot,
        "project": project.pk,
        "annotator": annotator.pk,
        "order": order,
        "seconds": project.lease_seconds,
    }
    with prepared_cursor() as cursor:
        cursor.execute(_LEASE, values)
    return held


def held_slot(*, lease_id: uuid.UUID, annotator: User) -> Slot:
    """The slot under this lease, locked until the transaction ends.

    Raises:
        NotFound: the lease is not this annotator's.
        Conflict: it ended: submitted, released, skipped, or expired and taken by someone else.
    """
    slot = locked_slot(own_lease(lease_id=lease_id, annotator=annotator), annotator=annotator)
    if slot is None:
        raise lease_ended()
    return slot


def lease_ended() -> Conflict:
    """Why nothing can be done under a lease."""
    return Conflict(_("This lease has ended; ask for the next task."), code="lease_ended")


def own_lease(*, lease_id: uuid.UUID, annotator: User) -> Lease:
    own = Lease.objects.select_related("task__project", "task__prompt").filter(pk=lease_id, annotator=annotator)
    lease = own.first()
    if lease is None:
        raise NotFound(_("There is no such lease."))
    return lease


def locked_slot(lease: Lease, *, annotator: User) -> Slot | None:
    held = Slot.objects.select_for_update(of=("self",)).filter(lease=lease, holder=annotator, state=Slot.State.LEASED)
    return held.select_related("project", "task", "version", "lease").first()


@transaction.atomic
def extend_lease(*, lease_id: uuid.UUID, annotator: User) -> Slot:
    """Gives an open lease its full time again. Raises as held_slot."""
    slot = held_slot(lease_id=lease_id, annotator=annotator)
    Slot.objects.filter(pk=slot.pk).update(expires_at=Now() + _lease_time(slot.project))
    slot.refresh_from_db(fields=["expires_at"])
    return slot


@transaction.atomic
def release_lease(*, lease_id: uuid.UUID, annotator: User) -> None:
    """Hands the task back unranked; it may come to the same annotator again. Raises as held_slot."""
    slot = held_slot(lease_id=lease_id, annotator=annotator)
    free_slots(project=slot.project, slots=[slot])


def hold_task(task_id: int) -> None:
    """Keeps an open task from everybody until the manager has looked; a closed one stays closed."""
    RankingTask.objects.filter(pk=task_id, state=RankingTask.State.OPEN).update(state=RankingTask.State.HELD)


@transaction.atomic
def release_hold(*, task: RankingTask) -> None:
    """The manager has settled the matter: the task goes back into the queue."""
    RankingTask.objects.filter(pk=task.pk).update(state=RankingTask.State.OPEN)
    reoffer(project=task.project, tasks=[task.pk])
    offer_again(project=task.project, task=task.pk)
