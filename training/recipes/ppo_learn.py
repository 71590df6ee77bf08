"""What a rollout teaches: rewards, advantages, and the inner epochs over its minibatches, in the order of the paper.

Schulman et al. 2017 (arXiv 1707.06347, algorithm 1), with the KL penalty and the value clipping of Ziegler et al. 2019
(arXiv 1909.08593). Losses are sums over flat response tokens, each with the weight that holds the denominator of the
whole minibatch, so micro-batches and processes add up to it.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.core.advantages import estimate_advantages, token_weights
from training.core.distributed import clip_gradients
from training.core.errors import TrainingError
from training.core.kl import KlController, kl_estimate, kl_loss
from training.core.log_probs import TokenFigures, backward_through
from training.core.masked import row_sums
from training.core.policy_losses import importance_weights, policy_loss, value_loss
from training.core.randomness import derive_seed, permutation
from training.core.shaping import RunningScale, clip_scores, penalise_missing_eos, shape_rewards
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.ppo_models import Models
from training.recipes.ppo_ptx import PtxData
from training.recipes.ppo_rollout import Rollout, flat_places
from training.recipes.ppo_rows import Part, responses_of


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


@dataclass
class LearningFigures:
    """What the inner epochs came to. Sums over updates; tokens are counted once for each epoch that saw them.

    Attributes:
        policy_loss, value_loss, ptx_loss: means over updates, as minimised, coefficients left out.
        clipped, value_clipped: tokens whose clipped term decided.
        apart: k3 of rollout and current policy, summed over tokens, nats.
    """

    updates: int = 0
    skipped: int = 0
    epochs: int = 0
    tokens: float = 0.0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    ptx_loss: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    apart: float = 0.0
    ratio_max: float = 1.0
    policy_norms: list[float] = field(default_factory=list)
    value_norms: list[float] = field(default_factory=list)
    forwarded: int = 0
    seconds: float = 0.0


def learn(
    session: Session[PpoConfig],
    models: Models,
    lesson: Lesson,
    *,
    step: int,
    kl_coefficient: float,
    ptx: PtxData | None,
) -> LearningFigures:
    """The inner epochs: each minibatch is an optimiser step; ended early where policy and rollout are too far apart."""
    config, started = session.config, time.monotonic()
    figures = LearningFigures()
    for epoch in range(config.inner_epochs):
        for part, prompts in enumerate(minibatches(lesson, config, step=step, epoch=epoch)):
            batch = Minibatch(session, models, lesson, prompts, kl_coefficient=kl_coefficient,
                              learns_policy=step > config.value_warmup, ptx=ptx)  # fmt: skip
            key = (step * config.inner_epochs + epoch) * config.minibatches + part
            sums = models.rows.budget.run(lambda tokens: batch.accumulate(tokens, key=key), drop=models.drop_gradients)  # noqa: B023
            # NCCL adds up nothing that is not on its device.
            sums = session.world.total(sums.to(session.device)).cpu()
            apart = float(sums[Sum.APART]) / max(1.0, float(sums[Sum.TOKENS]))
            if config.inner_kl_limit is not None and figures.updates and apart > config.inner_kl_limit:
                models.drop_gradients()
                break
            _update(session, models, figures, learns_policy=batch.learns_policy)
            _add(figures, sums)
            figures.ratio_max = max(figures.ratio_max, *session.world.gather(batch.ratio_max))
        else:
            figures.epochs += 1
            continue
        break
    figures.seconds = time.monotonic() - started
    return figures


def minibatches(lesson: Lesson, config: PpoConfig, *, step: int, epoch: int) -> list[list[int]]:
    """The prompts of each minibatch of an inner epoch: a fresh permutation, cut evenly."""
    count = len(lesson.rollout.sampled.examples)
    order = permutation(count, derive_seed(config.seed, "minibatches"), step, epoch)
    parts = min(config.minibatches, count)
    return [order[part * count // parts : (part + 1) * count // parts] for part in range(parts)]


class Sum:
    """Places in the sums of a minibatch."""

    POLICY, VALUE, PTX, CLIPPED, VALUE_CLIPPED, APART, TOKENS, FORWARDED = range(8)


class Minibatch:
    """Forward and backward of some prompts' responses, and what was seen on the way."""

    def __init__(
        self,
        session: Session[PpoConfig],
        models: Models,
        lesson: Lesson,
        prompts: Sequence[int],
        *,
        kl_coefficient: float,
        learns_policy: bool,
        ptx: PtxData | None,
    ) -> None:
        self.session, self.models, self.lesson, self.prompts = session, models, lesson, prompts
        self.kl_coefficient, self.learns_policy, self.ptx = kl_coefficient, learns_policy, ptx
        self.ratio_max = 1.0
        rollout, config = lesson.rollout, session.config
        mask = rollout.mask
        chosen = torch.isin(rollout.groups, torch.tensor(list(prompts)))
        mine = mask & chosen[:, None]
        self.weights = token_weights(config.advantage, mine, max_length=config.max_response_length)[mask]  # type: ignore[arg-type]
        self.token_share = 1.0 / max(1, int(mine.sum()))
        self.responses = int(chosen.sum())

    def accumulate(self, tokens: int, *, key: int) -> Tensor:
        """Gradients of this process's share of the losses, ``tokens`` forwarded at once; its part of the sums."""
        self.ratio_max = 1.0
        sums = torch.zeros(8, dtype=torch.float64)
        rows = self.models.rows
        for part in rows.parts(self.lesson.rollout.sampled.examples, self.prompts, tokens=tokens):
            places = flat_places(self.lesson.rollout.sampled, responses_of(part.batch))
            sums[Sum.FORWARDED] += part.batch.tokens
            if self.learns_policy:
                self._policy_part(part, places, sums)
            if self.models.value is not None:
                self._value_part(part, places, sums)
            sums[Sum.TOKENS] += len(places) * part.counts
        if self.ptx is not None and self.learns_policy:
            sums[Sum.PTX] += self.ptx.backward(self.models, self.responses, key=key, tokens=tokens)
        return sums

    def _policy_part(self, part: Part, places: Tensor, sums: Tensor) -> None:
        """L = Σ w (−min(ρA, clip(ρ) A) − c_e H [+ β KL])."""
        lesson, config, device = self.lesson, self.session.config, self.session.device
        old, advantages, importance, weights, reference = (
            flat[places].to(device)
            for flat in (lesson.rollout.log_probs, lesson.advantages, lesson.importance,
                         self.weights * part.counts, lesson.rollout.reference_log_probs)
        )  # fmt: skip

        def loss_of(found: TokenFigures, chunk: slice) -> Tensor:
            clipped = policy_loss(found.log_probs, old[chunk], advantages[chunk], clip=config.clip,
                                  importance=importance[chunk])  # fmt: skip
            per_token = clipped.per_token - config.entropy_coefficient * found.entropy
            if config.kl_place == "loss":
                apart = kl_loss(found.log_probs - reference[chunk], config.kl_kind)  # type: ignore[arg-type]
                per_token = per_token + self.kl_coefficient * apart
            if part.counts:
                sums[Sum.CLIPPED] += clipped.clipped.sum().item()
                self.ratio_max = max([self.ratio_max, *clipped.ratio.amax(0, keepdim=True).tolist()])
            return (per_token * weights[chunk]).sum()

        rows, at = self.models.rows.forward(lesson.rollout.sampled.examples, part)
        loss, found = backward_through(
            self.models.policy, rows, at, loss_of, temperature=config.temperature,
            entropy=config.entropy_coefficient != 0,
        )  # fmt: skip
        sums[Sum.POLICY] += loss.item()
        if part.counts:
            sums[Sum.APART] += kl_estimate(old - found.log_probs, "k3").sum().item()

    def _value_part(self, part: Part, places: Tensor, sums: Tensor) -> None:
        """c_v Σ ½ max((V − R)², (clip(V) − R)²) / tokens."""
        lesson, config, device = self.lesson, self.session.config, self.session.device
        assert lesson.returns is not None and lesson.rollout.values is not None
        rows, at = self.models.rows.forward(lesson.rollout.sampled.examples, part)
        values = self.models.values(rows, at)
        old, returns = lesson.rollout.values[places].to(device), lesson.returns[places].to(device)
        found = value_loss(values, old, returns, clip=config.value_clip)
        loss = found.per_token.sum() * (self.token_share * part.counts)
        (config.value_coefficient * loss).backward()  # type: ignore[no-untyped-call]
        sums[Sum.VALUE] += loss.item()
        sums[Sum.VALUE_CLIPPED] += found.clipped.sum().item() * part.counts


