"""PPO stopped anywhere: killed, asked to stop or out of memory, it is the same run."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import flags_from, run_as_main
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, write_jsonl
from training.core import checkpoints, runfolder
from training.core.errors import StopRequested
from training.core.language import LanguageModel
from training.recipes import ppo_learn, ppo_rollout, ppo_watch
from training.recipes.configs import PpoConfig, build
from training.recipes.launch import Session
from training.recipes.ppo import train_ppo

TrainPolicy = Callable[..., Path]

# All that has a state: adaptive weight, running scale, minibatches, ptx, a value model, evaluations and their alarm.
STATEFUL: dict[str, Any] = {
    "max_steps": 6, "checkpoint_every": 2, "evaluate_every": 2, "sample_every": 2, "inner_epochs": 2,
    "minibatches": 2, "kl_target": 0.5, "kl_horizon": 100, "normalise_reward": True, "entropy_coefficient": 0.01,
}  # fmt: skip


def results_of(folder: Path) -> list[dict[str, Any]]:
    """What training computed, step by step, without times and attempts."""
    return [
        {name: value for name, value in row.items() if name != "attempt" and not name.startswith("time/")}
        for row in metrics_of(folder)
    ]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "step-6" / "weights.safetensors")


def assert_same_run(folder: Path, expected: Path) -> None:
    """Tensor-equal weights, equal figures and samples, every step exactly once."""
    assert results_of(folder) == results_of(expected)
    first, second = weights_of(folder), weights_of(expected)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (folder / "samples.jsonl").read_text() == (expected / "samples.jsonl").read_text()
    assert report_of(folder) == report_of(expected)


def ptx_file(folder: Path) -> Path:
    lines = [
        {"type": "demonstration", "split": "train", "response": f"answer {number}",
         "prompt": [{"role": "user", "content": f"ask {number}"}]}
        for number in range(12)
    ]  # fmt: skip
    return write_jsonl(folder / "ptx.jsonl", lines)


def values_of(tiny_model: Path, folder: Path) -> dict[str, Any]:
    """The settings of a run that has every kind of state."""
    return STATEFUL | {
        "model": str(tiny_model), "data": str(write_jsonl(folder / "prompts.jsonl", prompts())), "device": "cpu",
        "output": str(folder / "out"), "batch_size": 8, "max_response_length": 8, "learning_rate": 1e-2,
        "reward": ["python:tests.training.toy_rewards.lowercase"], "missing_eos_penalty": 0.5,
        "ptx_data": str(ptx_file(folder)), "ptx_coefficient": 0.1,
    }  # fmt: skip


def run(values: dict[str, Any], **changes: Any) -> Path:
    folder = Path(values["output"])
    folder.mkdir(exist_ok=True)
    train_ppo(Session("ppo", build(PpoConfig, values | changes), folder))
    return folder


@pytest.fixture(scope="module")
def straight_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run without interruption."""
    return run(values_of(tiny_model, tmp_path_factory.mktemp("straight")))


