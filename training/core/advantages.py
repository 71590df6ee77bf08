"""How much better than expected each token was: four estimators behind one signature.

On padded rollouts (see ``training.core.masked``), the whole of one at a time, in the rewards' dtype.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.core.masked import row_sums, whiten

AdvantageKind = Literal["gae", "rloo", "grpo", "dr-grpo"]

# As in TRL: the smallest spread of scores that GRPO takes for one.
GRPO_EPSILON = 1e-4


@dataclass(frozen=True)
class Advantages:
    """``advantages`` (N, T), 0 outside the mask; ``returns`` (N, T), what values are trained to, of gae alone."""

    advantages: Tensor
    returns: Tensor | None


def estimate_advantages(
    kind: AdvantageKind,
    *,
    rewards: Tensor,
    mask: Tensor,
    groups: Tensor,
    values: Tensor | None,
    gamma: float,
    gae_lambda: float,
) -> Advantages:
    """Advantages of every token of a rollout.

    - ``gae``: per token, from values, then whitened over all tokens; returns are taken before that.
    - ``rloo``, ``grpo``, ``dr-grpo``: the summed rewards R of a response against those of the other responses to its
      prompt, the same for each of its tokens; never whitened, and not discounted.

    Args:
        rewards: (N, T), from ``shape_rewards``.
        mask: (N, T).
        groups: (N,), which prompt each row answers; read by the group estimators alone.
        values: (N, T), V before each token, from before the first update; read by gae alone.
        gamma: discount per token, of gae alone.
        gae_lambda: λ, of gae alone.

    Raises:
        ValueError: gae without values, or a group that has only one row with tokens.
    """
    if kind == "gae":
        if values is None:
            raise ValueError("gae needs values")
        raw = generalised_advantages(rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda)
        returns = torch.where(mask, raw + values, 0)
        return Advantages(whiten(raw, mask), returns)
    per_row = group_advantages(kind, row_sums(rewards, mask), groups, present=mask.any(1))
    return Advantages(torch.where(mask, per_row[:, None], 0), None)


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """A_t = δ_t + γλ A_{t+1}, δ_t = r_t + γ V_{t+1} − V_t, not whitened; 0 outside the mask. All (N, T).

    Behind the last real token of a row both V and A are 0, whether it ended or was cut off, and whatever ``values``
    holds there (a bug of verl, #1850, #50).

    Source: Schulman et al. 2016, arXiv 1506.02438, eq. 16.
    """
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = rewards.new_zeros(len(rewards))
    for place in reversed(range(rewards.shape[1])):
        real = mask[:, place]
        delta = rewards[:, place] + gamma * next_value - values[:, place]
        # Padding hands on what came from behind it: from its right end that is 0.
        next_advantage = torch.where(real, delta + gamma * gae_lambda * next_advantage, next_advantage)
        next_value = torch.where(real, values[:, place], next_value)
        advantages[:, place] = torch.where(real, next_advantage, 0)
    return advantages


def group_advantages(kind: AdvantageKind, totals: Tensor, groups: Tensor, *, present: Tensor) -> Tensor:
    """R against the others that answer the same prompt, (N,); 0 for a row that is not present.

    - ``rloo``: R_i − Σ_{j≠i} R_j / (K − 1) (Ahmadian et al. 2024, arXiv 2402.14740).
    - ``grpo``: (R_i − mean) / (s + 1e-4), s the sample standard deviation (Shao et al. 2024, arXiv 2402.03300,
      section 4.1.2; the sample's as in TRL and verl).
    - ``dr-grpo``: R_i − mean (Liu et al. 2025, arXiv 2503.20783).

    Args:
        totals: R, (N,).
        groups: (N,), equal numbers answer the same prompt.
        present: (N,), bool. Others (a response that was rejected, so that nothing of it is trained) are in no mean (a
            bug of verl, #6375).

    Raises:
        ValueError: only one row of a group is present, so that it has nothing to be compared with.
    """
    chosen, (numbers, place) = totals[present], torch.unique(groups[present], return_inverse=True)
    size = torch.bincount(place, minlength=len(numbers))
    if (size == 1).any():
        raise ValueError(f"{kind} compares responses to one prompt: a group of one has nothing to be compared with")
    apart = chosen - _group_sums(chosen, place, size) / size[place]
    if kind == "rloo":
        # The mean of all holds R_i itself: without it the distance is K / (K − 1) times as large.
        apart = apart * size[place] / (size[place] - 1)
    elif kind == "grpo":
        variance = _group_sums(apart.square(), place, size) / (size[place] - 1)
        apart = apart / (variance.sqrt() + GRPO_EPSILON)
    elif kind != "dr-grpo":
        raise ValueError(f"unknown estimator of advantages: {kind!r}")
    found = torch.zeros_like(totals)
    found[present] = apart
    return found


def _group_sums(values: Tensor, place: Tensor, size: Tensor) -> Tensor:
    """Of each value's group, (n,)."""
    return values.new_zeros(len(size)).index_add(0, place, values)[place]


def token_weights(kind: AdvantageKind, mask: Tensor, *, max_length: int) -> Tensor:
    """What per-token policy losses are multiplied with before they are summed, 0 outside the mask; float32 (N, T).

    - ``gae``, ``rloo``: 1 / all tokens, so that each weighs the same.
    - ``grpo``: 1 / (N |o_i|): each response the same (arXiv 2402.03300, eq. 3).
    - ``dr-grpo``: 1 / (N · max_length): a token the same, however many others there are (arXiv 2503.20783).

    N counts rows with tokens. The sums are those of one optimiser step over all its micro-batches and processes; TRL
    averages over micro-batches, whose tokens then weigh more the fewer they are.

    Args:
        mask: (N, T), the rows of one optimiser step, on all processes.
        max_length: the most tokens that a response may have; of dr-grpo alone.
    """
    real = mask.float()
    lengths = real.sum(1, keepdim=True)
    rows = (lengths > 0).sum().clamp(min=1)
    if kind in ("gae", "rloo"):
        return real / lengths.sum().clamp(min=1)
    if kind == "grpo":
        return real / (rows * lengths.clamp(min=1))
    if kind == "dr-grpo":
        return real / (rows * max_length)
    raise ValueError(f"unknown estimator of advantages: {kind!r}")


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float | None:
    """1 − Var(R − V) / Var(R) over the mask: 1 for a perfect critic, 0 for a constant one, below 0 for a worse one.

    None where returns do not vary (or there are fewer than two tokens).
    """
    real = returns[mask].double()
    spread = real.var(correction=0) if len(real) > 1 else real.new_zeros(())
    if spread == 0:
        return None
    left = (real - values[mask].double()).var(correction=0)
    return (1 - left / spread).item()
