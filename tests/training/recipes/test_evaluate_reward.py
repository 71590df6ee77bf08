"""Scoring with a trained reward model, ours or another's: agreement with other software, foreign files, ensembles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)
from transformers.pipelines import pipeline

from tests.training.snapshots import records, write_jsonl
from training.core.errors import UsageError
from training.core.local_models import byte_tokenizer
from training.core.tokens import PLAIN_TEMPLATE, PLAIN_TEMPLATE_NAME
from training.recipes.configs import EvaluateRewardConfig, RewardConfig, build
from training.recipes.evaluate_reward import evaluate_reward
from training.recipes.launch import Session
from training.recipes.reward import train_reward

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two members, with the data beside it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_jsonl(folder / "data.jsonl", records(train=12, validation=4, test=8))
    values = {
        "model": str(tiny_model), "data": str(data), "output": str(folder / "run"), "device": "cpu", "batch_size": 4,
        "epochs": 4, "learning_rate": 1e-3, "evaluate_split": "test", "ensemble": 2, "ties": "rao-kupper",
    }  # fmt: skip
    (folder / "run").mkdir()
    train_reward(Session("reward", build(RewardConfig, values), folder / "run"))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Evaluate in this process; the folder that it wrote."""
    count = iter(range(100))

    def evaluate(model: Path, data: Path, **settings: object) -> Path:
        folder = tmp_path / f"out{next(count)}"
        folder.mkdir()
        values = {"model": str(model), "data": str(data), "output": str(folder), "device": "cpu"}
        evaluate_reward(Session("evaluate_reward", build(EvaluateRewardConfig, values | settings), folder))
        return folder

    return evaluate


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())


def scores_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def test_the_saved_model_is_judged_as_the_run_judged_it(trained: Path, run: Run) -> None:
    """The folder's scores on another scale, with its zero subtracted: the same figures as before the folding."""
    before = json_of(trained / "run" / "report.json")["test"]
    folder = run(trained / "run" / "model", trained / "data.jsonl")
    found = json_of(folder / "report.json")
    assert found["test"]["accuracy"] == before["accuracy"]
    assert found["test"]["length_baseline"] == before["length_baseline"]
    for name in ("log_loss", "ece", "temperature", "kendall_tau_b"):
        assert found["test"][name] == pytest.approx(before[name], rel=1e-4), name
    assert found["test"]["outcomes"]["log_loss"]["value"] == pytest.approx(
        before["outcomes"]["log_loss"]["value"], rel=1e-4
    )
    assert (folder / "report.html").exists()
    assert json_of(folder / "run.json")["recipe"] == "evaluate_reward"


