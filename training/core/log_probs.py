"""Log-probabilities and entropies of response tokens, with the memory of one chunk of logits.

The head is applied only where a response token is predicted, and to so many places at once that their float32 logits
stay within ``CHUNK_BYTES``. Backward, too, goes through the head chunk by chunk, onto a copy of the hidden states that
is cut off from the trunk; what has gathered there then goes through the trunk once. The gradients are those of the
whole graph, to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.core.language import LanguageModel, WholeHead, whole_head
from training.core.memory import CHUNK_BYTES
from training.core.packing import PackedRows
from training.core.token_places import TokenPlaces


@dataclass(frozen=True)
class TokenFigures:
    """Of flat response tokens, under softmax(logits / temperature), float32 (M,).

    ``log_probs``: ln p(target); ``entropy``: −Σ p ln p over the whole vocabulary, zeros where nobody asked for it; both
    in nats.
    """

    log_probs: Tensor
    entropy: Tensor


@torch.no_grad()
def token_figures(
    model: LanguageModel, rows: PackedRows, places: TokenPlaces, *, temperature: float = 1.0, entropy: bool = True
) -> TokenFigures:
    """The figures of all places, without a graph; the entropy costs two more passes over the logits."""
    hidden = model.hidden(rows)[places.row, places.column]
    head = whole_head(model)
    return _joined(
        [
            _figures(model, head, hidden[part], places.target[part], temperature, entropy=entropy)
            for part in chunks(len(places.target), vocabulary=len(head.weight))
        ]
    )


def backward_through(
    model: LanguageModel,
    rows: PackedRows,
    places: TokenPlaces,
    loss_of: Callable[[TokenFigures, slice], Tensor],
    *,
    temperature: float = 1.0,
    entropy: bool = True,
) -> tuple[Tensor, TokenFigures]:
    """Forward and backward of a loss that is a sum over tokens; gradients are added to what is there.

    Args:
        loss_of: the loss of some tokens, a scalar, from their figures (with graph) and from which of the flat places
            they are. The losses of all chunks add up to that of the micro-batch, so denominators must be the whole's.
        entropy: whether the loss reads it.

    Returns:
        The loss and the figures of all places, detached. Of a sharded model all processes call it, those without
        tokens too (``loss_of`` then gets empty figures, and their sum is a loss).
    """
    picked = model.hidden(rows)[places.row, places.column]
    return _backward(model, whole_head(model), picked, places.target, loss_of, temperature, entropy=entropy)


def backward_by_weights(
    model: LanguageModel, rows: PackedRows, places: TokenPlaces, weights_of: Callable[[Tensor], Tensor]
) -> Tensor:
    """As ``backward_through``, of Σ weight · ln p, where the weights depend on all the log-probabilities together.

    For a loss that is no sum over tokens: its derivatives by the log-probabilities are the weights. The head is applied
    twice, the trunk once.

    Args:
        weights_of: (M,) log-probabilities, without graph → (M,) weights.

    Returns:
        The log-probabilities, (M,).
    """
    picked = model.hidden(rows)[places.row, places.column]
    head = whole_head(model)
    parts = chunks(len(places.target), vocabulary=len(head.weight))
    with torch.no_grad():
        found = [_figures(model, head, picked[part], places.target[part], 1.0, entropy=False) for part in parts]
    figures = _joined(found)
    weights = weights_of(figures.log_probs)

    def loss_of(found: TokenFigures, part: slice) -> Tensor:
        return (weights[part] * found.log_probs).sum()

    _backward(model, head, picked, places.target, loss_of, 1.0, entropy=False)
    return figures.log_probs


def _backward(
    model: LanguageModel,
    head: WholeHead,
    picked: Tensor,
    target: Tensor,
    loss_of: Callable[[TokenFigures, slice], Tensor],
    temperature: float,
    *,
    entropy: bool,
) -> tuple[Tensor, TokenFigures]:
    """Through the head chunk by chunk, then through the trunk; ``picked`` (M, d) are its states at the places."""
    total = torch.zeros((), device=picked.device)
    figures, gradients = [], []
    for part in chunks(len(target), vocabulary=len(head.weight)):
        # A leaf for each chunk: the gradient of a slice would be as large as the whole, filled with zeros.
        leaf = picked[part].detach().requires_grad_()
        found = _figures(model, head, leaf, target[part], temperature, entropy=entropy)
        loss = loss_of(found, part)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        figures.append(TokenFigures(found.log_probs.detach(), found.entropy.detach()))
        gradients.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    head.finish_backward()
    if picked.requires_grad:
        picked.backward(torch.cat(gradients))  # type: ignore[no-untyped-call]
    return total, _joined(figures)


def chunks(count: int, *, vocabulary: int) -> list[slice]:
    """Slices over ``count`` places such that the float32 logits of one fit ``CHUNK_BYTES``; one at least, if empty."""
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def _figures(
    model: LanguageModel, head: WholeHead, hidden: Tensor, target: Tensor, temperature: float, *, entropy: bool
) -> TokenFigures:
    logits = model.logits(hidden, head)
    if temperature != 1.0:
        logits = logits / temperature
    return TokenFigures(*LogProbAndEntropy.apply(logits, target, entropy))  # type: ignore[no-untyped-call]


def _joined(parts: list[TokenFigures]) -> TokenFigures:
    return TokenFigures(torch.cat([part.log_probs for part in parts]), torch.cat([part.entropy for part in parts]))


class LogProbAndEntropy(torch.autograd.Function):
    """ln p(target) and H of softmax(z), of logits z (M, V) and targets (M,); one tensor of their size is kept.

    With p = softmax(z): ∂ ln p_t / ∂z = 1[t] − p and ∂H / ∂z = −p (ln p + H), where autograd would keep ln p, p and
    their product.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, wants_entropy: bool) -> tuple[Tensor, Tensor]:
        """(M, V), (M,) → (M,), (M,)."""
        log_p = torch.log_softmax(logits, dim=-1)
        # A logit of −inf has p = 0, and 0 · ln 0 = 0.
        entropy = torch.special.entr(log_p.exp()).sum(-1) if wants_entropy else log_p.new_zeros(len(log_p))
        ctx.save_for_backward(log_p, entropy, target)
        return log_p.gather(-1, target[:, None]).squeeze(-1), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the logits, (M, V)."""
        of_log_prob, of_entropy = gradients
        log_p, entropy, target = ctx.saved_tensors
        p = log_p.exp()
        through_entropy = None
        if of_entropy.any():
            through_entropy = torch.where(p > 0, p * (log_p + entropy[:, None]), 0.0) * of_entropy[:, None]
        # In place: these are the largest tensors of a step.
        found = p.mul_(-of_log_prob[:, None])
        found.scatter_add_(-1, target[:, None], of_log_prob[:, None])
        return found if through_entropy is None else found.sub_(through_entropy), None, None
