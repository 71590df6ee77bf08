"""What the report of a trained policy warns of, in words; held-out perplexity and DPO's margins with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.core.bootstrap import Floats, Statistic, mean, with_intervals
from training.core.examples import Example
from training.core.judgements import all_pairs, read_judgements
from training.core.policy_statistics import number_groups
from training.core.policy_words import best_of
from training.core.reports import FEW_GROUPS
from training.core.wording import ENGLISH

# Fewer prompts than these leave a win rate known to some ±10 points.
FEW_PROMPTS = 100
# Growth of the mean response that is worth a word; from half as much again on, it is an alarm.
GROWN = 1.2
# Share of responses cut off by the length limit from which the limit shapes what is learned.
OFTEN_CUT = 0.2
# Nats a response; where the KL has no target, what is far is our own guess.
FAR = 25.0
# A judge hardly better than chance decides nothing.
WEAK_JUDGE = 0.55

Report = Mapping[str, Any]


# --- warnings --------------------------------------------------------------------------------------------------------


def policy_warnings(
    report: Report,
    *,
    skipped_steps: int = 0,
    defused_texts: int = 0,
    template: str | None = None,
    trained_on: Sequence[str] = (),
) -> list[str]:
    """What a reader of a policy's report has to know, in words; what weighs most comes first.

    Args:
        report: of kind ``ppo``, ``dpo``, ``sft`` or ``comparison``, with all but its warnings.
        skipped_steps: optimiser steps left out because something was not finite.
        defused_texts: texts that hold control tokens.
        template: name of our template, where the model brings none.
        trained_on: further warnings of the recipe, on its data and, with dpo, on held-out pairs
            (``reports.warnings_about``), put before those on the run.
    """
    kinds: tuple[Callable[[Report], list[str]], ...] = (
        _about_suspicion, _about_prompts, _about_judge, _about_wins, _about_length, _about_cut_off, _about_distance,
        _about_choice, _about_text, _about_margins,
    )  # fmt: skip
    found = [warning for about in kinds for warning in about(report)] + list(trained_on)
    found += encoding_warnings(defused_texts, template)
    if skipped_steps:
        found.append(f"{skipped_steps} steps were skipped because their gradients were not finite.")
    return found


def encoding_warnings(defused_texts: int, template: str | None) -> list[str]:
    """What is to be known of how texts became tokens; the arguments are those of ``policy_warnings``."""
    found = []
    if template is not None:
        found.append(f"The model has no chat template; texts were rendered with Plackett's own, {template}.")
    if defused_texts:
        found.append(f"{defused_texts} texts hold control tokens; they were encoded as plain text.")
    return found


def _about_suspicion(report: Report) -> list[str]:
    suspect = report.get("suspect")
    if not suspect:
        return []
    kept = report.get("kept_step")
    saved = "" if kept is None else f" The model has the weights of step {kept}, the best before that."
    return [f"Suspect of over-optimisation since step {suspect['step']}. {' '.join(suspect['reasons'])}{saved}"]


def _about_prompts(report: Report) -> list[str]:
    if report["kind"] != "ppo" and not report.get("after"):
        return []
    if not report.get("after"):
        return ["There are no held-out prompts: nothing is known of the policy but the reward that it was trained on."]
    found = report.get("win_rate") or (report.get("change") or {}).get("score") or {}
    prompts = found.get("prompts")
    if prompts is None or prompts >= FEW_PROMPTS:
        return []
    return [f"The figures rest on {prompts} held-out prompts only: small differences are chance."]


def _about_judge(report: Report) -> list[str]:
    judge = report.get("judge")
    if not report.get("after") or judge is None:
        return []
    if report.get("win_rate") is None:
        why = judge["source"] if judge["source"] not in ("made", "given") else "it was not asked"
        return [f"No judge ({why}): what the trained reward prefers is all that is known."]
    found = []
    if judge.get("disjoint") is False:
        found.append(
            "The judge learned from prompts that the reward model learned from, too: it may share the mistakes that "
            "the policy has learned to exploit."
        )
    if judge.get("disjoint") is None:
        found.append("It is not known whether the judge learned from the same prompts as the reward model.")
    accuracy = (judge.get("accuracy") or {}).get("value")
    if accuracy is not None and accuracy < WEAK_JUDGE:
        found.append(f"The judge agrees with people on {accuracy * 100:.0f} % of held-out pairs, little beyond chance.")
    return found


def _about_wins(report: Report) -> list[str]:
    plain, equal = report.get("win_rate"), report.get("length_controlled_win_rate")
    if not plain or plain["low"] is None:
        return []
    compared = report["kind"] == "comparison"
    other, than = ("the baseline",) * 2 if compared else ("the policy at the start", "at the start")
    if plain["high"] < 0.5:
        return [f"The judge prefers the answers of {other} ({_ends(plain)})."]
    if plain["low"] <= 0.5:
        return [f"The policy is not shown to be better than {than} (wins: {_ends(plain)}, a half inside)."]
    found = []
    if equal and equal["low"] is not None and equal["low"] <= 0.5:
        found.append(f"At equal lengths the policy is not shown to be better than {than} (wins: {_ends(equal)}).")
    best = best_of(report)
    if best and best["value"] is not None and best["value"] >= plain["value"]:
        found.append(
            f"Choosing the best-scored of {best['n']} answers of {other} wins at least as often "
            f"without any training ({ENGLISH.percent(best['value'])} against {ENGLISH.percent(plain['value'])})."
        )
    return found


def _ends(interval: Mapping[str, Any]) -> str:
    return f"95 % interval {ENGLISH.percent(interval['low'])} to {ENGLISH.percent(interval['high'])}"


def _about_length(report: Report) -> list[str]:
    before, after = (part.get("length_mean") for part in (report.get("before") or {}, report.get("after") or {}))
    if not before or after is None or after < GROWN * before:
        return []
    change = f"{(after / before - 1) * 100:+.0f} %"
    if report["kind"] == "comparison":
        return [f"The policy's responses have {after:.0f} tokens, those of the baseline {before:.0f} ({change})."]
    return [f"Responses grew from {before:.0f} to {after:.0f} tokens ({change})."]


def _about_cut_off(report: Report) -> list[str]:
    rate = (report.get("after") or {}).get("eos_rate")
    if rate is None or 1 - rate < OFTEN_CUT:
        return []
    return [f"{(1 - rate) * 100:.0f} % of the responses were cut off by the length limit."]


def _about_distance(report: Report) -> list[str]:
    kl = (report.get("after") or {}).get("kl")
    if kl is None or kl < FAR:
        return []
    return [f"The policy is far from its start: {kl:.0f} nats a response. What the reward says of it is less certain."]


def _about_choice(report: Report) -> list[str]:
    """Whether the weights were chosen by what is reported: the best of several evaluations is in part the luckiest."""
    kept = report.get("kept_step")
    if (
        not report.get("after")
        or kept is None
        or kept == report["steps"]
        or report.get("split", "validation") == "test"
    ):
        return []
    return [
        f"The weights (step {kept}) were chosen on the prompts that these figures are over, so they are a little too "
        "good; test prompts have decided nothing (--evaluate-split test)."
    ]


def _about_margins(report: Report) -> list[str]:
    """DPO's known way to go wrong: margins grow while both sides fall (Pal et al. 2024, arXiv 2402.13228)."""
    section = report.get("validation")
    preferred = ((section.get("margins") if isinstance(section, Mapping) else None) or {}).get("preferred") or {}
    if preferred.get("high") is None or preferred["high"] >= 0:
        return []
    return [
        "Training made even the preferred validation responses less likely (implicit reward "
        f"{ENGLISH.figure(preferred['value'])} nats): what it prefers now is something else."
    ]