def test_every_row_has_the_figures_of_the_contract_and_validation_where_it_stood(straight_run: Path) -> None:
    names = {
        "train/loss", "train/learning_rate", "train/grad_norm", "train/skipped_steps", "train/value_loss",
        "train/ptx_loss", "ppo/score_mean", "ppo/reward_mean", "ppo/reward/python-lowercase", "ppo/kl", "ppo/kl_k3",
        "ppo/kl_coefficient", "ppo/entropy", "ppo/clip_fraction", "ppo/value_clip_fraction", "ppo/ratio_max",
        "ppo/inner_kl", "ppo/explained_variance", "ppo/length_mean", "ppo/eos_rate", "ppo/sampler_gap_mean",
        "ppo/sampler_gap_max", "time/sample_seconds", "time/score_seconds", "time/forward_seconds",
        "time/learn_seconds", "time/step_seconds",
    }  # fmt: skip
    rows = metrics_of(straight_run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert all(isinstance(row[name], float | int) for name in names)
        assert ("validation/score" in row) == (row["step"] % 2 == 0)


# --- killed at named points -------------------------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str, arguments: list[str], stderr: str) -> None:
    """Run the recipe in this process, which kills itself at ``point`` of step 4 or 5."""
    original_json, original_row = checkpoints.write_json, runfolder.MetricsFile.write
    original_score, original_save = ppo_rollout.score_together, checkpoints.save_checkpoint
    original_step = ppo_learn.Minibatch._step
    calls = {"score": 0, "update": 0}

    def write_json(path: Path, value: Any) -> None:
        if path.name == checkpoints.MANIFEST and value["step"] == 4:
            _die()
        original_json(path, value)

    def write(self: runfolder.MetricsFile, step: int, values: Any) -> None:
        if step == 5:
            _die()
        original_row(self, step, values)

    def save(*inputs: Any, **named: Any) -> Any:
        return _die() if named["step"] == 4 else original_save(*inputs, **named)

    def score(session: Any, sources: Any, sampled: Any) -> Any:
        calls["score"] += len(sampled.examples) == 8 and session.step == 4
        return _die() if calls["score"] == 1 else original_score(session, sources, sampled)

    def update(self: ppo_learn.Minibatch, parameters: Any) -> float:
        calls["update"] += self.session.step == 4
        if calls["update"] == 4:  # the policy of the second minibatch is updated, its value model is not
            _die()
        return original_step(self, parameters)

    match point:
        case "half-written checkpoint":
            checkpoints.write_json = write_json
        case "between checkpoint and the next row":
            runfolder.MetricsFile.write = write  # type: ignore[method-assign]
        case "between row and checkpoint":
            checkpoints.save_checkpoint = save
        case "mid-rollout":
            ppo_rollout.score_together = score
        case "between two updates":
            ppo_learn.Minibatch._step = update  # type: ignore[method-assign]
    run_as_main(arguments, {}, stderr, "ppo")


@pytest.mark.parametrize(
    ("point", "from_step"),
    [
        ("half-written checkpoint", 2),
        ("between row and checkpoint", 2),
        ("between checkpoint and the next row", 4),
        ("mid-rollout", 4),
        ("between two updates", 4),
    ],
)
def test_killed_anywhere_it_goes_on_from_its_last_checkpoint_to_the_same_end(
    point: str, from_step: int, tiny_model: Path, tmp_path: Path, straight_run: Path, fork_server: ForkServerContext
) -> None:
    values = values_of(tiny_model, tmp_path)
    process = fork_server.Process(target=die_at, args=(point, flags_from(values), str(tmp_path / "stderr.txt")))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "out"
    assert not (folder / "model").exists() and not (folder / "exit.json").exists()
    run(values, resume=True)
    attempts = json.loads((folder / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, from_step]
    assert [row["attempt"] for row in metrics_of(folder)] == [1] * from_step + [2] * (6 - from_step)
    assert_same_run(folder, straight_run)


# --- asked to stop, and less memory than thought ----------------------------------------------------------------------


def test_a_request_to_stop_in_a_rollout_drops_it_and_saves_the_step_before(
    tiny_model: Path, tmp_path: Path, straight_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = values_of(tiny_model, tmp_path) | {"checkpoint_every": 100, "evaluate_every": 6}
    original = ppo_rollout.sample_responses

    def sample(session: Any, *inputs: Any, **named: Any) -> Any:
        if named["purpose"] == ppo_rollout.ROLLOUT and named["step"] == 4:
            session.stop.reason = "stopped by SIGTERM"
        return original(session, *inputs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ppo_rollout, "sample_responses", sample)
        with pytest.raises(StopRequested, match="SIGTERM after step 3"):
            run(values)
    folder = tmp_path / "out"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-3"]
    assert len(metrics_of(folder)) == 3
    run(values, resume=True)
    dropped = ("validation/", "alarm")
    for row, expected in zip(results_of(folder), results_of(straight_run), strict=True):
        assert {k: v for k, v in row.items() if not k.startswith(dropped)} == {
            k: v for k, v in expected.items() if not k.startswith(dropped)
        }


def test_stopped_before_the_first_checkpoint_in_a_table_and_in_an_evaluation_it_is_the_same_run(
    tiny_model: Path, tmp_path: Path, straight_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of figures or samples is there twice, and none is missing."""
    values = values_of(tiny_model, tmp_path)
    original = ppo_rollout.sample_responses
    # What is sampled when the request comes: the first rollout, the table of step 4, the evaluation behind it.
    for purpose, occasion in (("rollout", 1), ("table", 4), ("evaluation", 1)):
        calls = {"left": occasion}

        def sample(session: Any, *inputs: Any, purpose_then: str = purpose, left: Any = calls, **named: Any) -> Any:
            left["left"] -= named["purpose"] == purpose_then
            if not left["left"]:
                session.stop.reason = "stopped by SIGTERM"
            return original(session, *inputs, **named)

        with monkeypatch.context() as patch:
            patch.setattr(ppo_rollout, "sample_responses", sample)
            patch.setattr(ppo_watch, "sample_responses", sample)
            with pytest.raises(StopRequested, match="SIGTERM"):
                run(values, resume=True)
    folder = run(values, resume=True)
    attempts = json.loads((folder / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, 0, 2, 2]
    assert_same_run(folder, straight_run)


def test_out_of_memory_halves_and_changes_no_result(train_policy: TrainPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"max_steps": 3, "inner_epochs": 2, "evaluate_every": 3, "checkpoint_every": 1}
    expected = results_of(train_policy(**settings))
    original = LanguageModel.hidden
    widths: list[int] = []

    def hidden(self: LanguageModel, rows: Any) -> torch.Tensor:
        widths.append(rows.input_ids.numel())
        if rows.input_ids.numel() > 120:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, rows)

    monkeypatch.setattr(LanguageModel, "hidden", hidden)
    folder = train_policy(**settings, stop_after=2)
    assert max(widths) > 120
    left = json.loads((folder / "checkpoints" / "step-2" / "state.json").read_text())["budgets"]
    assert left["rows"] <= 128
    widths.clear()
    train_policy(folder, **settings, resume=True)
    assert max(widths) <= 128, "a resume remembers how much memory there is"
    for row, before in zip(results_of(folder), expected, strict=True):
        for name in ("train/loss", "train/grad_norm", "ppo/kl", "ppo/score_mean"):
            assert row[name] == pytest.approx(before[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("changes", [{"micro_batch_tokens": 40}, {"gradient_checkpointing": True}])
def test_micro_batches_change_memory_only(train_policy: TrainPolicy, changes: dict[str, Any]) -> None:
    settings = {"max_steps": 1, "samples_per_prompt": 2, "inner_epochs": 1}
    first = [results_of(train_policy(**settings, **extra))[0] for extra in ({}, changes)]
    for name in ("train/loss", "train/grad_norm", "train/value_loss", "ppo/reward_mean", "ppo/entropy"):
        assert first[1][name] == pytest.approx(first[0][name], rel=1e-5, abs=1e-7), name
