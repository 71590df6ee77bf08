"""What the learning experiments report: intervals over groups, and three outcomes from two scores."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEAST_CHANCE = 1e-12

Floats = NDArray[np.float64]
# Three chances a pair, from the differences of scores and the logarithm of what makes ties likely.
Curve = Callable[[Floats, float], Floats]


@dataclass(frozen=True)
class Share:
    """A mean with its 95 % percentile interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def right(margin: Floats) -> Floats:
    """1 where the winner scores higher, one half where both score the same, 0 elsewhere."""
    return (np.sign(margin) + 1) / 2


def over_groups(columns: Sequence[Floats], groups: Sequence[str], *, seed: int = 0) -> list[Share]:
    """The mean of each column (one value a pair) with an interval from 2,000 draws of whole groups.

    All columns see the same draws, so the interval of a column of differences is a paired one.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(place, weights=column, minlength=len(names)) for column in columns], axis=1)
    sizes = np.bincount(place, minlength=len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes)[:, None], [0.025, 0.975], axis=0)
    return [Share(float(c.mean()), float(low[i]), float(high[i])) for i, c in enumerate(columns)]


# --- three outcomes ---------------------------------------------------------------------------------------------------


def rao_kupper(difference: Floats, log_threshold: float) -> Floats:
    """Chances (M, 3) that the first wins, that both are as good, that the second wins (Rao and Kupper 1967).

    P(first) = σ(Δ − η), P(second) = σ(−Δ − η), the rest is a tie; η = e^{log_threshold}.
    """
    threshold = math.exp(log_threshold)
    first, second = _sigmoid(difference - threshold), _sigmoid(-difference - threshold)
    return np.stack([first, 1 - first - second, second], axis=1)


def davidson(difference: Floats, log_tie: float) -> Floats:
    """The same by Davidson (1970): e^{Δ/2} : ν : e^{−Δ/2} with ν = e^{log_tie}."""
    logits = np.stack([difference / 2, np.full_like(difference, log_tie), -difference / 2], axis=1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def outcome_losses(chances: Floats, winner: Sequence[int | None]) -> Floats:
    """−ln of the chance of what was said, in nats; ``winner`` 0 or 1 is a side, None a tie."""
    column = np.array([{0: 0, None: 1, 1: 2}[side] for side in winner])
    return -np.log(np.maximum(chances[np.arange(len(column)), column], LEAST_CHANCE))


def constant_chances(winner: Sequence[int | None], *, rows: int) -> Floats:
    """The same three chances for every pair: the share of ties in ``winner``, the rest halved between the sides."""
    tie = sum(side is None for side in winner) / len(winner)
    return np.tile([(1 - tie) / 2, tie, (1 - tie) / 2], (rows, 1))


def fit_tie(curve: Curve, difference: Floats, winner: Sequence[int | None]) -> float:
    """The curve's parameter with the least mean loss on these pairs."""
    return _least(lambda tie: _mean_loss(curve(difference, tie), winner), -7, 4)


def fit_tie_and_factor(curve: Curve, difference: Floats, winner: Sequence[int | None]) -> tuple[float, float]:
    """The parameter and the factor on the differences with the least mean loss on these pairs.

    ``difference`` may be of anything, such as the characters of two texts.
    """
    unit = float(np.abs(difference).mean()) or 1.0

    def loss_at(log: float) -> float:
        scaled = difference * (math.exp(log) / unit)
        return _mean_loss(curve(scaled, fit_tie(curve, scaled, winner)), winner)

    factor = math.exp(_least(loss_at, -6, 4)) / unit
    return fit_tie(curve, difference * factor, winner), factor


def _mean_loss(chances: Floats, winner: Sequence[int | None]) -> float:
    return float(outcome_losses(chances, winner).mean())


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where ``loss``, which has one valley, is least, by golden section."""
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-3:
        left, farther = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(farther):
            high = farther
        else:
            low = left
    return (low + high) / 2


def _sigmoid(value: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -value))
