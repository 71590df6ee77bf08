"""Following the measurements of a run's folder while they are written, for whoever tells them elsewhere.

Standard library only. What is followed are ``run.json``, in which the recipe says where it goes on, and
``metrics.jsonl``, which it cuts there.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

RUN_NAME, METRICS_NAME = "run.json", "metrics.jsonl"
NO_MEASUREMENTS = ("step", "attempt")
# So that a run of many steps is not in memory as a whole.
BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """What was measured at a step, numbers alone.

    Attributes:
        at: when, in seconds since 1970: the beginning of its attempt and the seconds of that attempt's steps so far,
            so that the same step has the same time whoever tells it, and however late.
    """

    step: int
    at: float
    values: dict[str, float]


class Sink(Protocol):
    """Where measurements are told. Either method may raise; what was then told comes again."""

    def begin(self, *, attempt: int, from_step: int | None) -> int:
        """An attempt goes on behind ``from_step`` (None: nothing was cut off). Returns the last step that need not be
        told again."""

    def tell(self, steps: Sequence[Step]) -> None:
        """Steps in their order."""


class LineReader:
    """New whole lines of a growing file. Lines come again until they are accepted: what could not be written to a
    database that was away must not be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._accepted = self._seen = 0

    def read_new(self, *, most: int = -1) -> list[str]:
        """Whole lines after those accepted; none if there is no file.

        Args:
            most: bytes that are read, unless the first line is longer.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._accepted)
                content = file.read(most)
                if b"\n" not in content and most >= 0:
                    content += file.readline()
        except FileNotFoundError:
            content = b""
        whole, end, _ = content.rpartition(b"\n")
        self._seen = self._accepted + len(whole) + len(end)
        return whole.decode(errors="replace").split("\n") if end else []

    def accept(self) -> None:
        """What was read last need not come again."""
        self._accepted = self._seen

    def is_beyond_the_end(self) -> bool:
        """Whether the file was cut to less than was read of it."""
        try:
            return self.path.stat().st_size < self._accepted
        except OSError:
            return False

    def start_over(self) -> None:
        """Reads from the beginning next time."""
        self._accepted = self._seen = 0


_Row = tuple[int, int, dict[str, float]]
"""Step, attempt, and what was measured."""


class Follower:
    """One reader of a run's folder, for one sink."""

    def __init__(self, folder: Path, sink: Sink, *, begun_before: int = 0) -> None:
        """``begun_before``: attempts in run.json that are none of this reader's; see ``attempts_in``."""
        self._folder, self._sink = folder, sink
        self._begun = begun_before
        self._number: int | None = None
        self._from_step: int | None = None
        self._told = 0
        self._starts: dict[int, float] = {}
        self._elapsed: dict[int, float] = {}
        self._reader = LineReader(folder / METRICS_NAME)

    def follow(self) -> bool:
        """Tell what is new, up to ``BYTES_AT_ONCE`` of it; whether there may be more at once.

        Nothing is told before the recipe has said where it goes on, and nothing of what it is about to cut off.
        """
        self._see_beginning()
        if self._number is None:
            return False
        rows = [row for row in map(_row, self._reader.read_new(most=BYTES_AT_ONCE)) if row is not None]
        limit = self._from_step
        if limit is not None and any(step > limit and attempt != self._number for step, attempt, _ in rows):
            self._read_again()
            return False
        steps, elapsed = self._timed(rows)
        if new := [one for one in steps if one.step > self._told]:
            self._sink.tell(new)
            self._told = new[-1].step
        self._reader.accept()
        self._elapsed = elapsed
        return bool(rows)

    def finish(self) -> bool:
        """As ``follow``, once the recipe has ended: one that found its work already done has cut nothing."""
        self._see_beginning()
        if self._number is None and (attempts := attempts_in(self._folder)):
            self._begin(attempts, from_step=None)
        return self.follow()

    def _see_beginning(self) -> None:
        attempts = attempts_in(self._folder)
        if len(attempts) > self._begun:
            self._begin(attempts, from_step=_whole(attempts[-1].get("from_step")))

    def _begin(self, attempts: list[dict[str, Any]], *, from_step: int | None) -> None:
        number = _whole(attempts[-1].get("number"))
        self._told = self._sink.begin(attempt=number, from_step=from_step)
        self._begun, self._number, self._from_step = len(attempts), number, from_step
        self._starts = {_whole(one.get("number")): _seconds(one.get("started_at")) for one in attempts}
        self._read_again()

    def _read_again(self) -> None:
        self._reader.start_over()
        self._elapsed = {}

    def _timed(self, rows: list[_Row]) -> tuple[list[Step], dict[int, float]]:
        """The rows with their times, and the seconds of each attempt's steps up to the last of them."""
        elapsed, steps = dict(self._elapsed), []
        for step, attempt, values in rows:
            elapsed[attempt] = elapsed.get(attempt, 0.0) + max(values.get("time/step_seconds", 0.0), 0.0)
            steps.append(Step(step, self._starts.get(attempt, 0.0) + elapsed[attempt], values))
        return steps, elapsed


def attempts_in(folder: Path) -> list[dict[str, Any]]:
    """The attempts that run.json tells of, each with ``number``, ``from_step`` and ``started_at``; none if there is no
    such file."""
    try:
        told = json.loads((folder / RUN_NAME).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return []
    found = told.get("attempts") if isinstance(told, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _row(line: str) -> _Row | None:
    """Step, attempt and finite measurements of a line; None of one that is no row."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    step = _whole(told.get("step")) if isinstance(told, dict) else 0
    if step < 1:
        return None
    values = {name: float(value) for name, value in told.items() if name not in NO_MEASUREMENTS and _is_finite(value)}
    return step, _whole(told.get("attempt")), values


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0
