"""The DPO recipe in this process: what it writes, that it learns, and that stopping changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.core.test_preference import objective_of, preferences_of
from tests.training.run_files import metrics_of, report_of
from tests.training.snapshots import record, records, write_jsonl
from training.core.distributed import World
from training.core.errors import TrainingError, UsageError
from training.core.halving import MicroBatchBudget
from training.core.language import load_language_model
from training.core.preference import Reference, response_log_probs
from training.core.preference_step import prefer
from training.core.scoring import Layout
from training.recipes.configs import DpoConfig, build
from training.recipes.dpo import train_dpo
from training.recipes.launch import Session

Train = Callable[..., Path]

LINES = [*records(train=12, validation=6, test=3), record(99, split="train", kind="gold")]


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Train:
    """Train in a new folder, or go on in ``folder``; the run's folder."""
    count = iter(range(100))

    def run(lines: list[dict[str, Any]] = LINES, folder: Path | None = None, **settings: object) -> Path:
        folder = folder or tmp_path / f"run{next(count)}"
        folder.mkdir(exist_ok=True)
        values: dict[str, object] = {
            "model": str(tiny_model), "data": str(write_jsonl(tmp_path / "data.jsonl", lines)), "output": str(folder),
            "device": "cpu", "batch_size": 4, "learning_rate": 1e-3, "epochs": 4, "checkpoint_every": 2,
        }  # fmt: skip
        train_dpo(Session("dpo", build(DpoConfig, values | settings), folder))
        return folder

    return run


