"""The card in the folder of a trained policy: data, measures, limits, and how to use it."""

import re
from collections.abc import Mapping
from typing import Any

from training.core.files import shown_name
from training.core.licences import Licence, front_matter, licence_section
from training.core.report_parts import Part, parts_of
from training.core.reports import plain

_ABOUT = {
    "sft": "Fine-tuned on responses that people wrote, rewrote or ranked first (SFT). The loss is on responses alone.",
    "dpo": "Fine-tuned on human rankings directly (DPO), without a reward model and without sampling.",
    "ppo": "Trained by reinforcement (PPO and its kin) towards a reward, near the model that it began as.",
}

_LIMITS = {
    "sft": (
        "It imitates: where the responses it learned from are wrong, it learned that.",
        "Perplexity says how likely held-out text is, not whether answers are good.",
    ),
    "dpo": (
        "It learned from what people preferred among given responses; how it answers elsewhere is not known from that.",
        "Held-out accuracy is of its implicit reward, not of what it writes.",
    ),
    "ppo": (
        "It was trained to score high, and a score is not what people want but a guess at it; wins are by a judge, "
        "another such guess. Let people decide: the run's folder holds blind pairs.",
        "Nothing here says that its answers are true or harmless.",
    ),
}

_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{"role": "user", "content": "…"}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
text = tokenizer.decode(model.generate(**ids, max_new_tokens=256)[0, ids["input_ids"].shape[1]:])
```"""


def policy_card(
    *,
    kind: str,
    base: str,
    report: Mapping[str, Any],
    config: Mapping[str, Any],
    data_sha256: str,
    licence: Licence | None,
) -> str:
    """The card of a policy of kind ``sft``, ``dpo`` or ``ppo``.

    Args:
        base: the model it was trained from; of a folder only its name is told.
        report: what ``report.json`` holds, warnings included.
        config: the run's settings; those that name places are left out.
        data_sha256: of the data.
        licence: of the base model, see ``licences``.
    """
    base = " ".join(shown_name(base).replace("`", "").split())
    shown = {name: value for name, value in config.items() if name not in ("model", "data", "output", "resume")}
    settings = "\n".join(f"- `{name}`: {plain(_without_places(value))}" for name, value in shown.items())
    warnings = "\n".join(f"- {plain(warning)}" for warning in report.get("warnings") or ()) or "- none"
    limits = "\n".join(f"- {limit}" for limit in _LIMITS[kind])
    return f"""---
{front_matter(licence)}library_name: transformers
pipeline_tag: text-generation
tags: [{kind}, plackett]
---

# {kind.upper()} policy

{_ABOUT[kind]} Trained with Plackett from `{base}`.

{licence_section(licence)}
## Data

sha256 `{data_sha256}`. {_counts(report)}

## Measured on held-out data

{"".join(map(_part, parts_of(report))) or "Nothing was held out."}
Warnings:

{warnings}

## Limits

{limits}

## Use

{_USE}

## Settings

{settings}
"""


def _counts(report: Mapping[str, Any]) -> str:
    counts = report.get("counts") or {}
    used = f"{counts['used']} of {counts['read']} lines used, " if "used" in counts else ""
    kept = report.get("kept_step")
    weights = "" if kept is None else f"; weights of step {kept}"
    return f"{used}{report['steps']} steps{weights}."


def _part(part: Part) -> str:
    """The figures and the first table of a part."""
    rows = [f"| {plain(one.name)} | {plain(one.value)} | {plain(one.note)} |" for one in part.figures]
    text = f"### {plain(part.title)}\n\n| | | |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    for table in part.tables[:1]:
        head = " | ".join(map(plain, table.head))
        lines = [f"| {' | '.join(map(plain, row))} |" for row in table.rows]
        text += f"| {head} |\n|{'---|' * len(table.head)}\n" + "\n".join(lines) + "\n\n"
    return text


def _without_places(value: Any) -> Any:
    """Folders, of reward models too, by their last part: where they lay is of no use elsewhere."""
    if isinstance(value, list | tuple):
        return type(value)(map(_without_places, value))
    return _FOLDER.sub(r"\1", value) if isinstance(value, str) else value


_FOLDER = re.compile(r"^((?:model|ensemble):)?/(?:[^/]+/)*")
