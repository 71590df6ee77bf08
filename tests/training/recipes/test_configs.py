"""A recipe's settings: declared once, read alike from flags, forms and JSON, wrong values named field by field."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.recipes.configs import (
    CommonConfig,
    ConfigError,
    RewardConfig,
    build,
    describe,
    differences,
    to_arguments,
    to_values,
)
from training.recipes.flags import parse_flags

ROOT = Path(__file__).resolve().parents[3]
PATHS = {"model": "m", "data": "d", "output": "o"}

# DESIGN, contracts: flags that every recipe has, with the defaults that stand there.
CONTRACT = {
    "seed": 0, "epochs": 1, "max_steps": None, "stop_after": None, "batch_size": 8, "warmup": 0.05, "weight_decay": 0,
    "schedule": "cosine", "max_grad_norm": 1.0, "lora_rank": 0, "dtype": "auto", "device": "auto", "thinking": "hide",
    "checkpoint_every": 10, "keep_checkpoints": 2, "log_every": 1, "evaluate_every": None,
    "evaluate_split": "validation", "resume": False, "loss": "pairwise", "ties": "skip", "unranked": "ignore",
    "strength": "ignore", "ensemble": 1,
}  # fmt: skip


def parse(*arguments: str) -> RewardConfig:
    return parse_flags(RewardConfig, list(arguments), program="reward", summary="")


def errors_of(**values: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        build(RewardConfig, PATHS | values)
    return error.value.errors


def test_the_flags_of_the_contract_have_its_defaults() -> None:
    config = to_values(parse("--model=m", "--data", "d", "--output", "o"))
    assert {name: config[name] for name in CONTRACT} == CONTRACT
    assert {"micro_batch_tokens", "learning_rate", "max_length"} <= config.keys()


def test_a_config_survives_its_own_flags() -> None:
    config = build(
        RewardConfig,
        {"model": "-odd name", "data": "d=1", "output": "o", "learning_rate": 3e-7, "resume": True, "max_steps": 5},
    )
    assert parse(*to_arguments(config)) == config
    assert build(RewardConfig, to_values(config)) == config


def test_texts_from_a_form_are_read_as_their_kind() -> None:
    config = build(RewardConfig, PATHS | {"epochs": "3", "learning_rate": "1e-4", "resume": "on", "max_steps": ""})
    assert (config.epochs, config.learning_rate, config.resume, config.max_steps) == (3, 1e-4, True, None)
    assert isinstance(build(RewardConfig, PATHS | {"learning_rate": 1}).learning_rate, float)


def test_every_wrong_field_is_named_at_once() -> None:
    errors = errors_of(
        batch_size=0, learning_rate="nan", warmup=1.5, ties="elo", epochs=1.5, seed=True, resume="maybe", lr=1,
        max_grad_norm=0, max_steps=10**400, model="",
    )  # fmt: skip
    assert errors == {
        "lr": "is not a setting of this recipe",
        "model": "must be a non-empty text",
        "batch_size": "must be at least 1, not 0",
        "learning_rate": "must be a finite number, not 'nan'",
        "warmup": "must be at most 1, not 1.5",
        "ties": "must be one of skip, soft, rao-kupper, davidson, not 'elo'",
        "epochs": "must be a whole number, not 1.5",
        "seed": "must be a whole number, not True",
        "resume": "must be true or false",
        "max_grad_norm": "must be more than 0, not 0",
        "max_steps": errors["max_steps"],
    }
    assert errors["max_steps"].startswith("must be a whole number")


def test_missing_paths_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        build(RewardConfig, {})
    assert error.value.errors == dict.fromkeys(("model", "data", "output"), "is required")


@pytest.mark.parametrize("arguments", [["--unknown=1"], ["--seed"], ["stray"], ["--see=1"]])
def test_unknown_and_half_flags_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse("--model=m", "--data=d", "--output=o", *arguments)


def test_every_field_is_explained_with_unit_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    descriptions = describe(RewardConfig)
    assert len(descriptions) == len(dataclasses.fields(RewardConfig)) > 20
    for description in descriptions:
        assert description.help in text, description.name
        assert description.flag in text
    assert "(in tokens, default: 2048)" in text
    assert "elo" not in text.split()


def test_a_form_can_be_drawn_from_the_descriptions() -> None:
    fields = {description.name: description for description in describe(RewardConfig)}
    assert [name for name, field in fields.items() if field.required] == ["data", "output", "model"]
    assert (fields["schedule"].kind, fields["schedule"].choices) == ("choice", ("cosine", "linear", "constant"))
    assert (fields["max_steps"].kind, fields["max_steps"].optional, fields["max_steps"].minimum) == ("integer", True, 1)
    assert (fields["learning_rate"].kind, fields["learning_rate"].above) == ("number", 0)
    assert (fields["resume"].kind, fields["resume"].default) == ("boolean", False)


def test_only_what_changes_results_stands_in_the_way_of_a_resume() -> None:
    config = build(RewardConfig, PATHS)
    harmless = {
        "data": "x",
        "output": "x",
        "stop_after": 3,
        "micro_batch_tokens": 1,
        "checkpoint_every": 3,
        "log_every": 9,
    }
    assert differences(config, to_values(config) | harmless) == []
    changed = to_values(config) | {"seed": 5, "schedule": "linear"}
    assert differences(config, changed) == ["--seed was 5, is 0", "--schedule was linear, is cosine"]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(RewardConfig, PATHS).seed = 1  # type: ignore[misc]


def test_the_web_process_learns_the_settings_without_torch() -> None:
    script = (
        "import sys; from training.recipes.configs import RECIPES, describe; assert describe(RECIPES['reward']);"
        "print([n for n in sys.modules if n.split('.')[0] in ('torch', 'transformers', 'numpy', 'django')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({}, ["passive", "10000"]),
        ({"GOMP_SPINCOUNT": "7"}, ["passive", "7"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active", None]),
        ({"OMP_WAIT_POLICY": "passive"}, ["passive", None]),
    ],
)
def test_how_threads_wait_is_settled_before_torch_and_the_environment_has_its_way(
    told: dict[str, str], found: list[str | None]
) -> None:
    script = (
        "import json, os, sys, training.recipes; assert 'torch' not in sys.modules;"
        "print(json.dumps([os.environ.get(n) for n in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')]))"
    )
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=others | told, stdout=subprocess.PIPE, check=True
    ).stdout
    assert json.loads(output) == found


def test_each_recipe_says_what_it_is() -> None:
    assert issubclass(RewardConfig, CommonConfig)
    assert RewardConfig.__doc__
