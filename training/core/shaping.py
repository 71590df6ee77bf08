"""From scores of whole responses to rewards of tokens.

In this order: ``RunningScale`` and ``clip_scores`` (what reward models say, as they please), ``penalise_missing_eos``
(on the scale that came out), ``shape_rewards``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from training.core.masked import is_last


@dataclass
class RunningScale:
    """Mean and variance of all scores so far; scores are divided by their deviation.

    Kept in Python floats, which JSON gives back exactly; ``squares`` is the sum of squared distances from the mean.
    Update before use, with the scores of all processes, so that every process has the same.

    Source of the update: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, scores: Sequence[float]) -> None:
        """Take in a rollout's scores.

        Raises:
            ValueError: one is not finite; nothing is taken in.
        """
        if not all(map(math.isfinite, scores)):
            raise ValueError("a score is not a finite number")
        if not scores:
            return
        mean = math.fsum(scores) / len(scores)
        squares = math.fsum((score - mean) ** 2 for score in scores)
        count, apart = self.count + len(scores), mean - self.mean
        self.squares += squares + apart**2 * self.count * len(scores) / count
        self.mean += apart * len(scores) / count
        self.count = count

    @property
    def deviation(self) -> float:
        """Population standard deviation; 1 while all scores were equal, so that they become 0."""
        return math.sqrt(self.squares / self.count) if self.squares > 0 else 1.0

    def state(self) -> dict[str, float]:
        """For a checkpoint, as JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> "RunningScale":
        """What ``state`` gave."""
        return cls(count=int(state["count"]), mean=state["mean"], squares=state["squares"])


def clip_scores(scores: Tensor, limit: float) -> Tensor:
    """Within ±limit; (N,)."""
    return scores.clamp(-limit, limit)


def penalise_missing_eos(scores: Tensor, ended: Tensor, *, penalty: float) -> Tensor:
    """score − penalty where the response was cut off instead of ended; (N,), ``ended`` bool.

    Source: ``missing_eos_penalty`` of TRL; Ziegler et al. 2019 and Huang et al. 2024 (arXiv 2403.17031) instead set
    the score to −1.
    """
    return torch.where(ended, scores, scores - penalty)


def shape_rewards(scores: Tensor, k1: Tensor, mask: Tensor, *, kl_coefficient: float, kl_in_reward: bool) -> Tensor:
    """−β k1 at each token, and the score at the last real one; 0 outside the mask, (N, T).

    The last token of a response that ended is its end token, which thus is what gets the score; TRL puts it one place
    later, on padding (#3750). A row without tokens gets nothing, whatever its score.

    Source: Ziegler et al. 2019, arXiv 1909.08593, eq. 2.

    Args:
        scores: (N,).
        k1: ln π_old − ln π_ref of each token, (N, T).
        mask: (N, T).
        kl_coefficient: β.
        kl_in_reward: False where the divergence is a loss: then k1 is not read.
    """
    rewards = torch.where(is_last(mask), scores[:, None], 0)
    if kl_in_reward:
        rewards = rewards - torch.where(mask, kl_coefficient * k1, 0)
    return rewards
