"""What workers write about runs. The clock is the database's; every write names its attempt and is refused if stale."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from training.models import ModelVersion, Run, RunAttempt, Try
from training.selectors import ALIVE
from training.services.doorbell import ring_on_commit
from training.services.families import cancel_waiting_children, fail_hopeless_children, queue_waiting_children

LEASE_SECONDS = 45
MAX_TIMES_LOST = 3

Outcome = RunAttempt.Outcome
State = Run.State


class StaleAttempt(Exception):
    """The run is no longer this attempt's: its lease ended and it was given to another, or it was settled."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a run, for as long as the lease is renewed."""

    run_id: int
    attempt: int


CLAIM = """
    UPDATE training_run
    SET state = 'starting', attempt = attempt + 1, worker = %(worker)s, heartbeat_at = now(), reason = '',
        trackers = (SELECT coalesce(jsonb_object_agg(key, value - 'url' - 'fault'), '{}') FROM jsonb_each(trackers)),
        lease_expires_at = now() + make_interval(secs => %(seconds)s), started_at = coalesce(started_at, now())
    WHERE id = (
        SELECT id FROM training_run run
        WHERE state = 'queued' AND queue = ANY (%(queues)s) AND processes <= %(processes)s
            AND (nodes = 1 OR (run.nodes <= (
                SELECT count(*) FROM training_worker other
                WHERE other.stopped_at IS NULL AND other.seen_at >= now() - make_interval(secs => %(alive)s)
                    AND run.queue = ANY (other.queues) AND other.processes >= run.processes
                    AND NOT EXISTS (SELECT 1 FROM training_runattempt busy
                                    WHERE busy.worker = other.name AND busy.outcome = '')
                    AND NOT EXISTS (SELECT 1 FROM training_runmember busy
                                    WHERE busy.worker = other.name AND busy.ended_at IS NULL)
            ) AND NOT EXISTS (
                SELECT 1 FROM training_run first WHERE first.state = 'starting' AND first.nodes > 1
            )))
        ORDER BY queued_at, id LIMIT 1 FOR UPDATE OF run SKIP LOCKED
    )
    RETURNING id, attempt
"""
# Claims of runs of several machines come one after the other: two that gather workers would each wait for the other's.
GATHERING = "SELECT pg_advisory_xact_lock(hashtext('plackett: claims of several machines'))"


@transaction.atomic
def claim_run(*, queues: list[str], worker: str, host: str, processes: int = 1) -> Claim | None:
    """Takes the run that has waited longest in one of the queues; None if there is none.

    A run of several machines is taken only while so many workers of its queue are alive and free, this one among them,
    and no other gathers its members. Locks one row, skipping those that others are taking; writes the claim and its
    attempt.

    Args:
        processes: how many of one run this worker starts side by side.
    """
    told: dict[str, Any] = {"worker": worker, "queues": queues, "processes": processes}
    told |= {"seconds": LEASE_SECONDS, "alive": ALIVE.total_seconds()}
    with connection.cursor() as cursor:
        if Run.objects.filter(state=State.QUEUED, nodes__gt=1, queue__in=queues).exists():
            cursor.execute(GATHERING)
        cursor.execute(CLAIM, told)
        row = cursor.fetchone()
    if row is None:
        return None
    claim = Claim(run_id=row[0], attempt=row[1])
    RunAttempt.objects.create(run_id=claim.run_id, number=claim.attempt, worker=worker, host=host)
    return claim


def renew_lease(claim: Claim) -> State:
    """Moves the end of the lease; returns the run's state, which is `stopping` when someone wants it cancelled.

    Raises:
        StaleAttempt: the lease is someone else's by now.
    """
    expires_at = Now() + timedelta(seconds=LEASE_SECONDS)
    update_run(claim, heartbeat_at=Now(), lease_expires_at=expires_at)
    return look_at(claim)


def look_at(claim: Claim) -> State:
    """The state of the claimed run.

    Raises:
        StaleAttempt: it is no longer this attempt's.
    """
    state = _held(claim).values_list("state", flat=True).first()
    if state is None:
        raise StaleAttempt(claim)
    return State(state)


def update_run(claim: Claim, **fields: Any) -> None:
    """Writes fields of the claimed run.

    Raises:
        StaleAttempt: it is no longer this attempt's; nothing was written.
    """
    if not _held(claim).update(**fields):
        raise StaleAttempt(claim)


