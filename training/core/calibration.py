"""Whether what the model gives as the chance to win is how often it happens: log-loss, calibration, temperature.

All from the margins (M,) of strict pairs: the log-odds that the winner wins, by default winner's score − loser's.
"""

import math
from typing import Any

import numpy as np

from training.core.bootstrap import Floats, Ints, mean
from training.core.judgements import correctness

CALIBRATION_BINS = 10
# A fit that ends here has no optimum: the pairs are all on one side.
TEMPERATURE_RANGE = (1e-2, 1e2)


def pair_losses(margin: Floats, temperature: float = 1.0) -> Floats:
    """−ln σ(margin / T) of each pair, in nats."""
    found: Floats = np.logaddexp(0, -margin / temperature)
    return found


def log_loss(margin: Floats, temperature: float = 1.0) -> float:
    """The mean of ``pair_losses``."""
    return float(pair_losses(margin, temperature).mean())


def confidence_of(margin: Floats) -> Floats:
    """What the model gives to the response that it prefers: σ(|margin|), in [0.5, 1]."""
    found: Floats = 1 / (1 + np.exp(-np.abs(margin)))
    return found


def bin_of(confidence: Floats) -> Ints:
    """Number of the equal-width bin of [0.5, 1]."""
    return np.minimum(((confidence - 0.5) * 2 * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def expected_calibration_error(margin: Floats) -> float:
    """|accuracy − confidence| averaged over equal-width bins of the confidence (Guo 2017)."""
    confidence = confidence_of(margin)
    gaps = np.bincount(bin_of(confidence), weights=correctness(margin) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(margin))


def calibration_curve(margin: Floats, group: Ints, *, groups: int) -> list[dict[str, Any]]:
    """The bins that hold pairs: ``from``, ``to``, ``pairs``, mean ``confidence``, and ``accuracy`` as a statistic."""
    confidence, right = confidence_of(margin), correctness(margin)
    numbers = bin_of(confidence)
    curve = []
    for number in np.unique(numbers).tolist():
        chosen = numbers == number
        curve.append(
            {
                "from": 0.5 + number / 2 / CALIBRATION_BINS,
                "to": 0.5 + (number + 1) / 2 / CALIBRATION_BINS,
                "pairs": int(chosen.sum()),
                "confidence": float(confidence[chosen].mean()),
                "accuracy": mean(right[chosen], group[chosen], groups=groups),
            }
        )
    return curve


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
