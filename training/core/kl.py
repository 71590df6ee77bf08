"""How far the policy has gone from its reference: estimates per token, in nats, and the controller of their weight.

x = ln π(token) − ln π_ref(token), of tokens that π sampled.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KlKind = Literal["k1", "k2", "k3"]

# e^20 is 5e8: beyond, an estimate says nothing and its exponential would soon overflow.
LOG_RATIO_LIMIT = 20.0
LARGEST_ERROR = 0.2


def kl_estimate(log_ratio: Tensor, kind: KlKind) -> Tensor:
    """KL(π‖π_ref) of each token, estimated from the one that was sampled; any shape.

    - ``k1`` = x: unbiased, may be negative. What goes into rewards and, summed over a response, into ``ppo/kl``.
    - ``k2`` = x²/2: biased, never negative.
    - ``k3`` = e^−x − 1 + x: unbiased, never negative, less variance; x is clamped to ±20.

    Source: J. Schulman, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html.
    """
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return log_ratio.square() / 2
    if kind == "k3":
        bounded = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        return torch.expm1(-bounded) + bounded
    raise ValueError(f"unknown estimate of the divergence: {kind!r}")


def kl_loss(log_ratio: Tensor, kind: KlKind) -> Tensor:
    """A divergence of each token whose gradient through ln π is a penalty; any shape.

    The expected gradient over tokens sampled from π is that of KL(π‖π_ref) for ``k2``, and that of KL(π_ref‖π), equal
    to it near the reference, for ``k3`` (the penalty of GRPO, arXiv 2402.03300, eq. 4).

    Raises:
        ValueError: ``k1``, which penalises nothing: the expectation of ∇ ln π under π is zero, wherever π is.
    """
    if kind == "k1":
        raise ValueError(
            "k1 is no loss: its gradient is ∇ ln π, whose expectation over tokens sampled from the policy is zero, so "
            "that it adds noise and no penalty; use k2 or k3, or put k1 into the reward"
        )
    return kl_estimate(log_ratio, kind)


@dataclass
class KlController:
    """The coefficient β of the divergence in the reward; fixed where there is no ``target``.

    Adaptive (Ziegler et al. 2019, arXiv 1909.08593, section 2.2; with a horizon as in their code,
    github.com/openai/lm-human-preferences): after a rollout of n episodes β ← β (1 + clip(KL / KL* − 1, ±0.2) · n /
    horizon).

    ``coefficient`` is all that changes, and thus all that a checkpoint needs.
    """

    coefficient: float
    target: float | None = None
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.coefficient) and self.coefficient >= 0):
            raise ValueError(f"the coefficient of the divergence must be at least 0, not {self.coefficient}")
        if self.target is not None and not self.target > 0:
            raise ValueError(f"the divergence to aim at must be above 0, not {self.target}")
        if not self.horizon > 0:
            raise ValueError(f"the horizon must be above 0 episodes, not {self.horizon}")

    def update(self, kl: float, episodes: int) -> None:
        """Take in a rollout.

        Args:
            kl: mean over its episodes of the summed ``k1`` of their tokens, in nats.
            episodes: how many, over all processes.

        Raises:
            ValueError: ``kl`` is not finite, or the horizon is so short that β would fall to 0 or below.
        """
        if not math.isfinite(kl):
            raise ValueError(f"the divergence of the rollout is {kl}")
        if self.target is None:
            return
        if episodes * LARGEST_ERROR >= self.horizon:
            raise ValueError(f"a horizon of {self.horizon} episodes is too short for rollouts of {episodes}")
        error = min(max(kl / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient *= 1 + error * episodes / self.horizon
