"""Reads for operators: which workers live, what they hold, and how many runs are where.

Whoever is an engineer somewhere sees all workers, because they are everybody's; of the runs on them only their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import (
    BooleanField,
    Count,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    Min,
    OuterRef,
    Q,
    QuerySet,
)
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Forbidden
from annotate.models import User
from training.models import Run, RunAttempt, RunMember, Worker
from training.selectors import IS_ALIVE, engineered_projects


@dataclass(frozen=True, slots=True)
class Held:
    """A run that a worker holds, or takes part in: `run` is None where it is none of the reader's business.

    Of a run that several machines train together, `machine` is which of the `machines` this is, from 1, and the first
    holds it; else both are 1.
    """

    attempt: int
    since: datetime
    seconds: float
    run: Run | None
    machine: int = 1
    machines: int = 1


CPU = "cpu"  # the queue of workers without a GPU


def living_workers(queue: str) -> QuerySet[Worker]:
    """The workers that are alive and take runs from the queue, by name."""
    return Worker.objects.filter(IS_ALIVE, queues__contains=[queue]).order_by("name")


def workers_for(user: User) -> QuerySet[Worker]:
    """Workers of the last day by name, each with `alive` and `silent`, how long it has not been heard of.

    Raises:
        Forbidden: the user is an engineer of no project, and no superuser.
    """
    if not user.is_superuser and not engineered_projects(user).exists():
        raise Forbidden(_("Workers need the engineer right in some project; a manager can give it."))
    return Worker.objects.annotate(
        alive=ExpressionWrapper(IS_ALIVE, output_field=BooleanField()),
        silent=ExpressionWrapper(Now() - F("seen_at"), output_field=DurationField()),
    ).order_by("name")


def held_by(workers: Iterable[Worker], *, user: User) -> Mapping[str, list[Held]]:
    """What each of the workers holds or takes part in, by its name; the name of a run only if the user may see it."""
    found: dict[str, list[Held]] = {worker.name: [] for worker in workers}
    attempts = RunAttempt.objects.filter(outcome="", worker__in=list(found)).order_by("started_at")
    for one in _of(attempts, user, since="started_at"):
        run, seconds = one.run if one.mine else None, max(one.held_for.total_seconds(), 0.0)
        found[one.worker].append(Held(one.number, one.started_at, seconds, run, 1, one.run.nodes))
    # The first member is the holder, whose attempt has been told.
    members = RunMember.objects.filter(ended_at=None, rank__gte=1, worker__in=list(found)).order_by("joined_at")
    for part in _of(members, user, since="joined_at"):
        run, seconds = part.run if part.mine else None, max(part.held_for.total_seconds(), 0.0)
        found[part.worker].append(Held(part.attempt, part.joined_at, seconds, run, part.rank + 1, part.run.nodes))
    return found


def _of(rows: QuerySet[Any], user: User, *, since: str) -> QuerySet[Any]:
    """Rows of runs, each with `mine`, whether the user may see its run, and `held_for`."""
    rows = rows.select_related("run__project").annotate(
        mine=Exists(engineered_projects(user).filter(pk=OuterRef("run__project"))),
        held_for=ExpressionWrapper(Now() - F(since), output_field=DurationField()),
    )
    return rows.defer("run__log_tail", "run__exit", "run__config", "run__report", "run__trackers")


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue: runs that wait for a worker, for how many seconds the first of them has, and workers that live."""

    runs: int
    oldest_seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class RunFigures:
    """How many runs are in each state, leases that hold and leases that have ended, queues by name, living workers."""

    by_state: Mapping[str, int]
    leases_open: int
    leases_expired: int
    queues: Mapping[str, QueueFigures]
    workers: int


def run_figures() -> RunFigures:
    """Where runs and workers stand, in two queries; all projects together, so for operators alone."""
    rows = list(
        Run.objects.order_by()
        .values("queue", "state")
        .annotate(
            runs=Count("pk"),
            expired=Count("pk", filter=Q(lease_expires_at__lt=Now())),
            oldest=ExpressionWrapper(Now() - Min("queued_at"), output_field=DurationField()),
        )
    )
    living = list(Worker.objects.filter(IS_ALIVE).values_list("queues", flat=True))
    by_state = dict.fromkeys(Run.State.values, 0)
    for row in rows:
        by_state[row["state"]] += row["runs"]
    held = sum(by_state[state] for state in Run.ACTIVE)
    expired = sum(row["expired"] for row in rows)
    waiting = {row["queue"]: row for row in rows if row["state"] == Run.State.QUEUED}
    served = [queue for queues in living for queue in queues]
    return RunFigures(
        by_state=by_state,
        leases_open=held - expired,
        leases_expired=expired,
        queues={
            queue: QueueFigures(
                runs=waiting[queue]["runs"] if queue in waiting else 0,
                oldest_seconds=max(waiting[queue]["oldest"].total_seconds(), 0.0) if queue in waiting else 0.0,
                workers=served.count(queue),
            )
            for queue in sorted({*waiting, *served})
        },
        workers=len(living),
    )
