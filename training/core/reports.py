"""What a trained reward model says about itself in words: warnings, one line, and the card in its folder."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from training.core.files import shown_name
from training.core.licences import Licence, front_matter, licence_section
from training.core.wording import ENGLISH

_USE = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
messages = [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
score = model(**ids).logits[0, 0].item()
```"""


# Half the width of an interval beyond which it decides little, and the fewest groups that make a good one.
WIDE = 0.05
FEW_GROUPS = 30
# Scores are said to follow length where the whole interval of their rank correlation within prompts lies beyond this.
FOLLOWS_LENGTH = 0.5
# With fewer groups even that interval is as good as chance: of three, all may lean one way.
GROUPS_THAT_TELL = 10
# Mean confidence − accuracy that is worth a word if it is more than noise.
MISCALIBRATED = 0.05


def warnings_about(
    sections: dict[str, Any],
    *,
    defused_texts: int,
    skipped_steps: int,
    not_packed: str | None,
    shared_groups: int = 0,
    cut: int = 0,
    template: str | None = None,
) -> list[str]:
    """What a reader of the figures has to know, in words.

    Args:
        sections: ``evaluate``'s result by split.
        defused_texts: texts that hold control tokens.
        not_packed: why rows hold one response each, None where they hold several.
        shared_groups: split groups that stand in several splits.
        cut: unranked responses that were left out because they are too long.
        template: name of our template that texts were rendered with because the model brings none; None where it does.
    """
    found = [warning for split, section in sections.items() for warning in _about_split(split, section)]
    if shared_groups:
        stand = "conversation (split group) stands" if shared_groups == 1 else "conversations (split groups) stand"
        found.append(f"{shared_groups} {stand} in several splits: held-out figures are too good.")
    if cut:
        were = "unranked response was" if cut == 1 else "unranked responses were"
        found.append(f"{cut} {were} too long and left out.")
    if template is not None:
        found.append(f"The model has no chat template; texts were rendered with Plackett's own, {template}.")
    if defused_texts:
        found.append(f"{defused_texts} texts hold control tokens; they were encoded as plain text.")
    if skipped_steps:
        found.append(f"{skipped_steps} steps were skipped because their gradients were not finite.")
    if not_packed:
        found.append(f"Not packed, {not_packed}.")
    return found


def _about_split(split: str, section: Mapping[str, Any]) -> list[str]:
    if section["accuracy"]["value"] is None:
        return [f"There are no {split} pairs: held-out accuracy is unknown."]
    kinds = (_about_chance, _about_length, _about_width, _about_calibration, _about_ties)
    return [warning for about in kinds for warning in about(split, section)]


def _includes_chance(section: Mapping[str, Any]) -> bool:
    low, high = section["accuracy"]["low"], section["accuracy"]["high"]
    return low is not None and low <= 0.5 <= high


def _about_chance(split: str, section: Mapping[str, Any]) -> list[str]:
    if _includes_chance(section):
        return [f"The interval of the {split} accuracy includes chance: too few pairs or nothing learned."]
    return []


def _about_length(split: str, section: Mapping[str, Any]) -> list[str]:
    """Whether choosing by length does as well; by shortness where people like that better."""
    rule = section["length_baseline"]
    shorter = rule["high"] is not None and rule["high"] < 0.5
    against = section["against_shorter" if shorter else "against_length"]
    name = "shorter" if shorter else "longer"
    worst, best = (against[end] if against[end] is not None else against["value"] for end in ("low", "high"))
    if worst > 0:
        return []
    learned = _learned_length(section, shorter=shorter)
    if best < 0:
        return [
            f"{learned}On {split}, choosing the {name} response is right more often than the model ({_gap(against)})."
        ]
    words = f"On {split}, the model is not shown to be better than choosing the {name} response ({_gap(against)})."
    return [learned + words]


def _learned_length(section: Mapping[str, Any], *, shorter: bool) -> str:
    """A sentence, with a space behind it, where scores follow length beyond doubt; else nothing."""
    found = section["score_length"]["spearman"]
    if found["low"] is None or section["groups"] < GROUPS_THAT_TELL:
        return ""
    value, low, high = (found[end] for end in ("value", "low", "high"))
    if (-high if shorter else low) < FOLLOWS_LENGTH:
        return ""
    words = f"rank correlation {value:.2f} within prompts, 95 % interval {low:.2f} to {high:.2f}".replace("-", "−")
    return f"The model has learned length: its scores follow it ({words}). "


