"""A run's folder as a recipe writes it, and what TensorBoard reads of it."""

import json
from pathlib import Path
from typing import Any


def told_in(folder: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    """Step and value of every point that TensorBoard itself would draw, in its order."""
    # Here, for it takes a second to import, and many modules of tests import this one.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    reader.Reload()
    return [(one.step, round(one.value, 3)) for one in reader.Scalars(tag)]


def points(*runs: tuple[int, int, float]) -> list[tuple[int, float]]:
    """From, to and value of stretches of steps."""
    return [(step, value) for start, end, value in runs for step in range(start, end + 1)]


class Recipe:
    """A run's folder as a recipe writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.attempts = folder, list[dict[str, Any]]()
        self.lines: list[str] = []
        folder.mkdir(exist_ok=True)

    def begin(self, from_step: int, *, cut: bool = True) -> None:
        number = len(self.attempts) + 1
        started_at = f"2026-11-0{number}T12:00:00Z"
        self.attempts.append({"number": number, "from_step": from_step, "started_at": started_at})
        (self.folder / "run.json").write_text(json.dumps({"steps": 99, "attempts": self.attempts}))
        if cut:
            self.cut()

    def cut(self) -> None:
        self.lines = self.lines[: self.attempts[-1]["from_step"]]
        self._write()

    def train(self, to: int, loss: float, **more: Any) -> None:
        number = self.attempts[-1]["number"]
        for step in range(len(self.lines) + 1, to + 1):
            row = {"step": step, "attempt": number, "train/loss": loss, "time/step_seconds": 2.0, **more}
            self.lines.append(json.dumps(row) + "\n")
        self._write()

    def _write(self) -> None:
        (self.folder / "metrics.jsonl").write_text("".join(self.lines))