def test_each_response_is_named_by_line_and_place_with_its_centred_score(trained: Path, run: Run) -> None:
    rows = scores_of(run(trained / "run" / "model", trained / "data.jsonl"))
    lines = (trained / "data.jsonl").read_text().splitlines()
    model = AutoModelForSequenceClassification.from_pretrained(trained / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(trained / "run" / "model")
    shown = sum(len(record["responses"]) for record in map(json.loads, lines) if record["split"] == "test")
    assert len({(row["line"], row["response"]) for row in rows}) == len(rows) == shown
    for row in rows[:6]:
        record = json.loads(lines[row["line"] - 1])
        assert record["split"] == "test"
        text = [*record["prompt"], {"role": "assistant", "content": record["responses"][row["response"]]["text"]}]
        ids = tokenizer.apply_chat_template(text, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            raw = model(**ids).logits[0, 0].item()
        assert row["score"] == pytest.approx(raw - model.config.plackett_score_mean, abs=1e-4)


def test_the_text_classification_pipeline_gives_the_raw_score(trained: Path, run: Run) -> None:
    folder = str(trained / "run" / "model")
    judge = pipeline("text-classification", model=folder, device="cpu")
    mean = judge.model.config.plackett_score_mean
    lines = (trained / "data.jsonl").read_text().splitlines()
    for row in scores_of(run(Path(folder), trained / "data.jsonl"))[:4]:
        record = json.loads(lines[row["line"] - 1])
        messages = [*record["prompt"], {"role": "assistant", "content": record["responses"][row["response"]]["text"]}]
        text = judge.tokenizer.apply_chat_template(messages, tokenize=False)
        (answer,) = judge(text)
        assert answer["score"] == pytest.approx(row["score"] + mean, abs=1e-4)


def test_an_ensemble_is_scored_by_its_members_mean_and_tells_their_spread(trained: Path, run: Run) -> None:
    folder = run(trained / "run", trained / "data.jsonl")
    members = [scores_of(run(trained / "run" / "ensemble" / name, trained / "data.jsonl")) for name in ("0", "1")]
    for row, first, second in zip(scores_of(folder), *members, strict=True):
        assert row["score"] == pytest.approx((first["score"] + second["score"]) / 2, abs=1e-6)
        assert row["std"] == pytest.approx(abs(first["score"] - second["score"]) / 2, abs=1e-6)
    assert json_of(folder / "report.json")["models"] == 2
    expected = json_of(trained / "run" / "report.json")["test"]["ensemble"]
    assert json_of(folder / "report.json")["test"]["accuracy"] == expected["accuracy"]
    assert json_of(folder / "report.json")["test"]["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-4)


def test_pairs_of_other_projects_are_scored(trained: Path, run: Run, tmp_path: Path) -> None:
    """A judge of exclamation marks, on pairs whose label names the text with more of them."""
    pairs = [
        {"input": f"stone {n}?", "output_1": "sun!" if n % 2 else "sun!!!!", "output_2": "sun!!!!" if n % 2 else "sun!",
         "label": 2 if n % 2 else 1}
        for n in range(4)
    ]  # fmt: skip
    llmbar = tmp_path / "dataset.json"
    llmbar.write_text(json.dumps(pairs))
    chosen = write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": p["input"], "chosen": "sun!!!!", "rejected": "sun!"} for p in pairs]
    )
    found = [json_of(run(trained / "run", path) / "report.json")["test"]["accuracy"] for path in (llmbar, chosen)]
    assert found[0] == found[1]
    assert (found[0]["value"], found[0]["pairs"]) == (1.0, 4)


def test_a_model_that_knows_nothing_of_us_is_scored(run: Run, trained: Path, tmp_path: Path) -> None:
    """GPT-2 with absolute positions, a bias-free head and its own pad: its own scores, one by one."""
    torch.manual_seed(3)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, vocab_size=259, num_labels=1, pad_token_id=258)
    model = GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "gpt2")
    lines = (trained / "data.jsonl").read_text().splitlines()
    for row in scores_of(run(tmp_path / "gpt2", trained / "data.jsonl", split="validation")):
        record = json.loads(lines[row["line"] - 1])
        messages = [*record["prompt"], {"role": "assistant", "content": record["responses"][row["response"]]["text"]}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            assert row["score"] == pytest.approx(model(input_ids=ids).logits[0, 0].item(), abs=1e-4)


def test_a_model_that_pools_by_itself_is_scored_as_it_stands(run: Run, trained: Path, tmp_path: Path) -> None:
    """BERT: sees both ways, has a head of another name and no chat template."""
    torch.manual_seed(3)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                        vocab_size=259, num_labels=1, pad_token_id=258)  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "bert")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bert")
    folder = run(tmp_path / "bert", trained / "data.jsonl", split="validation")
    assert json_of(folder / "run.json")["chat_template"] == PLAIN_TEMPLATE_NAME
    assert any(PLAIN_TEMPLATE_NAME in warning for warning in json_of(folder / "report.json")["warnings"])
    tokenizer.chat_template = PLAIN_TEMPLATE
    lines = (trained / "data.jsonl").read_text().splitlines()
    for row in scores_of(folder):
        record = json.loads(lines[row["line"] - 1])
        messages = [*record["prompt"], {"role": "assistant", "content": record["responses"][row["response"]]["text"]}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            assert row["score"] == pytest.approx(model(input_ids=ids).logits[0, 0].item(), abs=1e-4)


def test_responses_that_nobody_ranked_are_scored_too(trained: Path, run: Run, tmp_path: Path) -> None:
    """To choose what to have ranked: where the members of an ensemble disagree."""
    lines = records(train=0, validation=0, test=4)
    lines[0]["ranking"] = None
    lines[1]["ranking"] = lines[1]["ranking"][:1]
    folder = run(trained / "run", write_jsonl(tmp_path / "new.jsonl", lines))
    rows = scores_of(folder)
    assert len(rows) == sum(len(line["responses"]) for line in lines)
    assert all(row["std"] > 0 for row in rows)
    report = json_of(folder / "report.json")
    assert report["counts"]["used"] == 4
    assert report["test"]["accuracy"]["prompts"] == 2


def test_a_finished_evaluation_is_left_alone(trained: Path, run: Run, tmp_path: Path) -> None:
    pairs = [{"prompt": f"stone {n}?", "chosen": "sun!!!!", "rejected": "sun!"} for n in range(3)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n\n".join(map(json.dumps, pairs)))
    folder = run(trained / "run", data)
    assert sorted({row["line"] for row in scores_of(folder)}) == [1, 3, 5]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    values = {"model": str(trained / "run"), "output": str(folder), "device": "cpu", "resume": True}
    again = Session("evaluate_reward", build(EvaluateRewardConfig, values | {"data": str(data)}), folder,
                    results=("report.json",))  # fmt: skip
    assert evaluate_reward(again) == "already finished"
    other = write_jsonl(tmp_path / "other.jsonl", pairs[:2])
    with pytest.raises(UsageError, match="--data has the sha256"):
        evaluate_reward(Session("evaluate_reward", build(EvaluateRewardConfig, values | {"data": str(other)}), folder))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_is_no_reward_model_is_refused(run: Run, trained: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="is no reward model: it is LlamaForCausalLM"):
        run(tiny_model, trained / "data.jsonl")
    with pytest.raises(UsageError, match="cannot load a model"):
        run(trained, trained / "data.jsonl")


def test_a_split_without_rankings_is_said(run: Run, trained: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", records(train=2, validation=0))
    with pytest.raises(UsageError, match="no ranking of the split test"):
        run(trained / "run", data)


def test_it_keeps_the_contract_of_recipes(trained: Path, tmp_path: Path, run_recipe: Callable[..., int]) -> None:
    flags = {"recipe": "evaluate_reward", "data": trained / "data.jsonl", "output": tmp_path / "out", "device": "cpu"}

    def call(model: Path) -> tuple[int, dict[str, Any]]:
        return run_recipe(**flags, model=model), json_of(tmp_path / "out" / "exit.json")

    code, told = call(trained)
    assert (code, told["code"]) == (2, 2)
    code, told = call(trained / "run")
    assert (code, told["code"]) == (0, 0)
    assert "accuracy" in told["reason"]


def test_trl_reads_it_as_its_own_reward_model(trained: Path, tmp_path: Path) -> None:
    """TRL's RewardTrainer evaluates pairs with the folder: its loss is −ln σ of the differences of our raw scores."""
    from datasets import Dataset as Table
    from trl import RewardConfig as PeerConfig
    from trl import RewardTrainer

    folder = trained / "run" / "model"
    rows = [{"prompt": [{"role": "user", "content": f"stone {n}?"}],
             "chosen": [{"role": "assistant", "content": "sun!!!"}],
             "rejected": [{"role": "assistant", "content": "moon" * (n + 1)}]} for n in range(3)]  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = PeerConfig(output_dir=str(tmp_path / "peer"), report_to="none", use_cpu=True, bf16=False,
                          gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    table = Table.from_list(rows)
    trainer = RewardTrainer(
        model=model, args=settings, train_dataset=table, eval_dataset=table, processing_class=tokenizer
    )
    peer = trainer.evaluate()["eval_loss"]

    def score(row: dict[str, Any], side: str) -> torch.Tensor:
        ids = tokenizer.apply_chat_template([*row["prompt"], *row[side]], return_tensors="pt", return_dict=True)
        with torch.no_grad():
            found: torch.Tensor = model(**ids).logits[0, 0]
        return found

    leads = torch.stack([score(row, "chosen") - score(row, "rejected") for row in rows])
    assert peer == pytest.approx(-torch.nn.functional.logsigmoid(leads).mean().item(), rel=1e-4)
