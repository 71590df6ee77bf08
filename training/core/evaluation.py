"""How well scores agree with people: the section of ``report.json`` for one split, from scores and rankings alone.

Accuracy is over strict pairs; ties in the human ranking count in Kendall's τ-b, in the ceiling, in best-of-n and, with
a tie model, in the three-way log-loss. What a ranking leaves unranked takes no part, or counts as below all it places.
Every interval is over draws of whole split groups, and all see the same draws.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from training.core.agreement import human_ceiling
from training.core.best_of_n import best_of_n
from training.core.bootstrap import Floats, correlation, mean, with_intervals
from training.core.calibration import (
    calibration_curve,
    confidence_of,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    pair_losses,
)
from training.core.examples import Example
from training.core.judgements import Judgements, Pairs, all_pairs, correctness, read_judgements
from training.core.randomness import derive_seed
from training.core.slices import accuracy_by

OutcomeModel = Callable[[Floats], Floats]


def evaluate(
    examples: Sequence[Example],
    scores: Sequence[Sequence[float]],
    *,
    seed: int,
    known_annotators: Iterable[int] | None = None,
    annotators: Sequence[str] | None = None,
    outcome_log_probabilities: OutcomeModel | None = None,
    below: bool = False,
) -> dict[str, Any]:
    """The section of ``report.json`` for one split; a figure is None where there is nothing to make it from.

    Besides those that DESIGN fixes: ``groups``; ``against_length`` and ``against_shorter`` (accuracy − that of the
    rule, paired); ``log_loss_interval``, ``kendall_tau_b_interval``; ``overconfidence`` (mean confidence − accuracy)
    and ``calibration`` (``calibration_curve``); ``accuracy_by``; ``ceiling`` (``human_ceiling``); ``score_length``;
    ``best_of_n``; ``outcomes``, None without a tie model.

    Args:
        scores: one per response, example by example; without a tie model, σ of a difference is the model's
            probability.
        seed: of the run.
        known_annotators: numbers of the annotators seen in training; None where that is not known.
        annotators: their names by number; without them the table shows numbers.
        outcome_log_probabilities: score differences (M,) → (M, 3), natural logarithms of the chances that the first
            wins, that both tie, and that the second wins; None for a model without ties. Log-loss and calibration
            over strict pairs are then of the chance to win given that it is no tie, which σ(difference) is under
            Davidson and is not under Rao-Kupper.
        below: whether everything that a ranking places beats what it leaves unranked, as with ``--unranked below``;
            the pairs are then those of ``examples.pairs_of``. Else what is left unranked takes no part.

    Raises:
        ValueError: not one score per response.
    """
    judgements = read_judgements(examples, scores, below=below)
    pairs = all_pairs(judgements)
    strict = pairs.where(pairs.strict)
    known = None if known_annotators is None else set(known_annotators)
    section = {
        "groups": len(np.unique(strict.group)),
        **_accuracy(judgements, strict),
        **_calibration(judgements, strict, _log_odds(strict, outcome_log_probabilities)),
        **_rank_agreement(judgements, pairs),
        "accuracy_by": accuracy_by(judgements, strict, known_annotators=known, annotators=annotators),
        "ceiling": human_ceiling(judgements, pairs),
        "score_length": score_length(judgements),
        "best_of_n": best_of_n(judgements),
        "outcomes": _outcomes(judgements, pairs, outcome_log_probabilities),
    }
    found: dict[str, Any] = with_intervals(section, seed=derive_seed(seed, "bootstrap"))
    return found


def _accuracy(judgements: Judgements, strict: Pairs) -> dict[str, Any]:
    right, longer = correctness(strict.margin), correctness(strict.length_margin)
    sizes = {"pairs": len(strict), "prompts": len(np.unique(strict.prompt))}
    group, groups = strict.group, judgements.groups
    return {
        "accuracy": mean(right, group, groups=groups, beside=sizes),
        "length_baseline": mean(longer, group, groups=groups, beside=sizes),
        "against_length": mean(right - longer, group, groups=groups),
        "against_shorter": mean(right - (1 - longer), group, groups=groups),
    }


def _log_odds(strict: Pairs, model: OutcomeModel | None) -> Floats:
    """(M,): ln of the odds that the first wins, given that it is no tie; without a tie model the score difference."""
    if model is None:
        return strict.margin
    log_chances = np.asarray(model(strict.margin), np.float64).reshape(len(strict), 3)
    found: Floats = log_chances[:, 0] - log_chances[:, 2]
    return found


def _calibration(judgements: Judgements, strict: Pairs, margin: Floats) -> dict[str, Any]:
    group, groups = strict.group, judgements.groups
    there = len(strict) > 0
    return {
        "log_loss": log_loss(margin) if there else None,
        "log_loss_interval": mean(pair_losses(margin), group, groups=groups),
        "ece": expected_calibration_error(margin) if there else None,
        "temperature": fit_temperature(margin) if there else None,
        "overconfidence": mean(confidence_of(margin) - correctness(margin), group, groups=groups),
        "calibration": calibration_curve(margin, group, groups=groups),
    }


def _rank_agreement(judgements: Judgements, pairs: Pairs) -> dict[str, Any]:
    """Kendall's τ-b of scores and tiers, averaged over the rankings where it is defined."""
    tau = kendall_tau_b(pairs, rankings=len(judgements.placed))
    defined = np.isfinite(tau)
    group = judgements.group_of_prompt[judgements.ranking_prompt[defined]]
    beside = {"rankings": int(defined.sum())}
    return {
        "kendall_tau_b": float(tau[defined].mean()) if defined.any() else None,
        "kendall_tau_b_interval": mean(tau[defined], group, groups=judgements.groups, beside=beside),
    }


