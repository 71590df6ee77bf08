"""Sampling runs: what they write, that nothing but seed, prompt and sample decides a response, and their resume."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import flags_from, run_as_main
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, records, write_jsonl
from training.core import runfolder
from training.core.errors import StopRequested, UsageError
from training.core.local_models import byte_tokenizer, make_tiny_model
from training.recipes import responding
from training.recipes.configs import RewardConfig, SampleConfig, build
from training.recipes.launch import Session
from training.recipes.reward import train_reward
from training.recipes.sample import sample

RunRecipe = Callable[..., int]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two policies that differ, and a reward model."""
    folder = tmp_path_factory.mktemp("sampled")
    made = {name: make_tiny_model(folder / name, seed) for seed, name in enumerate(("first", "second"))}
    data = write_jsonl(folder / "rankings.jsonl", records(train=4, validation=2))
    values = {"model": str(made["first"]), "data": str(data), "output": str(folder / "reward"), "device": "cpu"}
    (folder / "reward").mkdir()
    train_reward(Session("reward", build(RewardConfig, values), folder / "reward"))
    return made | {"reward": folder / "reward"}


def values_of(models: dict[str, Path], folder: Path, **settings: Any) -> dict[str, Any]:
    data = write_jsonl(folder / "prompts.jsonl", prompts(train=5, validation=2))
    return {
        "model": [str(models["first"]), str(models["second"])], "data": str(data), "output": str(folder / "out"),
        "device": "cpu", "batch_size": 3, "samples_per_prompt": 2, "max_response_length": 8,
    } | settings  # fmt: skip


def run(values: dict[str, Any], **changes: Any) -> Path:
    folder = Path(values["output"])
    folder.mkdir(exist_ok=True)
    sample(Session("sample", build(SampleConfig, values | changes), folder))
    return folder


