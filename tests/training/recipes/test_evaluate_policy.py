"""A policy beside another: the figures of the report, and what the run leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import prompts, records, write_jsonl
from training.core.errors import StopRequested, UsageError
from training.core.local_models import make_tiny_model
from training.recipes import responding
from training.recipes.configs import EvaluatePolicyConfig, RewardConfig, build
from training.recipes.evaluate_policy import evaluate_policy
from training.recipes.launch import Session
from training.recipes.reward import train_reward

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The flags of a run: two policies that differ, and reward models of two halves."""
    folder = tmp_path_factory.mktemp("compared")
    data = write_jsonl(folder / "rankings.jsonl", records(train=8, validation=2))
    policies = [str(make_tiny_model(folder / name, seed)) for seed, name in enumerate(("baseline", "policy"))]
    for half in ("first", "second"):
        flags = {
            "model": policies[0], "data": str(data), "output": str(folder / half), "device": "cpu", "half": half,
            "seed": len(half),
        }  # fmt: skip
        (folder / half).mkdir()
        train_reward(Session("reward", build(RewardConfig, flags), folder / half))
    asked = write_jsonl(folder / "prompts.jsonl", prompts(train=2, validation=6))
    return {
        "model": policies[1], "baseline": policies[0], "judge": str(folder / "second"), "data": str(asked),
        "reward_model": str(folder / "first"), "device": "cpu", "batch_size": 4, "max_response_length": 8,
    }  # fmt: skip


@pytest.fixture
def run(values: dict[str, Any], tmp_path: Path) -> Run:
    """Evaluate in this process; the folder that it wrote."""

    def evaluate(folder: str = "out", **changes: object) -> Path:
        output = tmp_path / folder
        output.mkdir(exist_ok=True)
        config = build(EvaluatePolicyConfig, values | {"output": str(output)} | changes)
        evaluate_policy(Session("evaluate_policy", config, output))
        return output

    return evaluate


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


def test_the_figures_are_those_of_the_responses(run: Run) -> None:
    folder = run()
    report, rows = report_of(folder), rows_of(folder)
    assert [row["step"] for row in metrics_of(folder)] == [1, 2, 3, 4]
    assert report["counts"]["used"] == 6 and report["split"] == "validation"
    by = {(row["model_index"], row["prompt_index"], row["sample"]): row for row in rows}
    assert len(by) == 6 * 5 + 6
    wins = [
        (by[1, number, 0]["judge"] > by[0, number, 0]["judge"])
        + 0.5 * (by[1, number, 0]["judge"] == by[0, number, 0]["judge"])
        for number in range(6)
    ]
    assert report["win_rate"]["value"] == pytest.approx(sum(wins) / 6)
    gaps = [by[1, number, 0]["score"] - by[0, number, 0]["score"] for number in range(6)]
    assert report["change"]["score"]["value"] == pytest.approx(sum(gaps) / 6)
    best = []
    for number in range(6):
        chosen = max((by[0, number, sample] for sample in range(1, 5)), key=lambda row: row["score"])
        first = by[0, number, 0]["judge"]
        best.append((chosen["judge"] > first) + 0.5 * (chosen["judge"] == first))
    assert report["best_of_4"]["value"] == pytest.approx(sum(best) / 6)
    assert report["before"]["kl"] is None and report["chosen_by"] == "reward model"
    pairs = [json.loads(line) for line in (folder / "blind_pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == report["blind_pairs"]["written"] and "policy" not in json.dumps(pairs)
    assert "wins against the baseline" in (folder / "report.html").read_text()


def test_a_policy_beside_itself_wins_half_the_time(run: Run, values: dict[str, Any]) -> None:
    """The same draws: the two say the same, word for word."""
    report = report_of(run(model=values["baseline"], reward_model=None))
    assert report["win_rate"]["value"] == 0.5 and report["change"]["judge"]["value"] == 0.0
    assert report["blind_pairs"] == {"written": 0, "dropped": {"equal answers": 6}}
    assert report["after"]["score"] is None and "score" not in report["change"]


def test_stopped_and_resumed_it_says_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, original = run(), responding.sample_together

    def sample(session: Any, *inputs: Any, **named: Any) -> Any:
        if session.step == 2:
            session.stop.reason = "stopped by SIGTERM"
        return original(session, *inputs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(responding, "sample_together", sample)
        with pytest.raises(StopRequested, match="in step 3, dropped"):
            run("again")
    folder = run("again", resume=True)
    assert rows_of(folder) == rows_of(straight) and report_of(folder) == report_of(straight)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "test"}, "no prompt to answer in test"),
        ({"judge": "baseline"}, "--judge: .*is no reward model"),
        ({"reward_model": "judge"}, "would judge its own choice"),
        ({"baseline": "judge"}, "is a reward model"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Run, values: dict[str, Any], changes: dict[str, str], words: str
) -> None:
    named = {key: values.get(value, value) for key, value in changes.items()}
    if "baseline" in changes:
        named["baseline"] = values["judge"] + "/model"
    with pytest.raises(UsageError, match=words):
        run(**named)
