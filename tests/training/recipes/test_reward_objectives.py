"""What the reward recipe learns under each loss, and its ensembles, early stopping, score scale and lack of memory."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import record, records
from training.core.modeling import RewardModel

Train = Callable[..., Path]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def tied(number: int, split: str = "train") -> dict[str, Any]:
    return record(number, split=split, k=2, ranking=[["r0", "r1"]])


@pytest.mark.parametrize(
    "settings",
    [
        {"ties": "rao-kupper"},
        {"ties": "davidson", "unranked": "below"},
        {"ties": "rao-kupper", "strength": "ordinal"},
        {"strength": "margin", "centring": 0.01},
        {"loss": "plackett-luce", "unranked": "below"},
        {"loss": "plackett-luce", "ties": "davidson"},
        {"loss": "plackett-luce", "ties": "soft"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_every_loss_learns_and_writes_what_it_learned(train: Train, settings: dict[str, Any]) -> None:
    lines = [*records(train=12, validation=6), *(tied(number) for number in range(40, 44)), tied(44, "validation")]
    for line in lines[:12]:
        line["strengths"] = [2 for _ in line["ranking"][1:]]
    folder = train(lines, epochs=6, learning_rate=1e-3, evaluate_every=100, **settings)
    rows, report = metrics_of(folder), report_of(folder)
    losses = [row["train/loss"] for row in rows]
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])
    assert report["validation"]["accuracy"]["value"] > 0.75
    aware = settings.get("ties") in ("rao-kupper", "davidson")
    assert (report["validation"]["outcomes"] is not None) == aware
    config = AutoConfig.from_pretrained(folder / "model")
    assert config.plackett_thresholds == report["thresholds"]
    assert bool(report["thresholds"]) == (aware or settings.get("strength") == "ordinal")
    for name in report["thresholds"]:
        first, last = rows[0][f"train/threshold/{name}"], rows[-1][f"train/threshold/{name}"]
        assert math.isfinite(last)
        assert first != last or name not in ("eta", "nu", "eta_1", "delta_2")
    counted = report["counts"]["train"]["rankings"]
    assert counted == (16 if settings.get("ties", "skip") != "skip" else 12)


def test_the_saved_scores_have_variance_one_and_their_mean_stands_in_the_config(train: Train) -> None:
    folder = train(records(train=6, validation=2), max_steps=4, learning_rate=1e-3)
    report = report_of(folder)
    config = AutoConfig.from_pretrained(folder / "model")
    raw = train(records(train=6, validation=2), max_steps=4, stop_after=4, learning_rate=1e-3, checkpoint_every=4)
    trained = load_file(raw / "checkpoints" / "step-4" / "weights.safetensors")["score.weight"]
    saved = weights_of(folder / "model")["score.weight"]
    scale = report["score_scale"]
    assert torch.allclose(saved * scale["std"], trained, rtol=1e-6)
    assert config.plackett_score_scale == scale["std"]
    assert config.plackett_score_mean == pytest.approx(scale["mean"] / scale["std"])


def test_an_ensemble_is_whole_folders_with_other_seeds_and_the_first_is_the_model(train: Train) -> None:
    lines = records(train=8, validation=4)
    folder = train(lines, ensemble=3, max_steps=3, learning_rate=1e-3)
    alone = train(lines, max_steps=3, learning_rate=1e-3)
    members = [weights_of(folder / "ensemble" / str(number)) for number in range(3)]
    for name, value in weights_of(alone / "model").items():
        assert torch.equal(members[0][name], value)
        assert torch.equal(weights_of(folder / "model")[name], value)
    assert not torch.equal(members[1]["score.weight"], members[2]["score.weight"])
    rows = metrics_of(folder)
    assert [(row["step"], row["train/member"]) for row in rows] == [(n + 1, n // 3) for n in range(9)]
    assert [row["train/learning_rate"] for row in rows[3:6]] == [row["train/learning_rate"] for row in rows[:3]]
    report = report_of(folder)
    together = report["validation"].pop("ensemble")
    assert together["members"] == 3
    assert together["accuracy"]["pairs"] == report["validation"]["accuracy"]["pairs"]
    assert together["spread"]["mean"] > 0
    assert "the ensemble's mean" in (folder / "report.html").read_text().replace("&#x27;", "'")
    single = report_of(alone)
    assert (report.pop("steps"), single.pop("steps")) == (9, 3)
    assert report == single


@pytest.mark.parametrize("stop_after", [2, 3, 4, 6])
def test_an_ensemble_goes_on_where_it_was(train: Train, stop_after: int) -> None:
    """Stopped within a member, right behind one, and behind the last step of all but the report."""
    lines, settings = records(train=8, validation=4), {"ensemble": 2, "max_steps": 3, "checkpoint_every": 1}
    straight = train(lines, **settings)
    folder = train(lines, **settings, stop_after=stop_after)
    if stop_after < 6:
        assert not (folder / "model").exists()
        train(lines, folder, **settings, resume=True)
    for place in ("model", "ensemble/0", "ensemble/1"):
        found, expected = weights_of(folder / place), weights_of(straight / place)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [row["step"] for row in metrics_of(folder)] == [1, 2, 3, 4, 5, 6]
    assert report_of(folder) == report_of(straight)


def test_early_stopping_ends_and_keeps_the_best_weights(train: Train) -> None:
    """Validation rankings are those of training turned round: every step makes them worse."""
    lines = records(train=8, validation=0)
    turned = [line | {"id": f"v{n}", "task": f"v{n}", "split": "validation", "ranking": line["ranking"][::-1]}
              for n, line in enumerate(lines)]  # fmt: skip
    settings = {"epochs": 20, "evaluate_every": 1, "learning_rate": 1e-3, "warmup": 0, "schedule": "constant"}
    folder = train([*lines, *turned], early_stopping=3, **settings)
    losses = [row["validation/loss"] for row in metrics_of(folder)]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) == best + 4
    assert report_of(folder).get("kept_step", len(losses)) == best + 1
    # One ranking a prompt, each pair the same share of it: the mean over pairs differs from that over prompts alone.
    assert report_of(folder)["validation"]["log_loss"] == pytest.approx(losses[best], rel=0.2)
    until = train([*lines, *turned], stop_after=best + 1, checkpoint_every=best + 1, **settings)
    kept = load_file(until / "checkpoints" / f"step-{best + 1}" / "weights.safetensors")
    assert torch.allclose(weights_of(folder / "model")["model.norm.weight"], kept["model.norm.weight"])


def test_early_stopping_resumed_is_the_same_run(train: Train) -> None:
    lines = records(train=8, validation=4)
    settings = {"max_steps": 6, "evaluate_every": 1, "early_stopping": 2, "learning_rate": 1e-2, "checkpoint_every": 2}
    straight = train(lines, **settings)
    folder = train(lines, **settings, stop_after=2)
    train(lines, folder, **settings, resume=True)
    found, expected = weights_of(folder / "model"), weights_of(straight / "model")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert report_of(folder) == report_of(straight)


def test_out_of_memory_halves_the_micro_batches_and_changes_no_figure(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = records(train=8, validation=2)
    expected = metrics_of(train(lines, max_steps=3))
    original = RewardModel.score
    widths: list[int] = []

    def score(self: RewardModel, rows: Any) -> torch.Tensor:
        widths.append(rows.input_ids.numel())
        if rows.input_ids.numel() > 300:  # in training and in scoring
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, rows)

    monkeypatch.setattr(RewardModel, "score", score)
    folder = train(lines, max_steps=3, stop_after=2)
    assert max(widths) > 300
    left = json.loads((folder / "checkpoints" / "step-2" / "state.json").read_text())["budgets"]["rows"]
    assert left < 2048
    widths.clear()
    train(lines, folder, max_steps=3, resume=True)
    assert max(widths[: len(widths) // 2]) <= 300, "a resume remembers how much memory there is"
    for row, before in zip(metrics_of(folder), expected, strict=True):
        for name in ("train/loss", "train/grad_norm", "train/accuracy"):
            assert row[name] == pytest.approx(before[name], rel=1e-4), name
