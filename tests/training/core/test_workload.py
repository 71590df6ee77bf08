"""What the web says of a run before it is queued is what the recipe prints at its start."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.snapshots import prompts, records, write_jsonl
from training.core.local_models import make_tiny_model
from training.core.memory import kept_values
from training.core.model_sizes import SizeUnknown, gated_decoder, read_model_size, size_of
from training.core.text_counts import SplitTexts, count_texts, tokens_of
from training.core.workload import Need, Task, need_of
from training.recipes.configs import RECIPES, build, to_values
from training.recipes.dpo import train_dpo
from training.recipes.launch import Session
from training.recipes.ppo import train_ppo
from training.recipes.reward import train_reward
from training.recipes.sft import train_sft

TRAIN: dict[str, Callable[[Session[Any]], str]] = {
    "reward": train_reward, "sft": train_sft, "dpo": train_dpo, "ppo": train_ppo,
}  # fmt: skip
# Between 2048 tokens at once and all of one row nothing is left to guess.
COMMON = {"device": "cpu", "batch_size": 4, "max_steps": 1, "micro_batch_tokens": 40_000}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "reward": ("reward", {}),
    "reward with LoRA": ("reward", {"lora_rank": 3}),
    "checkpointed": ("reward", {"gradient_checkpointing": True}),
    "sft": ("sft", {"sample_prompts": 0}),
    "dpo with LoRA": ("dpo", {"lora_rank": 2}),
    "ppo": ("ppo", {"reward": ["format"], "max_response_length": 4, "evaluation_prompts": 1}),
    "grpo with LoRA": (
        "ppo",
        {"reward": ["format"], "max_response_length": 4, "evaluation_prompts": 1, "advantage": "grpo",
         "samples_per_prompt": 2, "lora_rank": 2},
    ),
}  # fmt: skip


def need(kind: str, model: Path, data: Path, settings: dict[str, object]) -> Need:
    values = {"model": str(model), "data": str(data), "output": "-"} | settings
    config = to_values(build(RECIPES[kind], values))
    with data.open() as lines:
        texts = count_texts(lines, bytewise=True)
    return need_of(Task(kind, config, read_model_size(model), texts))


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_prints_what_was_said_before(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, more = CASES[name]
    data = write_jsonl(tmp_path / "data.jsonl", prompts(6, 2) if kind == "ppo" else records(train=6, validation=2))
    settings = COMMON | more
    told = need(kind, tiny_model, data, settings)
    folder = tmp_path / "out"
    folder.mkdir()
    values = {"model": str(tiny_model), "data": str(data), "output": str(folder)} | settings
    TRAIN[kind](Session(kind, build(RECIPES[kind], values), folder))
    said = capsys.readouterr().err
    gib = float(re.search(r"([\d.]+) GiB at the peak", said)[1])  # type: ignore[index]
    assert gib == pytest.approx(told.peak_bytes / 2**30, abs=0.051)
    assert gib >= 0.2  # else every wrong figure would do
    assert f"{told.steps} steps of" in said


def test_the_size_is_read_without_loading(tiny_model: Path, tmp_path: Path) -> None:
    size = read_model_size(tiny_model)
    config = json.loads((tiny_model / "config.json").read_text())
    made = size_of(config, gated_decoder(config))
    assert made == size or sorted(made.linear) == sorted(size.linear)
    assert (made.parameters, made.largest, made.shape) == (size.parameters, size.largest, size.shape)
    assert size.vocabulary == 259 and size.context == 4096
    assert kept_values(size.shape) == 6 * 64 + 5 * 64 + 4 * 128
    untied = size_of(config | {"tie_word_embeddings": False}, gated_decoder(config) | {"lm_head.weight": (259, 64)})
    assert (untied.head, untied.trunk) == (259 * 64, size.trunk)


@pytest.mark.parametrize("content", [None, b"\xff" * 16, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_a_folder_that_does_not_say_its_size(content: bytes | None, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    with pytest.raises(SizeUnknown, match="safetensors"):
        read_model_size(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(SizeUnknown):
        read_model_size(folder)


def line(**fields: Any) -> str:
    return json.dumps({"split": "train", "prompt": [{"role": "user", "content": "a" * 40}]} | fields)


def test_texts_are_counted_as_the_recipes_read_them() -> None:
    responses = [{"id": "r1", "text": "b" * 20}, {"id": "r2", "text": "c" * 80}]
    ranking = {"responses": responses, "ranking": [["r2"], ["r1"]]}
    lines = [
        line(**ranking), line(**ranking), "no record", line(**ranking, counted=False),
        line(type="demonstration", response={"text": "d" * 8}, prompt=[{"role": "user", "content": "e" * 4}]),
        line(type="prompt", split="validation"),
    ]  # fmt: skip
    found = count_texts(lines, bytewise=False)
    train = found["train"]
    # 40 letters are 10 tokens; with its own and the answer's frame the prompt is 20. Responses: 5 + 5 and 20 + 5.
    assert (train.ranked.rows, train.ranked.tokens, train.ranked.longest) == (1, 20 + 10 + 25, 45)
    assert (train.answers.rows, train.answers.tokens) == (2, 20 + 25 + (1 + 10) + (2 + 5))
    assert (train.prompts.rows, found["validation"].prompts.rows) == (2, 1)
    assert (train.times(3).ranked.rows, train.times(3).ranked.longest) == (3, 45)


def test_tokens_by_the_rule() -> None:
    assert tokens_of("abcdefgh", bytewise=False) == 2
    assert tokens_of("天气", bytewise=False) == 2
    assert tokens_of("天气", bytewise=True) == 6


def test_more_of_anything_needs_more(tiny_model: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", records(train=20, validation=4))
    plain = need("reward", tiny_model, data, {})
    assert plain.steps == 3 and plain.tokens > 0 and plain.rest_bytes < plain.peak_bytes
    assert need("reward", tiny_model, data, {"epochs": 2}).operations > 1.5 * plain.operations
    assert need("reward", tiny_model, data, {"lora_rank": 1}).operations < plain.operations
    assert need("reward", tiny_model, data, {"gradient_checkpointing": True}).peak_bytes < plain.peak_bytes
    assert need("reward", tiny_model, data, {"ensemble": 3}).steps == 9
    reward = {"reward": ["format"]}
    assert need("ppo", tiny_model, data, reward).rest_bytes > 2 * plain.rest_bytes
    assert need("ppo", tiny_model, data, reward | {"advantage": "rloo", "samples_per_prompt": 2}).rest_bytes < (
        need("ppo", tiny_model, data, reward).rest_bytes
    )


def test_nothing_to_train_from_takes_no_step(tiny_model: Path) -> None:
    config = to_values(build(RECIPES["sft"], {"model": "-", "data": "-", "output": "-"}))
    told = need_of(Task("sft", config, read_model_size(tiny_model), {"train": SplitTexts()}))
    assert (told.steps, told.tokens) == (0, 0)
