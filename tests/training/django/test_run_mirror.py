"""What a recipe's files say reaches the database, also when they are cut back, half written or odd."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from annotate.models import Snapshot
from tests.training.django.helpers import claim, queue_run
from training.models import Run, RunMetric
from training.runner.mirror import Mirror, clean, exit_mark, log_tail, read_exit, read_json

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(snapshot: Snapshot) -> Run:
    return queue_run(snapshot)


@pytest.fixture
def mirror(run: Run, tmp_path: Path) -> Mirror:
    return Mirror(claim(), tmp_path)


def say(folder: Path, *attempts: tuple[int, int], steps: int = 20) -> None:
    """Writes run.json with these (number, from_step)."""
    told = [{"number": number, "from_step": step} for number, step in attempts]
    (folder / "run.json").write_text(json.dumps({"steps": steps, "attempts": told}))


def line(step: int, attempt: int = 1, **values: Any) -> str:
    return json.dumps({"step": step, "attempt": attempt} | (values or {"train/loss": step / 10})) + "\n"


def append(folder: Path, text: str) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(text)


def rows(run: Run) -> list[tuple[int, Any]]:
    return list(RunMetric.objects.filter(run=run).order_by("step").values_list("step", "values"))


def test_steps_arrive_as_they_are_written(run: Run, mirror: Mirror, tmp_path: Path) -> None:
    mirror.update()
    say(tmp_path, (1, 0))
    mirror.update()
    append(tmp_path, line(1) + line(2) + '{"step": 3, "att')
    mirror.update()
    assert [step for step, _ in rows(run)] == [1, 2]
    append(tmp_path, 'empt": 1, "train/loss": 0.3}\n')
    mirror.update()
    assert rows(run) == [(1, {"train/loss": 0.1}), (2, {"train/loss": 0.2}), (3, {"train/loss": 0.3})]
    run.refresh_from_db()
    assert (run.step, run.total_steps) == (3, 20)


def test_what_a_database_that_was_away_did_not_take_is_written_when_it_is_back(
    run: Run, mirror: Mirror, tmp_path: Path
) -> None:
    say(tmp_path, (1, 0))
    append(tmp_path, line(1))
    mirror.update()
    append(tmp_path, line(2) + line(3))
    with pytest.raises(DatabaseError), transaction.atomic():
        with connection.cursor() as cursor, contextlib.suppress(DatabaseError):
            cursor.execute("SELECT 1 / 0")  # the transaction takes no more
        mirror.update()
    append(tmp_path, line(4))
    mirror.update()
    assert [step for step, _ in rows(run)] == [1, 2, 3, 4]


def test_nothing_is_read_before_the_trainer_says_where_it_begins(run: Run, tmp_path: Path) -> None:
    say(tmp_path, (1, 0))
    append(tmp_path, line(1) + line(2))
    mirror = Mirror(claim(), tmp_path)
    mirror.update()
    assert rows(run) == []


def test_a_resumed_trainer_is_not_read_before_it_has_cut_its_file(run: Run, tmp_path: Path) -> None:
    say(tmp_path, (1, 0))
    append(tmp_path, line(1) + line(2) + line(3) + line(4))
    mirror = Mirror(claim(), tmp_path)
    say(tmp_path, (1, 0), (2, 2))
    mirror.update()  # run.json is written first; what stands beyond step 2 is about to go
    assert rows(run) == []
    (tmp_path / "metrics.jsonl").write_text(line(1) + line(2) + line(3, 2, loss=7.0))
    mirror.update()
    assert [step for step, _ in rows(run)] == [1, 2, 3]
    assert rows(run)[-1] == (3, {"loss": 7.0})


def test_a_file_cut_and_grown_between_two_looks_is_still_told_right(run: Run, tmp_path: Path) -> None:
    say(tmp_path, (1, 0))
    append(tmp_path, "".join(line(step) for step in range(1, 6)))
    mirror = Mirror(claim(), tmp_path)
    say(tmp_path, (1, 0), (2, 1))
    mirror.update()
    again = line(1) + "".join(line(step, 2, loss=9.0) for step in range(2, 9))
    (tmp_path / "metrics.jsonl").write_text(again)
    mirror.update()
    assert rows(run) == [(1, {"train/loss": 0.1})] + [(step, {"loss": 9.0}) for step in range(2, 9)]


def test_a_trainer_that_found_its_work_done_leaves_no_gap(run: Run, tmp_path: Path) -> None:
    say(tmp_path, (1, 0))
    append(tmp_path, line(1) + line(2))
    mirror = Mirror(claim(), tmp_path)
    mirror.finish()
    assert [step for step, _ in rows(run)] == [1, 2]
    assert mirror.step == 2


def test_what_is_no_number_is_null_and_what_is_no_row_is_passed_over(run: Run, mirror: Mirror, tmp_path: Path) -> None:
    say(tmp_path, (1, 0))
    odd = '{"step": 1, "attempt": 1, "a": NaN, "b": Infinity, "c": "x", "d": true, "e": 1e400, "f": 2}\n'
    append(tmp_path, odd + "not json\n[1]\n" + '{"step": 0}\n{"step": "2"}\n' + line(2))
    mirror.update()
    values = rows(run)[0][1]
    assert values == {"a": None, "b": None, "c": None, "d": None, "e": None, "f": 2}
    assert [step for step, _ in rows(run)] == [1, 2]


def test_texts_are_made_fit_for_the_database() -> None:
    assert clean({"a\0": ["\ud800", float("nan"), 1.5, True, None]}) == {"a�": ["?", None, 1.5, True, None]}


def test_the_end_of_a_log_is_whole_lines_and_of_a_bar_the_last_state(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert log_tail(log) == ""
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(100)) + b"bar 1\rbar 2\rbar 3\r\n\xff\0end\n\n")
    tail = log_tail(log).split("\n")
    assert len(tail) == 40 and tail[0] == "line 62"
    assert tail[-2:] == ["bar 3", "��end"]


def test_the_exit_is_what_the_recipe_wrote(tmp_path: Path) -> None:
    assert read_exit(tmp_path) is None and exit_mark(tmp_path) is None
    (tmp_path / "exit.json").write_text('{"code": 3, "reason": "no", "step": 4}')
    found = read_exit(tmp_path)
    assert found is not None and (found.code, found.reason) == (3, "no")
    (tmp_path / "exit.json").write_text("[]")
    assert read_exit(tmp_path) is None and read_json(tmp_path / "exit.json") is None
