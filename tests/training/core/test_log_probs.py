"""Log-probs and entropies of flat tokens: against transformers on single sequences, and against autograd."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from training.core import log_probs
from training.core.language import LanguageModel, LogitShape, add_language_lora, load_language_model
from training.core.log_probs import LogProbAndEntropy, TokenFigures, backward_through, chunks, token_figures
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.token_places import token_places

CPU = torch.device("cpu")
PAD = 258
# A long prompt, so that attention in blocks pays, and responses of one token and more.
DATA = [
    TokenisedExample(tuple(range(1, 90)), (tuple(range(60, 90)), (7,), tuple(range(100, 140)), (8, 9))),
    TokenisedExample((5, 6), ((7, 8, 9), (10, 11))),
    TokenisedExample((3,), ((4, 4, 4, 4),)),
]
Rows = tuple[Any, Any]


@pytest.fixture
def model(tiny_model: Path) -> LanguageModel:
    return load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)


def lay(data: list[TokenisedExample], *, packed: bool = True, budget: int = 10**4, **more: Any) -> list[Rows]:
    return [
        (collate(data, batch, packed=packed, pad_id=PAD, device=CPU), token_places(data, batch, device=CPU, **more))
        for batch in plan_micro_batches(data, range(len(data)), packed=packed, budget=budget)
    ]


def alone(folder: Path, *, temperature: float = 1.0) -> tuple[list[float], list[float]]:
    """Every response token of ``DATA`` from plain transformers, one response a forward, in float64."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
    found, entropies = [], []
    for example in DATA:
        for response in example.responses:
            ids = torch.tensor([[*example.prompt, *response]])
            with torch.no_grad():
                logits = plain(ids).logits[0, len(example.prompt) - 1 : -1] / temperature
            log_p = logits.log_softmax(-1)
            found += log_p.gather(-1, torch.tensor(response)[:, None])[:, 0].tolist()
            entropies += (-(log_p.exp() * log_p).sum(-1)).tolist()
    return found, entropies


@pytest.mark.parametrize(("packed", "budget"), [(True, 10**4), (True, 120), (False, 10**4), (False, 1)])
def test_figures_are_those_of_plain_transformers_however_the_rows_are_laid(
    model: LanguageModel, tiny_model: Path, packed: bool, budget: int
) -> None:
    parts = [token_figures(model, *each, temperature=0.7) for each in lay(DATA, packed=packed, budget=budget)]
    expected, entropies = alone(tiny_model, temperature=0.7)
    assert torch.cat([part.log_probs for part in parts]).tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.cat([part.entropy for part in parts]).tolist() == pytest.approx(entropies, abs=1e-5)


@pytest.mark.parametrize("length", [20, 150])  # dense mask, attention in blocks
def test_documents_without_a_prompt_do_not_see_one_another(model: LanguageModel, length: int) -> None:
    documents = [tuple(range(start, start + length)) for start in (1, 40, 100)]
    row = [TokenisedExample((), tuple(documents))]
    skip = {(0, place): place + 1 for place in range(3)}
    ((rows, places),) = lay(row, skip=skip)
    assert places.counts == (length - 1, length - 2, length - 3)
    separate = []
    for place, document in enumerate(documents):
        single = [TokenisedExample(document[: place + 1], (document[place + 1 :],))]
        separate += token_figures(model, *lay(single, packed=False)[0]).log_probs.tolist()
    assert token_figures(model, rows, places).log_probs.tolist() == pytest.approx(separate, abs=1e-5)


def weights_of(count: int) -> Tensor:
    return torch.linspace(-1.0, 2.0, count)


def loss_of(figures: TokenFigures, part: slice, count: int) -> Tensor:
    """Something that is not linear in the figures, with an entropy term."""
    weight = weights_of(count)[part]
    return (weight * figures.log_probs.exp() + 0.3 * weight * figures.entropy**2 + weight * figures.log_probs).sum()