def _update(session: Session[PpoConfig], models: Models, figures: LearningFigures, *, learns_policy: bool) -> None:
    """One optimiser step, unless a gradient is not finite; policy and value are clipped each by itself."""
    groups = {"policy": models.policy_parameters, "value": models.value_parameters}
    norms = {}
    for name, parameters in groups.items():
        session.world.sum_gradients(parameters)
        norms[name] = clip_gradients(parameters, session.config.max_grad_norm)
    figures.updates += 1
    if all(map(math.isfinite, norms.values())):
        if not learns_policy:
            # Zeros would still move weights by what the moments hold.
            for parameter in models.policy_parameters:
                parameter.grad = None
        models.optimizer.step()
    else:
        figures.skipped += 1
    if learns_policy:
        figures.policy_norms.append(norms["policy"])
    if models.value_parameters:
        figures.value_norms.append(norms["value"])
    models.drop_gradients()


def _add(figures: LearningFigures, sums: Tensor) -> None:
    figures.policy_loss += float(sums[Sum.POLICY])
    figures.value_loss += float(sums[Sum.VALUE])
    figures.ptx_loss += float(sums[Sum.PTX])
    figures.clipped += float(sums[Sum.CLIPPED])
    figures.value_clipped += float(sums[Sum.VALUE_CLIPPED])
    figures.apart += float(sums[Sum.APART])
    figures.tokens += float(sums[Sum.TOKENS])
    figures.forwarded += int(sums[Sum.FORWARDED])


def divergence(lesson: Lesson) -> tuple[float, float]:
    """``ppo/kl``, the mean over responses of Σ k1, and ``ppo/kl_k3``, the mean over tokens; nats."""
    rollout = lesson.rollout
    apart = rollout.log_probs - rollout.reference_log_probs
    k1, mask = rollout.rows(apart)
    return row_sums(k1, mask).mean().item(), kl_estimate(apart, "k3").mean().item()


def make_controller(config: PpoConfig) -> KlController:
    """Of the weight of the KL divergence."""
    return KlController(config.kl_coefficient, config.kl_target, config.kl_horizon)
