"""The thread of a worker that looks for runs: when the doorbell rings, and every 15 seconds without one."""

import logging
import os
import socket
import threading

from django.db import DatabaseError, InterfaceError

from training.runner.attempt import Attempt
from training.runner.lease import clock, forget_connection
from training.runner.machine import look_at_machine, own_address, processes_offered, version
from training.runner.member import MemberAttempt
from training.runner.presence import Presence
from training.services.claims import claim_run, release_expired
from training.services.members import join_run
from training.services.tries import cancel_abandoned
from training.services.workers import Identity, forget_workers

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 15.0
GOODBYE_SECONDS = 1.0


class Station:
    """Carries out the runs of some queues, one at a time, until it is closed."""

    def __init__(self, *, queues: list[str], worker: str) -> None:
        self.queues = queues
        self.worker = worker
        self._host = socket.gethostname()
        self._processes = processes_offered(look_at_machine())
        self._bell = threading.Event()
        self._closing = threading.Event()
        self._worker = threading.Thread(target=self._work, name="runs")
        self._sweeper = threading.Thread(target=self._sweep, name="expired-runs", daemon=True)
        self._presence = Presence(
            Identity(
                name=worker,
                host=self._host,
                process_id=os.getpid(),
                queues=tuple(sorted(queues)),
                version=version(),
                processes=self._processes,
            )
        )

    def open(self) -> None:
        """Starts looking, at once."""
        self._worker.start()
        self._sweeper.start()
        self._presence.open()

    def ring(self) -> None:
        """Makes it look now, or right after the run it is at."""
        self._bell.set()

    def close(self) -> None:
        """Asks it to stop: a trainer is ended and its run put back. Returns at once; safe in a signal handler."""
        self._closing.set()
        self._bell.set()
        self._presence.leave()

    def join(self, seconds: float) -> None:
        """Waits for the end after `close`, and says goodbye."""
        self._worker.join(seconds)
        self._presence.close(GOODBYE_SECONDS)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._bell.clear()
            # Asked again after the bell was cleared: a close() just before must not sleep through.
            if not self._do_one() and not self._closing.is_set():
                self._bell.wait(LOOK_EVERY_SECONDS)
        forget_connection()

    def _do_one(self) -> bool:
        """Carries out one run if there is one; whether there was."""
        try:
            if count := cancel_abandoned():
                logger.info("%s tries were cancelled that nobody looks at any more", count)
            taken_at = clock()
            # First those that wait for members: their workers can do nothing else meanwhile.
            member = join_run(
                queues=self.queues, worker=self.worker, host=self._host, address=own_address(),
                processes=self._processes,
            )  # fmt: skip
            if member is not None:
                logger.info(
                    "run %s: %s joins attempt %s as %s", member.run_id, self.worker, member.attempt, member.rank
                )
                MemberAttempt(member, host=self._host, taken_at=taken_at, stop=self._closing).carry_out()
                return True
            claim = claim_run(queues=self.queues, worker=self.worker, host=self._host, processes=self._processes)
            if claim is None:
                return False
            logger.info("run %s: attempt %s begins on %s", claim.run_id, claim.attempt, self.worker)
            attempt = Attempt(claim, worker=self.worker, host=self._host, taken_at=taken_at, stop=self._closing)
            attempt.carry_out()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("cannot look for runs: %s", error)
            forget_connection()
            return False
        except Exception:
            # A bug of ours must cost one attempt, not the worker; the lease gives the run back.
            logger.exception("an attempt broke down")
            forget_connection()
            return False
        return True

    def _sweep(self) -> None:
        """Also while this worker is busy for hours, somebody must notice that another one died."""
        while True:
            try:
                if count := release_expired():
                    logger.warning("%s runs were taken from workers that were lost", count)
                forget_workers()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("cannot look for lost workers: %s", error)
            forget_connection()
            if self._closing.wait(LOOK_EVERY_SECONDS):
                return
