"""PPO by two real processes: the run of one, to rounding, and both end together where one of them cannot go on."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.ranks import run_ranks
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, records, write_jsonl
from training.core.distributed import World
from training.core.errors import TrainingError
from training.recipes import ppo_learn
from training.recipes.configs import PpoConfig, build
from training.recipes.launch import Session
from training.recipes.ppo import PpoRun, train_ppo

BROKEN = "python:tests.training.toy_rewards.fails_in_second_process"
# By name, what a run has that the plain one has not.
SAME: dict[str, dict[str, Any]] = {
    "gae": {},
    "grpo": {"advantage": "grpo", "samples_per_prompt": 3, "lora_rank": 4},
    "shard": {"shard": True},
    "judge": {"reward": [], "evaluate_every": 1},
}
COMMON: dict[str, Any] = {
    "device": "cpu", "batch_size": 8, "max_response_length": 8, "learning_rate": 1e-2, "missing_eos_penalty": 0.5,
    "reward": ["python:tests.training.toy_rewards.lowercase"], "max_steps": 1, "evaluate_every": 1, "inner_epochs": 2,
    "minibatches": 2, "kl_target": 0.5, "kl_horizon": 100, "normalise_reward": True, "entropy_coefficient": 0.01,
}  # fmt: skip


def train(world: World, folder: Path, values: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    session = Session("ppo", build(PpoConfig, values | {"output": str(folder)}), folder)
    session.world = world
    train_ppo(session)


@contextmanager
def nothing_finite(world: World) -> Iterator[None]:
    """In the second process alone, the policy's loss is no number."""
    whole = ppo_learn.policy_loss
    if world.rank == 1:
        ppo_learn.policy_loss = lambda *args, **named: replace(  # type: ignore[assignment]
            (found := whole(*args, **named)), per_token=found.per_token * math.nan
        )
    try:
        yield
    finally:
        ppo_learn.policy_loss = whole


@contextmanager
def noted_weights() -> Iterator[list[str]]:
    """Fingerprints of all that is trained, before and after each step."""
    found: list[str] = []
    whole = PpoRun.take_step

    def note(run: PpoRun) -> None:
        digest = hashlib.sha256()
        for value in run.models.parameters.values():
            digest.update(value.detach().numpy().tobytes())
        found.append(digest.hexdigest())

    def take_step(run: PpoRun, step: int) -> Any:
        note(run)
        result = whole(run, step)
        note(run)
        return result

    PpoRun.take_step = take_step  # type: ignore[method-assign]
    try:
        yield found
    finally:
        PpoRun.take_step = whole  # type: ignore[method-assign]


def train_all(world: World, output: Path, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All cases one after the other, then those that only two processes have; what went wrong, or the weights."""
    for name, values in cases.items():
        train(world, output / name, values)
    if world.size == 1:
        return {}
    found: dict[str, Any] = {}
    try:
        train(world, output / "failing", cases["gae"] | {"reward": [BROKEN]})
    except TrainingError as error:
        found["failing"] = str(error)
    with nothing_finite(world), noted_weights() as weights:
        train(world, output / "not finite", cases["gae"])
    return found | {"weights": weights}


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServerContext) -> Path:
    """Runs by one process under ``one``, by two under ``two``; what the two told in ``told.json``."""
    folder = tmp_path_factory.mktemp("ranks")
    data = write_jsonl(folder / "prompts.jsonl", prompts())
    ranked = write_jsonl(folder / "ranked.jsonl", records(train=48, validation=10, seed=3))
    cases = {name: COMMON | {"model": str(tiny_model), "data": str(data)} | more for name, more in SAME.items()}
    reward = folder / "reward"
    make_reward(tiny_model, ranked, reward)
    cases["judge"] |= {"data": str(ranked), "reward_model": str(reward)}
    train_all(World(), folder / "one", {name: values | {"shard": False} for name, values in cases.items()})
    told = run_ranks(fork_server, train_all, folder / "two", cases)
    assert all(isinstance(each, dict) for each in told), told
    (folder / "told.json").write_text(json.dumps(told))
    return folder


def make_reward(model: Path, data: Path, folder: Path) -> None:
    """A reward model from the first half of the rankings."""
    from training.recipes.configs import RewardConfig
    from training.recipes.reward import train_reward

    folder.mkdir()
    values = {"model": str(model), "data": str(data), "output": str(folder), "device": "cpu", "batch_size": 4,
              "max_steps": 6, "half": "first", "learning_rate": 3e-3}  # fmt: skip
    train_reward(Session("reward", build(RewardConfig, values), folder))


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without times and attempts."""
    return [
        {name: value for name, value in row.items() if name != "attempt" and not name.startswith("time/")}
        for row in rows
    ]


@pytest.mark.parametrize("name", SAME)
def test_two_processes_are_one(name: str, folder: Path) -> None:
    assert_alike(folder, name, metrics_of)


def assert_alike(folder: Path, name: str, read: Callable[[Path], list[dict[str, Any]]]) -> None:
    found, expected = (figures(read(folder / side / name)) for side in ("two", "one"))
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for figure, value in other.items():
            assert row[figure] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)), figure


def test_two_processes_make_one_judge(folder: Path) -> None:
    assert_alike(folder, "judge/judge", metrics_of)
    judge = report_of(folder / "two" / "judge")["judge"]
    assert (judge["source"], judge["disjoint"]) == ("made", True)
    assert metrics_of(folder / "two" / "judge")[-1]["validation/judge"] is not None


def test_a_reward_that_fails_in_one_process_ends_both(folder: Path) -> None:
    told = json.loads((folder / "told.json").read_text())
    assert "no words for this" in told[1]["failing"]
    assert told[0]["failing"]
    assert not (folder / "two" / "failing" / "model").exists()


def test_gradients_that_are_not_finite_in_one_process_change_nothing_in_either(folder: Path) -> None:
    before, after = zip(*(each["weights"] for each in json.loads((folder / "told.json").read_text())), strict=True)
    assert len({*before, *after}) == 1
    (row,) = metrics_of(folder / "two" / "not finite")
    assert row["train/skipped_steps"] == 4
    assert torch.isfinite(torch.tensor(row["ppo/score_mean"]))
