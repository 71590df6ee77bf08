"""Event files as TensorBoard itself reads them: what was cut off and done again stands there once."""

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.core.event_files import EventFolder, left_in
from training.core.following import Follower
from training.recipes import tensorboard as by_hand


def told_in(folder: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    """Step and value of every point that TensorBoard would draw, in its order."""
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


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path / "run")


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "tensorboard"


def test_points_arrive_as_they_are_measured(recipe: Recipe, events: Path) -> None:
    follower = Follower(recipe.folder, EventFolder(events))
    assert not follower.follow() and not events.exists()
    recipe.begin(0)
    recipe.train(2, 0.5, odd=None, text="x", flag=True, huge=1e39, **{"ppo/reward/exact answer": -3})
    follower.follow()
    assert told_in(events) == points((1, 2, 0.5))
    recipe.train(5, 0.25)
    follower.follow()
    follower.follow()
    assert told_in(events) == points((1, 2, 0.5), (3, 5, 0.25))
    reader = EventAccumulator(str(events)).Reload()
    assert set(reader.Tags()["scalars"]) == {"train/loss", "time/step_seconds", "huge", "ppo/reward/exact answer"}
    assert [one.value for one in reader.Scalars("huge")] == [float("inf")] * 2
    # 12:00 on the first of November, and two seconds a step.
    assert [one.wall_time for one in reader.Scalars("train/loss")] == [1793534400.0 + 2 * step for step in range(1, 6)]


def test_steps_that_are_cut_off_and_done_again_stand_there_once(recipe: Recipe, events: Path) -> None:
    recipe.begin(0)
    recipe.train(7, 1.0)
    first = Follower(recipe.folder, EventFolder(events))
    first.follow()
    second = Follower(recipe.folder, EventFolder(events), begun_before=1)
    recipe.begin(3, cut=False)
    second.follow()  # the trainer has yet to cut its file
    assert told_in(events) == points((1, 3, 1.0)), "what is about to be cut is told no more"
    recipe.cut()
    recipe.train(6, 2.0)
    second.follow()
    assert told_in(events) == points((1, 3, 1.0), (4, 6, 2.0))
    recipe.begin(5)
    recipe.train(9, 3.0)
    Follower(recipe.folder, EventFolder(events), begun_before=2).follow()
    assert told_in(events) == points((1, 3, 1.0), (4, 5, 2.0), (6, 9, 3.0))


def test_a_writer_that_wakes_up_late_is_not_believed(recipe: Recipe, events: Path) -> None:
    recipe.begin(0)
    recipe.train(4, 1.0)
    frozen = Follower(recipe.folder, EventFolder(events))
    frozen.follow()
    stale = recipe.lines * 2
    recipe.begin(2)
    recipe.train(4, 2.0)
    Follower(recipe.folder, EventFolder(events), begun_before=1).follow()
    # As if the frozen one had been in the middle of telling steps of its own.
    frozen._sink.tell([frozen._timed([(9, 1, {"train/loss": 7.0})])[0][0]])
    assert told_in(events) == points((1, 2, 1.0), (3, 4, 2.0)) and stale
    assert left_in(events).step == 4


@pytest.mark.parametrize("bytes_lost", [1, 3, 20, 90])
def test_what_a_killed_writer_left_is_gone_on_with(recipe: Recipe, events: Path, bytes_lost: int) -> None:
    recipe.begin(0)
    recipe.train(6, 1.0)
    Follower(recipe.folder, EventFolder(events)).follow()
    (file,) = events.iterdir()
    file.write_bytes(file.read_bytes()[:-bytes_lost])
    recipe.begin(6)  # the checkpoint is ahead of what was told
    recipe.train(8, 2.0)
    Follower(recipe.folder, EventFolder(events), begun_before=1).follow()
    assert told_in(events) == points((1, 6, 1.0), (7, 8, 2.0))


def test_a_recipe_that_found_its_work_done_cuts_nothing(recipe: Recipe, events: Path) -> None:
    recipe.begin(0)
    recipe.train(3, 1.0)
    recipe.begin(2)
    recipe.train(5, 2.0)
    follower = Follower(recipe.folder, EventFolder(events), begun_before=2)
    assert not follower.follow() and not events.exists()
    follower.finish()
    assert told_in(events) == points((1, 2, 1.0), (3, 5, 2.0))


def test_a_clock_that_is_behind_puts_no_file_before_another(recipe: Recipe, events: Path) -> None:
    events.mkdir()
    (events / "events.out.tfevents.9000000000.plackett").write_bytes(b"")
    recipe.begin(0)
    recipe.train(1, 1.0)
    Follower(recipe.folder, EventFolder(events)).follow()
    assert sorted(path.name for path in events.iterdir())[-1] == "events.out.tfevents.9000000001.plackett"


def test_a_run_by_hand_gets_its_files_from_a_command(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_hand.main([str(recipe.folder)]) == 2 and "no run.json" in capsys.readouterr().err
    recipe.begin(0)
    recipe.train(3, 1.0)
    assert by_hand.main([str(recipe.folder)]) == 0
    events = recipe.folder / "tensorboard"
    assert capsys.readouterr().out.strip() == str(events)
    before = {path.name: path.read_bytes() for path in events.iterdir()}
    assert by_hand.main([str(recipe.folder)]) == 0
    assert {path.name: path.read_bytes() for path in events.iterdir()} == before, "nothing new, nothing written"
    recipe.begin(2)
    recipe.train(4, 2.0)
    assert by_hand.main([str(recipe.folder)]) == 0
    assert told_in(events) == points((1, 2, 1.0), (3, 4, 2.0))
