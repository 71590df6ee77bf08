"""One attempt at one run: from the claim to an outcome that stands in the database."""

import contextlib
import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import DatabaseError, InterfaceError

from training.base_models import is_model_folder
from training.models import ModelVersion, Run, Try
from training.runner.lease import Lease, clock, forget_connection
from training.runner.machine import free_port, own_address
from training.runner.mirror import Mirror, exit_mark, log_tail, read_exit, read_json
from training.runner.outcome import (
    FULL_DISK,
    GATHER_SECONDS,
    OWN_FAILURES,
    Circumstances,
    Ending,
    Fate,
    Why,
    fate_of,
)
from training.runner.prepare import Meeting, launched, mark_of, prepare, remove_left_behind
from training.runner.reaching import CannotStart
from training.runner.storing import Storing
from training.runner.telling import Telling, result_of
from training.runner.tracking import End, Tracking
from training.runner.trainer import Trainer, end_left_behind, kill_marked
from training.selectors import trainers_left_behind
from training.services.claims import (
    Claim,
    StaleAttempt,
    end_cancelled,
    fail,
    give_back,
    mark_running,
    succeed,
    update_run,
)
from training.services.doorbell import ring
from training.services.members import (
    announce_port,
    lost_member,
    member_that_left,
    members_there,
    open_membership,
)
from training.services.models import KIND_OF_MODEL, model_of
from training.store.errors import StoreError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
MEMBER_SECONDS = 1.0
LAST_WORD_SECONDS = 3.0
MIRROR_SECONDS = 1.0
LOG_SECONDS = 3.0
STOP_SECONDS = 10.5  # a recipe ends itself 10 s after SIGTERM; the supervisor gives a worker 12
CANCEL_SECONDS = 7.0  # a cancelled run is over within 10 s, from the press of the button to the database
HAND_OVER_SECONDS = 20.0  # for a checkpoint that another machine may need
LAST_CHECKPOINT_SECONDS = 600.0  # for one that nobody waits for