def _gap(interval: dict[str, Any]) -> str:
    """A paired difference of shares, in points."""
    value, low, high = (ENGLISH.points(interval[end]) for end in ("value", "low", "high"))
    words = f"difference {value} points"
    return words if interval["low"] is None else f"{words}, 95 % interval {low} to {high}"


def _about_width(split: str, section: Mapping[str, Any]) -> list[str]:
    """Whether the interval can decide anything, and how many more prompts would do: its width falls as 1/√prompts."""
    accuracy, groups = section["accuracy"], section["groups"]
    if accuracy["low"] is None:
        return [f"All {split} pairs are of one split group: there is no interval."]
    half = (accuracy["high"] - accuracy["low"]) / 2
    if half <= WIDE and groups >= FEW_GROUPS:
        return []
    if half <= WIDE:
        return [f"The {split} intervals rest on {groups} split groups only, so they are rough themselves."]
    more = _two_digits(accuracy["prompts"] * ((half / WIDE) ** 2 - 1))
    rough = f" With {groups} split groups the interval is rough itself." if groups < FEW_GROUPS else ""
    return [
        f"The {split} accuracy is known to ±{half * 100:.0f} points only, too wide to tell similar models apart; about "
        f"{more:,} more {split} prompts would bring it to ±{WIDE * 100:.0f}.{rough}"
    ]


def _two_digits(value: float) -> int:
    """Rounded up to two significant digits."""
    size: int = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return math.ceil(value / size) * size


def _about_calibration(split: str, section: Mapping[str, Any]) -> list[str]:
    gap, temperature, right = section["overconfidence"], section["temperature"], section["accuracy"]["value"]
    if temperature is None:
        # A model at chance has no temperature either, and was warned of already.
        if _includes_chance(section):
            return []
        why = "nearly all pairs are right, or as many wrong as right, or the scores lie very close together"
        return [f"No temperature from 0.01 to 100 fits the {split} scores: {why}."]
    beyond_noise = gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0)
    if not beyond_noise or abs(gap["value"]) < MISCALIBRATED:
        return []
    manner = "too sure of itself" if gap["value"] > 0 else "too unsure of itself"
    return [
        f"The model is {manner}: on {split} it gives its choices {(right + gap['value']) * 100:.0f} % on average, and "
        f"{right * 100:.0f} % are right. Scores divided by {temperature:.2f} would fit."
    ]


def _about_ties(split: str, section: Mapping[str, Any]) -> list[str]:
    outcomes = section["outcomes"]
    if outcomes is None:
        return []
    against = outcomes["against_constant"]
    if (against["high"] if against["high"] is not None else against["value"]) < 0:
        return []
    return [
        f"On {split}, wins and ties are not shown to be predicted better than by always giving how often people tie."
    ]


def accuracy_words(section: dict[str, Any], split: str = "validation") -> str:
    """Held-out accuracy in a few words."""
    accuracy = section["accuracy"]
    if accuracy["value"] is None:
        return f"no {split} pairs"
    low, high = accuracy["low"], accuracy["high"]
    interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
    length = section["length_baseline"]["value"]
    return f"{split} accuracy {accuracy['value']:.3f}{interval} over {accuracy['pairs']} pairs, length {length:.3f}"


