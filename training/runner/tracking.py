"""A run's measurements on their way to those who show them: TensorBoard's event files in its folder, and MLflow.

Each tracker has a thread, which reads the run's files at its own pace: nothing is queued for it, so one that is slow
falls behind and takes no memory, and one that is down costs the run nothing. What cannot be told is given up with one
warning, in the run's log and on its page.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from training.core.event_files import EventFolder
from training.core.following import Follower, Sink, attempts_in
from training.models import Run
from training.runner.lease import clock, forget_connection
from training.runner.mlflow import Away, Facts, MlflowRun, Refusal, Server, basic
from training.services.claims import Claim
from training.services.tracking import known_at_tracker, note_tracker, remember_at_tracker

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
RETRY_SECONDS = 5.0
AWAY_SECONDS = 120.0  # one that is away for longer is given up
LAST_SECONDS = 60.0  # so long may a tracker go on after the run's end
WAIT_SECONDS = 2.0  # so long is waited for it then, before the worker takes the next run
TENSORBOARD, MLFLOW, FOLDER = "TensorBoard", "MLflow", "tensorboard"


@dataclass(frozen=True, slots=True)
class End:
    """How the run stands after the attempt."""

    state: str
    reason: str
    model: int | None


@dataclass(frozen=True)
class Tracker:
    """One who is told: what it is called, where measurements go, and what it is told at the end."""

    name: str
    sink: Sink
    close: Callable[[End | None], None]


class Tracking:
    """The trackers of one attempt. Make it before the trainer starts.

    Args:
        log: the attempt's; a warning is added to it.
        holds: whether the attempt still has the run; asked before each writing.
    """

    def __init__(self, run: Run, claim: Claim, *, output: Path, log: Path, holds: Callable[[], bool]) -> None:
        self._claim, self._output, self._log, self._holds = claim, output, log, holds
        self._begun_before = len(attempts_in(output))
        self._over, self._deadline = threading.Event(), float("inf")
        self._end: End | None = None
        self._threads = [
            threading.Thread(target=self._carry_out, args=(one,), name=f"tracker-{one.name}", daemon=True)
            for one in trackers_of(run, claim)
        ]

    def start(self) -> None:
        """Begin to tell."""
        for thread in self._threads:
            thread.start()

    def close(self, end: End | None) -> None:
        """Tell the rest and how it ended, for a while also behind the back of the caller; with None nothing more."""
        self._end = end
        self._deadline = clock() + LAST_SECONDS if end is not None else 0.0
        self._over.set()
        until = clock() + WAIT_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(until - clock(), 0.0))

    # --- in a tracker's thread ----------------------------------------------------------------------------------------

    def _carry_out(self, tracker: Tracker) -> None:
        try:
            self._tell(tracker)
        except Exception as problem:
            # Whatever it is, the run goes on without this tracker.
            self._give_up(tracker, problem)
        finally:
            with contextlib.suppress(Exception):
                tracker.close(None)
            forget_connection()

    def _tell(self, tracker: Tracker) -> None:
        follower = Follower(self._output, tracker.sink, begun_before=self._begun_before)
        shown = False
        while not self._over.wait(LOOK_EVERY_SECONDS) and self._holds():
            while self._patiently(follower.follow) and not self._over.is_set():
                pass
            if not shown and (url := getattr(tracker.sink, "url", "")):
                shown = True
                self._note(tracker, url=url)
        end = self._end
        if end is None or not self._over.is_set():
            return
        while self._patiently(follower.finish):
            pass
        if not shown and (url := getattr(tracker.sink, "url", "")):
            self._note(tracker, url=url)
        self._patiently(lambda: tracker.close(end))

    def _patiently(self, tell: Callable[[], Any]) -> Any:
        """As told, again and again while the tracker is away.

        Raises:
            Away, DatabaseError, InterfaceError: for too long; Away also where it is slower than the run's end allows.
        """
        patience = clock() + AWAY_SECONDS
        while True:
            if clock() > self._deadline:
                raise Away("it is too slow")
            try:
                return tell()
            except (Away, DatabaseError, InterfaceError) as problem:
                if not isinstance(problem, Away):
                    forget_connection()
                if clock() + RETRY_SECONDS > min(patience, self._deadline) or not self._may_go_on():
                    raise
                pause = time.sleep if self._over.is_set() else self._over.wait
                pause(RETRY_SECONDS)

    def _may_go_on(self) -> bool:
        return self._over.is_set() and self._end is not None or self._holds()

    def _give_up(self, tracker: Tracker, problem: Exception) -> None:
        if self._over.is_set() and self._end is None or not self._over.is_set() and not self._holds():
            return  # the run is another attempt's, which speaks for itself
        known = isinstance(problem, Away | Refusal | OSError)
        reason = str(problem) if isinstance(problem, Away | Refusal) else _words(problem)
        line = f"{tracker.name} is told no more of this run: {reason}."
        logger.warning("run %s: %s", self._claim.run_id, line, exc_info=None if known else problem)
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.write(f"plackett: {line}\n")
        self._note(tracker, fault=reason)

    def _note(self, tracker: Tracker, *, url: str = "", fault: str = "") -> None:
        try:
            note_tracker(self._claim, name=tracker.name, url=url, fault=fault)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("run %s: cannot note what became of %s: %s", self._claim.run_id, tracker.name, error)
        forget_connection()


def _words(problem: Exception) -> str:
    """An error without whatever else it quotes: an address may hold a password."""
    return (problem.strerror or type(problem).__name__) if isinstance(problem, OSError) else type(problem).__name__


@dataclass(frozen=True)
class Record:
    """What the database keeps of a tracker for the attempts to come: they may be on other machines."""

    claim: Claim
    name: str

    def read(self) -> dict[str, Any]:
        """As what the tracker knows the run."""
        return known_at_tracker(self.claim, name=self.name)

    def write(self, value: dict[str, Any]) -> None:
        """Note that.

        Raises:
            StaleAttempt: another attempt has the run.
        """
        remember_at_tracker(self.claim, name=self.name, known_as=value)


def trackers_of(run: Run, claim: Claim) -> list[Tracker]:
    """Who is told of a run, by the settings."""
    events = EventFolder(run.folder / FOLDER)
    found = [Tracker(TENSORBOARD, events, lambda _end: events.close())]
    if settings.MLFLOW_URI:
        there = MlflowRun(_server(), facts_of(run), memory=Record(claim, MLFLOW))
        found.append(Tracker(MLFLOW, there, lambda end: _close(there, end)))
    return found


def _close(there: MlflowRun, end: End | None) -> None:
    if end is not None:
        there.close(state=end.state, reason=end.reason, model=end.model, ended_at=time.time())


def _server() -> Server:
    password = settings.MLFLOW_PASSWORD
    login = f"Bearer {settings.MLFLOW_TOKEN}" if settings.MLFLOW_TOKEN else ""
    return Server(settings.MLFLOW_URI, login or (basic(settings.MLFLOW_USERNAME, password) if password else ""))


def facts_of(run: Run) -> Facts:
    """What is told of the run besides its measurements: settings and lineage."""
    tags = {"run": run.pk, "kind": run.kind, "project": run.project.slug, "base_model": run.base_model}
    if run.snapshot is not None:
        tags |= {"snapshot": run.snapshot.name, "snapshot_sha256": run.snapshot.sha256}
    if run.base_version_id is not None:
        tags["base_version"] = run.base_version_id
    if run.parent_id is not None:
        tags["parent_run"] = run.parent_id
    tags |= {f"input.{one.role}": one.name for one in run.inputs.all()}
    named: Mapping[str, str] = {f"plackett.{name}": str(value) for name, value in tags.items()}
    return Facts(
        experiment=settings.MLFLOW_EXPERIMENT.replace("{project}", run.project.slug),
        name=run.name,
        parameters=run.config | {"processes": run.processes, "nodes": run.nodes},
        tags=named,
    )