@transaction.atomic
def mark_running(claim: Claim, *, process_id: int, process_started_at: float) -> None:
    """Notes that the trainer's process has been started.

    Raises:
        StaleAttempt: the run is no longer this attempt's.
    """
    if not _held(claim).filter(state=State.STARTING).update(state=State.RUNNING):
        look_at(claim)  # stopping: someone cancelled it meanwhile, which the next look will find
    _attempt(claim).update(process_id=process_id, process_started_at=process_started_at)


@transaction.atomic
def succeed(
    claim: Claim, *, model: ModelVersion | None, step: int, result: dict[str, Any] | None = None, **fields: Any
) -> None:
    """Ends the run well, enters its model in the registry and queues the runs that waited for it.

    Args:
        result: what a try said; see models.Try.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    _end(claim, State.SUCCEEDED, Outcome.SUCCEEDED, step=step, reason="", **fields)
    if model is not None:
        model.save(force_insert=True)
    if result is not None:
        Try.objects.filter(pk=claim.run_id).update(result=result)
    queue_waiting_children(Run.objects.get(pk=claim.run_id))


@transaction.atomic
def fail(claim: Claim, *, reason: str, **fields: Any) -> None:
    """Ends the run badly: nobody tries again until a person resumes it. What waits for one that nobody can resume, as
    its snapshot was withdrawn, fails with it.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    _end(claim, State.FAILED, Outcome.FAILED, reason=reason, **fields)
    fail_hopeless_children(Run.objects.select_related("snapshot").get(pk=claim.run_id))


@transaction.atomic
def end_cancelled(claim: Claim, **fields: Any) -> None:
    """Ends the run as someone asked.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    _end(claim, State.CANCELLED, Outcome.CANCELLED, **fields)
    cancel_waiting_children(Run.objects.get(pk=claim.run_id))


@transaction.atomic
def give_back(claim: Claim, *, lost: bool, reason: str, **fields: Any) -> State:
    """Ends the attempt, not the run: it goes back into its queue, unless it was cancelled or was lost too often.

    Args:
        lost: the attempt ended without a word (counted); else its worker was stopped in good order.
        reason: what happened, for people.

    Returns:
        The run's new state. Wakes a worker on commit if that is `queued`.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    run = _held(claim).select_for_update().first()
    if run is None:
        raise StaleAttempt(claim)
    outcome = Outcome.LOST if lost else Outcome.RELEASED
    fields["times_lost"] = run.times_lost + lost
    if run.state == State.STOPPING:
        end_cancelled(claim, **fields)
        return State.CANCELLED
    if fields["times_lost"] >= MAX_TIMES_LOST:
        _end(claim, State.FAILED, outcome, reason=f"Given up after {MAX_TIMES_LOST} attempts: {reason}", **fields)
        fail_hopeless_children(Run.objects.select_related("snapshot").get(pk=claim.run_id))
        return State.FAILED
    _end(claim, State.QUEUED, outcome, reason=reason, **fields)
    ring_on_commit(run.queue)
    return State.QUEUED


def release_expired() -> int:
    """Takes every run whose lease has ended away from its worker; returns how many there were.

    Every worker calls this, whatever its queues: the worker that held the run is gone, or has killed its trainer.
    """
    expired = Run.objects.filter(state__in=Run.ACTIVE, lease_expires_at__lt=Now())
    count = 0
    while True:
        with transaction.atomic():
            run = expired.select_for_update(skip_locked=True).order_by("lease_expires_at").first()
            if run is None:
                return count
            claim = Claim(run_id=run.pk, attempt=run.attempt)
            give_back(claim, lost=True, reason=f"The worker {run.worker} was lost at step {run.step}.")
            count += 1


def _held(claim: Claim) -> QuerySet[Run]:
    return Run.objects.filter(pk=claim.run_id, attempt=claim.attempt, state__in=Run.ACTIVE)


def _attempt(claim: Claim) -> QuerySet[RunAttempt]:
    return RunAttempt.objects.filter(run_id=claim.run_id, number=claim.attempt)


@transaction.atomic
def _end(claim: Claim, state: State, outcome: Outcome, **fields: Any) -> None:
    finished_at = None if state == State.QUEUED else Now()
    update_run(claim, state=state, lease_expires_at=None, finished_at=finished_at, **fields)
    _attempt(claim).update(outcome=outcome, ended_at=Now())