def reward_model_card(
    *, base: str, report: dict[str, Any], config: dict[str, Any], data_sha256: str, licence: Licence | None
) -> str:
    """The card of a reward model: what it is, what it was trained on, how good it was, how to score with it.

    Args:
        base: the model it was trained from; of a folder only its name is told.
        report: what ``report.json`` holds; ``score_scale``, ``thresholds``, ``kept_step`` and the splits' ``ensemble``
            are told where they are there.
        config: the run's settings; those that name places are left out.
        data_sha256: of the snapshot.
        licence: of the base model, see ``licences``.
    """
    counts = report["counts"]
    base = " ".join(shown_name(base).replace("`", "").split())
    shown = {name: value for name, value in config.items() if name not in ("model", "data", "output", "resume")}
    settings = "\n".join(f"- `{name}`: {plain(value)}" for name, value in shown.items())
    warnings = "\n".join(f"- {plain(warning)}" for warning in report["warnings"]) or "- none"
    return f"""---
{front_matter(licence)}library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, plackett]
---

# Reward model

Scores one response to a conversation; a higher score means that people would rank it higher. Trained with Plackett
from `{base}` on human rankings; only differences between responses to the same prompt mean something.

{licence_section(licence)}
## Data

Snapshot sha256 `{data_sha256}`. Trained on {counts["train"]["rankings"]} rankings of {counts["train"]["prompts"]}
prompts ({counts["train"]["pairs"]} pairs), {report["steps"]} steps{_kept(report)}.

## Held-out pair accuracy

| split | accuracy (95 % interval) | the longer response wins | pairs |
|---|---|---|---|
{_rows(report)}

{_figures(report)}
{_ensemble(report)}
Warnings:

{warnings}
{_scores(report)}
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
            words = [interval_words(section[name]) for name in ("accuracy", "length_baseline")]
            rows.append(f"| {split} | {words[0]} | {words[1]} | {section['accuracy']['pairs']} |")
    return "\n".join(rows)


def _figures(report: dict[str, Any]) -> str:
    """The main figures beside accuracy, as a table with a column a split."""
    splits = [split for split in ("validation", "test") if split in report]
    rows = [f"| | {' | '.join(splits)} |", "|---" * (len(splits) + 1) + "|"]
    for name, figure in _FIGURES.items():
        rows.append(f"| {name} | {' | '.join(figure(report[split]) for split in splits)} |")
    return "\n".join(rows)


_FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "accuracy − the longer response wins": lambda section: interval_words(section["against_length"]),
    "agreement of two annotators of one task": lambda section: interval_words(section["ceiling"]["two_annotators"]),
    "agreement of the model on the same pairs": lambda section: interval_words(section["ceiling"]["model"]),
    "Kendall's τ-b": lambda section: interval_words(section["kendall_tau_b_interval"]),
    "log-loss, nats a pair": lambda section: interval_words(section["log_loss_interval"]),
    "expected calibration error": lambda section: _number(section["ece"]),
    "fitted temperature": lambda section: _number(section["temperature"]),
    "rank correlation with length": lambda section: interval_words(section["score_length"]["spearman"]),
}


def _kept(report: dict[str, Any]) -> str:
    step = report.get("kept_step")
    return "" if step is None else f"; weights of step {step}, lowest validation log-loss"


def _ensemble(report: dict[str, Any]) -> str:
    """What several models say together, a line a split, with an empty line before and after; else nothing."""
    lines = []
    for split in ("validation", "test"):
        found = (report.get(split) or {}).get("ensemble")
        if found:
            accuracy, spread = found["accuracy"], found["spread"]
            line = f"- {split}: accuracy of the mean score {interval_words(accuracy)}"
            if spread["mean"] is not None:
                line += (
                    f"; standard deviation of a response's score over the models {_number(spread['mean'])} on average"
                )
            lines.append((found["members"], line))
    if not lines:
        return ""
    told = "\n".join(line for _, line in lines)
    return f"\nThis is the first of {lines[0][0]} models, which differ by their seed:\n\n{told}\n"


def _scores(report: dict[str, Any]) -> str:
    """What the numbers beside the weights in ``config.json`` mean."""
    scale, thresholds = report.get("score_scale"), report.get("thresholds")
    lines = []
    if scale:
        lines += [
            f"- `plackett_score_mean` = {scale['mean'] / scale['std']:.4f}: the mean score of training responses, "
            "whose standard deviation is 1. Plackett subtracts it, plain transformers do not.",
            f"- `plackett_score_scale` = {scale['std']:.4f}: times a difference of two scores, it is the log-odds of "
            "the first that the model was trained to.",
        ]
    if thresholds:
        values = ", ".join(f"{plain(name)} = {value:.4f}" for name, value in thresholds.items())
        lines.append(
            f"- `plackett_thresholds`: {values}, learned for ties and strengths, on the scale of the log-odds."
        )
    told = "\n".join(lines)
    return f"\n## Scores\n\nIn `config.json`:\n\n{told}\n" if lines else ""


def plain(value: Any) -> str:
    """A value as one line of Markdown that shows it as it is: neither markup nor HTML."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*[]|" else sign for sign in text)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def interval_words(interval: dict[str, Any] | None) -> str:
    """`0.713 (0.690 to 0.739)`."""
    if interval is None or interval["value"] is None:
        return "unknown"
    ends = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval["low"] is not None else ""
    return f"{interval['value']:.3f}{ends}"
