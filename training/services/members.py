"""The workers that train one run together: who joins, where they meet, and that an attempt ends for all of them.

The clock is the database's. A member's lease is renewed as a run's is; that of the first member is the run's own.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from training.models import Run, RunMember
from training.services.claims import LEASE_SECONDS, Claim, StaleAttempt

Outcome = RunMember.Outcome


@dataclass(frozen=True, slots=True)
class Membership:
    """A place among those who train a run, for as long as its lease is renewed and the attempt goes on."""

    run_id: int
    attempt: int
    rank: int


JOIN = """
    SELECT run.id, run.attempt, run.nodes FROM training_run run
    WHERE run.state = 'starting' AND run.nodes > 1 AND run.queue = ANY (%(queues)s) AND run.processes <= %(processes)s
        AND EXISTS (SELECT 1 FROM training_runmember member
                    WHERE member.run_id = run.id AND member.attempt = run.attempt AND member.rank = 0)
        AND (SELECT count(*) FROM training_runmember member
             WHERE member.run_id = run.id AND member.attempt = run.attempt) < run.nodes
    ORDER BY run.queued_at, run.id LIMIT 1 FOR UPDATE OF run SKIP LOCKED
"""


def open_membership(claim: Claim, *, worker: str, host: str, address: str) -> None:
    """Makes the holder of a run the first of those who train it; from then on others may join."""
    first = Membership(claim.run_id, claim.attempt, 0)
    RunMember.objects.create(**asdict(first), worker=worker, host=host, address=address)


@transaction.atomic
def join_run(*, queues: list[str], worker: str, host: str, address: str, processes: int) -> Membership | None:
    """Takes a place in a run that waits for members; None if none does.

    Locks the run's row, skipping those that others are joining; writes the member.
    """
    with connection.cursor() as cursor:
        cursor.execute(JOIN, {"queues": queues, "processes": processes})
        row = cursor.fetchone()
    if row is None:
        return None
    run_id, attempt, _nodes = row
    rank = RunMember.objects.filter(run_id=run_id, attempt=attempt).count()
    RunMember.objects.create(
        run_id=run_id, attempt=attempt, rank=rank, worker=worker, host=host, address=address,
        lease_expires_at=Now() + timedelta(seconds=LEASE_SECONDS),
    )  # fmt: skip
    return Membership(run_id, attempt, rank)


def announce_port(claim: Claim, port: int) -> None:
    """Says where the others find the first member, which is ready for them.

    Raises:
        StaleAttempt: the attempt is over.
    """
    first = Membership(claim.run_id, claim.attempt, 0)
    if not _open(first).update(port=port):
        raise StaleAttempt(claim)


def meeting_place(member: Membership) -> tuple[str, int] | None:
    """Address and port of the first member; None until it is ready."""
    first = Membership(member.run_id, member.attempt, 0)
    found = _open(first).filter(port__isnull=False).values_list("address", "port").first()
    return None if found is None else (found[0], int(found[1] or 0))


def renew_membership(member: Membership) -> Run.State:
    """Moves the end of the member's lease; returns the run's state.

    Raises:
        StaleAttempt: the attempt is over, or this member was given up.
    """
    if not _open(member).update(lease_expires_at=Now() + timedelta(seconds=LEASE_SECONDS)):
        raise StaleAttempt(member)
    return look_at_membership(member)


def look_at_membership(member: Membership) -> Run.State:
    """The state of the run.

    Raises:
        StaleAttempt: the attempt is over, or this member was given up.
    """
    state = _open(member).values_list("run__state", flat=True).first()
    if state is None:
        raise StaleAttempt(member)
    return Run.State(state)


def leave_run(member: Membership, *, outcome: RunMember.Outcome) -> None:
    """Ends the membership: done, if its processes came to their end; else the first member ends the attempt, which
    counts against the run where this one was lost, and not where it left because its worker was stopped."""
    _open(member).update(ended_at=Now(), outcome=outcome)


def members_there(claim: Claim) -> int:
    """How many members of the attempt are at work, or were to the end."""
    here = Q(ended_at=None) & (Q(rank=0) | Q(lease_expires_at__gte=Now()))
    return _members(claim).filter(here | Q(outcome=Outcome.DONE)).count()


def member_that_left(claim: Claim) -> str:
    """The worker of a member that gave its place back in good order; "" where none did."""
    return _members(claim).filter(outcome=Outcome.LEFT).values_list("worker", flat=True).first() or ""


def lost_member(claim: Claim) -> str:
    """The worker of a member that is at work no more; "" where none is missing."""
    gone = Q(outcome=Outcome.LOST) | Q(ended_at=None, rank__gte=1, lease_expires_at__lt=Now())
    return _members(claim).filter(gone).values_list("worker", flat=True).first() or ""


def _members(claim: Claim) -> QuerySet[RunMember]:
    return RunMember.objects.filter(run=claim.run_id, attempt=claim.attempt)


def _open(member: Membership) -> QuerySet[RunMember]:
    mine = RunMember.objects.filter(run=member.run_id, attempt=member.attempt, rank=member.rank, ended_at=None)
    return mine.filter(run__attempt=member.attempt, run__state__in=Run.ACTIVE)
