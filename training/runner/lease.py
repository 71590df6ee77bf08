"""Keeping the claim on a run. Who cannot renew it stops the trainer before anybody else may take the run."""

import logging
import signal
import threading
import time
from types import TracebackType

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from training.models import Run
from training.runner.trainer import kill_marked, signal_group
from training.services.claims import LEASE_SECONDS, Claim, StaleAttempt, look_at, renew_lease
from training.services.members import Membership, look_at_membership, renew_membership

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0
TERMINATE_AFTER = LEASE_SECONDS - 15.0  # since the last renewal was asked for; leaves a recipe its 10 s to save
KILL_AFTER = LEASE_SECONDS - 5.0

# The time that a suspended machine sleeps counts too, where the system can tell it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds on a clock that nobody sets."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """The claim of one attempt, kept while the block lasts.

    A watchdog thread of its own, which needs no database, ends the guarded process group when no renewal has succeeded
    for too long: also when the database hangs, or this process was frozen and wakes up after its time.
    """

    def __init__(self, claim: Claim | Membership, *, taken_at: float) -> None:
        """`taken_at`: clock() just before the claim was asked for."""
        self.claim = claim
        self._renewed_at = taken_at
        self._looked_at = taken_at
        self._state = Run.State.STARTING
        self._group: int | None = None
        self._mark = ""
        self._expired = False
        self._closed = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="lease-watchdog", daemon=True)

    def __enter__(self) -> "Lease":
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._watchdog.join()

    def guard(self, process_id: int | None, mark: str = "") -> None:
        """Names the process group to end when the lease cannot be kept, and the mark of processes in other groups that
        belong to it; None for none."""
        self._group, self._mark = process_id, mark

    def seconds_left(self) -> float:
        """Until the trainer would be killed."""
        return self._renewed_at + KILL_AFTER - clock()

    def holds(self) -> bool:
        """Whether the claim is still kept, as far as this process can tell by its clock."""
        return not self._expired and self.seconds_left() > 0

    def keep(self) -> Run.State:
        """Call often: renews when due, otherwise looks once a second; returns the run's state.

        A database that does not answer is waited for, as long as the lease lasts.

        Raises:
            StaleAttempt: the run is someone else's, or the lease could not be kept.
        """
        if self._expired or self.seconds_left() <= 0:
            raise StaleAttempt(self.claim)
        now = clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            try:
                self._ask(now)
            except (DatabaseError, InterfaceError) as error:
                logger.warning("run %s: the database does not answer: %s", self.claim.run_id, error)
                forget_connection()
        return self._state

    def _ask(self, now: float) -> None:
        if now - self._renewed_at >= HEARTBEAT_SECONDS:
            self._state = _renewed(self.claim)
            self._renewed_at = now
        else:
            self._state = _looked_at(self.claim)

    def _watch(self) -> None:
        terminated = False
        while not self._closed.wait(0.5):
            silent = clock() - self._renewed_at
            if self._group is not None and silent >= KILL_AFTER:
                self._expired = True
                logger.error("run %s: the lease could not be renewed, the trainer is killed", self.claim.run_id)
                signal_group(self._group, signal.SIGKILL)
                kill_marked(self._mark)
                return
            if self._group is not None and silent >= TERMINATE_AFTER and not terminated:
                terminated = True
                logger.warning("run %s: the lease was not renewed for %.0f s", self.claim.run_id, silent)
                signal_group(self._group, signal.SIGTERM)


def _renewed(claim: Claim | Membership) -> Run.State:
    return renew_lease(claim) if isinstance(claim, Claim) else renew_membership(claim)


def _looked_at(claim: Claim | Membership) -> Run.State:
    return look_at(claim) if isinstance(claim, Claim) else look_at_membership(claim)


def forget_connection() -> None:
    """Drops this thread's database connection, so that the next statement opens a fresh one."""
    try:
        connection.close()
    except (DatabaseError, InterfaceError):
        close_old_connections()
