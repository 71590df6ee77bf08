"""SFT's loss: against plain transformers document by document, however documents are packed and shared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from training.core import imitation
from training.core.distributed import World
from training.core.documents import Documents
from training.core.halving import MicroBatchBudget
from training.core.imitation import (
    document_losses,
    document_packing_error,
    imitate,
    mean_loss,
    plan_documents,
)
from training.core.language import LanguageModel, load_language_model
from training.core.log_probs import token_figures
from training.core.packing import collate
from training.core.randomness import generator_for
from training.core.scoring import Layout

CPU = torch.device("cpu")
PAD = 258


@pytest.fixture
def llama(tiny_model: Path) -> LanguageModel:
    return load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)


@pytest.fixture
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model with absolute positions: rotary ones cannot tell where a document begins."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=260, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return load_language_model(str(folder), device=CPU, autocast_dtype=torch.float32)


def documents_of(*sizes: tuple[int, int], groups: tuple[int, ...] | None = None, seed: int = 0) -> Documents:
    """Random documents of (context, learned) tokens."""
    documents = Documents()
    for number, (context, targets) in enumerate(sizes):
        ids = torch.randint(0, 256, (context + targets,), generator=generator_for(seed, "ids", number)).tolist()
        documents.add(ids, context=context, place=number, group=groups[number] if groups else number)
    return documents


SIZES = ((9, 3), (2, 20), (14, 1), (5, 7), (1, 11), (20, 2))


def gradients_of(model: LanguageModel) -> dict[str, torch.Tensor]:
    found = {name: value.grad.clone() for name, value in model.trainable() if value.grad is not None}
    model.whole.zero_grad(set_to_none=True)
    return found


def plainly(model: LanguageModel, documents: Documents, numbers: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients by transformers' own loss: one document at a time, all else labelled −100."""
    learned = sum(documents.targets(number) for number in numbers)
    total = 0.0
    for number in numbers:
        ids = torch.tensor([documents.ids(number)])
        labels = ids.clone()
        labels[:, : documents.contexts[number]] = -100
        loss = model.whole(input_ids=ids, labels=labels).loss * documents.targets(number) / learned
        loss.backward()
        total += loss.item()
    return total, gradients_of(model)


def assert_same_gradients(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float((value - second[name]).norm()) <= 1e-5 * float(second[name].norm()), name


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("packed", "tokens"), [(True, 1000), (True, 40), (True, 1), (False, 40), (False, 1)])
def test_packed_in_any_way_it_is_the_loss_of_each_document_alone(
    request: pytest.FixtureRequest, kind: str, packed: bool, tokens: int
) -> None:
    model: LanguageModel = request.getfixturevalue(kind)
    documents, numbers = documents_of(*SIZES), [4, 0, 1, 5, 3]
    expected, gradients = plainly(model, documents, numbers)
    loss, forwarded = imitate(model, documents, numbers, Layout(packed, PAD), tokens=tokens, world=World()).tolist()
    assert loss == pytest.approx(expected, abs=1e-5)
    assert_same_gradients(gradients_of(model), gradients)
    assert forwarded >= sum(documents.lengths[number] for number in numbers)


def test_a_step_shared_by_processes_is_the_same_step(llama: LanguageModel) -> None:
    """Loss and gradients of three shares add up: the denominator is the whole step's."""
    documents, numbers, layout = documents_of(*SIZES), [0, 1, 2, 3, 4], Layout(True, PAD)
    whole = imitate(llama, documents, numbers, layout, tokens=50, world=World())
    gradients = gradients_of(llama)
    shares = [imitate(llama, documents, numbers, layout, tokens=50, world=World(rank, 3)) for rank in range(3)]
    assert float(sum(share[0] for share in shares)) == pytest.approx(float(whole[0]), abs=1e-6)
    assert_same_gradients(gradients_of(llama), gradients)


def test_a_weight_scales_the_gradient_alone(llama: LanguageModel) -> None:
    documents, layout = documents_of(*SIZES), Layout(True, PAD)
    plain = imitate(llama, documents, [0, 1], layout, tokens=100, world=World())
    gradients = {name: 3 * value for name, value in gradients_of(llama).items()}
    scaled = imitate(llama, documents, [0, 1], layout, tokens=100, world=World(), weight=3.0)
    assert torch.equal(plain, scaled)
    assert_same_gradients(gradients_of(llama), gradients)


def test_packed_documents_do_not_see_one_another(gpt2: LanguageModel) -> None:
    """Other neighbours, other lengths before it, another place in the row: the same log-probs (AReaL #1442, TRL #3910:
    packed samples attended to each other under SDPA)."""

    def log_probs(*around: tuple[int, int], seed: int) -> torch.Tensor:
        documents = documents_of((6, 9), seed=1)
        for place, (context, targets) in enumerate(around):
            other = documents_of((context, targets), seed=seed + place)
            documents.add(other.ids(0), context=context, place=0, group=0)
        numbers = range(len(documents))
        (part,) = plan_documents(documents, numbers, Layout(True, PAD), tokens=200, world=World(), device=CPU)
        found = token_figures(gpt2, *part.tensors(Layout(True, PAD), CPU)).log_probs
        sizes = [documents.targets(number) for number in part.documents]
        return torch.split(found, sizes)[part.documents.index(0)]

    alone = log_probs(seed=0)
    torch.testing.assert_close(log_probs((3, 5), seed=7), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_probs((20, 20), (3, 5), seed=8), alone, atol=1e-5, rtol=0)


def test_the_check_at_the_start_sees_whether_packing_is_sound(gpt2: LanguageModel, llama: LanguageModel) -> None:
    documents = documents_of(*SIZES)
    assert document_packing_error(gpt2, documents, pad_id=PAD) < 1e-5
    assert document_packing_error(llama, documents, pad_id=PAD) < 1e-5


def test_the_check_at_the_start_sees_positions_that_go_on(gpt2: LanguageModel, monkeypatch: Any) -> None:
    """As where padding or neighbours are counted into the positions (LLaMA-Factory #10736)."""

    def going_on(*inputs: Any, **settings: Any) -> Any:
        rows = collate(*inputs, **settings)
        rows.position_ids[:] = torch.arange(rows.position_ids.shape[1])
        return rows

    monkeypatch.setattr(imitation, "collate", going_on)
    assert document_packing_error(gpt2, documents_of(*SIZES[:4]), pad_id=PAD) > 1e-3


def test_held_out_losses_are_those_of_each_document(llama: LanguageModel, tiny_model: Path) -> None:
    documents = documents_of(*SIZES)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = []
    for number in range(len(documents)):
        ids = torch.tensor([documents.ids(number)])
        log_p = plain(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        expected.append(-log_p[documents.contexts[number] - 1 :].sum().item())
    for packed in (True, False):
        budget = MicroBatchBudget(tokens=40, floor=22, world=World(), device=CPU)
        found = document_losses(llama, documents, Layout(packed, PAD), budget=budget)
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert document_losses(llama, documents, Layout(True, PAD), budget=budget, interrupted=lambda: True) is None


def test_the_mean_loss_is_over_tokens() -> None:
    documents = documents_of((1, 1), (1, 3), (1, 4))
    assert mean_loss(documents, np.array([2.0, 3.0, 3.0])) == 1.0
    assert mean_loss(Documents(), np.zeros(0)) is None
