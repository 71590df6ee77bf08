"""The README.md that lies in a trained model's folder."""

from typing import Any

_USE = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
messages = [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
score = model(**ids).logits[0, 0].item()
```"""


def reward_model_card(*, base: str, report: dict[str, Any], config: dict[str, Any], data_sha256: str) -> str:
    """The card of a reward model: what it is, what it was trained on, how good it was, how to score with it."""
    counts = report["counts"]
    settings = "\n".join(f"- `{name}`: {value}" for name, value in config.items() if name not in ("data", "output"))
    warnings = "\n".join(f"- {warning}" for warning in report["warnings"]) or "- none"
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, plackett]
---

# Reward model

Scores one response to a conversation; a higher score means that people would rank it higher. Trained with Plackett
from `{base}` on human rankings; only differences between responses to the same prompt mean something.

## Data

Snapshot sha256 `{data_sha256}`. Trained on {counts["train"]["rankings"]} rankings of {counts["train"]["prompts"]}
prompts ({counts["train"]["pairs"]} pairs), {report["steps"]} steps.

## Held-out pair accuracy

| split | accuracy (95 % interval) | the longer response wins | pairs |
|---|---|---|---|
{_rows(report)}

Warnings:

{warnings}

## Use

{_USE}

## Settings

{settings}
"""


def _rows(report: dict[str, Any]) -> str:
    rows = []
    for split in ("validation", "test"):
        if split in report:
            section = report[split]
            words = [_words(section[name]) for name in ("accuracy", "length_baseline")]
            rows.append(f"| {split} | {words[0]} | {words[1]} | {section['accuracy']['pairs']} |")
    return "\n".join(rows)


def _words(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return "unknown"
    ends = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval["low"] is not None else ""
    return f"{interval['value']:.3f}{ends}"
