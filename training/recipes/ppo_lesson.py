"""From a rollout to what it teaches: shaped rewards, advantages, and how far the policy is from its reference."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.advantages import estimate_advantages
from training.core.errors import TrainingError
from training.core.kl import KlController, kl_estimate
from training.core.masked import row_sums
from training.core.policy_losses import importance_weights
from training.core.shaping import RunningScale, clip_scores, penalise_missing_eos, shape_rewards
from training.recipes.configs import PpoConfig
from training.recipes.ppo_rollout import Rollout


@dataclass(frozen=True)
class Lesson:
    """A rollout with what is to be learned from it; flat tensors (M,) as in ``Rollout``.

    ``rewards`` (N, T) are shaped; ``returns`` and ``values`` are None where the others of a group take their place;
    ``importance`` makes up for a sampler that computes otherwise than the trainer.
    """

    rollout: Rollout
    rewards: Tensor
    advantages: Tensor
    returns: Tensor | None
    importance: Tensor


def make_lesson(config: PpoConfig, rollout: Rollout, *, kl_coefficient: float, scale: RunningScale | None) -> Lesson:
    """Shape the rewards of a rollout and estimate advantages from them.

    Args:
        scale: the running scale of all scores so far, with --normalise-reward; takes in this rollout's.

    Raises:
        TrainingError: a score is beyond what float32 holds.
    """
    k1, mask = rollout.rows(rollout.log_probs - rollout.reference_log_probs)
    scores = torch.tensor(rollout.scores.total, dtype=torch.float32)
    if not scores.isfinite().all():
        raise TrainingError(f"a reward of {max(rollout.scores.total, key=abs):g} is too large to learn from")
    if scale is not None:
        scale.update(rollout.scores.total)
        # Divided, not centred: what is worth nothing stays worth nothing.
        scores = scores / scale.deviation
    if config.clip_reward is not None:
        scores = clip_scores(scores, config.clip_reward)
    scores = penalise_missing_eos(scores, rollout.ended, penalty=config.missing_eos_penalty)
    rewards = shape_rewards(scores, k1, mask, kl_coefficient=kl_coefficient, kl_in_reward=config.kl_place == "reward")
    found = estimate_advantages(
        config.advantage,  # type: ignore[arg-type]
        rewards=rewards,
        mask=mask,
        groups=rollout.groups,
        values=None if rollout.values is None else rollout.rows(rollout.values)[0],
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    return Lesson(
        rollout,
        rewards,
        found.advantages[mask],
        None if found.returns is None else found.returns[mask],
        importance_weights(rollout.log_probs, rollout.sampler_log_probs, cap=config.importance_cap),
    )


def divergence(rollout: Rollout) -> tuple[float, float]:
    """``ppo/kl``, the mean over responses of Σ k1, and ``ppo/kl_k3``, the mean over tokens; nats."""
    apart = rollout.log_probs - rollout.reference_log_probs
    k1, mask = rollout.rows(apart)
    return row_sums(k1, mask).mean().item(), kl_estimate(apart, "k3").mean().item()


def make_controller(config: PpoConfig) -> KlController:
    """Of the weight of the KL divergence."""
    return KlController(config.kl_coefficient, config.kl_target, config.kl_horizon)
