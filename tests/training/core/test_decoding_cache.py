"""The cache with room, against the one of transformers that joins."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.cache_utils import DynamicLayer

from training.core.decoding_cache import PreallocatedLayer, preallocated_cache

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def states(tokens: int, *, rows: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys and values of so many tokens."""
    draw = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 3, tokens, 4, generator=draw)
    return keys, values


def both(room: int) -> tuple[PreallocatedLayer, DynamicLayer]:
    return PreallocatedLayer(room), DynamicLayer()


def assert_alike_after(layers: tuple[Any, Any], *states: Tensor) -> None:
    """Both layers give the same for the same new tokens."""
    ours, theirs = (layer.update(*states) for layer in layers)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert layers[0].get_seq_length() == layers[1].get_seq_length()


@pytest.mark.parametrize("room", [1, 4, 9, 100])
def test_it_gives_what_the_joining_cache_gives_also_past_its_room(room: int) -> None:
    layers = both(room)
    for seed, tokens in enumerate([3, 1, 1, 4, 1]):
        assert_alike_after(layers, *states(tokens, seed=seed))


def test_a_token_within_the_room_moves_nothing() -> None:
    layer = PreallocatedLayer(8)
    keys, values = layer.update(*states(3))
    more = layer.update(*states(1, seed=1))
    assert [one.data_ptr() for one in more] == [keys.data_ptr(), values.data_ptr()]
    last = layer.update(*states(9, seed=2))
    assert [one.data_ptr() for one in last] != [keys.data_ptr(), values.data_ptr()]


@pytest.mark.parametrize("change", ["batch_select_indices", "reorder_cache"])
@pytest.mark.parametrize("rows", [[1, 0], [1, 1, 0], [0]], ids=str)
def test_other_rows(change: str, rows: list[int]) -> None:
    layers = both(9)
    assert_alike_after(layers, *states(3))
    for layer in layers:
        getattr(layer, change)(torch.tensor(rows))
    before = [layer.keys.clone() for layer in layers]
    assert_alike_after(layers, *states(1, rows=len(rows), seed=1))
    assert all(torch.equal(layer.keys[..., :3, :], keys) for layer, keys in zip(layers, before, strict=True))
    assert_alike_after(layers, *states(2, rows=len(rows), seed=2))


def test_repeated_rows_and_a_shorter_cache() -> None:
    layers = both(9)
    assert_alike_after(layers, *states(4))
    for layer in layers:
        layer.batch_repeat_interleave(3)
    assert_alike_after(layers, *states(1, rows=6, seed=1))
    for layer in layers:
        layer.crop(-2)
    assert_alike_after(layers, *states(1, rows=6, seed=2))


def test_emptied_it_begins_anew_with_other_rows() -> None:
    layer = PreallocatedLayer(9)
    layer.update(*states(4))
    layer.reset()
    assert layer.get_seq_length() == 0
    keys, values = states(2, rows=5, seed=1)
    found = layer.update(keys, values)
    assert torch.equal(found[0], keys) and torch.equal(found[1], values)


@pytest.mark.parametrize(
    "whole",
    [
        LlamaForCausalLM(LlamaConfig(**SMALL)),
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
        MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    ],
    ids=["llama", "gpt2", "sliding window"],
)
def test_a_model_says_the_same_with_it(whole: Any) -> None:
    whole.eval()
    ids = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        cache = preallocated_cache(whole, room=12)
        assert cache is not None and cache.get_seq_length() == 0
        settings = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        ours = whole.generate(ids, past_key_values=cache, **settings)
        theirs = whole.generate(ids, **settings)
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(torch.stack(ours.logits), torch.stack(theirs.logits))
    kinds = {type(layer) for layer in cache.layers}
    assert (PreallocatedLayer in kinds) == (getattr(whole.config, "sliding_window", None) is None)


def test_another_kind_of_memory_is_left_to_the_model() -> None:
    whole = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4))
    with torch.inference_mode():
        assert preallocated_cache(whole, room=3) is None
