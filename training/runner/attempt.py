"""One attempt at one run: from the claim to an outcome that stands in the database."""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from django.db import DatabaseError, InterfaceError

from training.base_models import is_model_folder
from training.models import ModelVersion, Run, Try
from training.runner.lease import Lease, clock, forget_connection
from training.runner.mirror import Exit, Mirror, exit_mark, log_tail, read_exit, read_json
from training.runner.prepare import CannotStart, prepare
from training.runner.telling import Telling, result_of
from training.runner.trainer import Trainer, end_left_behind
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
from training.services.models import KIND_OF_MODEL, model_of

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
MIRROR_SECONDS = 1.0
LOG_SECONDS = 3.0
STOP_SECONDS = 10.5  # a recipe ends itself 10 s after SIGTERM; the supervisor gives a worker 12
LOCKED = "another process is at work in"  # what a recipe says that finds its folder locked


class Why(Enum):
    """Why an attempt ends before its trainer does."""

    CANCELLED = auto()
    WORKER_STOPS = auto()


class Interrupted(Exception):
    """The attempt is to end now."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.name)
        self.why = why


@dataclass(frozen=True, slots=True)
class Ending:
    """How the trainer ended: its status (negative for a signal) and what it wrote, if this attempt wrote it."""

    status: int | None
    exit: Exit | None
    interrupted: Why | None


class Attempt:
    """Carries out a claim; use it once.

    Args:
        stop: set when this worker is to end; the run is then put back into its queue.
    """

    def __init__(self, claim: Claim, *, host: str, taken_at: float, stop: threading.Event) -> None:
        self.claim = claim
        self.host = host
        self.stop = stop
        self.lease = Lease(claim, taken_at=taken_at)
        self.run = Run.objects.select_related("snapshot", "base_version", "project").get(pk=claim.run_id)
        self.output = self.run.folder / "out"
        # Numbered, so that an attempt which wakes up after it was lost touches nothing of the next one's.
        self.data = self.run.folder / f"data-{claim.attempt}.jsonl"
        self.cache = self.run.folder / f"tokens-{claim.attempt}"
        self.log = self.run.folder / f"log-{claim.attempt}.txt"
        self.mirror = Mirror(claim, self.output)
        is_try = Try.objects.filter(pk=claim.run_id).exists()
        self.telling = Telling(self.run, attempt=claim.attempt, output=self.output) if is_try else None

    def carry_out(self) -> None:
        """Trains to an outcome. Whatever could not be written is settled by the end of the lease."""
        with self.lease:
            try:
                self._until_written(self._to_the_end())
            except StaleAttempt:
                logger.warning("run %s: attempt %s has lost it", self.claim.run_id, self.claim.attempt)
            finally:
                # A copy left here would outlive the snapshot's withdrawal; the next attempt copies it again.
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
        except Exception as bug:
            logger.exception("run %s: attempt %s broke down", self.claim.run_id, self.claim.attempt)
            reason = f"Plackett itself broke down: {type(bug).__name__}: {bug}"
            return lambda: give_back(self.claim, lost=True, reason=reason, log_tail=log_tail(self.log))
        return lambda: self._settle(ending)

    # --- while it goes on --------------------------------------------------------------------------------------------

    def _train(self) -> Ending:
        for process_id, started_at in trainers_left_behind(run_id=self.run.pk, host=self.host):
            if end_left_behind(process_id, started_at):
                logger.warning("run %s: ended process %s of a lost attempt", self.run.pk, process_id)
        command = prepare(self.run, data=self.data, log=self.log, pulse=self._pulse, started=self.lease.guard)
        before = exit_mark(self.output)
        trainer = Trainer(command, log=self.log, cache=self.cache)
        self.lease.guard(trainer.process_id)
        interrupted = None
        try:
            self._until_written(
                lambda: mark_running(self.claim, process_id=trainer.process_id, process_started_at=trainer.started_at)
            )
            self._follow(trainer)
        except Interrupted as interruption:
            interrupted = interruption.why
            trainer.terminate()
            trainer.wait(STOP_SECONDS)
        finally:
            trainer.end()
            self.lease.guard(None)
        told = read_exit(self.output) if exit_mark(self.output) != before else None
        return Ending(status=trainer.poll(), exit=told, interrupted=interrupted)

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
            if clock() >= log_due:
                log_due = clock() + LOG_SECONDS
                self._try(self._mirror_log)

    def _tell(self, telling: Telling) -> None:
        with contextlib.suppress(OSError):
            telling.forward()

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

    # --- the outcome -------------------------------------------------------------------------------------------------

    def _settle(self, ending: Ending) -> None:
        with contextlib.suppress(OSError):
            self.mirror.finish()
        if self.telling is not None:
            self._tell(self.telling)
        told: dict[str, Any] = {"log_tail": log_tail(self.log), "exit": ending.exit.content if ending.exit else None}
        code = ending.exit.code if ending.exit else ending.status
        if code == 0:
            self._succeed(told)
        elif ending.interrupted == Why.CANCELLED:
            end_cancelled(self.claim, **told)
        elif ending.interrupted == Why.WORKER_STOPS:
            give_back(
                self.claim, lost=False, reason="Its worker was stopped; it goes on from its last checkpoint.", **told
            )
        elif ending.exit is None and (code is None or code < 0) or code == 143:
            reason = f"The training process was ended from outside ({_manner(ending.status)})."
            give_back(self.claim, lost=True, reason=reason, **told)
        elif ending.exit is None and LOCKED in _last_line(told["log_tail"]):
            reason = "The trainer of an earlier attempt is still at work in the run's folder."
            give_back(self.claim, lost=True, reason=reason, **told)
        else:
            reason = (ending.exit.reason if ending.exit else "") or _last_line(told["log_tail"])
            fail(self.claim, reason=reason or f"The training process failed ({_manner(ending.status)}).", **told)

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


def _manner(status: int | None) -> str:
    if status is None:
        return "it never began"
    return f"signal {-status}" if status < 0 else f"exit {status}"


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]
