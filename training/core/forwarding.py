"""One forward of a decoder over packed rows, up to its last hidden states; heads are applied elsewhere."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from training.core.attention import Blocks, attends_in_blocks, blocks_pay, make_blocks
from training.core.packing import PackedRows


def last_hidden(whole: Any, rows: PackedRows, *, device: torch.device, autocast_dtype: torch.dtype) -> Tensor:
    """The last hidden states (B, T, d) of a transformers model's decoder, final norm included.

    Args:
        whole: a transformers model with any head; only its ``base_model`` is run.
        autocast_dtype: the arithmetic; float32 is no autocast.
    """
    blocks = _blocks(whole, rows, device=device, dtype=autocast_dtype)
    # Blocks stand for the mask, but one is passed even so: without it, transformers would read positions that
    # start again as documents of their own.
    mask = {"attention_mask": _additive(rows.attention_mask, autocast_dtype)} if blocks is None else {
        "attention_mask": rows.attention_mask, "packed_blocks": blocks
    }  # fmt: skip
    with autocast(device, autocast_dtype):
        output = whole.base_model(input_ids=rows.input_ids, position_ids=rows.position_ids, use_cache=False, **mask)
    hidden: Tensor = output.last_hidden_state
    return hidden


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Arithmetic in ``dtype`` where that is not float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A 4-D mask as what is added to attention's logits, once: each layer would make, and keep, one of its own."""
    if mask.ndim == 2:
        return mask
    added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return added.masked_fill_(~mask, torch.finfo(dtype).min)


def _blocks(whole: Any, rows: PackedRows, *, device: torch.device, dtype: torch.dtype) -> Blocks | None:
    """The blocks that attention may keep to, where that is possible and pays."""
    # Not tried on CUDA, where many small kernels cost more.
    if rows.lengths is None or device.type != "cpu" or not attends_in_blocks(whole):
        return None
    if not blocks_pay(rows.lengths, width=rows.input_ids.shape[1]):
        return None
    return make_blocks(rows.lengths, dtype=dtype, device=device)
