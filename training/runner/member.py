"""One worker's part in a run that several train: its processes join those of the worker that holds the run.

It mirrors nothing and settles nothing: the holder does. When its processes end badly, or it cannot renew its lease, the
holder ends the attempt everywhere; when the attempt is over, its processes are ended here.
"""

import logging
import shutil
import threading
import time

from django.db import DatabaseError, InterfaceError

from training.models import Run, RunMember
from training.runner.lease import Lease, forget_connection
from training.runner.prepare import (
    Meeting,
    bring_base_model,
    bring_inputs,
    command_line,
    copy_snapshot,
    launched,
    mark_of,
)
from training.runner.reaching import CannotStart
from training.runner.storing import check_shared
from training.runner.trainer import Trainer, kill_marked
from training.services.claims import StaleAttempt
from training.services.members import Membership, leave_run, meeting_place
from training.store.opening import open_store

logger = logging.getLogger(__name__)

Outcome = RunMember.Outcome

POLL_SECONDS = 0.25
STOP_SECONDS = 10.5  # as of an attempt


class WorkerStops(Exception):
    """This worker is to end."""


class MemberAttempt:
    """Takes part in an attempt; use it once.

    Args:
        stop: set when this worker is to end; its place is given back at once, and the attempt ends everywhere and is
            tried again.
    """

    def __init__(self, member: Membership, *, host: str, taken_at: float, stop: threading.Event) -> None:
        self.member, self.host, self.stop = member, host, stop
        self.lease = Lease(member, taken_at=taken_at)
        self.run = Run.objects.select_related("snapshot", "base_version", "project").get(pk=member.run_id)
        name = f"{member.attempt}-{member.rank}"
        self.data = self.run.folder / f"data-{name}.jsonl"
        self.cache = self.run.folder / f"tokens-{name}"
        self.log = self.run.folder / f"log-{name}.txt"
        self.mark = mark_of(self.run, member.attempt, member.rank)

    def carry_out(self) -> None:
        """Trains beside the others to the end of the attempt, however that ends."""
        outcome = Outcome.LOST
        with self.lease:
            try:
                outcome = Outcome.DONE if self._train() else Outcome.LOST
            except StaleAttempt:
                logger.info("run %s: attempt %s is over", self.member.run_id, self.member.attempt)
            except CannotStart as problem:
                logger.warning("run %s: cannot take part: %s", self.member.run_id, problem)
            except WorkerStops:
                outcome = Outcome.LEFT
                logger.info("run %s: this worker stops", self.member.run_id)
            finally:
                self.data.unlink(missing_ok=True)
                shutil.rmtree(self.cache, ignore_errors=True)
                self._leave(outcome)

    def _train(self) -> bool:
        """Whether its processes came to their end.

        Raises:
            StaleAttempt, CannotStart, WorkerStops: they did not.
        """
        kill_marked(mark_of(self.run), but=mark_of(self.run, self.member.attempt))
        place = meeting_place(self.member)
        while place is None:
            self._pulse()
            time.sleep(POLL_SECONDS)
            place = meeting_place(self.member)
        if self.run.snapshot is None:
            raise CannotStart("The run has no snapshot.")
        if open_store() is not None:
            check_shared(self.run, attempt=self.member.attempt)
        copy_snapshot(self.run.snapshot, self.data, pulse=self._pulse)
        model = bring_base_model(self.run, log=self.log, pulse=self._pulse, started=self.lease.guard)
        inputs = bring_inputs(self.run, log=self.log, pulse=self._pulse, started=self.lease.guard)
        command = command_line(self.run, model=model, data=self.data, inputs=inputs)
        command = launched(command, self.run, Meeting(*place, self.member.rank))
        trainer = Trainer(command, log=self.log, cache=self.cache, mark=self.mark, processes=self.run.processes)
        self.lease.guard(trainer.process_id, self.mark)
        try:
            while trainer.wait(POLL_SECONDS) is None:
                self._pulse()
        except WorkerStops:
            # First, so that the holder ends its own processes meanwhile, and takes ours for no loss when they end.
            self._leave(Outcome.LEFT)
            trainer.terminate()
            trainer.wait(STOP_SECONDS)
            raise
        finally:
            trainer.end()
            self.lease.guard(None)
        return trainer.poll() == 0

    def _pulse(self) -> None:
        self.lease.keep()  # a run that is to stop is stopped by its holder, together
        if self.stop.is_set():
            raise WorkerStops

    def _leave(self, outcome: RunMember.Outcome) -> None:
        """Says so, the first time; what cannot be written is told by the end of the lease."""
        try:
            leave_run(self.member, outcome=outcome)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("run %s: cannot say that this member ended: %s", self.member.run_id, error)
            forget_connection()
