"""The SFT recipe in this process: what it writes, that it learns, and that stopping and splitting change nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import record, records, write_jsonl
from training.core.errors import TrainingError, UsageError
from training.recipes.configs import SftConfig, build
from training.recipes.launch import Session
from training.recipes.sft import train_sft

Train = Callable[..., Path]

LINES = [
    *records(train=10, validation=5, test=2),
    *(
        {
            "type": "demonstration",
            "prompt": f"say {number}",
            "response": "yes!!!",
            "split": "train",
            "split_group": "say",
        }
        for number in range(4)
    ),
    record(99, split="train", all_bad=True),
]


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Train:
    """Train in a new folder, or go on in ``folder``; the run's folder."""
    count = iter(range(100))

    def run(lines: list[dict[str, Any]] = LINES, folder: Path | None = None, **settings: object) -> Path:
        folder = folder or tmp_path / f"run{next(count)}"
        folder.mkdir(exist_ok=True)
        values: dict[str, object] = {
            "model": str(tiny_model), "data": str(write_jsonl(tmp_path / "data.jsonl", lines)), "output": str(folder),
            "device": "cpu", "batch_size": 4, "learning_rate": 3e-3, "epochs": 3, "checkpoint_every": 2,
            "sample_prompts": 2, "max_response_length": 6,
        }  # fmt: skip
        train_sft(Session("sft", build(SftConfig, values | settings), folder))
        return folder

    return run


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def figures_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the metrics without times and attempts."""
    return [
        {name: value for name, value in row.items() if not name.startswith("time/") and name != "attempt"}
        for row in metrics_of(folder)
    ]


def test_a_run_learns_and_leaves_the_files_of_the_contract(train: Train) -> None:
    out = train(evaluate_split="test")
    report = report_of(out)
    assert (report["kind"], report["steps"]) == ("sft", 12)
    counts = report["counts"]
    assert counts["read"] == len(LINES) == counts["used"] + sum(counts["dropped"].values())
    assert (counts["dropped"], counts["sources"]) == ({"all_bad": 1}, {"demonstration": 4, "ranking": 17})
    assert counts["validation"]["documents"] == report["validation"]["perplexity"]["documents"] == 5
    before, after = report["before"]["perplexity"]["value"], report["validation"]["perplexity"]
    assert after["low"] <= after["value"] <= after["high"] < before / 2
    assert report["validation"]["change"]["high"] < 0
    assert report["test"]["perplexity"]["documents"] == 2
    rows = metrics_of(out)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert rows[-1]["validation/loss"] == pytest.approx(report["validation"]["loss"])
    assert rows[-1]["validation/perplexity"] == pytest.approx(after["value"])
    assert [row["step"] for row in rows if "validation/loss" in row] == [4, 8, 12]
    assert (out / "report.html").exists()
    assert "sft" in (out / "model" / "README.md").read_text()


def test_the_saved_model_gives_the_loss_of_the_report(train: Train) -> None:
    """By plain transformers, the template and −100: the last tokens of each held-out text."""
    out = train(max_steps=3)
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    total, count = 0.0, 0
    for line in LINES:
        if line["split"] != "validation":
            continue
        best = next(each["text"] for each in line["responses"] if each["id"] == line["ranking"][0][0])
        ids = tokenizer.apply_chat_template(line["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        learned = tokenizer(best)["input_ids"] + [tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(ids) + learned])
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([ids + learned]), labels=labels).loss) * len(learned)
        count += len(learned)
    found = report_of(out)["validation"]
    assert found["perplexity"]["tokens"] == count
    assert found["loss"] == pytest.approx(total / count, abs=1e-5)
    assert model.config.pad_token_id == tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_samples_stand_before_and_after(train: Train) -> None:
    rows = samples_of(train())
    assert [row["step"] for row in rows] == [0, 0, 12, 12]
    assert [row["prompt"] for row in rows[:2]] == [row["prompt"] for row in rows[2:]]
    held_out = {line["prompt"][0]["content"] for line in LINES if line.get("split") == "validation"}
    assert {row["prompt"][-1]["content"] for row in rows} < held_out
    assert all(set(row) == {"step", "prompt", "response", "ended", "reference"} for row in rows)
    assert rows[0]["response"] != rows[2]["response"]


def test_an_adapter_and_the_merged_model_say_the_same(train: Train, tiny_model: Path) -> None:
    out = train(lora_rank=4, learning_rate=1e-2)
    merged = AutoModelForCausalLM.from_pretrained(out / "model")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, out / "adapter")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, atol=1e-5, rtol=0)
        with adapted.disable_adapter():
            assert not torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-2)
    report = report_of(out)
    assert report["validation"]["loss"] < report["before"]["loss"]


def test_stopped_and_resumed_it_is_the_same_run(train: Train) -> None:
    """Tensor-equal weights, equal figures, samples and report."""
    straight = train()
    out = train(stop_after=5)
    assert not (out / "model").exists()
    train(folder=out, stop_after=7, resume=True)
    train(folder=out, resume=True)
    assert figures_of(out) == figures_of(straight)
    assert samples_of(out) == samples_of(straight)
    assert report_of(out) == report_of(straight)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (out, straight))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert [each["from_step"] for each in json.loads((out / "run.json").read_text())["attempts"]] == [0, 5, 7]
    # Ended between its last samples and the saved model.
    (out / "report.json").unlink()
    train(folder=out, resume=True)
    assert (samples_of(out), report_of(out)) == (samples_of(straight), report_of(straight))


def test_what_was_measured_at_the_start_must_be_there_to_go_on(train: Train) -> None:
    out = train(stop_after=2)
    path = out / "start" / "measured.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(TrainingError, match=r"measured\.safetensors.* gone or damaged"):
        train(folder=out, resume=True)


def test_what_changes_memory_changes_nothing_but_rounding(train: Train) -> None:
    expected = figures_of(train(max_steps=2, micro_batch_tokens=4096))
    frugal: tuple[dict[str, object], ...] = ({"micro_batch_tokens": 64}, {"gradient_checkpointing": True})
    for settings in frugal:
        for first, second in zip(figures_of(train(max_steps=2, **settings)), expected, strict=True):
            assert first["train/loss"] == pytest.approx(second["train/loss"], abs=1e-5)
            assert first["train/grad_norm"] == pytest.approx(second["train/grad_norm"], rel=1e-4)


def test_without_held_out_text_it_says_so(train: Train) -> None:
    report = report_of(train(records(train=4, validation=0), max_steps=1))
    assert report["validation"]["perplexity"]["value"] is None
    assert "There is no held-out text: perplexity is unknown." in report["warnings"]


def test_a_file_without_answers_is_refused(train: Train) -> None:
    lines = [record(1, split="train", all_bad=True), record(2, split="validation")]
    with pytest.raises(UsageError, match="no answer to learn from: 2 lines, dropped 1 all_bad"):
        train(lines)
    with pytest.raises(UsageError, match="dropped 14 too_long"):
        train([line for line in LINES if line["split"] == "train" and not line.get("all_bad")], max_length=8)
