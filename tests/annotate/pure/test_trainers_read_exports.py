"""The exported bytes in the hands of those who read them: `datasets`, TRL's four trainers, OpenRLHF's field names.

TRL is slow to load, so all of it is here, with one tiny random model.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from annotate.interchange import EXPORTS
from tests.annotate.pure.judgements import LONGER, RECORD, exported
from tests.plackett.fences import fences

BOTH = (RECORD, LONGER)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.core.local_models import make_tiny_model

    return Path(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def loaded(folder: Path, format: str, container: str = "jsonl", **options: str) -> Any:
    """What `datasets.load_dataset` makes of an export."""
    from datasets import load_dataset

    file = folder / f"{format}.{container}"
    file.write_bytes(exported(format, *BOTH, **options, **{"as": container}))
    kind = {"jsonl": "json"}.get(container, container)
    return load_dataset(kind, data_files=str(file), split="train", cache_dir=str(folder / "cache"))


def settings_of(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(folder / "out"), max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True,
        bf16=False, save_strategy="no", disable_tqdm=True, max_length=256, **more,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.slow
def test_datasets_reads_every_format_in_every_container(tmp_path: Path) -> None:
    for format, kind in EXPORTS.items():
        lines = len(exported(format, *BOTH).splitlines())
        for container in ("jsonl", "csv", "parquet"):
            data = loaded(tmp_path, format, container)
            assert len(data) == lines > 0, (format, container)
            named = list(kind.columns(kind.options_from({"as": container})))
            assert data.column_names == named if container != "jsonl" or format != "plackett" else data.column_names


@pytest.mark.slow
@pytest.mark.parametrize("format", sorted({*EXPORTS} - {"plackett"}))
def test_datasets_reads_lines_whose_first_megabytes_say_less_than_the_rest(format: str, tmp_path: Path) -> None:
    """It takes the types of a file's columns from the first 10 MB: a null there must not be a text later."""
    from datasets import load_dataset

    nobody = [one | {"model": None, "thinking": None, "text": one["text"] * 20_000} for one in RECORD["responses"]]
    early = RECORD | {"responses": nobody, "rationale": None}
    late = RECORD | {"language": "English", "rationale": "Because.", "ratings": {"r1": {"helpful": 3}}}
    file = tmp_path / "lines.jsonl"
    records = [early] * (10_000_000 // len(exported(format, early, models="yes")) + 2)
    file.write_bytes(exported(format, *records, late, models="yes"))
    assert file.stat().st_size > 10_500_000
    data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == file.read_bytes().count(b"\n") and "model r2" in json.dumps(data[-2]) + json.dumps(data[-1])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["trl", "trl-conversational"])
def test_reward_trainer_takes_a_step(format: str, tiny: Path, tmp_path: Path) -> None:
    import math

    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    data = loaded(tmp_path, format, margin="strength", models="yes")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny, num_labels=1))
    before = model.score.weight.detach().clone()
    trainer = RewardTrainer(
        model=model,
        args=settings_of(RewardConfig, tmp_path, learning_rate=1e-3),
        train_dataset=data,
        processing_class=tokenizer,
    )
    first = trainer.train_dataset[0]
    text = tokenizer.decode(first["chosen_ids"])
    assert "Why is the sky blue?" in text and "answer r2" in text
    assert [row["margin"] for row in trainer.train_dataset] == [row["margin"] for row in data] != [0.0] * len(data)
    result = trainer.train()
    # An untrained head is near indifferent: −log σ(0 − margin) is between log 2 and 4 or so.
    assert math.log(2) * 0.9 < result.training_loss < 5
    assert not torch.equal(model.score.weight, before)


@pytest.mark.slow
def test_dpo_kto_and_sft_trainers_prepare_the_exports(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    for format in ("trl", "trl-conversational"):
        data = loaded(tmp_path, format)
        dpo = DPOTrainer(
            model=model, args=settings_of(DPOConfig, tmp_path), train_dataset=data, processing_class=tokenizer
        )
        assert "answer r1" in tokenizer.decode(dpo.train_dataset[2]["chosen_ids"])
        assert "answer r2" in tokenizer.decode(dpo.train_dataset[2]["rejected_ids"])
        assert "Why?" in tokenizer.decode(dpo.train_dataset[2]["prompt_ids"])
    data = loaded(tmp_path, "kto")
    kto = KTOTrainer(model=model, args=settings_of(KTOConfig, tmp_path), train_dataset=data, processing_class=tokenizer)
    assert [bool(row["label"]) for row in kto.train_dataset] == [False, True, False, True, False]
    data = loaded(tmp_path, "sft")
    sft = SFTTrainer(model=model, args=settings_of(SFTConfig, tmp_path), train_dataset=data, processing_class=tokenizer)
    row = sft.train_dataset[1]
    assert "Be brief." in tokenizer.decode(row["input_ids"]) and "answer r1" in tokenizer.decode(row["input_ids"])
    learned = [token for token in row["labels"] if token >= 0]
    assert "answer r1" in tokenizer.decode(learned) and "Why?" not in tokenizer.decode(learned)


def test_openrlhf_finds_its_default_keys() -> None:
    """Its reward dataset with `apply_chat_template` and no prompt key templates whole conversations; for DPO the prompt
    is `chosen` without its last message. `margin` is optional, a number. (openrlhf/datasets/reward_dataset.py)"""
    lines = [json.loads(line) for line in exported("openrlhf", *BOTH, margin="strength").splitlines()]
    for line in lines:
        assert list(line) == ["chosen", "rejected", "margin"] and isinstance(line["margin"], float)
        assert line["chosen"][:-1] == line["rejected"][:-1] and line["chosen"][-2]["role"] == "user"
        assert all(list(message) == ["role", "content"] for side in ("chosen", "rejected") for message in line[side])
        assert line["chosen"][-1]["role"] == line["rejected"][-1]["role"] == "assistant"


@pytest.mark.slow
def test_the_guides_example_for_trl_trains(tiny: Path, tmp_path: Path) -> None:
    (example,) = (text for _language, text, _where in fences("api.md") if "from trl import" in text)
    own = f'output_dir="{tmp_path}", max_steps=1, use_cpu=True, bf16=False, save_strategy="no", report_to="none"'
    example = example.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(tiny)).replace('output_dir="rewards"', own)
    names: dict[str, Any] = {"pairs": loaded(tmp_path, "trl")}
    exec(compile(example, "docs/api.md", "exec"), names)
    assert names["trainer"].state.global_step == 1