class Interrupted(Exception):
    """The attempt is to end now."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.name)
        self.why = why


class Attempt:
    """Carries out a claim; use it once.

    Args:
        stop: set when this worker is to end; the run is then put back into its queue.
    """

    def __init__(self, claim: Claim, *, worker: str, host: str, taken_at: float, stop: threading.Event) -> None:
        self.claim = claim
        self.worker, self.host = worker, host
        self.stop = stop
        self.lease = Lease(claim, taken_at=taken_at)
        self.run = Run.objects.select_related("snapshot", "base_version", "project").get(pk=claim.run_id)
        self.output = self.run.folder / "out"
        # Numbered, so that an attempt which wakes up after it was lost touches nothing of the next one's.
        self.data = self.run.folder / f"data-{claim.attempt}.jsonl"
        self.cache = self.run.folder / f"tokens-{claim.attempt}"
        self.log = self.run.folder / f"log-{claim.attempt}.txt"
        self.mark = mark_of(self.run, claim.attempt, 0)
        self.mirror = Mirror(claim, self.output)
        self.missing = ""  # the worker of a member that was lost
        self._member_due = clock()
        self.tracking: Tracking | None = None
        is_try = Try.objects.filter(pk=claim.run_id).exists()
        self.telling = Telling(self.run, attempt=claim.attempt, output=self.output) if is_try else None
        self.storing = Storing(self.run, attempt=claim.attempt, keeps=not is_try)
        self.stopped_at = 0.0

    def carry_out(self) -> None:
        """Trains to an outcome. Whatever could not be written is settled by the end of the lease."""
        seconds = LAST_CHECKPOINT_SECONDS
        with self.lease:
            try:
                self._until_written(self._without_copies())
                self._end_tracking(self._standing())
            except StaleAttempt:
                logger.warning("run %s: attempt %s has lost it", self.claim.run_id, self.claim.attempt)
                seconds = 0
            finally:
                self._end_tracking(None)
        self._tidy(seconds=seconds)

    def _tidy(self, *, seconds: float) -> None:
        """What is left to do once nobody waits for it any more: the last checkpoint may still be on its way."""
        if not self.storing.is_on:
            return
        with contextlib.suppress(Interrupted):
            self.storing.close(seconds=seconds, pulse=self._unless_stopping)
        if seconds and (state := self._state_now()) in Run.FINISHED:
            self.storing.clear(succeeded=state == Run.State.SUCCEEDED)

    def _unless_stopping(self) -> None:
        if self.stop.is_set():
            raise Interrupted(Why.WORKER_STOPS)

    def _state_now(self) -> str | None:
        """Of the run, as far as this attempt is still its last."""
        held = Run.objects.filter(pk=self.claim.run_id, attempt=self.claim.attempt)
        return held.values_list("state", flat=True).first()

    def _without_copies(self) -> Callable[[], object]:
        """As `_to_the_end`; what was copied or made of the data is gone before anybody learns of the end.

        Left here it would outlive the snapshot's withdrawal, and nobody comes back to a run that is over.
        """
        try:
            return self._to_the_end()
        finally:
            self.data.unlink(missing_ok=True)
            shutil.rmtree(self.cache, ignore_errors=True)

    def _to_the_end(self) -> Callable[[], object]:
        """Does the work and returns what is to be written about how it ended.

        Raises:
            StaleAttempt: nothing may be written.
        """
        try:
            ending = self._train()
        except StaleAttempt:
            raise
        except CannotStart as problem:
            reason = str(problem)
            return lambda: fail(self.claim, reason=reason, log_tail=log_tail(self.log))
        except Interrupted as interrupted:  # before there was a trainer
            ending = Ending(status=None, exit=None, interrupted=interrupted.why)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return self._after(error)
            return lambda: fail(self.claim, reason=FULL_DISK, log_tail=log_tail(self.log))
        except Exception as bug:
            return self._after(bug)
        return lambda: self._settle(ending)

    def _after(self, bug: Exception) -> Callable[[], object]:
        """What is to be written after we ourselves broke down."""
        logger.error("run %s: attempt %s broke down", self.claim.run_id, self.claim.attempt, exc_info=bug)
        reason = f"Plackett itself broke down: {type(bug).__name__}: {bug}"
        return lambda: give_back(self.claim, lost=True, reason=reason, log_tail=log_tail(self.log))

    def _standing(self) -> End | None:
        """How the run stands, for those who show it; None where the database does not say, or says it of another."""
        with contextlib.suppress(DatabaseError, InterfaceError):
            runs = Run.objects.filter(pk=self.run.pk, attempt=self.claim.attempt).exclude(state__in=Run.ACTIVE)
            if found := runs.values_list("state", "reason", "model__pk").first():
                return End(*found)
        return None

    def _end_tracking(self, end: End | None) -> None:
        if self.tracking is not None:
            self.tracking.close(end)
            self.tracking = None

    # --- while it goes on --------------------------------------------------------------------------------------------

    def _train(self) -> Ending:
        for process_id, started_at in trainers_left_behind(run_id=self.run.pk, host=self.host):
            if end_left_behind(process_id, started_at):
                logger.warning("run %s: ended process %s of a lost attempt", self.run.pk, process_id)
        if count := kill_marked(mark_of(self.run), but=mark_of(self.run, self.claim.attempt)):
            logger.warning("run %s: ended %s processes of earlier attempts", self.run.pk, count)
        remove_left_behind(self.run.folder)
        if self.run.nodes > 1:
            self._gather()
        self.storing.begin(pulse=self._pulse)
        self.mirror = Mirror(self.claim, self.output)  # of the folder as it is now
        command = prepare(self.run, data=self.data, log=self.log, pulse=self._pulse, started=self.lease.guard)
        command = launched(command, self.run, self._meeting())
        before = exit_mark(self.output)
        if self.telling is None:  # nobody outside is told of a try
            self.tracking = Tracking(self.run, self.claim, output=self.output, log=self.log, holds=self.lease.holds)
        trainer = Trainer(command, log=self.log, cache=self.cache, mark=self.mark, processes=self.run.processes)
        self.lease.guard(trainer.process_id, self.mark)
        if self.tracking is not None:
            self.tracking.start()
        interrupted = None
        try:
            self._until_written(
                lambda: mark_running(self.claim, process_id=trainer.process_id, process_started_at=trainer.started_at)
            )
            self.storing.follow()
            self._follow(trainer)
        except Interrupted as interruption:
            interrupted, self.stopped_at = interruption.why, clock()
            if interrupted == Why.MEMBER_LOST:
                trainer.wait(LAST_WORD_SECONDS)  # what ended the member may end ours, too, and it says why
            trainer.terminate()
            trainer.wait(CANCEL_SECONDS if interruption.why == Why.CANCELLED else STOP_SECONDS)
        finally:
            trainer.end()
            self.lease.guard(None)
        told = read_exit(self.output) if exit_mark(self.output) != before else None
        ending = Ending(status=trainer.poll(), exit=told, interrupted=interrupted)
        return self._stored(ending) if self.storing.is_on else ending

    def _stored(self, ending: Ending) -> Ending:
        """The ending, once its results are in the bucket, or as much of the last checkpoint as there is time for.

        Raises:
            StaleAttempt: the run is no longer this attempt's.
        """
        if ending.code != 0:
            if ending.interrupted != Why.CANCELLED and ending.code not in OWN_FAILURES:
                spent = clock() - self.stopped_at if ending.interrupted == Why.WORKER_STOPS else 0.0
                seconds = STOP_SECONDS if spent else HAND_OVER_SECONDS
                self.storing.flush(seconds=max(seconds - spent, 0), pulse=self._keep_lease)
            return ending
        try:
            self.storing.put_results(pulse=self._pulse)
        except Interrupted as interruption:
            return replace(ending, interrupted=interruption.why, unstored="It was stopped before that.")
        except StoreError as error:
            return replace(ending, unstored=str(error))
        return ending

    def _keep_lease(self) -> None:
        self.lease.keep()

    def _gather(self) -> None:
        """Waits for the other members.

        Raises:
            Interrupted, StaleAttempt: it should not go on, or they do not come.
        """
        open_membership(self.claim, worker=self.worker, host=self.host, address=own_address())
        deadline, ring_due = clock() + GATHER_SECONDS, clock()
        while members_there(self.claim) < self.run.nodes:
            if clock() > deadline:
                raise Interrupted(Why.ALONE)
            if clock() >= ring_due:  # again and again: this very worker hears the bell, too
                ring_due = clock() + MEMBER_SECONDS
                ring(self.run.queue)
            self._pulse()
            if member_that_left(self.claim):
                raise Interrupted(Why.MEMBER_LEFT)
            time.sleep(POLL_SECONDS)

    def _meeting(self) -> Meeting | None:
        """Where the members are to meet, told to them by now; None for a run of one machine."""
        if self.run.nodes == 1:
            return None
        port = free_port()
        announce_port(self.claim, port)
        return Meeting(own_address(), port, 0)

    def _follow(self, trainer: Trainer) -> None:
        """Mirrors the trainer's files until it ends.

        Raises:
            Interrupted, StaleAttempt: it should not go on.
        """
        metrics_due = log_due = clock()
        while trainer.wait(POLL_SECONDS) is None:
            self._pulse()
            if self.telling is not None:
                self._tell(self.telling)
            if clock() >= metrics_due:
                metrics_due = clock() + MIRROR_SECONDS
                self._try(self.mirror.update)
                self._try(self._mirror_stored)
            if clock() >= log_due:
                log_due = clock() + LOG_SECONDS
                self._try(self._mirror_log)

    def _tell(self, telling: Telling) -> None:
        with contextlib.suppress(OSError):
            telling.forward()

    def _mirror_stored(self) -> None:
        if news := self.storing.news():
            update_run(self.claim, **news)

    def _mirror_log(self) -> None:
        tail = log_tail(self.log)
        if tail != self.run.log_tail:
            update_run(self.claim, log_tail=tail)
            self.run.log_tail = tail

    def _try(self, write: Callable[[], None]) -> None:
        """A write that can as well succeed later."""
        try:
            write()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("run %s: not mirrored: %s", self.run.pk, error)
            forget_connection()

    def _pulse(self) -> None:
        state = self.lease.keep()
        if state == Run.State.STOPPING:
            raise Interrupted(Why.CANCELLED)
        if self.stop.is_set():
            raise Interrupted(Why.WORKER_STOPS)
        if self.run.nodes > 1 and clock() >= self._member_due:
            self._member_due = clock() + MEMBER_SECONDS
            self._try(self._look_for_members)

    def _look_for_members(self) -> None:
        if member_that_left(self.claim):
            raise Interrupted(Why.MEMBER_LEFT)
        if worker := lost_member(self.claim):
            self.missing = worker
            raise Interrupted(Why.MEMBER_LOST)

    # --- the outcome -------------------------------------------------------------------------------------------------

    def _settle(self, ending: Ending) -> None:
        with contextlib.suppress(OSError):
            self.mirror.finish()
        if self.telling is not None:
            self._tell(self.telling)
        told: dict[str, Any] = {"log_tail": log_tail(self.log), "exit": ending.exit.content if ending.exit else None}
        about = Circumstances(
            claim=self.claim,
            run=self.run,
            host=self.host,
            step=self.mirror.step,
            missing=self.missing,
            last_line=told["log_tail"].rstrip().rpartition("\n")[2],
        )
        fate, reason = fate_of(ending, about)
        match fate:
            case Fate.DONE:
                self._succeed(told)
            case Fate.CANCELLED:
                end_cancelled(self.claim, **told)
            case Fate.FAILED:
                fail(self.claim, reason=reason, **told)
            case Fate.HANDED_ON | Fate.LOST:
                give_back(self.claim, lost=fate == Fate.LOST, reason=reason, **told)

    def _succeed(self, told: dict[str, Any]) -> None:
        report = read_json(self.output / "report.json")
        folder = self.output / "model"
        kind = Run.Kind(self.run.kind)
        if report is None or (kind in KIND_OF_MODEL and not is_model_folder(folder)):
            missing = "report.json" if report is None else "model folder"
            fail(self.claim, reason=f"The training process says that it is done, but left no {missing}.", **told)
            return
        model: ModelVersion | None = None
        if kind in KIND_OF_MODEL:
            model = model_of(self.run, folder=folder, report=report)
        suspect = bool(report.get("suspect"))
        if self.telling is not None and (result := result_of(self.output)) is not None:
            told["result"] = result
        told |= self.storing.results()
        succeed(self.claim, model=model, step=self.mirror.step, report=report, suspect=suspect, **told)

    def _until_written(self, write: Callable[[], object]) -> None:
        """Repeats a write while the database does not answer, as long as the lease lasts.

        Raises:
            StaleAttempt: it lasted no longer, or the write was refused.
        """
        while True:
            try:
                write()
                return
            except (DatabaseError, InterfaceError) as error:
                logger.warning("run %s: cannot write yet: %s", self.run.pk, error)
                forget_connection()
                if self.lease.seconds_left() <= 1:
                    raise StaleAttempt(self.claim) from error
                time.sleep(1)
