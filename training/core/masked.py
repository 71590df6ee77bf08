"""Padded rollouts: tensors (N, T), a row per response, with a mask (N, T) that is true at its tokens.

What lies outside the mask is never read, whatever it is: nan there changes nothing. Padding may stand on either side.
``values[mask]`` is the flat form, (M,), response by response; ``to_rows`` is its inverse.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

WHITENING_EPSILON = 1e-8


def to_rows(flat: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Flat tokens, (M,), as rows padded right with 0, (N, T), and the mask of what is real, (N, T).

    Args:
        counts: tokens of each row, (N,); may be 0; they sum to M. T is the largest.

    Raises:
        ValueError: they do not sum to M.
    """
    if sum(counts) != len(flat):
        raise ValueError(f"{len(flat)} tokens are not rows of {sum(counts)} tokens in all")
    lengths = torch.tensor(counts, dtype=torch.long, device=flat.device)
    mask = torch.arange(max(counts, default=0), device=flat.device) < lengths[:, None]
    rows = flat.new_zeros(mask.shape)
    rows[mask] = flat
    return rows, mask


def is_last(mask: Tensor) -> Tensor:
    """True at each row's last real token, (N, T); a row without tokens has none."""
    remaining = mask.flip(1).cumsum(1).flip(1)
    return mask & (remaining == 1)


def row_sums(values: Tensor, mask: Tensor) -> Tensor:
    """The sum over each response's tokens, (N,); 0 for a row without tokens."""
    return torch.where(mask, values, 0).sum(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of all responses, a scalar; 0 where there are none. Any shapes that are equal."""
    real = values[mask]
    return real.sum() / max(1, len(real))


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(x − mean) / √(variance + 1e-8) over all real tokens, and 0 outside, (N, T).

    The population variance (no Bessel correction), of the mask alone: with more padding the result is bit for bit the
    same. trlX counts padding in (its ``whiten``).
    """
    real = values[mask]
    if not len(real):
        return torch.zeros_like(values)
    scale = torch.rsqrt(real.var(correction=0) + WHITENING_EPSILON)
    return torch.where(mask, (values - real.mean()) * scale, 0)
