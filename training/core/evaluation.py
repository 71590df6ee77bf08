"""How well scores agree with people: held-out pair accuracy with its interval, log-loss, calibration, rank agreement.

All of it from scores alone; the pairs are the strict ones (ties in the human ranking count in Kendall's τ-b only).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.core.examples import Example
from training.core.randomness import derive_seed

BOOTSTRAP_DRAWS, DRAWS_AT_ONCE = 2000, 100
CALIBRATION_BINS = 10
# A fit that ends here has no optimum: the pairs are all on one side.
TEMPERATURE_RANGE = (1e-2, 1e2)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its 95 % interval; the ends are None where there is nothing to draw from."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairTable:
    """The strict pairs of some examples: (M,) winner's score − loser's, the same of lengths, number of the group."""

    margin: Floats
    length_margin: Floats
    group: NDArray[np.int64]
    prompts: int


def pair_table(examples: Sequence[Example], scores: Sequence[Sequence[float]]) -> PairTable:
    """The strict pairs of all rankings, with the scores and the lengths (characters of the text) of both sides."""
    groups: dict[str, int] = {}
    margins, length_margins, numbers = [], [], []
    prompts = 0
    for example, row in zip(examples, scores, strict=True):
        strict = [pair for ranking in example.rankings for pair in ranking.pairs if pair.outcome == 1]
        prompts += bool(strict)
        for pair in strict:
            margins.append(row[pair.first] - row[pair.second])
            length_margins.append(len(example.responses[pair.first].text) - len(example.responses[pair.second].text))
            numbers.append(groups.setdefault(example.split_group, len(groups)))
    return PairTable(np.array(margins, float), np.array(length_margins, float), np.array(numbers, np.int64), prompts)


def evaluate(examples: Sequence[Example], scores: Sequence[Sequence[float]], *, seed: int) -> dict[str, Any]:
    """The section of ``report.json`` for one split; every figure is None where there are no pairs.

    Args:
        scores: one per response, example by example.
        seed: of the run; both intervals see the same draws.
    """
    table = pair_table(examples, scores)
    if not len(table.margin):
        nothing = {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}
        shares, figures = [nothing, nothing], dict.fromkeys(("log_loss", "ece", "temperature"))
    else:
        columns = [correctness(table.margin), correctness(table.length_margin)]
        intervals = bootstrap_means(columns, table.group, seed=derive_seed(seed, "bootstrap"))
        sizes = {"pairs": len(table.margin), "prompts": table.prompts}
        shares = [vars(interval) | sizes for interval in intervals]
        figures = {
            "log_loss": log_loss(table.margin),
            "ece": expected_calibration_error(table.margin),
            "temperature": fit_temperature(table.margin),
        }
    tau = mean_tau_b(examples, scores)
    return {"accuracy": shares[0], "length_baseline": shares[1], **figures, "kendall_tau_b": tau}


def correctness(margin: Floats) -> Floats:
    """1 where the winner scores higher, 0.5 where both score the same, 0 elsewhere."""
    return (np.sign(margin) + 1) / 2


def bootstrap_means(columns: Sequence[Floats], groups: NDArray[np.int64], *, seed: int) -> list[Interval]:
    """The mean of each column (one value a pair) with its 95 % percentile interval over draws of whole groups.

    Groups, not pairs, are drawn, because the pairs of a group share texts; all columns see the same draws. Every group
    must hold a pair.
    """
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, weights=values, minlength=count) for values in columns], axis=1)
    sizes = np.bincount(groups, minlength=count)
    values = [float(column.mean()) for column in columns]
    if count < 2:
        return [Interval(value, None, None) for value in values]
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAP_DRAWS // DRAWS_AT_ONCE):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS_AT_ONCE)
        means.append((drawn @ sums) / (drawn @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return [Interval(value, float(low[i]), float(high[i])) for i, value in enumerate(values)]


def log_loss(margin: Floats, temperature: float = 1.0) -> float:
    """Mean of −ln σ(margin / T), in nats."""
    return float(np.logaddexp(0, -margin / temperature).mean())


def expected_calibration_error(margin: Floats) -> float:
    """|accuracy − confidence| averaged over equal-width bins of the confidence σ(|margin|) in [0.5, 1] (Guo 2017)."""
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    right = correctness(margin)
    bins = np.minimum(((confidence - 0.5) * 2 * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(margin))


def fit_temperature(margin: Floats) -> float | None:
    """The T > 0 with the least log-loss of margin / T, or None where no T is best (all pairs right, or none).

    The log-loss is convex in 1/T; its slope there is bisected.
    """

    def slope(inverse: float) -> float:
        # d/da mean ln(1 + e^{−a m}) = −mean m σ(−a m)
        return float(-(margin * np.exp(-np.logaddexp(0, inverse * margin))).mean())

    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / math.sqrt(low * high)


def mean_tau_b(examples: Sequence[Example], scores: Sequence[Sequence[float]]) -> float | None:
    """Kendall's τ-b of scores and tiers, averaged over the rankings where it is defined."""
    found = []
    for example, row in zip(examples, scores, strict=True):
        for ranking in example.rankings:
            placed = [(row[place], -tier) for tier, places in enumerate(ranking.tiers) for place in places]
            tau = kendall_tau_b([score for score, _ in placed], [tier for _, tier in placed])
            found += [tau] if tau is not None else []
    return sum(found) / len(found) if found else None


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """(concordant − discordant) / √((pairs − ties in first) (pairs − ties in second)); None if one is constant."""
    together, spread_first, spread_second = 0, 0, 0
    for i in range(len(first)):
        for j in range(i):
            a, b = _sign(first[i] - first[j]), _sign(second[i] - second[j])
            together += a * b
            spread_first += a * a
            spread_second += b * b
    scale = math.sqrt(spread_first * spread_second)
    return together / scale if scale else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
