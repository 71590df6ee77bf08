"""One run on a stack: undisturbed, or with one part killed (SIGKILL) once in the middle of it."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.census import Census, trainers_in
from tests.chaos.ground import PARTS, Ground, Seen
from tests.chaos.timeline import Moment, Timeline

VICTIMS = ("trainer", "worker", "broker", "database", "servers")
LOOK_SECONDS = 0.01
ASK_SECONDS = 0.5
PATIENCE_SECONDS = 420


@dataclass(frozen=True)
class Course:
    """What is trained: the kind of run, its settings, and models that it reads."""

    kind: str
    config: dict[str, Any]
    named: dict[str, str] = field(default_factory=dict)


@dataclass
class Trial:
    """What came of one run. Times are seconds of the monotonic clock of this process."""

    run: int
    folder: Path
    timeline: Timeline
    census: Census
    victim: str = ""
    moment: Moment | None = None
    killed: list[int] = field(default_factory=list)
    killed_at: float = 0.0
    killed_wall: float = 0.0
    step_when_killed: int = 0
    back_after: float | None = None
    started_after: float | None = None
    ended: Seen | None = None
    seconds: float = 0.0


class Lost(Exception):
    """A run did not come to an end in time."""


def run_trial(
    ground: Ground, course: Course, *, victim: str = "", undisturbed: Trial | None = None, share: float = 0.0,
    hurry: bool = False,
) -> Trial:  # fmt: skip
    """Carries a run out; with a victim, kills it at that share of the time that the undisturbed run took.

    Args:
        hurry: the lease of a killed worker ends at once.

    Raises:
        Lost: it has not ended within some minutes.
    """
    began = time.monotonic()
    run = ground.start_run(kind=course.kind, config=course.config, **course.named)
    folder = ground.folder(run)
    timeline = Timeline(folder / "out" / "metrics.jsonl")
    with Census(folder, every_seconds=0.2) as census:
        trial = Trial(run, folder, timeline, census, victim=victim)
        if victim:
            assert undisturbed is not None
            trial.moment = undisturbed.timeline.moment(share)
            _wait_for_moment(ground, trial, undisturbed, began)
            _kill(ground, trial)
            if victim == "worker" and hurry:
                ground.let_lease_end(run)
        _wait_for_end(ground, trial, began)
    trial.seconds = time.monotonic() - began
    if victim and victim != "trainer":
        ground.wait_restarted(victim)
    return trial


def _wait_for_moment(ground: Ground, trial: Trial, undisturbed: Trial, began: float) -> None:
    """Until the step of the moment shows, and then as long as it takes at this run's pace."""
    assert trial.moment is not None
    asked = 0.0
    while trial.timeline.step < trial.moment.step:
        trial.timeline.look()
        if time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            _note_start(ground.look_at(trial.run), trial, began)
        time.sleep(LOOK_SECONDS)
    time.sleep(trial.moment.seconds * trial.timeline.pace(undisturbed.timeline, step=trial.moment.step))
    trial.timeline.look()


def _kill(ground: Ground, trial: Trial) -> None:
    trial.step_when_killed = trial.timeline.step
    if trial.victim == "trainer":
        (trainer,) = trainers_in(trial.folder)
        trial.killed = [trainer.pid]
        trainer.kill()
    else:
        trial.killed = ground.kill(trial.victim)
    trial.killed_at, trial.killed_wall = time.monotonic(), time.time()


def _wait_for_end(ground: Ground, trial: Trial, began: float) -> None:
    asked = 0.0
    while True:
        time.sleep(LOOK_SECONDS if not trial.victim else 0.1)
        if not trial.victim:
            trial.timeline.look()
            if time.monotonic() - asked < ASK_SECONDS:  # each question is a connection of its own
                continue
            asked = time.monotonic()
        seen = ground.look_at(trial.run)
        _note_start(seen, trial, began)
        if trial.victim and trial.back_after is None and _is_back(ground, trial, seen):
            trial.back_after = time.monotonic() - trial.killed_at
        if seen is not None and seen.is_finished:
            trial.ended = seen
            return
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise Lost(f"run {trial.run} is still {seen} after {PATIENCE_SECONDS} s\n{ground.log_of('worker-gpu')}")


def _note_start(seen: Seen | None, trial: Trial, began: float) -> None:
    if trial.started_after is None and seen is not None and seen.attempt > 0:
        trial.started_after = time.monotonic() - began


def _is_back(ground: Ground, trial: Trial, seen: Seen | None) -> bool:
    """Whether the run, or the server, is served again."""
    if trial.victim in ("trainer", "worker"):
        return seen is not None and seen.attempt > 1
    recorded = ground.stack.recorded()
    return seen is not None and all(recorded.get(part, 0) not in [0, *trial.killed] for part in PARTS[trial.victim])


def draw_share(seed: int, victim: str, number: int) -> float:
    """Where in the run to kill: uniform, the same for the same seed."""
    return random.Random(f"{seed}/{victim}/{number}").random()
