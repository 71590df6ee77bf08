"""Attention over packed rows, block by block: the prompt over itself, each response over the prompt and itself.

A dense mask lets attention compute every logit of a row and throw most away: with nine responses of 64 tokens behind a
prompt of 256, two in three. Here those blocks are never computed, and the keys of a prompt serve all its responses.
The result is that of the dense mask, to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCKWISE = "plackett_blocks"

# What one call of the kernel costs, forward and backward, in logits of a layer with some ten heads (measured on CPU).
CALL_IN_LOGITS = 2048


@dataclass(frozen=True)
class Blocks:
    """Which blocks the rows of a micro-batch have.

    ``lengths``: of each row, the tokens of its prompt and of its responses, in order; the rest of the row is padding.
    ``causal`` (R, P + R): what is added to the logits of the longest response behind the longest prompt; those of
    shorter ones are a part of it.
    """

    lengths: tuple[tuple[int, ...], ...]
    causal: Tensor


def make_blocks(lengths: Sequence[tuple[int, ...]], *, dtype: torch.dtype, device: torch.device) -> Blocks:
    """The blocks of rows with these prompt and response lengths, for attention in ``dtype``."""
    prompt = max(row[0] for row in lengths)
    response = max(max(row[1:]) for row in lengths)
    causal = torch.full((response, prompt + response), torch.finfo(dtype).min, dtype=dtype, device=device)
    return Blocks(tuple(lengths), causal.triu_(prompt + 1))


def blocks_pay(lengths: Sequence[tuple[int, ...]], *, width: int) -> bool:
    """Whether the logits saved, over rows padded to ``width``, outweigh one call of the kernel per block."""
    saved = sum(width**2 - row[0] ** 2 - sum(part * (row[0] + part) for part in row[1:]) for row in lengths)
    return saved > CALL_IN_LOGITS * sum(map(len, lengths))


def let_attend_in_blocks(model: Any) -> None:
    """Make a transformers model's layers look for ``packed_blocks`` among their arguments, if they use SDPA now.

    Without that argument they do what they did before. The choice is not saved with the model.
    """
    if model.config.get_text_config()._attn_implementation == "sdpa":
        model.set_attn_implementation(BLOCKWISE)


def attends_in_blocks(model: Any) -> bool:
    """Whether the model may be given ``packed_blocks``."""
    return bool(model.config.get_text_config()._attn_implementation == BLOCKWISE)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed_blocks: Blocks | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: SDPA as it stands there, or by blocks if ``packed_blocks`` is given.

    By blocks the mask is not read, dropout is 0, and padding gets zeros: nothing that is scored sees it.

    Shapes: ``query`` (B, heads, T, D), ``key`` and ``value`` (B, key heads, T, D); the result (B, T, heads, D).
    """
    if packed_blocks is None:
        dense: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **settings
        )
        return dense
    # Rows of the same lengths go together.
    shapes = [(lengths, len(list(rows))) for lengths, rows in groupby(packed_blocks.lengths)]
    counts = [count for _, count in shapes]
    # Split, not sliced: the gradient of a slice is a whole tensor of zeros with a part filled.
    queries, keys, values = (torch.split(each.transpose(1, 2), counts) for each in (query, key, value))
    rows = [
        _attend_alike(queries[place], keys[place], values[place], lengths, packed_blocks.causal, scaling)
        for place, (lengths, _) in enumerate(shapes)
    ]
    return torch.cat(rows), None


def _attend_alike(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: Tensor, scaling: float | None
) -> Tensor:
    """Rows of the same lengths: (B, T, heads, D) → (B, T, heads, D)."""
    prompt, padding = lengths[0], query.shape[1] - sum(lengths)
    queries, keys, values = (torch.split(each, [*lengths, padding], dim=1) for each in (query, key, value))
    attended = [_attend(queries[0], keys[0], values[0], None, scaling)] if prompt else []
    before = causal.shape[1] - causal.shape[0] - prompt
    for place, length in enumerate(lengths[1:], start=1):
        if not prompt:  # a document of its own
            attended.append(_attend(queries[place], keys[place], values[place], None, scaling))
            continue
        seen_keys, seen_values = (torch.cat((each[0], each[place]), dim=1) for each in (keys, values))
        mask = causal[:length, before : before + prompt + length]
        attended.append(_attend(queries[place], seen_keys, seen_values, mask, scaling))
    attended.append(torch.zeros_like(queries[-1], dtype=attended[-1].dtype))
    return torch.cat(attended, dim=1)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """One block, causal without a mask; heads stand behind tokens, in and out."""
    attended: Tensor = scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return attended.transpose(1, 2)


AttentionInterface.register(BLOCKWISE, attend)
# Masks for it are made as they are for SDPA.
AttentionMaskInterface.register(BLOCKWISE, sdpa_mask)
