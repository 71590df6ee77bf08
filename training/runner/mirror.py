"""Following the files that a recipe writes: what it says stands in them, and the database only mirrors them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.core.following import LineReader
from training.runner.sample_rows import SampleLines
from training.runner.values import clean, number, whole
from training.services.claims import Claim
from training.services.metrics import StepMetrics, begin_attempt, record_metrics
from training.services.samples import record_samples

LOG_TAIL_BYTES = 64_000
LOG_TAIL_LINES = 40
LOG_LINE_CHARACTERS = 500
MAX_ROWS_AT_ONCE = 5_000


class Mirror:
    """One attempt's view of the output folder; make it before the trainer starts."""

    def __init__(self, claim: Claim, output: Path) -> None:
        self.claim = claim
        self.output = output
        self.step = 0
        self._begins_before = len(_begins(read_json(output / "run.json")))
        self._begin: _Begin | None = None
        self._reader = LineReader(output / "metrics.jsonl")
        self._said, self._samples = LineReader(output / "samples.jsonl"), SampleLines()

    def update(self) -> None:
        """Writes what is new to the database; nothing until the trainer has said where it goes on.

        Raises:
            StaleAttempt: the run is no longer this attempt's.
        """
        if self._begin is None and not self._see_begin():
            return
        assert self._begin is not None
        rows = _parse(self._reader.read_new())
        if any(row.step > self._begin.from_step and row.attempt != self._begin.number for row in rows):
            # The trainer has yet to cut off what an earlier attempt did beyond its checkpoint.
            self._reader.start_over()
            return
        self._record(rows, from_step=self._begin.from_step)
        self._reader.accept()
        # A trainer that has measured a step has cut off what an earlier attempt said beyond its checkpoint.
        if self.step > self._begin.from_step:
            self._record_samples(from_step=self._begin.from_step)

    def finish(self) -> None:
        """Writes the rest, once the trainer has ended.

        Raises:
            StaleAttempt: the run is no longer this attempt's.
        """
        self.update()
        if self._begin is None:  # it found its work already done, or never came so far: the file is as it was
            rows = _parse(self._reader.read_new())
            self._record(rows, from_step=rows[-1].step if rows else 0)
            self._reader.accept()
        self._record_samples(from_step=self._begin.from_step if self._begin else self.step)

    def _record(self, rows: list["Row"], *, from_step: int) -> None:
        for start in range(0, len(rows), MAX_ROWS_AT_ONCE):
            some = [StepMetrics(row.step, row.values) for row in rows[start : start + MAX_ROWS_AT_ONCE]]
            record_metrics(self.claim, rows=some, from_step=from_step)
            self.step = some[-1].step

    def _record_samples(self, *, from_step: int) -> None:
        record_samples(self.claim, rows=self._samples.parse(self._said.read_new()), from_step=from_step)
        self._said.accept()
        self._samples.accept()

    def _see_begin(self) -> bool:
        told = read_json(self.output / "run.json")
        begins = _begins(told)
        if len(begins) <= self._begins_before:
            return False
        begin = _Begin(number=whole(begins[-1].get("number")) or 0, from_step=whole(begins[-1].get("from_step")) or 0)
        begin_attempt(self.claim, from_step=begin.from_step, total_steps=whole((told or {}).get("steps")))
        self.step, self._begin = begin.from_step, begin
        return True


@dataclass(frozen=True, slots=True)
class _Begin:
    """What run.json says of the trainer's own start: its number there (not ours) and the steps already done."""

    number: int
    from_step: int


@dataclass(frozen=True, slots=True)
class Exit:
    """What exit.json says: the recipe's own code, and its sentence."""

    code: int
    reason: str
    content: dict[str, Any]


def exit_mark(output: Path) -> tuple[int, int] | None:
    """Tells one writing of exit.json from another, even of the same words; None if there is none."""
    try:
        status = (output / "exit.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def read_exit(output: Path) -> Exit | None:
    """The recipe's last word; None if it left none."""
    content = read_json(output / "exit.json")
    code = whole((content or {}).get("code"))
    if content is None or code is None:
        return None
    return Exit(code=code, reason=str(content.get("reason") or ""), content=content)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object as Postgres takes it (no NUL, no NaN); None if it is not there or is no object."""
    try:
        found = json.loads(path.read_text(errors="replace"), parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return clean(found) if isinstance(found, dict) else None


def log_tail(log: Path) -> str:
    """The last lines of a log; of a progress bar, which overwrites its line, only what stood there last."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            content = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in content.split("\n")]
    kept = [line[:LOG_LINE_CHARACTERS] for line in lines if line.strip()][-LOG_TAIL_LINES:]
    return str(clean("\n".join(kept)))


def _begins(told: dict[str, Any] | None) -> list[dict[str, Any]]:
    attempts = (told or {}).get("attempts")
    return [one for one in attempts if isinstance(one, dict)] if isinstance(attempts, list) else []


@dataclass(frozen=True, slots=True)
class Row:
    """A line of metrics.jsonl; `attempt` counts as run.json does."""

    step: int
    attempt: int
    values: dict[str, float | None]


def _parse(lines: list[str]) -> list[Row]:
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> Row | None:
    try:
        found = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    step = whole(found.get("step")) if isinstance(found, dict) else None
    if step is None or step < 1:
        return None
    values = {clean(name): number(value) for name, value in found.items() if name not in {"step", "attempt"}}
    return Row(step=step, attempt=whole(found.get("attempt")) or 0, values=values)
