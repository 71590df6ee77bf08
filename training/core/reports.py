"""What a trained reward model says about itself in words: warnings, one line, and the card in its folder."""

from pathlib import Path
from typing import Any

_USE = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
messages = [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
score = model(**ids).logits[0, 0].item()
```"""


def warnings_about(
    sections: dict[str, Any], *, defused_texts: int, skipped_steps: int, not_packed: str | None
) -> list[str]:
    """What a reader of the figures has to know, in words.

    Args:
        sections: ``evaluate``'s result by split.
        defused_texts: texts that hold control tokens.
        not_packed: why rows hold one response each, None where they hold several.
    """
    found = []
    for split, section in sections.items():
        accuracy, length = section["accuracy"], section["length_baseline"]
        if accuracy["value"] is None:
            found.append(f"There are no {split} pairs: held-out accuracy is unknown.")
            continue
        if accuracy["low"] is None:
            found.append(f"All {split} pairs are of one split group: there is no interval.")
        elif accuracy["low"] <= 0.5 <= accuracy["high"]:
            found.append(f"The interval of the {split} accuracy includes chance: too few pairs or nothing learned.")
        if accuracy["value"] <= length["value"]:
            found.append(f"On {split}, choosing the longer response is right at least as often as the model.")
        if section["temperature"] is None:
            found.append(f"No temperature fits the {split} scores: pairs are all right, or wrong as often as right.")
    if defused_texts:
        found.append(f"{defused_texts} texts hold control tokens; they were encoded as plain text.")
    if skipped_steps:
        found.append(f"{skipped_steps} steps were skipped because their gradients were not finite.")
    if not_packed:
        found.append(f"Not packed, {not_packed}.")
    return found


def accuracy_words(section: dict[str, Any]) -> str:
    """Held-out accuracy in a few words."""
    accuracy = section["accuracy"]
    if accuracy["value"] is None:
        return "no validation pairs"
    low, high = accuracy["low"], accuracy["high"]
    interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
    length = section["length_baseline"]["value"]
    return f"validation accuracy {accuracy['value']:.3f}{interval} over {accuracy['pairs']} pairs, length {length:.3f}"


def reward_model_card(*, base: str, report: dict[str, Any], config: dict[str, Any], data_sha256: str) -> str:
    """The card of a reward model: what it is, what it was trained on, how good it was, how to score with it."""
    counts = report["counts"]
    base = Path(base).name if Path(base).is_dir() else base
    shown = {name: value for name, value in config.items() if name not in ("model", "data", "output", "resume")}
    settings = "\n".join(f"- `{name}`: {value}" for name, value in shown.items())
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
