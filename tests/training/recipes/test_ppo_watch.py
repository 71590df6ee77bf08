"""What watches a policy: the judge from the other half of the rankings, the alarm, samples, and the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, records
from training.recipes.configs import SftConfig, build
from training.recipes.launch import Session

TrainPolicy = Callable[..., Path]
Train = Callable[..., Path]


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """Rankings, whose prompts are answered."""
    return records(train=48, validation=10, seed=3)


@pytest.fixture
def half_reward(train: Train, lines: list[dict[str, Any]]) -> Path:
    """The run of a reward model from the first half of the rankings."""
    return train(lines, max_steps=12, half="first", learning_rate=3e-3)


def test_the_judge_learns_from_the_other_half_and_is_never_trained_against(
    train_policy: TrainPolicy, half_reward: Path, lines: list[dict[str, Any]]
) -> None:
    folder = train_policy(
        lines=lines, reward_model=str(half_reward), reward=[], max_steps=2, evaluate_every=1, learning_rate=1e-3
    )
    judge = json_of(folder / "judge" / "run.json")["config"]
    trained = json_of(half_reward / "run.json")["config"]
    assert (judge["half"], judge["learning_rate"], judge["max_steps"]) == ("second", 3e-3, 12)
    assert judge["seed"] != trained["seed"]
    counts = [report_of(run)["counts"] for run in (half_reward, folder / "judge")]
    assert [found["train"]["prompts"] for found in counts] == [48 - found["dropped"]["other_half"] for found in counts]
    assert sum(found["train"]["prompts"] for found in counts) == 48
    report = report_of(folder)
    assert (report["judge"]["source"], report["judge"]["disjoint"]) == ("made", True)
    assert report["judge"]["accuracy"]["value"] == report_of(folder / "judge")["validation"]["accuracy"]["value"]
    assert [row["validation/judge"] for row in metrics_of(folder)] == [
        pytest.approx(point["judge"]) for point in report["curve"][1:]
    ]
    assert report["win_rate"]["prompts"] == 10
    assert "ppo/reward/judge" not in metrics_of(folder)[0]


def test_a_reward_model_of_all_rankings_leaves_no_judge_apart(
    train_policy: TrainPolicy, train: Train, lines: list[dict[str, Any]]
) -> None:
    reward = train(lines, max_steps=1)
    folder = train_policy(lines=lines, reward_model=str(reward), reward=[], max_steps=1)
    assert report_of(folder)["judge"]["disjoint"] is False
    assert any("may share the mistakes" in warning for warning in report_of(folder)["warnings"])


def test_no_judge_is_trained_where_none_is_wanted(train_policy: TrainPolicy, lines: list[dict[str, Any]]) -> None:
    folder = train_policy(lines=lines, no_judge=True, max_steps=1)
    assert not (folder / "judge").exists()
    assert report_of(folder)["judge"]["source"] == "--no-judge was given"
    assert any("--no-judge was given" in warning for warning in report_of(folder)["warnings"])


def test_before_and_after_are_the_same_prompts_and_draws(train_policy: TrainPolicy) -> None:
    """A policy that does not move answers as it did before: nothing changes, and nothing is told apart."""
    folder = train_policy(max_steps=1, learning_rate=1e-30)
    report = report_of(folder)
    for name, value in report["before"].items():
        if isinstance(value, float):
            assert report["after"][name] == pytest.approx(value, abs=1e-5), name
    assert report["change"]["score"]["value"] == 0
    assert report["curve"][0]["score"] == report["curve"][1]["score"] == report["before"]["score"]
    assert report["blind_pairs"]["written"] == 0
    assert (folder / "blind_pairs.jsonl").read_text() == ""


def test_samples_stand_beside_what_was_answered_before(train_policy: TrainPolicy) -> None:
    folder = train_policy(max_steps=4, sample_every=2)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0] * 4 + [2] * 4 + [4] * 4
    assert all(row["before"] == rows[place % 4]["before"] for place, row in enumerate(rows))
    assert all(row["response"] == row["before"] for row in rows[:4])
    assert any(row["response"] != row["before"] for row in rows[8:])
    assert {"prompt", "before", "before_score", "response", "score", "thinking", "ended"} < rows[0].keys()
    assert all([*row["rewards"].values()] == [row["score"]] for row in rows)  # one source of weight 1


@pytest.fixture(scope="module")
def terse_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught to answer in one or two letters."""
    from tests.training.snapshots import write_jsonl
    from training.recipes.sft import train_sft

    folder = tmp_path_factory.mktemp("terse")
    taught = [
        {"type": "demonstration", "prompt": line["prompt"], "response": "ab"[: 1 + number % 2], "split": line["split"],
         "split_group": line["split_group"]}
        for number, line in enumerate(prompts(train=24, validation=4))
    ]  # fmt: skip
    values = {
        "model": str(tiny_model), "data": str(write_jsonl(folder / "sft.jsonl", taught)), "device": "cpu",
        "output": str(folder / "out"), "learning_rate": 1e-2, "max_steps": 30, "sample_prompts": 0,
    }  # fmt: skip
    (folder / "out").mkdir()
    train_sft(Session("sft", build(SftConfig, values), folder / "out"))
    return folder / "out" / "model"


def test_a_reward_for_length_alone_raises_the_alarm_and_the_best_checkpoint_stays(
    train_policy: TrainPolicy, terse_model: Path
) -> None:
    folder = train_policy(
        model=str(terse_model), reward=["python:tests.training.toy_rewards.length"], max_steps=8, evaluate_every=1,
        checkpoint_every=4, kl_coefficient=0.0, max_response_length=16, inner_epochs=2, learning_rate=3e-3,
    )  # fmt: skip
    report = report_of(folder)
    assert report["curve"][0]["length"] < 5
    assert report["curve"][-1]["length"] > 1.5 * report["curve"][0]["length"]
    assert report["suspect"] is not None
    assert "tokens on average" in " ".join(report["suspect"]["reasons"])
    assert 0 < report["kept_step"] < report["suspect"]["step"]
    kept = load_file(folder / "checkpoints" / f"step-{report['kept_step']}" / "weights.safetensors")
    published = load_file(folder / "model" / "model.safetensors")
    for name in published:
        assert torch.equal(published[name], kept[f"policy.{name}"]), name
