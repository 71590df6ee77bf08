"""A step of DPO: forward and backward of the rankings of some prompts, and what it came to."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from training.core.distributed import World
from training.core.kl import kl_estimate
from training.core.language import LanguageModel
from training.core.log_probs import TokenFigures, backward_by_weights, backward_through, token_figures
from training.core.objective import Objective, gather_pairs
from training.core.packing import MicroBatch, PackedRows
from training.core.preference import Preferences, Reference, parts_within, plan_preferences, tensors_of
from training.core.scoring import Layout
from training.core.token_places import TokenPlaces

# What a step sums up, over micro-batches and processes.
TOTALS = ("loss", "right", "strict", "margin", "preferred", "other", "k3", "targets", "tokens")


def prefer(
    model: LanguageModel,
    preferences: Preferences,
    reference: Reference,
    objective: Objective,
    numbers: Sequence[int],
    layout: Layout,
    *,
    beta: float,
    tokens: int,
    world: World,
    sharded: bool = False,
) -> Tensor:
    """Forward and backward of this process's share of a step's prompts; gradients are added to what is there.

    Args:
        objective: the loss of the rewards of some prompts' responses.
        numbers: the prompts of the whole step, the same in every process.
        tokens: forwarded at once.

    Returns:
        (9,) float64, this process's part of ``TOTALS``: the loss; of the strict pairs how many are right, how many
        there are, and the sums of their margins and of the rewards of both sides; Σ k3 over the response tokens and
        their count; tokens forwarded.
    """
    responses = preferences.responses
    totals = torch.zeros(len(TOTALS), dtype=torch.float64, device=model.device)
    plan = plan_preferences(
        responses, numbers, layout, tokens=tokens, world=world, device=model.device, sharded=sharded
    )
    for batch, counts in plan:
        judged = _Judged(preferences, reference, objective, batch, beta=beta, prompts=len(numbers), counts=counts)
        parts = parts_within(batch, tokens=tokens, sharded=sharded)
        tensors = [tensors_of(responses, part, layout, model.device) for part in parts]
        if len(parts) == 1:
            backward_by_weights(model, *tensors[0], judged.weights_of)
        else:
            _backward_row_by_row(model, tensors, judged)
        if counts:
            totals += torch.cat([judged.totals, judged.totals.new_tensor([batch.tokens])])
    return totals


def _backward_row_by_row(
    model: LanguageModel, tensors: Sequence[tuple[PackedRows, TokenPlaces]], judged: "_Judged"
) -> None:
    """Rows of one prompt that do not fit together: one more forward, and the gradient row by row (``halving``)."""
    weights = judged.weights_of(torch.cat([token_figures(model, *each, entropy=False).log_probs for each in tensors]))
    for each, own in zip(tensors, torch.split(weights, [len(places.target) for _, places in tensors]), strict=True):

        def loss_of(figures: TokenFigures, place: slice, own: Tensor = own) -> Tensor:
            return (own[place] * figures.log_probs).sum()

        backward_through(model, *each, loss_of, entropy=False)


class _Judged:
    """The loss of a micro-batch as a function of its log-probabilities, and what it came to."""

    def __init__(
        self,
        preferences: Preferences,
        reference: Reference,
        objective: Objective,
        batch: MicroBatch,
        *,
        beta: float,
        prompts: int,
        counts: bool,
    ) -> None:
        self._examples = [preferences.rankings[number] for number in batch.examples]
        self._sizes = [size for number in batch.examples for size in preferences.sizes(number)]
        self._reference = reference.of(batch.examples)
        self._objective, self._beta, self._prompts, self._counts = objective, beta, prompts, counts
        self.totals = torch.zeros(len(TOTALS) - 1, dtype=torch.float64)

    def weights_of(self, log_probs: Tensor) -> Tensor:
        """∂ loss / ∂ ln π of each token, (M,) → (M,): of all tokens of a response alike."""
        ratio = log_probs - self._reference.to(log_probs.device)
        owner = torch.arange(len(self._sizes), device=ratio.device).repeat_interleave(
            torch.tensor(self._sizes, device=ratio.device)
        )
        # Sums over hundreds of tokens, whose differences are small.
        none = torch.zeros(len(self._sizes), dtype=torch.float64, device=ratio.device)
        rewards = none.index_add(0, owner, self._beta * ratio.double()).requires_grad_()
        loss = self._objective(rewards, self._examples, prompts=self._prompts)
        loss.backward()
        assert rewards.grad is not None
        self.totals = self._sum_up(loss.detach(), rewards.detach(), ratio)
        weights = self._beta * rewards.grad[owner].to(log_probs)
        return weights if self._counts else torch.zeros_like(weights)

    def _sum_up(self, loss: Tensor, rewards: Tensor, ratio: Tensor) -> Tensor:
        pairs = gather_pairs(self._examples, self._objective.settings, device=rewards.device)
        strict = pairs.outcome == 1
        preferred, other = rewards[pairs.first[strict]], rewards[pairs.second[strict]]
        margin = preferred - other
        right = ((margin.sign() + 1) / 2).sum()
        k3 = kl_estimate(ratio, "k3").sum()
        sums = [loss, right, strict.sum(), margin.sum(), preferred.sum(), other.sum(), k3]
        return torch.stack([*(each.double() for each in sums), k3.new_tensor(len(ratio)).double()])


def step_figures(totals: Sequence[float]) -> dict[str, float]:
    """The figures of a step from ``TOTALS``: means over its strict pairs, and of k3 over its response tokens."""
    found = dict(zip(TOTALS, totals, strict=True))
    pairs = found["strict"] or math.nan
    return {
        "train/loss": found["loss"],
        "train/accuracy": found["right"] / pairs,
        "dpo/margin": found["margin"] / pairs,
        "dpo/preferred": found["preferred"] / pairs,
        "dpo/other": found["other"] / pairs,
        "dpo/kl": found["k3"] / found["targets"] if found["targets"] else math.nan,
    }
