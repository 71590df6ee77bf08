"""The files that a runner reads: never half written, cut back to where a resume begins, one writer at a time."""

import json
import math
import multiprocessing
import multiprocessing.connection
from pathlib import Path

import pytest

from training.core.errors import UsageError
from training.core.files import published_folder, read_json, shown_name, write_json
from training.core.process import FolderLock, is_unused, write_exit
from training.core.runfolder import MetricsFile, read_run, write_run


def steps_in(folder: Path) -> list[tuple[int, int]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["attempt"]) for row in rows]


def test_metrics_are_cut_back_to_the_step_of_the_resume(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path, attempt=1, from_step=0)
    for step in range(1, 6):
        first.write(step, {"train/loss": 0.5})
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "atte')
    second = MetricsFile(tmp_path, attempt=2, from_step=3)
    second.write(4, {"train/loss": 0.4})
    second.close()
    assert steps_in(tmp_path) == [(1, 1), (2, 1), (3, 1), (4, 2)]


def test_a_resume_at_step_zero_starts_the_metrics_anew(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path, attempt=1, from_step=0)
    first.write(1, {})
    first.close()
    MetricsFile(tmp_path, attempt=2, from_step=0).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_broken_last_row_of_the_resumed_step_is_cut(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "attempt": 1}\n{"step": 2, "attempt": 1}')
    MetricsFile(tmp_path, attempt=2, from_step=2).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "attempt": 1}\n'


def test_values_that_are_no_json_numbers_become_null(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, attempt=1, from_step=0)
    metrics.write(1, {"a": math.nan, "b": math.inf, "c": None, "d": 0.25})
    metrics.close()
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert row == {"step": 1, "attempt": 1, "a": None, "b": None, "c": None, "d": 0.25}


def test_each_attempt_is_added_to_run_json(tmp_path: Path) -> None:
    common = {"recipe": "reward", "config": {"seed": 0}, "data_sha256": "x", "model_fingerprint": "y", "facts": {}}
    assert write_run(tmp_path, **common, world_size=1, from_step=0) == 1  # type: ignore[arg-type]
    assert write_run(tmp_path, **common, world_size=1, from_step=7) == 2  # type: ignore[arg-type]
    run = read_run(tmp_path)
    assert run is not None
    assert [(attempt["number"], attempt["from_step"]) for attempt in run["attempts"]] == [(1, 0), (2, 7)]
    assert {"python", "torch", "transformers"} <= run["versions"].keys()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), published_folder(target) as scratch:
        (scratch / "half").write_text("x")
        raise RuntimeError
    assert not target.exists()
    with published_folder(target) as scratch:
        (scratch / "whole").write_text("x")
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert not (tmp_path / "model.tmp").exists()


def test_json_is_replaced_whole_and_holds_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    assert read_json(path) == {"a": 1}
    path.write_text("{")
    assert read_json(path) is None


def test_only_an_empty_folder_or_a_refusal_alone_is_unused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert is_unused(folder)
    folder.mkdir()
    (folder / ".lock").touch()
    assert is_unused(folder)
    write_exit(folder, 2, "bad data")
    assert is_unused(folder)
    write_exit(folder, 3, "failed")
    assert not is_unused(folder)
    (folder / "exit.json").unlink()
    (folder / "notes.txt").touch()
    assert not is_unused(folder)


def test_a_second_process_is_refused_and_the_end_of_the_first_frees_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(tmp_path, theirs))
    holder.start()
    assert ours.recv() == "locked"
    with pytest.raises(UsageError, match="another process is at work"):
        FolderLock(tmp_path, wait_seconds=0.2)
    holder.kill()
    holder.join()
    FolderLock(tmp_path, wait_seconds=5).release()


def hold(folder: Path, pipe: "multiprocessing.connection.Connection[str, str]") -> None:
    lock = FolderLock(folder)
    pipe.send("locked")
    pipe.recv()
    lock.release()


def test_a_model_inside_a_run_is_called_by_the_run(tmp_path):
    for name in ("runs/sft/model", "base"):
        (tmp_path / name).mkdir(parents=True)
    assert shown_name(str(tmp_path / "runs" / "sft" / "model")) == "sft/model"
    assert shown_name(str(tmp_path / "base")) == "base"
    assert shown_name("owner/model") == "owner/model"
