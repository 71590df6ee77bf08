"""Asked to stop while a validation is due: a short one is still made, a long one is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import records, write_jsonl
from training.core import process
from training.core.errors import StopRequested
from training.recipes.configs import DpoConfig, RewardConfig, SftConfig, build
from training.recipes.dpo import train_dpo
from training.recipes.launch import Session
from training.recipes.loop import TrainingLoop
from training.recipes.reward import train_reward
from training.recipes.sft import train_sft

RECIPES: dict[str, tuple[type, Callable[..., str]]] = {
    "reward": (RewardConfig, train_reward),
    "sft": (SftConfig, train_sft),
    "dpo": (DpoConfig, train_dpo),
}


@pytest.mark.parametrize("short", [True, False], ids=["short", "long"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_request_to_stop(
    recipe: str, short: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_class, train = RECIPES[recipe]
    data = write_jsonl(tmp_path / "data.jsonl", records())
    values = {"model": str(tiny_model), "data": str(data), "output": str(tmp_path / "run"), "device": "cpu",
              "batch_size": 4, "max_steps": 4, "evaluate_every": 2}  # fmt: skip
    session: Session[Any] = Session(recipe, build(config_class, values), tmp_path / "run")
    session.folder.mkdir()
    validate = TrainingLoop._validate

    def asked_to_stop_first(loop: TrainingLoop[Any], row: dict[str, Any]) -> None:
        session.stop.close()  # not to end this process when the grace is over
        session.stop._request("stopped by SIGTERM")
        validate(loop, row)

    monkeypatch.setattr(TrainingLoop, "_validate", asked_to_stop_first)
    monkeypatch.setattr(process, "SHORT_SECONDS", 60.0 if short else 0.0)
    with pytest.raises(StopRequested, match="after step 2"):
        train(session)
    rows = [json.loads(line) for line in (session.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert ("validation/loss" in rows[1]) == short
