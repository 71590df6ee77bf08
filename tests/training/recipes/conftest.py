"""The reward recipe in this process, on records made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import write_jsonl
from training.recipes.configs import RewardConfig, build
from training.recipes.launch import Session
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
