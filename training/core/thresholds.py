"""The free parameters of models of ties: how near two responses are that people call equal, or only slightly apart.

One module for each model of ``training.core.losses``; called, it returns the tensor that its loss takes. Pair models
can also be fitted to the scores of a model that was trained without ties.

On their scale a step of 0.01 is small and one of 1 large, whatever the network: give them a learning rate of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.core.losses import PairModel, Pairs, outcome_log_probabilities, pair_log_likelihoods

# A threshold of 0 has no ties at all, and the logarithm of their probability no value.
SMALLEST_GAP = 1e-6
# Shares of ties that starting values are made from: one that never occurred in the data may still be learned.
TIE_SHARES = (0.01, 0.9)
ORDINAL_GAP = 1.0
LARGEST_TIER = 4

NAMES: dict[PairModel, tuple[str, ...]] = {
    "bradley-terry": (),
    "rao-kupper": ("eta",),
    "davidson": ("nu",),
    "ordinal": ("eta_1", "eta_2", "eta_3"),
}

Floats = NDArray[np.float64]


class Gaps(nn.Module):
    """Increasing positive thresholds η, (n,), on the scale of scores: sums of gaps, each made positive by softplus."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        super().__init__()
        gaps = [high - low for low, high in zip([0.0, *thresholds], thresholds, strict=False)]
        self.free = nn.Parameter(torch.tensor([_inverse_softplus(gap - SMALLEST_GAP) for gap in gaps]))

    def forward(self) -> Tensor:
        gaps = softplus(self.free) + SMALLEST_GAP
        # Not cumsum, which has no deterministic kernel on CUDA.
        return torch.stack([gaps[: count + 1].sum() for count in range(len(gaps))])


class RaoKupper(Gaps):
    """η of Rao and Kupper, (1,)."""

    kind: PairModel = "rao-kupper"

    def __init__(self, tie_share: float) -> None:
        """Start where two equal scores tie with ``tie_share``: P(tie | Δ = 0) = 2σ(η) − 1."""
        super().__init__([_eta_of(tie_share)])

    def values(self) -> dict[str, float]:
        """``{"eta": …}``."""
        return name_thresholds(self.kind, self())


class Ordinal(Gaps):
    """η₁ < η₂ < η₃ of the ordinal model, (3,)."""

    kind: PairModel = "ordinal"

    def __init__(self, tie_share: float) -> None:
        """Start with Rao and Kupper's η₁, and the others at equal steps above it."""
        first = _eta_of(tie_share)
        super().__init__([first, first + ORDINAL_GAP, first + 2 * ORDINAL_GAP])

    def values(self) -> dict[str, float]:
        """``{"eta_1": …, "eta_2": …, "eta_3": …}``."""
        return name_thresholds(self.kind, self())


class Davidson(nn.Module):
    """ln ν of Davidson, (1,)."""

    kind: PairModel = "davidson"

    def __init__(self, tie_share: float) -> None:
        """Start where two equal scores tie with ``tie_share``: P(tie | Δ = 0) = ν / (2 + ν)."""
        super().__init__()
        self.log_nu = nn.Parameter(torch.tensor([_log_nu_of(tie_share)]))

    def forward(self) -> Tensor:
        return self.log_nu

    def values(self) -> dict[str, float]:
        """``{"nu": …}``."""
        return name_thresholds(self.kind, self())


