"""A cache of keys and values that has room for the whole response from the start.

The cache that transformers use by default joins each new token to all before it: every decoding step copies the whole
cache into new memory. Here a step writes its own token only, behind the others.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # untyped there
    """The keys and values of one layer, (N, heads, T, D) each, as the first T of ``room`` tokens of memory held for it.

    Longer ones move to larger memory; so do those that were taken to other rows (`batch_select_indices` and the like).
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._memory: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, t, D) of t new tokens → those of all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        length = before + key_states.shape[-2]
        keys, values = self._memory_for(length, key_states, value_states)
        keys[..., before:length, :] = key_states
        values[..., before:length, :] = value_states
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]
        return self.keys, self.values

    def _memory_for(self, length: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """Memory for so many tokens, with those that are there already."""
        if self._memory is not None and self._memory[0].shape[-2] >= length and self._in_memory():
            return self._memory
        room = max(self._room, length)
        keys, values = (one.new_empty((*one.shape[:-2], room, one.shape[-1])) for one in states)
        if before := self.get_seq_length():
            keys[..., :before, :] = self.keys
            values[..., :before, :] = self.values
        self._memory = keys, values
        return self._memory

    def _in_memory(self) -> bool:
        assert self._memory is not None
        return all(
            one.data_ptr() == memory.data_ptr() and one.shape[:2] == memory.shape[:2]
            for one, memory in zip((self.keys, self.values), self._memory, strict=True)
        )


def preallocated_cache(whole: Any, *, room: int) -> DynamicCache | None:
    """An empty cache with room for so many tokens a row; None if this model keeps something else than such a cache.

    Layers of other kinds (a sliding window, say) stay what they are. To be called without gradients.
    """
    token = torch.zeros((1, 1), dtype=torch.long, device=whole.device)
    cache: Any = getattr(whole.base_model(input_ids=token, use_cache=True), "past_key_values", None)
    if type(cache) is not DynamicCache:
        return None
    cache.reset()
    cache.layers = [PreallocatedLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
