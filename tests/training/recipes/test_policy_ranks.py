"""SFT and DPO by two real processes: the same run as by one, to rounding."""

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.training.ranks import run_ranks
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import records, write_jsonl
from training.core.distributed import World
from training.recipes.configs import DpoConfig, SftConfig, build
from training.recipes.dpo import train_dpo
from training.recipes.launch import Session
from training.recipes.sft import train_sft

COMMON = {"device": "cpu", "batch_size": 5, "learning_rate": 1e-3, "max_steps": 3, "micro_batch_tokens": 150}
RUNS: dict[str, dict[str, object]] = {
    "sft": {"sample_prompts": 3, "max_response_length": 5},
    "dpo": {"loss": "plackett-luce"},
    "sft-lora": {"sample_prompts": 1, "max_response_length": 5, "lora_rank": 2},
}


def train_all(world: World, model: Path, data: Path, folder: Path) -> dict[str, str]:
    """What each run says that it did."""
    done = {}
    for name, settings in RUNS.items():
        kind = name.split("-")[0]
        output = folder / name
        output.mkdir(parents=True, exist_ok=True)
        values = {**COMMON, **settings, "model": str(model), "data": str(data), "output": str(output)}
        if kind == "sft":
            done[name] = train_sft(Session(kind, build(SftConfig, values), output, world=world))
        else:
            done[name] = train_dpo(Session(kind, build(DpoConfig, values), output, world=world))
    return done


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the metrics without times; before DPO's first step all margins are zero, and rounding alone says which
    are right."""
    left_out = {"train/accuracy"} if row["step"] == 1 else set()
    return {name: value for name, value in row.items() if not name.startswith("time/") and name not in left_out}


def assert_close(found: Any, expected: Any, where: str) -> None:
    """Equal but for rounding, number by number."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_close(found[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), where
    elif isinstance(expected, list):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, f"{where}/{number}")
    else:
        assert found == expected, where


def test_two_processes_train_as_one(tiny_model: Path, tmp_path: Path, fork_server: ForkServerContext) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", records(train=15, validation=5))
    alone = train_all(World(), tiny_model, data, tmp_path / "one")
    told = run_ranks(fork_server, train_all, tiny_model, data, tmp_path / "two")
    assert told == [alone, alone]
    for name in RUNS:
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        for row, expected in zip(metrics_of(two), metrics_of(one), strict=True):
            assert_close(comparable(row), comparable(expected), name)
        assert_close(report_of(two), report_of(one), name)
        assert json.loads((two / "run.json").read_text())["attempts"][0]["world_size"] == 2
        if name != "dpo":
            samples = [(folder / "samples.jsonl").read_text() for folder in (one, two)]
            assert samples[0] == samples[1]