def rows_of(folder: Path, name: str = "responses.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def said(folder: Path) -> dict[tuple[str, str, int], list[int]]:
    """What every model answered, by model, prompt and number of the sample."""
    return {(row["model"], row["split_group"], row["sample"]): row["token_ids"] for row in rows_of(folder)}


@pytest.fixture(scope="module")
def straight(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption, streamed and scored."""
    folder = tmp_path_factory.mktemp("straight")
    return run(values_of(models, folder, reward_model=str(models["reward"]), stream=True))


def test_every_model_answers_every_prompt_as_often_as_asked(straight: Path) -> None:
    rows = rows_of(straight)
    assert len(rows) == len(said(straight)) == 2 * 7 * 2
    assert {(row["model_index"], row["model"]) for row in rows} == {(0, "first"), (1, "second")}
    first = rows[0]
    assert first["prompt"] == [{"role": "user", "content": "sun 0"}]
    assert (first["split"], first["split_group"], first["temperature"], first["seed"]) == ("train", "prompt 0", 1.0, 0)
    for row in rows:
        assert row["tokens"] == len(row["token_ids"]) <= 8 and isinstance(row["score"], float)
        assert row["ended"] or row["tokens"] == 8
    assert [row["step"] for row in metrics_of(straight)] == [1, 2, 3, 4, 5, 6]


def test_the_report_describes_each_model_and_compares_them_by_score(straight: Path) -> None:
    report, rows = report_of(straight), rows_of(straight)
    assert report["counts"] == {"read": 7, "used": 7, "dropped": {}, "responses": 28}
    for index, model in enumerate(report["models"]):
        own = [row for row in rows if row["model_index"] == index]
        assert model["length_mean"]["value"] == pytest.approx(sum(row["tokens"] for row in own) / 14)
        assert model["score"]["value"] == pytest.approx(sum(row["score"] for row in own) / 14)
        assert model["score"]["low"] < model["score"]["value"] < model["score"]["high"]
    first, second = report["models"]
    pairs = [
        (mine["score"] > theirs["score"]) + 0.5 * (mine["score"] == theirs["score"])
        for mine in rows if mine["model_index"] for theirs in rows
        if not theirs["model_index"] and mine["prompt_index"] == theirs["prompt_index"]
    ]  # fmt: skip
    assert "win_rate" not in first and second["win_rate"]["value"] == pytest.approx(sum(pairs) / len(pairs))
    assert "second" in (straight / "report.html").read_text()


def test_the_pieces_of_a_stream_are_the_decoded_responses(straight: Path) -> None:
    """A random byte model: most of what it writes are parts of characters."""
    tokenizer, told = byte_tokenizer(), dict[tuple[int, int, int], str]()
    positions: dict[tuple[int, int, int], list[int]] = {}
    for row in rows_of(straight, "tokens.jsonl"):
        key = (row["model_index"], row["prompt"], row["sample"])
        told[key] = told.get(key, "") + row["text"]
        positions.setdefault(key, []).append(row["position"])
    for row in rows_of(straight):
        key = (row["model_index"], row["prompt_index"], row["sample"])
        assert told.get(key, "") == tokenizer.decode(row["token_ids"], skip_special_tokens=True)
        assert positions.get(key, []) == sorted(set(positions.get(key, [])))
    assert len(told) > 20 and max(map(len, positions.values())) > 3


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 2, "micro_batch_tokens": 60}, {"samples_per_prompt": 1}, {"max_prompts": 3}, {"model": "second"}],
)
def test_nothing_but_seed_prompt_and_sample_decides_what_a_model_says(
    models: dict[str, Path], tmp_path: Path, straight: Path, changes: dict[str, Any]
) -> None:
    if "model" in changes:
        changes = {"model": [str(models["second"])]}
    found, everything = said(run(values_of(models, tmp_path, **changes))), said(straight)
    assert found and all(everything[key] == tokens for key, tokens in found.items())
    assert said(run(values_of(models, tmp_path, output=str(tmp_path / "other"), seed=1))) != everything


# --- killed, stopped, resumed -----------------------------------------------------------------------------------------


def die_at(point: str, arguments: list[str], stderr: str) -> None:
    """Run the recipe in this process, which kills itself at ``point`` of step 4."""
    original_write, original_append = runfolder.MetricsFile.write, runfolder.StepFile.append
    original_sample = responding.sample_together
    calls = {"rows": 0, "samples": 0}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(self: runfolder.MetricsFile, step: int, values: Any) -> None:
        die() if step == 4 else original_write(self, step, values)

    def append(self: runfolder.StepFile, step: int, values: Any) -> None:
        calls["rows"] += step == 4 and "token_ids" in values
        if calls["rows"] == 3:
            self._file.write('{"step": 4, "model_index": 1, "pro')
            self._file.flush()
            die()
        original_append(self, step, values)

    def sample_together(*inputs: Any, **named: Any) -> Any:
        calls["samples"] += 1
        found = original_sample(*inputs, **named)
        return die() if calls["samples"] == 4 else found

    match point:
        case "between responses and metrics":
            runfolder.MetricsFile.write = write  # type: ignore[method-assign]
        case "in the middle of a line":
            runfolder.StepFile.append = append  # type: ignore[method-assign]
        case "behind the last token":
            responding.sample_together = sample_together
    run_as_main(arguments, {}, stderr, "sample")


def assert_same_run(folder: Path, expected: Path) -> None:
    for name in ("responses.jsonl", "tokens.jsonl", "report.json"):
        assert (folder / name).read_text() == (expected / name).read_text(), name
    rows = [[row["step"] for row in metrics_of(each)] for each in (folder, expected)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("point", ["between responses and metrics", "in the middle of a line", "behind the last token"])
def test_killed_anywhere_it_goes_on_behind_the_last_whole_step(
    point: str, models: dict[str, Path], tmp_path: Path, straight: Path, fork_server: ForkServerContext
) -> None:
    values = values_of(models, tmp_path, reward_model=str(models["reward"]), stream=True)
    process = fork_server.Process(target=die_at, args=(point, flags_from(values), str(tmp_path / "stderr.txt")))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = Path(values["output"])
    assert not (folder / "exit.json").exists() and not (folder / "report.json").exists()
    run(values, resume=True)
    attempts = json.loads((folder / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, 3]
    assert [row["attempt"] for row in metrics_of(folder)] == [1, 1, 1, 2, 2, 2]
    assert_same_run(folder, straight)


def test_a_request_to_stop_while_tokens_come_drops_the_step(
    models: dict[str, Path], tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = values_of(models, tmp_path, reward_model=str(models["reward"]), stream=True)
    original = responding.TokenStream.heard

    with monkeypatch.context() as patch:
        session = Session("sample", build(SampleConfig, values), Path(values["output"]))
        session.folder.mkdir()

        def heard(self: Any, position: int, *told: Any) -> None:
            if session.step == 1 and position == 2:
                session.stop.reason = "stopped by SIGTERM"
            original(self, position, *told)

        patch.setattr(responding.TokenStream, "heard", heard)
        with pytest.raises(StopRequested, match="SIGTERM in step 2, dropped"):
            sample(session)
    assert any(row["step"] == 2 for row in rows_of(session.folder, "tokens.jsonl"))
    assert_same_run(run(values, resume=True), straight)


def test_as_a_process_it_keeps_the_contract(models: dict[str, Path], tmp_path: Path, run_recipe: RunRecipe) -> None:
    values = values_of(models, tmp_path, model=[str(models["first"])], max_prompts=2)
    folder = Path(values["output"])
    assert run_recipe(recipe="sample", **values) == 0
    assert json.loads((folder / "exit.json").read_text())["code"] == 0
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert run_recipe(recipe="sample", **values, resume=True) == 0
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert run_recipe(recipe="sample", **values) == 2
    assert run_recipe(recipe="sample", **values | {"temperature": 0.5}, resume=True) == 2
    assert "--temperature was 1.0, is 0.5" in (tmp_path / "stderr.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "test"}, "no prompt to answer in test: 7 lines, dropped 5 train_split, 2 validation_split"),
        ({"max_prompt_length": 3}, "dropped 7 too_long"),
        ({"model": "reward"}, "is a reward model"),
        ({"reward_model": "first"}, "--reward-model: .*is no reward model"),
        ({"reward_model": "/absent"}, "--reward-model: there is no folder /absent"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    models: dict[str, Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    named = {"first": str(models["first"]), "reward": str(models["reward"] / "model")}
    changes = {key: named.get(value, value) for key, value in changes.items()}
    if "model" in changes:
        changes["model"] = [changes["model"]]
    with pytest.raises(UsageError, match=words):
        run(values_of(models, tmp_path, **changes))


def test_one_to_four_models_are_asked(models: dict[str, Path], tmp_path: Path) -> None:
    for count in (0, 5):
        with pytest.raises(ValueError, match="must be given 1 to 4 times"):
            run(values_of(models, tmp_path, model=["m"] * count))
