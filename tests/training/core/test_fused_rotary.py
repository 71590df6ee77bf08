"""Rotary embeddings in few passes against transformers' own, against finite differences, and where they do not go."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.cohere.modeling_cohere import CohereAttention
from transformers.models.glm.modeling_glm import GlmAttention
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaForCausalLM, apply_rotary_pos_emb
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from training.core.fused_rotary import Rotate, _Fused, _turns_halves, fuse_rotary, is_plain, rotate
from training.core.language import load_language_model


def drawn(*shape: int, seed: int = 0, **settings: Any) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **settings)


def llama(**settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def both(**settings: Any) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    plain = llama(**settings)
    fused = copy.deepcopy(plain)
    fuse_rotary(fused)
    assert all(isinstance(layer.self_attn, _Fused) for layer in fused.model.layers)
    assert not any(isinstance(module, _Fused) for module in plain.modules())
    return plain, fused


@pytest.mark.parametrize("rows", [1, 2], ids=["one line of angles", "angles for each row"])
def test_output_and_gradients_are_those_of_transformers(rows: int) -> None:
    """Cosines and sines that are no angles' at all: each half has its own."""
    cos, sin = drawn(rows, 5, 8, seed=1), drawn(rows, 5, 8, seed=2)
    found = []
    for turn in (apply_rotary_pos_emb, rotate):
        # As layers have them: heads behind tokens in memory.
        query, key = (drawn(2, 5, heads, 8, seed=3).transpose(1, 2).requires_grad_() for heads in (4, 2))
        outs = turn(query, key, cos, sin)
        sum((out * drawn(*out.shape, seed=4)).sum() for out in outs).backward()
        found.append([*outs, query.grad, key.grad])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences() -> None:
    x = drawn(2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    cos, sin = drawn(2, 1, 4, 6, seed=1, dtype=torch.float64), drawn(1, 1, 4, 6, seed=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(Rotate.apply, (x, cos, sin))


def test_the_input_is_left_as_it_was() -> None:
    x = drawn(1, 2, 3, 4)
    before = x.clone()
    Rotate.apply(x, drawn(1, 1, 3, 4, seed=1), drawn(1, 1, 3, 4, seed=2))
    assert torch.equal(x, before)


def test_a_whole_model_learns_as_before() -> None:
    plain, fused = both()
    ids = torch.arange(24).view(2, 12)
    found = []
    for model in (plain, fused):
        out = model(input_ids=ids, labels=ids)
        out.loss.backward()
        found.append({"logits": out.logits} | {name: value.grad for name, value in model.named_parameters()})
    assert "Rotate" in str(graph_of(fused(input_ids=ids).logits)) and "Rotate" not in str(graph_of(out_of(plain, ids)))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=lambda text, name=name: f"{name}: {text}")


def out_of(model: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids).logits
    return logits


def graph_of(out: Tensor) -> set[str]:
    """The names of all nodes of a graph."""
    seen, waiting = set(), [out.grad_fn]
    names = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.add(type(node).__name__)
        waiting += [following for following, _ in node.next_functions]
    return names


def test_generation_with_a_cache_is_as_before() -> None:
    plain, fused = both()
    ids = torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]])
    found = [
        model.eval().generate(input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=8, do_sample=False,
                              pad_token_id=0)
        for model in (plain, fused)
    ]  # fmt: skip
    assert torch.equal(*found)


def test_half_precision_is_transformers_own_to_the_bit() -> None:
    plain, fused = (model.bfloat16() for model in both())
    ids = torch.arange(24).view(2, 12)
    assert torch.equal(out_of(fused, ids), out_of(plain, ids))
    wide, narrow = drawn(1, 2, 3, 4), drawn(1, 3, 4)
    assert is_plain(wide, wide, narrow, narrow)
    assert not is_plain(wide.bfloat16(), wide, narrow, narrow)
    assert not is_plain(wide, wide, narrow[..., :2], narrow[..., :2])  # a part of each head


def test_which_layers_are_fused_is_asked_of_their_rotation() -> None:
    """Cohere turns neighbours, GLM a part of each head."""
    assert all(_turns_halves(kind) for kind in (LlamaAttention, MistralAttention, Qwen3Attention))
    assert not any(_turns_halves(kind) for kind in (CohereAttention, GlmAttention, nn.Linear))


def test_twice_is_once() -> None:
    _, fused = both()
    once = type(fused.model.layers[0].self_attn)
    fuse_rotary(fused)
    assert type(fused.model.layers[0].self_attn) is type(fused.model.layers[1].self_attn) is once


def test_the_models_of_the_recipes_are_fused(tiny_model: Any) -> None:
    model = load_language_model(str(tiny_model), device=torch.device("cpu"), autocast_dtype=torch.float32)
    assert all(isinstance(layer.self_attn, _Fused) for layer in model.whole.model.layers)