def kendall_tau_b(pairs: Pairs, *, rankings: int) -> Floats:
    """(R,): τ-b of the scores and the tiers of each ranking; NaN where one of them does not vary.

    (concordant − discordant) / √((pairs − ties in the scores) (pairs − ties in the tiers)), Kendall 1945, over the
    pairs given: two responses that nobody compared, both left unranked, are neither concordant nor tied.
    """

    def total(values: Floats) -> Floats:
        sums: Floats = np.bincount(pairs.ranking, weights=values, minlength=rankings).astype(np.float64)
        return sums

    by_score, by_tier = np.sign(pairs.margin), pairs.strict.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: Floats = total(by_score * by_tier) / np.sqrt(total(by_score**2) * total(by_tier))
    return found


def score_length(judgements: Judgements) -> dict[str, Any]:
    """Correlation of score and characters within prompts, over all responses (``pearson``, ``spearman``).

    Both are centred per prompt first, so that only responses to the same prompt are compared; then one coefficient is
    taken over all of them. For Spearman's, score and length are replaced by their ranks within the prompt (equal
    values share the mean of their ranks), and those are centred.
    """
    prompts = len(judgements.group_of_prompt)
    group = judgements.group_of_prompt[judgements.prompt]

    def centred(values: Floats) -> Floats:
        means = np.bincount(judgements.prompt, weights=values, minlength=prompts)
        sizes = np.bincount(judgements.prompt, minlength=prompts)
        return values - (means / np.maximum(sizes, 1))[judgements.prompt]

    def agreement(first: Floats, second: Floats) -> Any:
        return correlation(centred(first), centred(second), group, groups=judgements.groups)

    score, length = judgements.score, judgements.length
    ranks = [mean_ranks(values, judgements.prompt) for values in (score, length)]
    return {
        "pearson": agreement(score, length),
        "spearman": agreement(ranks[0], ranks[1]),
        "responses": len(score),
        "prompts": prompts,
    }


def mean_ranks(values: Floats, part: Any) -> Floats:
    """(N,): the rank of each value within its part, up to a constant of each part; equal values share their mean."""
    order = np.lexsort((values, part))
    begins = np.ones(len(values), bool)
    begins[1:] = (np.diff(values[order]) != 0) | (np.diff(part[order]) != 0)
    run = np.cumsum(begins) - 1
    middle = np.bincount(run, weights=np.arange(len(values))) / np.bincount(run)
    ranks = np.empty(len(values))
    ranks[order] = middle[run]
    return ranks


def _outcomes(judgements: Judgements, pairs: Pairs, model: OutcomeModel | None) -> dict[str, Any] | None:
    """Three-way log-loss over strict and tied pairs, beside that of the best constant chances.

    The constants know how often people tie in this very split, and nothing of the pair: (1 − t) / 2, t, (1 − t) / 2.
    """
    if model is None:
        return None
    group, groups = pairs.group, judgements.groups
    tied = (~pairs.strict).astype(np.float64)
    log_chances = np.asarray(model(pairs.margin), np.float64).reshape(len(pairs), 3)
    losses = -np.where(pairs.strict, log_chances[:, 0], log_chances[:, 1])
    share = float(tied.mean()) if len(pairs) else 0.0
    with np.errstate(divide="ignore"):
        constant = np.where(pairs.strict, np.log(2) - np.log1p(-share), -np.log(share))
    return {
        "log_loss": mean(losses, group, groups=groups),
        "constant_log_loss": mean(constant, group, groups=groups),
        "against_constant": mean(losses - constant, group, groups=groups),
        "ties": mean(tied, group, groups=groups),
        "predicted_ties": mean(np.exp(log_chances[:, 1]), group, groups=groups),
        "pairs": len(pairs),
    }
