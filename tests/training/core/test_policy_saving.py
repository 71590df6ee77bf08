"""What is saved loads in plain transformers and says the same, and the model in memory is not touched by it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from training.core.language import LanguageModel, add_language_lora, load_language_model
from training.core.log_probs import token_figures
from training.core.modeling import load_tokenizer, set_pad_token
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.policy_saving import save_policy
from training.core.token_places import token_places

CPU = torch.device("cpu")
PROMPT, RESPONSE = (3, 4, 5), (8, 9, 10, 11)


def load(folder: Path) -> LanguageModel:
    return load_language_model(str(folder), device=CPU, autocast_dtype=torch.float32)


def ours(model: LanguageModel) -> list[float]:
    data = [TokenisedExample(PROMPT, (RESPONSE,))]
    (batch,) = plan_micro_batches(data, [0], packed=False, budget=100)
    rows = collate(data, batch, packed=False, pad_id=0, device=CPU)
    found: list[float] = token_figures(model, rows, token_places(data, batch, device=CPU)).log_probs.tolist()
    return found


def plain(whole: Any) -> list[float]:
    with torch.no_grad():
        logits = whole(torch.tensor([[*PROMPT, *RESPONSE]])).logits[0, len(PROMPT) - 1 : -1]
    found: list[float] = logits.log_softmax(-1).gather(-1, torch.tensor(RESPONSE)[:, None])[:, 0].tolist()
    return found


def with_lora(model: LanguageModel) -> LanguageModel:
    model = add_language_lora(model, rank=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, value in model.trainable():
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", ["all weights", "lora"])
def test_the_saved_model_says_the_same_in_plain_transformers(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model)
    if kind == "lora":
        model = with_lora(model)
    else:
        with torch.no_grad():
            model.whole.model.norm.weight.mul_(1.7)
    before = {name: value.clone() for name, value in model.whole.state_dict().items()}
    expected = ours(model)
    assert expected != pytest.approx(ours(load(tiny_model)), abs=1e-2)
    save_policy(model, load_tokenizer(str(tiny_model)), tmp_path / "model", card="# Card\n", extra={"a.json": [1]})
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert plain(saved) == pytest.approx(expected, abs=1e-4)
    assert saved.lm_head.weight is saved.model.embed_tokens.weight
    assert ours(model) == expected  # and it may be trained further
    assert all(torch.equal(value, before[name]) for name, value in model.whole.state_dict().items())
    assert (tmp_path / "model" / "README.md").read_text() == "# Card\n"
    assert json.loads((tmp_path / "model" / "a.json").read_text()) == [1]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_adapter_loads_with_peft_on_the_base(tiny_model: Path, tmp_path: Path) -> None:
    model = with_lora(load(tiny_model))
    tokenizer = load_tokenizer(str(tiny_model))
    save_policy(model, tokenizer, tmp_path / "model", card="", adapter=tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    assert plain(loaded) == pytest.approx(ours(model), abs=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").chat_template == tokenizer.chat_template


def test_a_policy_of_a_shared_trunk_is_saved_alone(tiny_model: Path, tmp_path: Path) -> None:
    model = with_lora(load(tiny_model))
    assert model.adapter is not None
    model.adapter.add_adapter("policy", model.adapter.peft_config["default"])
    view = LanguageModel(model.whole, model.adapter, CPU, torch.float32, model.shape, "policy")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.whole.named_parameters():
            if ".policy." in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    expected, others = ours(view), ours(model)
    assert expected != pytest.approx(others, abs=1e-2)
    save_policy(view, load_tokenizer(str(tiny_model)), tmp_path / "model", card="", adapter=tmp_path / "adapter")
    assert plain(AutoModelForCausalLM.from_pretrained(tmp_path / "model")) == pytest.approx(expected, abs=1e-4)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    assert plain(loaded) == pytest.approx(expected, abs=1e-4)
    assert (ours(view), ours(model)) == (expected, others)


def test_pad_and_ends_stand_alike_everywhere(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    opinions = {"eos_token_id": [256, 9], "pad_token_id": 9, "do_sample": True, "top_k": 5, "temperature": 0.3}
    (folder / "generation_config.json").write_text(json.dumps(opinions))
    tokenizer = load_tokenizer(str(folder))
    for stop_ids, expected in ((None, sorted({256, 9, tokenizer.eos_token_id})), ({7}, 7)):
        save_policy(load(folder), tokenizer, tmp_path / "model", card="", stop_ids=stop_ids)
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        for config in (saved.config, saved.generation_config):
            assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, expected)
        assert saved.generation_config.top_k in (None, 50)
        assert not saved.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == tokenizer.chat_template


def test_a_vocabulary_that_grew_is_saved_so(tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model)
    set_pad_token(model, 259)
    save_policy(model, load_tokenizer(str(tiny_model)), tmp_path / "model", card="")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").lm_head.weight.shape == (260, 64)


def test_layers_that_keep_their_weights_transposed_are_merged_right(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=16, vocab_size=300)).save_pretrained(
        tmp_path / "base"
    )
    model = with_lora(load(tmp_path / "base"))
    assert any(
        not isinstance(layer.base_layer, torch.nn.Linear)
        for layer in model.whole.transformer.h[0].mlp.children()
        if hasattr(layer, "base_layer")
    )
    save_policy(model, load_tokenizer(str(tiny_model)), tmp_path / "model", card="")
    assert plain(AutoModelForCausalLM.from_pretrained(tmp_path / "model")) == pytest.approx(ours(model), abs=1e-4)
