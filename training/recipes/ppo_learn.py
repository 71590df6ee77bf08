"""What a rollout teaches: rewards, advantages, and the inner epochs over its minibatches, in the order of the paper.

Schulman et al. 2017 (arXiv 1707.06347, algorithm 1), with the KL penalty and the value clipping of Ziegler et al. 2019
(arXiv 1909.08593). Losses are sums over flat response tokens, each with the weight that holds the denominator of the
whole minibatch, so micro-batches and processes add up to it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor, nn

from training.core.advantages import token_weights
from training.core.distributed import clip_gradients
from training.core.kl import kl_estimate, kl_loss
from training.core.log_probs import TokenFigures, backward_through
from training.core.policy_losses import policy_loss, value_loss
from training.core.randomness import derive_seed, permutation
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.ppo_lesson import Lesson
from training.recipes.ppo_models import Models
from training.recipes.ppo_ptx import PtxData
from training.recipes.ppo_rollout import flat_places
from training.recipes.ppo_rows import Part, responses_of


@dataclass
class LearningFigures:
    """What the inner epochs came to. Sums over updates; tokens are counted once for each epoch that saw them.

    Attributes:
        policy_loss, value_loss, ptx_loss: means over updates, as minimised, coefficients left out.
        clipped, value_clipped: tokens whose clipped term decided.
        apart: k3 of rollout and current policy, summed over ``apart_tokens``, nats; that of the minibatch which ended
            the inner epochs too.
    """

    updates: int = 0
    skipped: int = 0
    epochs: int = 0
    tokens: float = 0.0
    value_tokens: float = 0.0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    ptx_loss: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    apart: float = 0.0
    apart_tokens: float = 0.0
    ratio_max: float = 1.0
    policy_norms: list[float] = field(default_factory=list)
    value_norms: list[float] = field(default_factory=list)
    forwarded: int = 0
    seconds: float = 0.0

    def add(self, sums: Tensor) -> None:
        """Take in what a minibatch came to."""
        self.policy_loss += float(sums[Sum.POLICY])
        self.value_loss += float(sums[Sum.VALUE])
        self.ptx_loss += float(sums[Sum.PTX])
        self.clipped += float(sums[Sum.CLIPPED])
        self.value_clipped += float(sums[Sum.VALUE_CLIPPED])
        self.tokens += float(sums[Sum.TOKENS])
        self.value_tokens += float(sums[Sum.VALUE_TOKENS])
        self.forwarded += int(sums[Sum.FORWARDED])


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
        batches = [
            Minibatch(session, models, lesson, prompts, kl_coefficient=kl_coefficient,
                      learns_policy=step > config.value_warmup, ptx=ptx)
            for prompts in minibatches(lesson, config, step=step, epoch=epoch)
        ]  # fmt: skip
        first_key = (step * config.inner_epochs + epoch) * config.minibatches
        if not all(batch.learn(figures, key=first_key + place) for place, batch in enumerate(batches)):
            break
        figures.epochs += 1
    figures.seconds = time.monotonic() - started
    return figures


def minibatches(lesson: Lesson, config: PpoConfig, *, step: int, epoch: int) -> list[list[int]]:
    """The prompts of each minibatch of an inner epoch: a fresh permutation, cut evenly."""
    count = len(lesson.rollout.sampled.examples)
    order = permutation(count, derive_seed(config.seed, "minibatches"), step, epoch)
    parts = min(config.minibatches, count)
    return [order[part * count // parts : (part + 1) * count // parts] for part in range(parts)]


class Sum(IntEnum):
    """Places in the sums of a minibatch."""

    POLICY = 0
    VALUE = 1
    PTX = 2
    CLIPPED = 3
    VALUE_CLIPPED = 4
    APART = 5
    TOKENS = 6
    VALUE_TOKENS = 7
    FORWARDED = 8


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

    def learn(self, figures: LearningFigures, *, key: int) -> bool:
        """One optimiser step of the policy and one of the value model; False where the policy has gone too far already.

        One after the other: the gradients of both are never in memory together.
        """
        limit = self.session.config.inner_kl_limit
        if self.learns_policy:
            sums = self._gradients(lambda tokens: self._policy_gradients(tokens, key=key))
            apart, tokens = float(sums[Sum.APART]), float(sums[Sum.TOKENS])
            figures.apart += apart
            figures.apart_tokens += tokens
            if limit is not None and figures.updates and apart > limit * max(1.0, tokens):
                self.models.drop_gradients()
                return False
            figures.add(sums)
            figures.ratio_max = max(figures.ratio_max, *self.session.world.gather(self.ratio_max))
            figures.policy_norms.append(self._step(self.models.policy_parameters))
        finite = not self.learns_policy or math.isfinite(figures.policy_norms[-1])
        # What is wrong with the policy's part of a rollout may be wrong with the other: both are left alone.
        if self.models.value is not None and finite:
            figures.add(self._gradients(self._value_gradients))
            figures.value_norms.append(self._step(self.models.value_parameters))
            finite = math.isfinite(figures.value_norms[-1])
        figures.updates += 1
        figures.skipped += not finite
        return True

    def _gradients(self, accumulate: Callable[[int], Tensor]) -> Tensor:
        """Gradients of this process's share, in smaller parts where memory does not suffice; the sums of all."""
        sums = self.models.rows.budget.run(accumulate, drop=self.models.drop_gradients)
        # NCCL adds up nothing that is not on its device.
        total: Tensor = self.session.world.total(sums.to(self.session.device))
        return total.cpu()

    def _step(self, parameters: Sequence[nn.Parameter]) -> float:
        """The optimiser's step on these parameters, unless a gradient is not finite; the norm before it was clipped."""
        self.session.world.sum_gradients(parameters)
        norm = clip_gradients(parameters, self.session.config.max_grad_norm)
        if math.isfinite(norm):
            self.models.optimizer.step()
        self.models.drop_gradients()
        return norm

    def _parts(self, tokens: int, sums: Tensor) -> Iterator[tuple[Part, Tensor]]:
        """What is forwarded at once, and where its tokens stand among all."""
        sampled = self.lesson.rollout.sampled
        for part in self.models.rows.parts(sampled.examples, self.prompts, tokens=tokens):
            sums[Sum.FORWARDED] += part.batch.tokens
            yield part, flat_places(sampled, responses_of(part.batch))

    def _policy_gradients(self, tokens: int, *, key: int) -> Tensor:
        self.ratio_max = 1.0
        sums = torch.zeros(len(Sum), dtype=torch.float64)
        for part, places in self._parts(tokens, sums):
            self._policy_part(part, places, sums)
            sums[Sum.TOKENS] += len(places) * part.counts
        if self.ptx is not None:
            sums[Sum.PTX] += self.ptx.backward(self.models, self.responses, key=key, tokens=tokens)
        return sums

    def _value_gradients(self, tokens: int) -> Tensor:
        sums = torch.zeros(len(Sum), dtype=torch.float64)
        for part, places in self._parts(tokens, sums):
            self._value_part(part, places, sums)
            sums[Sum.VALUE_TOKENS] += len(places) * part.counts
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
