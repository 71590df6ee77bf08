"""Recipes in this process, on records made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import prompts, write_jsonl
from training.recipes.configs import PpoConfig, RewardConfig, build
from training.recipes.launch import Session
from training.recipes.ppo import train_ppo
from training.recipes.ppo_rollout import Rollout, make_rollout
from training.recipes.ppo_setup import Prepared, check_inputs, prepare
from training.recipes.reward import train_reward


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train on these records, in a new folder or in ``folder``; the run's folder."""
    count = iter(range(100))

    def run(lines: list[dict[str, Any]], folder: Path | None = None, **settings: object) -> Path:
        number = next(count)
        folder = folder or tmp_path / f"run{number}"
        folder.mkdir(exist_ok=True)
        data = write_jsonl(tmp_path / f"data{number}.jsonl", lines)
        values = {"model": str(tiny_model), "data": str(data), "output": str(folder), "device": "cpu", "batch_size": 4}
        train_reward(Session("reward", build(RewardConfig, values | settings), folder))
        return folder

    return run


@pytest.fixture
def train_policy(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run PPO on bare prompts (or ``lines``), in a new folder or in ``folder``; the run's folder."""
    count = iter(range(100))

    def run(folder: Path | None = None, lines: list[dict[str, Any]] | None = None, **settings: object) -> Path:
        number = next(count)
        folder = folder or tmp_path / f"policy{number}"
        folder.mkdir(exist_ok=True)
        data = write_jsonl(tmp_path / f"prompts{number}.jsonl", lines or prompts())
        values = {
            "model": str(tiny_model), "data": str(data), "output": str(folder), "device": "cpu", "batch_size": 8,
            "max_response_length": 8, "learning_rate": 1e-2, "reward": ["python:tests.training.toy_rewards.lowercase"],
            "missing_eos_penalty": 0.0,
        }  # fmt: skip
        train_ppo(Session("ppo", build(PpoConfig, values | settings), folder))
        return folder

    return run


@pytest.fixture
def begin(tiny_model: Path, tmp_path: Path) -> Callable[..., tuple[Session[PpoConfig], Prepared, Rollout]]:
    """A run of PPO just begun, with its first rollout."""

    def start(**settings: object) -> tuple[Session[PpoConfig], Prepared, Rollout]:
        data = write_jsonl(tmp_path / "prompts.jsonl", prompts())
        values = {
            "model": str(tiny_model), "data": str(data), "output": str(tmp_path / "out"), "device": "cpu",
            "batch_size": 8, "max_response_length": 8, "reward": ["python:tests.training.toy_rewards.lowercase"],
        }  # fmt: skip
        session = Session("ppo", build(PpoConfig, values | settings), tmp_path / "out")
        prepared = prepare(session, check_inputs(session))
        rollout = make_rollout(session, prepared.models, prepared.data.train, prepared.course.batch(1), 1)
        return session, prepared, rollout

    return start