def whole_graph(model: LanguageModel, rows: Any, places: Any, *, temperature: float) -> Tensor:
    """The same loss through transformers' own logits and torch's own softmax."""
    with model.forwarding():
        logits = model.whole(
            input_ids=rows.input_ids, position_ids=rows.position_ids, attention_mask=rows.attention_mask
        ).logits[places.row, places.column]
    log_p = (logits / temperature).log_softmax(-1)
    figures = TokenFigures(log_p.gather(-1, places.target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))
    return loss_of(figures, slice(None), len(places.target))


def prepare(kind: str, tiny_model: Path, tmp_path: Path) -> LanguageModel:
    if kind == "untied":
        plain = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=False)
        plain.lm_head.weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        plain.save_pretrained(tmp_path)
        tiny_model = tmp_path
    model = load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)
    assert (model.head.weight is model.whole.get_input_embeddings().weight) == (kind != "untied")
    if kind == "lora":
        model = add_language_lora(model, rank=2, seed=0)
        for name, value in model.trainable():
            if "lora_B" in name:
                torch.nn.init.constant_(value, 0.02)
    return model


@pytest.mark.parametrize("kind", ["tied", "untied", "lora"])
def test_gradients_in_chunks_are_those_of_the_whole_graph(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prepare(kind, tiny_model, tmp_path)
    ((rows, places),) = lay(DATA[1:])
    whole_graph(model, rows, places, temperature=0.7).backward()  # type: ignore[no-untyped-call]
    expected = {name: value.grad.clone() for name, value in model.trainable() if value.grad is not None}
    model.whole.zero_grad()
    monkeypatch.setattr(log_probs, "CHUNK_BYTES", 4 * 259 * 2)  # two places at a time
    count = len(places.target)
    parts: list[slice] = []

    def keep(figures: TokenFigures, part: slice) -> Tensor:
        parts.append(part)
        return loss_of(figures, part, count)

    loss, figures = backward_through(model, rows, places, keep, temperature=0.7)
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert expected
    for name, value in model.trainable():
        assert value.grad is not None
        gap = (value.grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-12)
        assert gap <= 1e-5, name
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(whole_graph(model, rows, places, temperature=0.7)), rel=1e-5)
    again = token_figures(model, rows, places, temperature=0.7)
    assert torch.equal(figures.log_probs, again.log_probs)
    assert not figures.entropy.requires_grad


def test_both_gradients_against_finite_differences() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([0, 4, 2, 2])
    apply: Callable[..., Any] = LogProbAndEntropy.apply
    assert torch.autograd.gradcheck(lambda z: apply(z, target, True), logits)
    assert torch.autograd.gradcheck(lambda z: apply(z, target, False)[0], logits)


def test_a_logit_of_minus_infinity_makes_nothing_infinite() -> None:
    logits = torch.tensor([[0.0, float("-inf"), 0.0]], requires_grad=True)
    found, entropy = LogProbAndEntropy.apply(logits, torch.tensor([2]), True)  # type: ignore[no-untyped-call]
    (found + entropy).sum().backward()
    assert entropy.item() == pytest.approx(torch.tensor(2.0).log().item())
    assert logits.grad is not None
    assert logits.grad.tolist() == [pytest.approx([-0.5, 0.0, 0.5])]


def test_chunks_fit_their_memory_and_never_vanish() -> None:
    assert chunks(0, vocabulary=10) == [slice(0, 0)]
    parts = chunks(1000, vocabulary=49152)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[-1].stop == 1000
    assert max(part.stop - part.start for part in parts) * 4 * 49152 <= 64 * 2**20


def test_no_tokens_no_loss_and_no_gradient(model: LanguageModel) -> None:
    ((rows, places),) = lay([TokenisedExample((1, 2), ((3,),))], skip={(0, 0): 1})
    loss, figures = backward_through(model, rows, places, lambda figures, part: figures.log_probs.sum())
    assert (loss.item(), len(figures.log_probs)) == (0.0, 0)
    assert all(value.grad is None or not value.grad.any() for _, value in model.trainable())


def test_a_cap_and_a_factor_are_part_of_the_logits() -> None:
    logits = torch.tensor([1.0, -40.0, 200.0])
    assert LogitShape(0.5, 30.0).apply(logits).tolist() == pytest.approx(
        [30 * torch.tanh(torch.tensor(z / 30)).item() for z in (0.5, -20.0, 100.0)]
    )