class BradleyTerry(nn.Module):
    """No parameters, (0,): so that recipes need not ask."""

    kind: PairModel = "bradley-terry"

    def __init__(self, tie_share: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("none", torch.zeros(0), persistent=False)

    def forward(self) -> Tensor:
        none: Tensor = self.get_buffer("none")
        return none

    def values(self) -> dict[str, float]:
        """``{}``."""
        return {}


class TierSizes(nn.Module):
    """ln δ_2 … ln δ_D of Plackett-Luce with ties, (D − 1,)."""

    def __init__(self, tie_share: float, *, largest_tier: int = LARGEST_TIER) -> None:
        """Start at δ_k = ν^(k − 1), ν from the share of tied pairs as in ``Davidson``.

        Two responses, the only size that a share of pairs speaks of, then tie as often as in the data; and a ranking
        costs one factor ν for each "=" written in place of a ">", however its ties are grouped into tiers.
        """
        super().__init__()
        log_nu = _log_nu_of(tie_share)
        self.log_delta = nn.Parameter(torch.tensor([(size - 1) * log_nu for size in range(2, largest_tier + 1)]))

    def forward(self) -> Tensor:
        return self.log_delta

    def values(self) -> dict[str, float]:
        """``{"delta_2": …, …, "delta_D": …}``."""
        return {f"delta_{size}": math.exp(value) for size, value in enumerate(self().tolist(), start=2)}


PairThresholds = BradleyTerry | RaoKupper | Davidson | Ordinal


def pair_thresholds(kind: PairModel, *, tie_share: float) -> PairThresholds:
    """The module of a pair model; ``tie_share`` is the share of ties among the pairs that could have been one."""
    modules: dict[PairModel, type[PairThresholds]] = {
        "bradley-terry": BradleyTerry,
        "rao-kupper": RaoKupper,
        "davidson": Davidson,
        "ordinal": Ordinal,
    }
    return modules[kind](tie_share)


def name_thresholds(kind: PairModel, thresholds: Tensor) -> dict[str, float]:
    """The thresholds of a pair model's loss by name, for JSON; Davidson's as ν itself, not its logarithm."""
    values = thresholds.tolist()
    return dict(zip(NAMES[kind], map(math.exp, values) if kind == "davidson" else values, strict=True))


def tensor_of_thresholds(kind: PairModel, values: Mapping[str, float]) -> Tensor:
    """What ``name_thresholds`` was given, in float64.

    Raises:
        KeyError: a name of this model is missing.
    """
    thresholds = torch.tensor([values[name] for name in NAMES[kind]], dtype=torch.float64)
    return thresholds.log() if kind == "davidson" else thresholds


def outcome_probabilities(kind: PairModel, difference: Floats, values: Mapping[str, float]) -> Floats:
    """P of [the first wins, a tie, the second wins], without margin, for evaluation: (M,) to (M, 3), float64.

    Two responses under Plackett-Luce with ties are Davidson's pair with ``{"nu": delta_2}``.
    """
    thresholds = tensor_of_thresholds(kind, values)
    log_p = outcome_log_probabilities(kind, torch.from_numpy(np.asarray(difference, np.float64)), thresholds)
    result: Floats = log_p.exp().numpy()
    return result


# --- fitting to given scores ------------------------------------------------------------------------------------------

# Where a category never occurs, or always, the likelihood has no optimum: the fit then ends at one of these.
LARGEST_GAP, LOG_NU_RANGE = 1e4, (-600.0, 600.0)


def fit_thresholds(
    kind: PairModel,
    difference: Floats,
    outcome: Floats,
    weight: Floats,
    strength: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """The maximum-likelihood thresholds of a pair model, given Δ of each pair, (M,): by name, in float64.

    For scores that come without a model of ties; without pairs, starting values. The likelihood is concave in the
    thresholds (each term is the logarithm of a σ, of a band of σ or of a softmax, and σ is log-concave), so what is
    found is the optimum.

    Args:
        kind: the model; Bradley-Terry has nothing to fit.
        difference: score of the first − score of the second.
        outcome: 1 the first won, 0.5 a tie, 0 the second won.
        weight: of each pair.
        strength: what was said of each pair, for ``ordinal``; see ``training.core.losses.Pairs``.
    """
    columns = [torch.from_numpy(np.array(column, np.float64)) for column in (difference, outcome, weight)]
    said = torch.zeros(len(columns[0])).long() if strength is None else torch.from_numpy(np.array(strength, np.int64))
    nothing = torch.zeros(len(said))
    pairs = Pairs(nothing, nothing, columns[1], columns[2] / columns[2].sum(), margin=nothing, strength=said)
    if not NAMES[kind] or not len(said):
        start = pair_thresholds(kind, tie_share=0.0)()
        return name_thresholds(kind, start.detach())

    def to_thresholds(point: Tensor) -> Tensor:
        """Davidson's ln ν is free; the others are sums of gaps, so that limits on each gap keep them in order."""
        return point if kind == "davidson" else point.cumsum(0)

    def loss(point: Tensor) -> Tensor:
        terms = pair_log_likelihoods(columns[0], pairs, kind=kind, thresholds=to_thresholds(point))
        return -(pairs.weight * terms).sum()

    low, high = LOG_NU_RANGE if kind == "davidson" else (SMALLEST_GAP, LARGEST_GAP)
    start = torch.full((len(NAMES[kind]),), 0.0 if kind == "davidson" else 0.5, dtype=torch.float64)
    return name_thresholds(kind, to_thresholds(_minimise(loss, start, low=low, high=high)))


def _minimise(function: Callable[[Tensor], Tensor], point: Tensor, *, low: float, high: float) -> Tensor:
    """The minimum of a convex function of (n,) with each coordinate in [low, high]: Newton steps, projected.

    Coordinates that a step would push out of their limits stay there and leave the system that is solved (Bertsekas
    1982, projected Newton); a step is halved until it lowers the function.
    """
    for _ in range(100):
        value, gradient, hessian = _derivatives(function, point)
        held = ((point <= low) & (gradient > 0)) | ((point >= high) & (gradient < 0))
        gradient = gradient.masked_fill(held, 0.0)
        if gradient.abs().max() < 1e-12:
            break
        hessian = hessian.masked_fill(held[:, None] | held[None, :], 0.0)
        # Thresholds that the data do not tell apart leave directions without curvature.
        ridge = 1e-9 * hessian.diagonal().max() + 1e-12
        direction = torch.linalg.solve(hessian + ridge * torch.eye(len(point), dtype=point.dtype), gradient)
        for halvings in range(40):
            moved = (point - direction * 0.5**halvings).clamp(low, high)
            if function(moved) < value:
                break
        else:
            break  # nothing lower in floating point
        point = moved
    return point


def _derivatives(function: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        value = function(point)
        (gradient,) = torch.autograd.grad(value, point, create_graph=True)
        rows = [torch.autograd.grad(entry, point, retain_graph=True)[0] for entry in gradient]
    return value.detach(), gradient.detach(), torch.stack(rows)


# --- starting values --------------------------------------------------------------------------------------------------


def _eta_of(tie_share: float) -> float:
    share = min(max(tie_share, TIE_SHARES[0]), TIE_SHARES[1])
    return math.log((1 + share) / (1 - share))  # logit of (1 + share) / 2


def _log_nu_of(tie_share: float) -> float:
    share = min(max(tie_share, TIE_SHARES[0]), TIE_SHARES[1])
    return math.log(2 * share / (1 - share))


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
