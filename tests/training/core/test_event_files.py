"""Event files as TensorBoard itself reads them: what was cut off and done again stands there once."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.told import Recipe, points, told_in
from training.core.event_files import EventFolder, left_in
from training.core.following import Follower
from training.recipes import tensorboard as by_hand


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


def test_an_attempt_that_was_over_before_anybody_looked_cuts_as_any_other(recipe: Recipe, events: Path) -> None:
    recipe.begin(0)
    recipe.train(5, 1.0)
    Follower(recipe.folder, EventFolder(events)).follow()
    follower = Follower(recipe.folder, EventFolder(events), begun_before=1)
    recipe.begin(2)
    recipe.train(3, 2.0)
    follower.finish()
    assert told_in(events) == points((1, 2, 1.0), (3, 3, 2.0))


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
