"""The `trl` exports: one pair per strict preference, in bytes that TRL's RewardTrainer trains on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from annotate.interchange import EXPORTS, export_lines

RECORD: dict[str, Any] = {
    "format": "plackett/1", "id": "1", "kind": "normal", "counted": True,
    "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
    "responses": [{"id": name, "text": f"answer {name}", "thinking": "hm"} for name in ("r1", "r2", "r3", "r4")],
    "ranking": [["r2"], ["r1", "r4"]], "unranked": ["r3"], "strengths": [2], "all_bad": False,
}  # fmt: skip
LONGER = RECORD | {
    "prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ],
    "ranking": [["r1"], ["r2"], ["r3"], ["r4"]],
    "unranked": [],
}


def rows(format: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(export_lines(format, iter(records))).splitlines()]


def test_one_pair_per_strict_preference_and_none_for_ties_and_unranked():
    assert rows("trl", RECORD) == [
        {"prompt": "Why is the sky blue?", "chosen": "answer r2", "rejected": "answer r1"},
        {"prompt": "Why is the sky blue?", "chosen": "answer r2", "rejected": "answer r4"},
    ]
    assert len(rows("trl", LONGER)) == 6


def test_a_longer_conversation_is_one_text_of_turns():
    prompt = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Why?\n\nAssistant: "
    assert {row["prompt"] for row in rows("trl", LONGER)} == {prompt}


def test_conversational_rows_carry_messages():
    first = rows("trl-conversational", LONGER | {"prompt": [{"role": "user", "content": "Hi", "mine": 1}]})[0]
    assert first == {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "answer r1"}],
        "rejected": [{"role": "assistant", "content": "answer r2"}],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "superseded"}, {"type": "withdrawn", "responses": None}, {"type": "prompt"}, {"type": "demonstration"},
        {"counted": False}, {"kind": "gold"}, {"kind": "repeat"}, {"ranking": None}, {"ranking": [["r1", "r2"]]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", ["trl", "trl-conversational"])
def test_what_is_no_counted_preference_gives_no_pair(format, changes):
    assert rows(format, RECORD | changes) == []


def test_all_bad_keeps_the_order_it_was_given():
    assert len(rows("trl", RECORD | {"all_bad": True})) == 2


def test_the_native_export_keeps_markers_and_unknown_keys():
    marker = {"change": 9, "mine": 1, "format": "plackett/1", "id": "1", "type": "superseded", "superseded_by": "2"}
    (line,) = export_lines("plackett", iter([marker]))
    assert line == b'{"format":"plackett/1","type":"superseded","id":"1","superseded_by":"2","change":9,"mine":1}\n'


def test_lines_are_made_one_by_one():
    def endless():
        while True:
            yield RECORD

    lines = export_lines("trl", endless())
    assert next(lines) == next(export_lines("trl", iter([RECORD])))
    assert set(EXPORTS) >= {"plackett", "trl", "trl-conversational"}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["trl", "trl-conversational"])
def test_reward_trainer_takes_a_step_on_the_exported_bytes(format, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from datasets import load_dataset
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from training.core.local_models import make_tiny_model

    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b"".join(export_lines(format, iter([RECORD, LONGER]))))
    data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert data.column_names == ["prompt", "chosen", "rejected"] and len(data) == 8

    tiny = make_tiny_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny, num_labels=1))
    before = model.score.weight.detach().clone()
    arguments = RewardConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=8, learning_rate=1e-3,
        report_to="none", use_cpu=True, bf16=False, max_length=512, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    result = trainer.train()
    # An untrained head is near indifferent between the two: −log σ(0) = log 2.
    assert math.isclose(result.training_loss, math.log(2), rel_tol=0.2)
    assert not torch.equal(model.score.weight, before)
    first = tokenizer.decode(trainer.train_dataset[0]["chosen_ids"])
    assert "Why is the sky blue?" in first and "answer r2" in first
