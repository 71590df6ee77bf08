"""Losses of reward models: pure functions of scores."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def pair_loss(scores: Tensor, first: Tensor, second: Tensor, outcome: Tensor, weight: Tensor) -> Tensor:
    """Bradley-Terry cross-entropy over weighted pairs, summed.

    L = −Σ w [o ln σ(Δ) + (1 − o) ln σ(−Δ)], Δ = s_first − s_second; o = 1: first won, o = 0.5: a tie as a soft target
    (WebGPT, arXiv 2112.09332, section 3.2). Weights carry the means, so that sums over micro-batches and processes
    add up to the loss of the whole batch.

    Shapes: ``scores`` (N,); ``first``, ``second`` (M,) positions in it; ``outcome``, ``weight`` (M,). In nats.
    """
    difference = scores[first] - scores[second]
    terms = outcome * logsigmoid(difference) + (1 - outcome) * logsigmoid(-difference)
    return -(weight * terms).sum()
