"""The update behind a step's gradients, as ``recipes.sft`` and ``recipes.dpo`` take it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from training.core.distributed import clip_gradients
from training.core.halving import MicroBatchBudget
from training.recipes.configs import CommonConfig
from training.recipes.launch import Session
from training.recipes.policy_setup import Learner


@dataclass(frozen=True)
class Update:
    """Of a whole step: sums over all processes, and the norm of the gradient before it was clipped."""

    totals: list[float]
    norm: float

    @property
    def skipped(self) -> bool:
        """Whether the gradients were not finite and the weights were left alone."""
        return not math.isfinite(self.norm)


def update(
    session: Session[CommonConfig], learner: Learner, budget: MicroBatchBudget, accumulate: Callable[[int], Tensor]
) -> Update:
    """Gradients of a step, and the optimiser's step on them; with less memory than thought, in smaller parts.

    Args:
        accumulate: forward and backward of this process's share, so many tokens at once; (n,) figures to be summed.

    Raises:
        TrainingError: out of memory however small the parts.
    """
    totals = budget.run(accumulate, drop=learner.drop_gradients)
    summed: list[float] = session.world.total(totals).tolist()
    parameters = learner.parameters.values()
    session.world.sum_gradients(parameters)
    norm = clip_gradients(parameters, session.config.max_grad_norm)
    if math.isfinite(norm):
        learner.optimizer.step()
    learner.drop_gradients()
    return Update(summed, norm)