def figures_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the metrics without times and attempts."""
    return [
        {name: value for name, value in row.items() if not name.startswith("time/") and name != "attempt"}
        for row in metrics_of(folder)
    ]


def test_a_run_learns_and_leaves_the_files_of_the_contract(train: Train) -> None:
    lines = [*records(train=48, validation=12, test=3), record(99, split="train", kind="gold")]
    settings = {"batch_size": 8, "learning_rate": 5e-3, "beta": 0.5}
    out = train(lines, loss="plackett-luce", evaluate_split="test", **settings)
    report = report_of(out)
    assert (report["kind"], report["steps"]) == ("dpo", 24)
    counts = report["counts"]
    assert counts["read"] == len(lines) == counts["used"] + sum(counts["dropped"].values())
    section = report["validation"]
    keys = {"value", "low", "high", "pairs", "prompts"}
    assert section["accuracy"].keys() == section["length_baseline"].keys() == keys
    assert section["accuracy"]["value"] > 0.85 > section["length_baseline"]["value"]
    assert section["against_length"].keys() >= {"value", "low", "high"}
    margins = section["margins"]
    assert margins["margin"]["value"] == pytest.approx(margins["preferred"]["value"] - margins["other"]["value"])
    assert margins["margin"]["low"] <= margins["margin"]["value"] <= margins["margin"]["high"]
    assert report["test"]["accuracy"]["prompts"] == 3
    rows = metrics_of(out)
    assert [row["step"] for row in rows] == list(range(1, 25))
    of_training = {f"train/{name}" for name in ("loss", "accuracy", "learning_rate", "grad_norm", "skipped_steps")}
    assert of_training | {"dpo/margin", "dpo/preferred", "dpo/other", "dpo/kl"} <= rows[0].keys()
    assert rows[0]["dpo/margin"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["dpo/margin"] > 0.1
    assert rows[-1]["dpo/kl"] > rows[0]["dpo/kl"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["validation/accuracy"] == section["accuracy"]["value"]
    assert (out / "report.html").exists()
    assert "dpo" in (out / "model" / "README.md").read_text()


def test_the_saved_models_rewards_are_those_of_the_report(train: Train, tiny_model: Path) -> None:
    """β · ln (π / π_ref) by plain transformers, text by text."""
    out = train(beta=0.5, max_steps=4)
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (out / "model", tiny_model)]

    def reward(prompt: list[dict[str, str]], text: str) -> float:
        start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        response = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        ids = torch.tensor([start + response])
        with torch.no_grad():
            found = [model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0] for model in models]
        return float(0.5 * (found[0] - found[1])[len(start) - 1 :].sum())

    margins = []
    for line in LINES:
        if line["split"] == "validation":
            rewards = {each["id"]: reward(line["prompt"], each["text"]) for each in line["responses"]}
            order = [tier[0] for tier in line["ranking"]]
            margins += [rewards[a] - rewards[b] for place, a in enumerate(order) for b in order[place + 1 :]]
    found = report_of(out)["validation"]
    assert found["accuracy"]["value"] == sum(margin > 0 for margin in margins) / len(margins)
    assert found["margins"]["margin"]["value"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_stopped_and_resumed_it_is_the_same_run(train: Train, lora_rank: int) -> None:
    """Tensor-equal weights, equal figures and report: the reference is the one of the start."""
    straight = train(lora_rank=lora_rank, epochs=2)
    out = train(lora_rank=lora_rank, epochs=2, stop_after=3)
    train(folder=out, lora_rank=lora_rank, epochs=2, resume=True)
    assert figures_of(out) == figures_of(straight)
    assert report_of(out) == report_of(straight)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (out, straight))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert (out / "adapter").exists() == bool(lora_rank)


def test_another_reference_is_refused(train: Train) -> None:
    out, other = train(stop_after=2), train(stop_after=2, seed=1, lora_rank=2, dtype="bfloat16")
    where = Path("start") / "measured.safetensors"
    (out / where).write_bytes((other / where).read_bytes())
    with pytest.raises(TrainingError, match=r"measured\.safetensors.* gone or damaged"):
        train(folder=out, resume=True)
    (out / where).unlink()
    with pytest.raises(TrainingError, match="gone or damaged"):
        train(folder=out, resume=True)


def test_a_file_without_pairs_is_refused(train: Train) -> None:
    lines = [record(1, split="train", k=2, ranking=[["r0", "r1"]]), record(2, split="validation")]
    with pytest.raises(UsageError, match="no ranking to learn from: 2 lines, dropped 1 no_pairs"):
        train(lines)


def test_it_is_the_loss_of_trl(tiny_model: Path, tmp_path: Path) -> None:
    """The sigmoid loss of its ``DPOTrainer``, of the same ids, policy and reference."""
    from datasets import Dataset  # type: ignore[import-untyped]  # slow to load, and nobody else's
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

    cpu = torch.device("cpu")
    ours = load_language_model(str(tiny_model), device=cpu, autocast_dtype=torch.float32)
    preferences = preferences_of(tmp_path, 2, 2, 2)
    budget = MicroBatchBudget(tokens=500, floor=100, world=World(), device=cpu)
    values = response_log_probs(ours, preferences.responses, Layout(True, 258), budget=budget)
    assert values is not None
    torch.manual_seed(0)
    with torch.no_grad():
        for _, weight in ours.trainable():
            weight.add_(0.01 * torch.randn_like(weight))
    totals = prefer(
        ours, preferences, Reference(preferences, values), objective_of("pairwise"), [0, 1, 2], Layout(True, 258),
        beta=0.4, tokens=500, world=World(),
    )  # fmt: skip

    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
    )
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    policy, start = (AutoModelForCausalLM.from_pretrained(tiny_model) for _ in range(2))
    trainer = DPOTrainer(
        policy, start, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    trainer.model.load_state_dict(ours.whole.state_dict())
    batch = []
    for number in range(3):
        example = preferences.responses[number]
        better, worse = (tier[0] for tier in preferences.rankings[number].rankings[0].tiers)
        batch.append({"prompt_ids": list(example.prompt), "chosen_ids": list(example.responses[better]),
                      "rejected_ids": list(example.responses[worse])})  # fmt: skip
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(batch))  # type: ignore[no-untyped-call]
    assert totals[0].item() == pytest.approx(theirs.item(), abs=1e-5)
    theirs.backward()
    gradients = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    for name, weight in ours.trainable():
        assert weight.grad is not None
        assert float((weight.grad - gradients[name]).norm()) <= 1e-4 * float(gradients[name].norm()), name
