"""SFT and DPO by two real processes, each with the whole model or with half of it: the run of one, to rounding."""

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

COMMON = {"device": "cpu", "batch_size": 5, "learning_rate": 1e-3, "max_steps": 2, "micro_batch_tokens": 150}
RUNS: dict[str, dict[str, object]] = {
    "sft": {"sample_prompts": 3, "max_response_length": 5, "lora_rank": 2},
    "dpo": {"loss": "plackett-luce"},
}


def train_all(world: World, model: Path, data: Path, folder: Path) -> dict[str, str]:
    """What each run says that it did; sharded ones besides where there are processes to spread a model over."""
    runs = dict(RUNS)
    if world.size > 1:
        runs |= {f"{name}-shard": {**RUNS[name], "shard": True} for name in RUNS}
    done = {}
    for name, settings in runs.items():
        output = folder / name
        output.mkdir(parents=True, exist_ok=True)
        values = {**COMMON, **settings, "model": str(model), "data": str(data), "output": str(output)}
        if name.startswith("sft"):
            done[name] = train_sft(Session("sft", build(SftConfig, values), output, world=world))
        else:
            done[name] = train_dpo(Session("dpo", build(DpoConfig, values), output, world=world))
    return done


def assert_same_run(found: Path, expected: Path) -> None:
    """Figures, report and samples."""
    for row, other in zip(metrics_of(found), metrics_of(expected), strict=True):
        assert_close(comparable(row), comparable(other), found.name)
    assert_close(report_of(found), report_of(expected), found.name)
    if (expected / "samples.jsonl").exists():
        assert (found / "samples.jsonl").read_text() == (expected / "samples.jsonl").read_text()


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
    assert told == [alone | {f"{name}-shard": alone[name] for name in RUNS}] * 2
    for name in told[0]:
        run = tmp_path / "two" / name
        assert_same_run(run, tmp_path / "one" / name.removesuffix("-shard"))
        assert json.loads((run / "run.json").read_text())["attempts"][0]["world_size"] == 2
