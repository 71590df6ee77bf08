"""Packing changes nothing: scores and gradients equal those of separate sequences, however rows are laid out."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from training.core import attention as blockwise
from training.core import forwarding
from training.core.attention import attends_in_blocks, blocks_pay
from training.core.modeling import RewardModel, load_reward_model
from training.core.packing import (
    PACKABLE_TYPES,
    MicroBatch,
    PackedRows,
    TokenisedExample,
    collate,
    lay_rows,
    packed_mask,
    packing_refusal,
    plan_micro_batches,
)
from training.core.scoring import packing_error

CPU = torch.device("cpu")
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),
    "mistral": lambda: MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=100),
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, vocab_size=259),
}
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 259,
    "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return fresh_model(ARCHITECTURES[request.param](), tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def blocks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as short as these would not pay for attention by blocks; the dense mask stands beside it where named."""
    monkeypatch.setattr(forwarding, "blocks_pay", lambda lengths, *, width: True)


def fresh_model(config: Any, folder: Path) -> RewardModel:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_reward_model(str(folder), seed=0, device=CPU, autocast_dtype=torch.float32)


def examples(count: int = 3, k: Sequence[int] = (2, 4, 9), seed: int = 0) -> list[TokenisedExample]:
    draw = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(256) for _ in range(draw.randint(low, high)))

    return [TokenisedExample(ids(3, 20), tuple(ids(1, 9) for _ in range(k[i % len(k)]))) for i in range(count)]


def score(
    model: RewardModel, data: list[TokenisedExample], batch: MicroBatch, *, packed: bool, pad: int = 258
) -> Tensor:
    return model.score(collate(data, batch, packed=packed, pad_id=pad, device=CPU))


def whole_batch(data: list[TokenisedExample], *, packed: bool, budget: int = 10**6) -> MicroBatch:
    (batch,) = plan_micro_batches(data, range(len(data)), packed=packed, budget=budget)
    return batch


def gradients(model: RewardModel, loss: Tensor) -> dict[str, Tensor]:
    model.whole.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: value.grad.clone() for name, value in model.trainable() if value.grad is not None}


