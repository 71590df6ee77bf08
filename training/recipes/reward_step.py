"""One optimiser step of ``recipes.reward``: forward and backward of its prompts, then the update."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from training.core.distributed import clip_gradients
from training.core.halving import backward_in_parts
from training.core.objective import gather_pairs
from training.core.packing import MicroBatch, collate
from training.core.scoring import plan_scoring
from training.core.sharding import empty_loss
from training.recipes.configs import RewardConfig
from training.recipes.launch import Session
from training.recipes.reward_setup import Member, Prepared


@dataclass(frozen=True)
class StepFigures:
    """Of a whole step, over all processes: loss, share of its strict pairs that are right, tokens, gradient norm."""

    loss: float
    accuracy: float
    tokens: int
    norm: float

    @property
    def skipped(self) -> bool:
        """Whether the gradients were not finite and the weights were left alone."""
        return not math.isfinite(self.norm)


def take_step(session: Session[RewardConfig], prepared: Prepared, member: Member, numbers: list[int]) -> StepFigures:
    """Forward and backward of a step's prompts, and the update; with less memory than thought, in smaller parts.

    Raises:
        TrainingError: out of memory however small the parts.
    """

    def drop() -> None:
        member.optimizer.zero_grad(set_to_none=True)

    totals = prepared.budget.run(
        lambda tokens: accumulate_gradients(session, prepared, member, numbers, budget=tokens), drop=drop
    )
    loss, right, strict, tokens = session.world.total(totals).tolist()
    session.world.sum_gradients(member.parameters.values())
    norm = clip_gradients(member.parameters.values(), session.config.max_grad_norm)
    if math.isfinite(norm):
        member.optimizer.step()
    drop()
    return StepFigures(loss, right / strict if strict else math.nan, int(tokens), norm)


def accumulate_gradients(
    session: Session[RewardConfig], prepared: Prepared, member: Member, numbers: list[int], *, budget: int
) -> Tensor:
    """Forward and backward of this process's share of a step's prompts, micro-batch by micro-batch.

    Returns:
        (4,): this process's part of the loss, of the strict pairs that are right, of all strict pairs, of the tokens.
    """
    data, layout = prepared.train, prepared.layout
    totals = torch.zeros(4, dtype=torch.float64, device=session.device)
    plan = plan_scoring(
        member.model, data, layout, numbers, budget=budget, world=session.world, sharded=session.config.shard
    )

    def score(batch: MicroBatch) -> Tensor:
        rows = collate(data.tokenised, batch, packed=layout.packed, pad_id=layout.pad_id, device=session.device)
        return member.model.score(rows)

    for batch, counts in plan:
        if not counts:
            empty_loss(score(batch)).backward()  # type: ignore[no-untyped-call]
            continue
        examples = [data[number] for number in batch.examples]
        loss_of = partial(member.objective, examples=examples, prompts=len(numbers))
        if batch.tokens > budget and len(batch.rows) > 1 and not session.config.shard:
            # Several rows of one prompt that do not fit together: one more forward, and row by row.
            rows = [MicroBatch(batch.examples, (row,)) for row in batch.rows]
            loss, scores = backward_in_parts(rows, score, loss_of)
        else:
            scores = score(batch)
            loss = loss_of(scores)
            loss.backward()
        totals += _totals(prepared, batch, scores.detach(), loss.detach())
    return totals


def _totals(prepared: Prepared, batch: MicroBatch, scores: Tensor, loss: Tensor) -> Tensor:
    examples = [prepared.train[number] for number in batch.examples]
    pairs = gather_pairs(examples, prepared.settings, device=scores.device)
    strict = pairs.outcome == 1
    margin = (scores[pairs.first] - scores[pairs.second])[strict]
    right = ((margin.sign() + 1) / 2).sum()
    return torch.stack([loss, right, strict.sum(), torch.tensor(batch.tokens, device=scores.device)])