def _about_text(report: Report) -> list[str]:
    if report["kind"] != "sft":
        return []
    section: Mapping[str, Any] = report.get("validation") or {}
    found = section.get("perplexity") or {"value": None}
    if found["value"] is None:
        return ["There is no held-out text: perplexity is unknown."]
    change = section.get("change")
    if change and change["high"] is not None and change["high"] >= 0:
        return ["Held-out loss is not shown to have fallen."]
    groups = section.get("groups", FEW_GROUPS)
    return [f"Held-out perplexity rests on {groups} split groups only."] if groups < FEW_GROUPS else []


# --- held-out text ---------------------------------------------------------------------------------------------------


def perplexity_report(
    losses: Floats,
    tokens: Floats,
    split_groups: Sequence[str],
    *,
    seed: int,
    before: Floats | None = None,
) -> dict[str, Any]:
    """``validation`` and ``before`` of an SFT report: exp of the mean loss over tokens, with intervals.

    Args:
        losses: (D,), −Σ ln p over a document's trained tokens, nats.
        tokens: (D,), how many these are.
        split_groups: (D,), what is drawn.
        before: (D,), the losses of the model at the start over the same tokens.

    Returns:
        ``{"validation": {"loss", "perplexity": {"value", "low", "high", "tokens", "documents"}, "groups"}}``, and with
        ``before`` its ``loss`` and ``perplexity``, and in ``validation`` the paired ``change`` of the loss (after −
        before, nats a token). Figures are None without text.
    """
    group = number_groups(split_groups) if len(split_groups) else np.zeros(0, np.int64)
    groups = int(group.max()) + 1 if len(group) else 0
    beside = {"tokens": int(tokens.sum()), "documents": len(tokens)}

    def over_tokens(values: Floats, combine: Callable[[Floats], Floats], beside: dict[str, Any]) -> Statistic:
        sums = [np.bincount(group, weights=column, minlength=groups) for column in (values, tokens)]
        return Statistic(np.stack(sums, axis=1), combine, beside)

    def section(values: Floats) -> dict[str, Any]:
        mean = float(values.sum() / tokens.sum()) if tokens.sum() else None
        return {"loss": mean, "perplexity": over_tokens(values, lambda sums: np.exp(_ratio(sums)), dict(beside))}

    found: dict[str, Any] = {"validation": {**section(losses), "groups": groups}}
    if before is not None:
        found["validation"]["change"] = over_tokens(losses - before, _ratio, {})
        found["before"] = section(before)
    written: dict[str, Any] = with_intervals(found, seed=seed)
    return written


