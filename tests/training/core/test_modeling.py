"""Loading a reward model: the head's draw, no dropout, models that cannot be one, one pad id everywhere."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from training.core.errors import UsageError
from training.core.memory import kept_values, peak_bytes, shape_of
from training.core.modeling import (
    RewardModel,
    add_lora,
    choose_autocast,
    choose_device,
    load_of,
    load_reward_model,
    load_tokenizer,
    make_optimizer,
    set_pad_token,
)
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.saving import save_reward_model

CPU = torch.device("cpu")


def load(folder: Path, seed: int = 0) -> RewardModel:
    return load_reward_model(str(folder), seed=seed, device=CPU, autocast_dtype=torch.float32)


def head_of(model: RewardModel) -> torch.Tensor:
    weight = model.head.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().clone()


def test_the_head_is_drawn_from_the_seed_alone(tiny_model: Path) -> None:
    heads = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(noise)  # what was drawn before must not matter
        heads.append(head_of(load(tiny_model, seed)))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_heads_spread_is_one_over_the_root_of_d_plus_one(tmp_path: Path) -> None:
    wide = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_inner=8, n_layer=1, n_head=1, n_positions=8, vocab_size=8))
    wide.save_pretrained(tmp_path)
    head = head_of(load(tmp_path))
    # The relative error of a standard deviation from n draws is 1/√(2n), about 2.2 % here.
    assert head.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)


def test_dropout_is_off_wherever_the_config_names_it(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=8, vocab_size=8)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["resid_pdrop"] == 0.1
    model = load(tmp_path)
    model.whole.train()
    rates = [module.p for module in model.whole.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.0}


def test_a_reward_model_keeps_its_head(tiny_model: Path, tmp_path: Path) -> None:
    first = load(tiny_model, seed=5)
    save_reward_model(first, load_tokenizer(str(tiny_model)), tmp_path / "model", card="")
    assert torch.equal(head_of(load(tmp_path / "model", seed=6)), head_of(first))


def test_weights_that_are_missing_are_no_fresh_draw(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "holes"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"weights missing, such as model\.layers\.1\.mlp\.up_proj"):
        load(folder)


def test_what_is_no_reward_model_is_refused_in_one_line(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(**sizes, vocab_size=8)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="no linear head called 'score'"):
        load(tmp_path / "bert")
    with pytest.raises(UsageError, match="cannot load a model") as error:
        load(tmp_path / "absent")
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "pickled"))
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot load a model"):
        load(folder)


def test_a_new_pad_id_grows_the_embedding_and_stands_everywhere(tiny_model: Path) -> None:
    model = load(tiny_model)
    set_pad_token(model, 259)
    assert model.whole.get_input_embeddings().num_embeddings == 260
    assert model.whole.config.pad_token_id == model.whole.config.get_text_config().pad_token_id == 259


def test_lora_trains_the_adapter_and_the_head_alone(tiny_model: Path) -> None:
    model = add_lora(load(tiny_model), rank=2, seed=0)
    names = [name for name, _ in model.trainable()]
    assert all("lora_" in name or name == "score.modules_to_save.default.weight" for name in names)
    assert sum("lora_A" in name for name in names) == 2 * 7  # q, k, v, o, gate, up, down of two layers
    again = dict(add_lora(load(tiny_model), rank=2, seed=0).trainable())
    other = dict(add_lora(load(tiny_model), rank=2, seed=1).trainable())
    first = next(name for name in names if "lora_A" in name)
    assert torch.equal(dict(model.trainable())[first], again[first])
    assert not torch.equal(again[first], other[first])


def test_weights_are_decayed_in_matrices_alone(tiny_model: Path) -> None:
    model = load(tiny_model)
    optimizer, parameters = make_optimizer(model.trainable(), learning_rate=1.0, weight_decay=0.1)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(value.ndim >= 2 for value in decayed["params"])
    assert all(value.ndim < 2 for value in spared["params"])
    in_order = [value for group in optimizer.param_groups for value in group["params"]]
    assert all(one is other for one, other in zip(in_order, parameters.values(), strict=True))
    assert len(in_order) == len(list(model.whole.parameters()))


def test_arithmetic_and_device_of_a_machine_without_cuda() -> None:
    assert choose_autocast("auto", CPU) == choose_autocast("float32", CPU) == torch.float32
    assert choose_autocast("bfloat16", CPU) == torch.bfloat16
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(UsageError, match="no CUDA device"):
            choose_device("cuda")


def test_under_autocast_weights_and_scores_stay_float32(tiny_model: Path) -> None:
    exact = load(tiny_model)
    model = RewardModel(exact.whole, None, CPU, torch.bfloat16)
    data = [TokenisedExample((1, 2, 3), ((4, 5), (6,), (7, 8, 9)))]
    (batch,) = plan_micro_batches(data, [0], packed=True, budget=100)
    rows = collate(data, batch, packed=True, pad_id=258, device=CPU)
    scores = model.score(rows)
    assert scores.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in model.whole.parameters())
    assert scores.tolist() == pytest.approx(exact.score(rows).tolist(), abs=2e-2)
    assert scores.tolist() != exact.score(rows).tolist()


@pytest.fixture
def small_smollm2(tmp_path: Path) -> RewardModel:
    """SmolLM2's proportions at a quarter of its width."""
    config = LlamaConfig(
        hidden_size=144, intermediate_size=384, num_hidden_layers=6, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=512, max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return load(tmp_path)


@pytest.mark.parametrize(("responses", "length"), [(1, 200), (4, 64), (9, 64)])
def test_what_the_backward_pass_needs_is_what_autograd_keeps(
    small_smollm2: RewardModel, responses: int, length: int
) -> None:
    model = small_smollm2
    data = [TokenisedExample((1,) * 256, ((2,) * length,) * responses)] * 2
    (batch,) = plan_micro_batches(data, range(2), packed=True, budget=10**5)
    own = {value.untyped_storage().data_ptr() for value in model.whole.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model.score(collate(data, batch, packed=True, pad_id=0, device=CPU))
        assert scores.requires_grad
    estimated = 4 * 6 * batch.tokens * kept_values(shape_of(model.whole.config))
    assert sum(kept.values()) == pytest.approx(estimated, rel=0.15)


def test_the_peak_is_the_sum_of_its_parts(small_smollm2: RewardModel) -> None:
    model = small_smollm2
    weights = sum(value.numel() for value in model.whole.parameters())
    embedding = 512 * 144
    kept = 6 * 144 + 5 * 144 + 4 * 384  # norms, attention, MLP
    assert peak_bytes(load_of(model), tokens=0) == 4 * (4 * weights + embedding)
    assert peak_bytes(load_of(model), tokens=100) == 4 * (4 * weights + embedding + 100 * 6 * kept)
    model.whole.activation_checkpointing_enable()
    assert peak_bytes(load_of(model), tokens=100) == 4 * (4 * weights + embedding + 100 * (6 * 144 + kept))


def test_frozen_weights_have_no_gradient_and_no_moments(small_smollm2: RewardModel) -> None:
    model = add_lora(small_smollm2, rank=2, seed=0)
    weights = sum(value.numel() for value in model.whole.parameters())
    trained = [value.numel() for _, value in model.trainable()]
    assert peak_bytes(load_of(model), tokens=0) == 4 * (weights + 3 * sum(trained) + max(trained))


def test_a_pad_that_is_new_is_zero_whatever_was_drawn_before(tiny_model: Path) -> None:
    rows = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = load_reward_model(str(tiny_model), seed=0, device=CPU, autocast_dtype=torch.float32)
        count = model.whole.get_input_embeddings().num_embeddings
        set_pad_token(model, count)
        rows.append(model.whole.get_input_embeddings().weight[count])
    assert torch.equal(rows[0], rows[1])
    assert not rows[0].any()
