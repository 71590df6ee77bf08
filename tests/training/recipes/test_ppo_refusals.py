"""What PPO refuses, what ends it, and how that is told: exit codes, ``exit.json`` and one line on stderr."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import flags_from
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, record, records, write_jsonl
from training.core.errors import StopRequested, TrainingError, UsageError
from training.core.process import StopWatch
from training.recipes import reward
from training.recipes.configs import PpoConfig
from training.recipes.launch import launch
from training.recipes.ppo import train_ppo

TrainPolicy = Callable[..., Path]

# --- by the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``python -m training.recipes.ppo`` in this process, whose signals it leaves alone; the exit code."""
    monkeypatch.setattr(StopWatch, "install", lambda self: None)
    data = write_jsonl(tmp_path / "prompts.jsonl", prompts(train=8, validation=2))

    def run(**changes: object) -> int:
        flags = {
            "model": tiny_model, "data": data, "output": tmp_path / "out", "device": "cpu", "batch_size": 4,
            "max_response_length": 4, "max_steps": 1, "reward": "python:tests.training.toy_rewards.lowercase",
        }  # fmt: skip
        return launch("ppo", PpoConfig, train_ppo, flags_from(flags | changes))

    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": None}, "--reward-model is required, or a --reward"),
        ({"reward": "guess"}, "--reward guess: 'guess' is none of"),
        ({"reward": "python:tests.training.toy_rewards.absent"}, "has no function absent"),
        ({"data": "/absent.jsonl"}, "/absent.jsonl"),
        ({"reward_model": "/absent"}, "/absent"),
        ({"value_model": "/absent"}, "/absent"),
        ({"judge": "/absent", "no_judge": True}, "--no-judge and --judge cannot both be given"),
        ({"judge": "/absent"}, "--judge: there is no folder /absent"),
        ({"ptx_data": "/absent.jsonl", "ptx_coefficient": 1.0}, "/absent.jsonl"),
        ({"evaluate_split": "test"}, "has no prompt in its test split, which --evaluate-split asks for"),
        ({"advantage": "grpo"}, "must be at least 2 with --advantage grpo"),
        ({"advantage": "grpo", "samples_per_prompt": 2, "kl_estimator": "k1"}, "k1 is no loss"),
    ],
)
def test_what_cannot_be_done_is_exit_two_in_one_line_and_can_be_mended_in_the_same_folder(
    command: Callable[..., int], changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(**changes) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    told = json.loads((tmp_path / "out" / "exit.json").read_text())
    assert (told["code"], told["step"]) == (2, None) and words in told["reason"]
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"exit.json", ".lock"}


def test_a_reward_model_is_not_its_own_judge(train_policy: TrainPolicy, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="a judge is never trained against"):
        train_policy(max_steps=1, reward=[f"model:{tiny_model}*2"], judge=str(tiny_model))


def test_a_reward_that_cannot_be_had_is_exit_three_and_names_reward_and_line(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(reward="python:tests.training.toy_rewards.unspeakable", evaluate_every=1) == 3
    assert "reward python-unspeakable, one of the prompt lines" in capsys.readouterr().err.strip().splitlines()[-1]
    assert json.loads((tmp_path / "out" / "exit.json").read_text())["code"] == 3
    assert not (tmp_path / "out" / "model").exists()


# --- the judge that is made on the way --------------------------------------------------------------------------------


def test_stopped_while_its_judge_is_trained_it_goes_on_with_that_judge(
    train_policy: TrainPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = records(train=20, validation=3)
    settings = {"lines": lines, "max_steps": 1, "evaluate_every": 1, "inner_epochs": 1}
    original = reward.MemberRun.take_step

    def stop_then(self: Any, step: int) -> Any:
        self.session.stop.reason = "stopped by SIGTERM"
        return original(self, step)

    folder = tmp_path / "policy"
    with monkeypatch.context() as patch:
        patch.setattr(reward.MemberRun, "take_step", stop_then)
        with pytest.raises(StopRequested, match="SIGTERM after step 1 of the judge"):
            train_policy(folder, **settings)
    assert metrics_of(folder) == []
    train_policy(folder, **settings, resume=True)
    attempts = json.loads((folder / "judge" / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, 1]
    assert report_of(folder) == report_of(train_policy(**settings))


# --- by what the run meets --------------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_ends_the_run(train_policy: TrainPolicy) -> None:
    with pytest.raises(TrainingError, match=r"python-broken, prompt line \d+: the score nan"):
        train_policy(max_steps=3, reward=["python:tests.training.toy_rewards.broken"], evaluate_every=3)


def test_a_resume_with_another_reward_model_is_refused(
    train_policy: TrainPolicy, train: Callable[..., Path], tmp_path: Path
) -> None:
    reward = train([record(number, split="train") for number in range(4)], max_steps=1)
    folder = train_policy(max_steps=3, stop_after=1, reward=[f"model:{reward}"], evaluate_every=3)
    config = reward / "model" / "config.json"
    config.write_text(config.read_text().replace('"plackett_score_mean"', '"plackett_score_mean_"'))
    with pytest.raises(UsageError, match=f"what --reward model:{reward} names has changed"):
        train_policy(folder, max_steps=3, reward=[f"model:{reward}"], evaluate_every=3, resume=True)
    shutil.rmtree(reward)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": ["numeric", "tests"]}, "needs --allow-code-execution"),
        ({"max_prompt_length": 3}, "no prompt to train on"),
        ({"reward": ["tests"], "allow_code_execution": True}, "prompt line 1"),
    ],
)
def test_what_cannot_be_rewarded_is_refused_at_the_start(
    train_policy: TrainPolicy, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train_policy(max_steps=1, **changes)