def assert_same_gradients(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert first
    # A parameter that cannot change a difference of scores (a last bias) has a gradient of rounding alone.
    floor = 1e-7 * torch.stack([value.norm() for value in second.values()]).norm()
    for name in first:
        assert (first[name] - second[name]).norm() <= 1e-5 * second[name].norm() + floor, name


def loss_over(scores: Tensor) -> Tensor:
    """Neighbours in the order of the scores: any loss over pairs will do."""
    places = torch.arange(len(scores) - 1)
    weight = torch.rand(len(places), generator=fixed())
    return -(weight * logsigmoid(scores[places] - scores[places + 1])).sum()


def fixed() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(params=["blocks", "dense"])
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attention by blocks, or over the dense mask."""
    monkeypatch.setattr(forwarding, "blocks_pay", lambda lengths, *, width: request.param == "blocks")
    return str(request.param)


@pytest.mark.usefixtures("attention")
def test_packed_rows_score_as_each_sequence_alone_in_plain_transformers(model: RewardModel) -> None:
    data = examples()
    batch = whole_batch(data, packed=True)
    packed = score(model, data, batch, packed=True).tolist()
    expected = []
    for number in batch.examples:
        for response in data[number].responses:
            ids = torch.tensor([[*data[number].prompt, *response]])
            expected.append(model.head(model.whole.base_model(input_ids=ids).last_hidden_state[0, -1]).item())
    assert packed == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in packed}) > 3  # the scores are not all alike


@pytest.mark.usefixtures("attention")
def test_packed_and_separate_rows_have_equal_gradients(model: RewardModel) -> None:
    data = examples()
    found = []
    for packed in (True, False):
        batch = whole_batch(data, packed=packed)
        scores = score(model, data, batch, packed=packed).split(
            [len(data[number].responses) for number in batch.examples]
        )
        by_number = dict(zip(batch.examples, scores, strict=True))
        found.append(gradients(model, loss_over(torch.cat([by_number[number] for number in range(len(data))]))))
    assert_same_gradients(*found)


def test_the_order_of_responses_changes_nothing(model: RewardModel) -> None:
    (example,) = examples(1, k=(6,))
    order = [3, 0, 5, 1, 4, 2]
    turned = TokenisedExample(example.prompt, tuple(example.responses[place] for place in order))
    straight = score(model, [example], whole_batch([example], packed=True), packed=True)
    mixed = score(model, [turned], whole_batch([turned], packed=True), packed=True)
    assert mixed.tolist() == pytest.approx(straight[order].tolist(), abs=1e-5)


def test_padding_on_either_side_and_its_ids_change_nothing(model: RewardModel) -> None:
    data = examples()
    batch = whole_batch(data, packed=True)
    rows = collate(data, batch, packed=True, pad_id=258, device=CPU)
    loss = gradients(model, loss_over(model.score(rows)))
    for left, right, pad in ((0, 13, 7), (11, 0, 258), (5, 2, 0)):
        padded = widen(rows, left=left, right=right, pad=pad)
        assert model.score(padded).tolist() == pytest.approx(model.score(rows).tolist(), abs=1e-5)
        assert_same_gradients(gradients(model, loss_over(model.score(padded))), loss)


def widen(rows: PackedRows, *, left: int, right: int, pad: int) -> PackedRows:
    """The same rows with more padding around them, which sees itself alone."""
    width = rows.input_ids.shape[1] + left + right
    mask = torch.eye(width, dtype=torch.bool).expand(len(rows.input_ids), 1, -1, -1).clone()
    mask[:, :, left : width - right, left : width - right] = rows.attention_mask
    return PackedRows(
        torch.nn.functional.pad(rows.input_ids, (left, right), value=pad),
        torch.nn.functional.pad(rows.position_ids, (left, right)),
        mask,
        rows.score_row,
        rows.score_column + left,
    )


def test_splitting_into_micro_batches_changes_nothing(model: RewardModel) -> None:
    data = examples(5)
    found = []
    for budget in (10**6, 60, 1):
        model.whole.zero_grad()
        scores: dict[int, list[float]] = {}
        for batch in plan_micro_batches(data, range(5), packed=True, budget=budget):
            values = score(model, data, batch, packed=True)
            (values.square().sum() / 5).backward()  # type: ignore[no-untyped-call]
            rest = values.tolist()
            for number in batch.examples:
                scores[number] = [rest.pop(0) for _ in data[number].responses]
        total = {name: value.grad.clone() for name, value in model.trainable() if value.grad is not None}
        found.append(([value for number in range(5) for value in scores[number]], total))
    for scores_of_some, total in found[1:]:
        assert scores_of_some == pytest.approx(found[0][0], abs=1e-5)
        assert_same_gradients(total, found[0][1])


# --- rows and masks ---------------------------------------------------------------------------------------------------


def test_rows_hold_the_prompt_once_and_split_at_the_budget() -> None:
    example = TokenisedExample((1,) * 10, ((2,) * 4, (3,) * 5, (4,) * 6))
    assert [(row.responses, row.length) for row in lay_rows(example, number=0, packed=True, budget=99)] == [
        ((0, 1, 2), 25)
    ]
    assert [(row.responses, row.length) for row in lay_rows(example, number=0, packed=True, budget=20)] == [
        ((0, 1), 19),
        ((2,), 16),
    ]
    assert [row.responses for row in lay_rows(example, number=0, packed=False, budget=99)] == [(0,), (1,), (2,)]


@pytest.mark.filterwarnings("error")
def test_ids_may_be_read_only_arrays() -> None:
    data = examples(2)
    arrays: list[Any] = [np.array(part, dtype=np.int32) for part in (data[0].prompt, *data[0].responses)]
    for array in arrays:
        array.flags.writeable = False
    mapped = [TokenisedExample(arrays[0], tuple(arrays[1:])), data[1]]
    plain, found = (collate(each, whole_batch(each, packed=True), packed=True, pad_id=0, device=CPU)
                    for each in (data, mapped))  # fmt: skip
    assert torch.equal(plain.input_ids, found.input_ids)
    assert plain.lengths == found.lengths


def test_micro_batches_stay_within_the_budget_where_they_can() -> None:
    data = examples(20, seed=3)
    batches = plan_micro_batches(data, range(20), packed=True, budget=150)
    assert sorted(number for batch in batches for number in batch.examples) == list(range(20))
    for batch in batches:
        assert batch.tokens <= 150 or len(batch.examples) == 1
    assert len(batches) < 20
    widths = [max(row.length for row in batch.rows) for batch in batches]
    assert widths == sorted(widths, reverse=True)


def test_the_mask_is_that_of_its_definition() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 2, -1, -1]])
    allowed = packed_mask(segments)[0, 0]
    for query in range(7):
        for key in range(7):
            q, k = segments[0, query].item(), segments[0, key].item()
            expected = (q == -1 and query == key) or (q != -1 and k != -1 and key <= query and k in (0, q))
            assert bool(allowed[query, key]) == expected, (query, key)


# --- attention by blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "checkpointing"),
    [*((model_type, False) for model_type in sorted(PACKABLE_TYPES)), ("llama", True), ("gpt2", True)],
)
def test_every_layer_of_every_packable_model_attends_in_blocks(
    model_type: str, checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 259}
        if model_type == "gpt2"
        else {**SIZES, "num_key_value_heads": 2}
    )
    model = fresh_model(AutoConfig.for_model(model_type, **sizes, pad_token_id=0), tmp_path)
    if checkpointing:
        model.whole.activation_checkpointing_enable()
    model.whole.train()
    given: list[Any] = []
    attend = blockwise._attend_alike
    monkeypatch.setattr(blockwise, "_attend_alike", lambda *inputs: given.append(inputs[3]) or attend(*inputs))
    data = examples(1, k=(3,))
    loss_over(score(model, data, whole_batch(data, packed=True), packed=True)).backward()  # type: ignore[no-untyped-call]
    lengths = (len(data[0].prompt), *map(len, data[0].responses))
    assert given == [lengths] * (4 if checkpointing else 2)


def test_rows_of_the_same_lengths_go_together(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    attend = blockwise._attend_alike
    monkeypatch.setattr(blockwise, "_attend_alike", lambda *inputs: calls.append(len(inputs[0])) or attend(*inputs))
    draw = random.Random(5)
    data = [
        TokenisedExample(ids_of(draw, 7), tuple(ids_of(draw, length) for length in lengths))
        for lengths in ((6, 5), (6, 5), (5, 6), (2, 2))
    ]
    batch = whole_batch(data, packed=True)
    in_blocks = score(model, data, batch, packed=True)
    assert calls == [2, 1, 1] * 2  # of two layers
    monkeypatch.setattr(forwarding, "blocks_pay", lambda lengths, *, width: False)
    dense = score(model, data, batch, packed=True)
    assert in_blocks.tolist() == pytest.approx(dense.tolist(), abs=1e-5)
    assert_same_gradients(gradients(model, loss_over(in_blocks)), gradients(model, loss_over(dense)))


def ids_of(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(256) for _ in range(count))


def test_blocks_pay_where_the_dense_mask_would_throw_much_away() -> None:
    assert blocks_pay([(256, *(64,) * 9)] * 2, width=832)
    assert not blocks_pay([(20, 9, 9)], width=38)
    assert not blocks_pay([(2048, 1)], width=2049)  # next to nothing to save


def test_models_that_attend_in_their_own_way_keep_it() -> None:
    whole = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation="eager").model
    blockwise.let_attend_in_blocks(whole)
    assert not attends_in_blocks(whole)


def test_the_saved_model_says_nothing_of_blocks(model: RewardModel, tmp_path: Path) -> None:
    assert attends_in_blocks(model.whole)
    model.whole.save_pretrained(tmp_path)
    assert "blocks" not in (tmp_path / "config.json").read_text()


# --- which models may be packed ---------------------------------------------------------------------------------------


def rope(rope_type: str, **more: Any) -> dict[str, Any]:
    common = {"rope_type": rope_type, "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    return common | more


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LlamaConfig(**SIZES), None),
        (MistralConfig(**SIZES, sliding_window=50), None),
        (MistralConfig(**SIZES, sliding_window=49), "window (49)"),
        (MistralConfig(**SIZES, sliding_window=None), None),
        (Qwen2Config(**SIZES, sliding_window=10, use_sliding_window=False), None),
        (Qwen2Config(**SIZES, sliding_window=10, use_sliding_window=True, max_window_layers=0), "window (10)"),
        (Qwen2Config(**SIZES, sliding_window=10, use_sliding_window=True, max_window_layers=1), "window (10)"),
        (LlamaConfig(**SIZES, rope_parameters=rope("linear")), None),
        (LlamaConfig(**SIZES, rope_parameters=rope("yarn")), None),
        (
            LlamaConfig(
                **SIZES,
                rope_parameters=rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0),
            ),
            None,
        ),
        (LlamaConfig(**SIZES, rope_parameters=rope("dynamic")), "dynamic"),
        (
            Phi3Config(
                **SIZES, pad_token_id=0, rope_parameters=rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4)
            ),
            "longrope",
        ),
        (SimpleNamespace(model_type="llama", rope_scaling={"type": "dynamic", "factor": 2.0}), "dynamic"),
        (SimpleNamespace(model_type="llama", rope_scaling="of a kind that nobody knows"), "unknown"),
        (
            SimpleNamespace(
                model_type="llama",
                rope_parameters={"full_attention": rope("dynamic"), "sliding_attention": {"rope_type": "default"}},
            ),
            "dynamic",
        ),
        *((SimpleNamespace(model_type=kind), kind) for kind in ("bloom", "mpt", "gemma2", "mixtral", "jamba")),
        (Gemma3Config().get_text_config(), "gemma3_text"),  # of a composite config; every sixth layer is full
        (SimpleNamespace(model_type="mamba"), "mamba"),
        (SimpleNamespace(model_type="llama", layer_types=["full_attention", "linear_attention"]), "linear_attention"),
    ],
)
def test_the_config_decides_first_whether_rows_may_be_packed(config: Any, reason: str | None) -> None:
    refusal = packing_refusal(config, longest=50)
    assert refusal is None if reason is None else refusal is not None and reason in refusal


def test_a_model_that_counts_its_own_positions_is_caught_by_comparing(tiny_model: Path) -> None:
    model = load_reward_model(str(tiny_model), seed=0, device=CPU, autocast_dtype=torch.float32)
    data = max(examples(), key=lambda example: example.longest)
    assert packing_error(model, data, pad_id=258) < 1e-5
    forward = model.whole.base_model.forward

    def counts_for_itself(**arguments: Any) -> Any:
        return forward(**{**arguments, "position_ids": None})

    model.whole.base_model.forward = counts_for_itself
    assert packing_error(model, data, pad_id=258) > 1e-3
