"""Loading a language model: what is refused, logits that are scaled or capped, LoRA, and the reference inside it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    OPTConfig,
    PreTrainedConfig,
)

from training.core.errors import UsageError
from training.core.language import LanguageModel, LogitShape, add_language_lora, load_language_model, logit_shape
from training.core.log_probs import token_figures
from training.core.modeling import load_reward_model, load_tokenizer, set_pad_token
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.saving import save_reward_model
from training.core.token_places import token_places

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def load(folder: Path | str, **more: Any) -> LanguageModel:
    return load_language_model(str(folder), device=CPU, autocast_dtype=torch.float32, **more)


def log_probs(model: LanguageModel) -> torch.Tensor:
    data = [TokenisedExample((3, 4, 5), ((6, 7), (8, 9, 10)))]
    (batch,) = plan_micro_batches(data, [0], packed=False, budget=100)
    rows = collate(data, batch, packed=False, pad_id=0, device=CPU)
    return token_figures(model, rows, token_places(data, batch, device=CPU)).log_probs


def save_random(config: PreTrainedConfig, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for value in model.parameters():
        value.data.normal_(std=0.3)  # logits large enough for a cap to be felt
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Gemma2Config(**SIZES, final_logit_softcapping=0.5), LogitShape(cap=0.5)),
        (GraniteConfig(**SIZES, logits_scaling=8.0), LogitShape(factor=0.125)),
        (CohereConfig(**SIZES, logit_scale=0.0625), LogitShape(factor=0.0625)),
    ],
    ids=["gemma2", "granite", "cohere"],
)
def test_scaled_and_capped_logits_are_the_models_own(config: Any, shape: LogitShape, tmp_path: Path) -> None:
    save_random(config, tmp_path)
    model = load(tmp_path)
    assert model.shape == shape
    found = log_probs(model).tolist()
    expected = []
    for response in ((6, 7), (8, 9, 10)):
        with torch.no_grad():
            logits = model.whole(torch.tensor([[3, 4, 5, *response]])).logits[0, 2:-1]
        expected += logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0].tolist()
    assert found == pytest.approx(expected, abs=1e-5)
    model.shape = LogitShape()
    assert log_probs(model).tolist() != pytest.approx(expected, abs=1e-2)


def test_logits_that_are_made_in_an_unknown_way_are_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def doubled(self: Any, *args: Any, **more: Any) -> Any:
        output = forward(self, *args, **more)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", doubled)
    with pytest.raises(UsageError, match="LlamaForCausalLM makes its logits in a way that is not known"):
        load(tiny_model)


def test_a_projection_between_decoder_and_head_is_part_of_the_decoder(tmp_path: Path) -> None:
    save_random(
        OPTConfig(vocab_size=32, hidden_size=16, word_embed_proj_dim=8, ffn_dim=16, num_hidden_layers=1,
                  num_attention_heads=2), tmp_path,
    )  # fmt: skip
    assert load(tmp_path).shape == logit_shape(load(tmp_path).whole.config) == LogitShape()


def test_a_reward_model_is_no_language_model(tiny_model: Path, tmp_path: Path) -> None:
    reward = load_reward_model(str(tiny_model), seed=0, device=CPU, autocast_dtype=torch.float32)
    save_reward_model(reward, load_tokenizer(str(tiny_model)), tmp_path / "reward", card="")
    with pytest.raises(UsageError, match="is a reward model"):
        load(tmp_path / "reward")


def test_what_is_no_model_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load a model") as error:
        load(tmp_path / "absent")
    assert "\n" not in str(error.value)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "holes"))
    weights = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in weights  # tied: no hole
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"weights missing, such as model\.layers\.1\.mlp\.up_proj"):
        load(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot load a model"):
        load(folder)


def test_dropout_is_off(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=8, vocab_size=32)).save_pretrained(tmp_path)
    model = load(tmp_path)
    model.whole.train()
    rates = {module.p for module in model.whole.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.0}
    assert torch.equal(log_probs(model), log_probs(model))


def test_a_frozen_model_may_be_of_half_the_size(tiny_model: Path) -> None:
    half = load(tiny_model, weights_dtype=torch.bfloat16)
    assert {value.dtype for value in half.whole.parameters()} == {torch.bfloat16}
    found = log_probs(half)
    assert found.dtype == torch.float32
    exact = log_probs(load(tiny_model))
    assert found.tolist() == pytest.approx(exact.tolist(), abs=5e-2)
    assert not torch.equal(found, exact)


def test_lora_trains_the_adapter_alone_and_begins_as_the_base(tiny_model: Path) -> None:
    base = load(tiny_model)
    before = log_probs(base)
    model = add_language_lora(base, rank=2, seed=0)
    names = [name for name, _ in model.trainable()]
    assert sum("lora_A" in name for name in names) == 2 * 7
    assert all("lora_" in name and "lm_head" not in name for name in names)
    assert torch.equal(log_probs(model), before)
    again = dict(add_language_lora(load(tiny_model), rank=2, seed=0).trainable())
    other = dict(add_language_lora(load(tiny_model), rank=2, seed=1).trainable())
    first = next(name for name in names if "lora_A" in name)
    assert torch.equal(dict(model.trainable())[first], again[first])
    assert not torch.equal(again[first], other[first])


def test_the_reference_is_the_base_bit_for_bit_and_changes_nothing(tiny_model: Path) -> None:
    base = load(tiny_model)
    before = log_probs(base)
    model = add_language_lora(base, rank=2, seed=0)
    for _, value in model.trainable():
        torch.nn.init.constant_(value, 0.05)
    trained, names = log_probs(model), [name for name, _ in model.trainable()]
    assert not torch.equal(trained, before)
    with model.reference(), model.reference():
        assert torch.equal(log_probs(model), before)
    with pytest.raises(RuntimeError), model.reference():
        raise RuntimeError
    assert torch.equal(log_probs(model), trained)
    assert [name for name, _ in model.trainable()] == names


def test_a_model_without_adapter_has_no_reference_inside(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="no reference"), load(tiny_model).reference():
        pass


def test_a_new_pad_is_no_likely_token(tiny_model: Path, tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=False)
    plain.save_pretrained(tmp_path)
    model = load(tmp_path)
    set_pad_token(model, 259)
    assert len(model.head.weight) == 260
    assert not model.head.weight[259].any()
