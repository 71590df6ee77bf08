"""PPO's losses per token, and what is read from them: pure functions of log-probabilities, in nats.

Per token, never means: what they are multiplied with before they are summed (``token_weights`` of
``training.core.advantages``) holds the denominator of the whole step, so that micro-batches and processes add up to its
loss. All shapes are (...), equal among the arguments; half precision is computed in float32, float64 stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.kl import LOG_RATIO_LIMIT


@dataclass(frozen=True)
class PolicyLoss:
    """``per_token`` with its gradient; the ``ratio`` π / π_old and whether the clipped term decided, without."""

    per_token: Tensor
    ratio: Tensor
    clipped: Tensor


@dataclass(frozen=True)
class ValueLoss:
    """``per_token`` with its gradient; whether the clipped value decided, without."""

    per_token: Tensor
    clipped: Tensor


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float, importance: Tensor | None = None
) -> PolicyLoss:
    """−w · min(ρA, clip(ρ, 1 ± ε) A) of each token, ρ = e^(ln π − ln π_old).

    Source: Schulman et al. 2017, arXiv 1707.06347, eq. 7.

    Args:
        log_probs: ln π of the sampled tokens, with gradient.
        old_log_probs: the same from the training forward before the first update of the rollout.
        advantages: A.
        clip: ε.
        importance: w, from ``importance_weights``; 1 if not given. The same in all inner epochs.

    ln ρ is clamped to ±20, so that one token cannot overflow the loss; it has no gradient beyond.
    """
    log_probs, old_log_probs = computed(log_probs), computed(old_log_probs).detach()
    ratio = (log_probs - old_log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    plain = -ratio * advantages
    bounded = -ratio.clamp(1 - clip, 1 + clip) * advantages
    per_token = torch.maximum(plain, bounded)
    if importance is not None:
        per_token = per_token * importance.detach()
    return PolicyLoss(per_token, ratio.detach(), (bounded > plain).detach())


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> ValueLoss:
    """½ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²) of each token.

    Source: the reference code of PPO (github.com/openai/baselines, ppo2/model.py), kept by Ziegler et al. 2019.

    Args:
        values: V, with gradient.
        old_values: V before the first update of the rollout.
        returns: R; from ``estimate_advantages``, before any whitening.
        clip: ε, on the scale of rewards; ``math.inf`` for none.
    """
    values, old_values = computed(values), computed(old_values).detach()
    near = old_values + (values - old_values).clamp(-clip, clip)
    plain, bounded = (values - returns).square(), (near - returns).square()
    return ValueLoss(torch.maximum(plain, bounded) / 2, (bounded > plain).detach())


def importance_weights(trainer: Tensor, sampler: Tensor, *, cap: float) -> Tensor:
    """min(π_trainer / π_sampler, cap) of each sampled token, without gradient.

    Corrects for a sampler that computes otherwise than the trainer (bf16, another engine): truncated importance
    sampling (Ionides 2008; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").

    Args:
        trainer: ln π_old of the training forward *before* the first update. With the current policy instead, the
            weights would repeat ρ, which the clipped loss holds already (a bug of slime, #179).
        sampler: what the sampler reported for the same tokens.
        cap: the largest weight, at least 1.
    """
    gap = computed(trainer).detach() - computed(sampler).detach()
    return gap.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=cap)


def clip_fraction(clipped: Tensor) -> float:
    """Share of the tokens where the clipped term decided; 0 without tokens. Flat tokens, no padding among them."""
    return clipped.double().mean().item() if clipped.numel() else 0.0


def ratio_max(ratio: Tensor) -> float:
    """The largest π / π_old; 1 without tokens. Flat tokens, no padding among them."""
    return ratio.max().item() if ratio.numel() else 1.0


def computed(values: Tensor) -> Tensor:
    """In float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()