def implicit_margins(
    examples: Sequence[Example], rewards: Sequence[Sequence[float]], *, seed: int, below: bool = False
) -> dict[str, Any]:
    """What DPO pulled apart: ``margins`` of a split's section, beside what ``evaluate`` says of the same rewards.

    Args:
        rewards: β · ln (π / π_ref) of each response, nats, example by example.
        below: as for ``evaluate``.

    Returns:
        ``margin`` (preferred − other), ``preferred`` and ``other``, means over strict pairs with intervals, and
        ``pairs``.
    """
    judgements = read_judgements(examples, rewards, below=below)
    pairs = all_pairs(judgements)
    strict = pairs.where(pairs.strict)
    columns = {
        "margin": strict.margin,
        "preferred": judgements.score[strict.first],
        "other": judgements.score[strict.second],
    }
    found = {name: mean(values, strict.group, groups=judgements.groups) for name, values in columns.items()}
    written: dict[str, Any] = with_intervals(found, seed=seed)
    return {**written, "pairs": len(strict)}


def _ratio(sums: Floats) -> Floats:
    found: Floats = sums[..., 0] / sums[..., 1]
    return found


# --- in a line -------------------------------------------------------------------------------------------------------


def policy_line(report: Report) -> str:
    """What came out, in a few words, for the end of the log."""
    words = []
    wins, after = report.get("win_rate"), report.get("after") or {}
    if wins:
        words.append(f"wins {ENGLISH.interval(wins)} against the start")
    elif after:
        words.append(f"score {_number((report.get('before') or {}).get('score'))} → {_number(after.get('score'))}")
    perplexity = (report.get("validation") or {}).get("perplexity")
    if perplexity and perplexity["value"] is not None:
        words.append(f"held-out perplexity {ENGLISH.interval(perplexity, ENGLISH.figure)}")
    if after.get("kl") is not None:
        words.append(f"KL {_number(after['kl'])} nats a response")
    if report.get("suspect"):
        words.append("suspect of over-optimisation")
    return ", ".join(words) or "nothing held out"


def _number(value: float | None) -> str:
    return ENGLISH.figure(value)
