"""Samples: nothing but (seed, purpose, step, number) decides them, and their log-probs are the training forward's."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.core.adapters import recompute_alike
from training.core.distributed import World
from training.core.errors import TrainingError
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel, add_language_lora, load_language_model
from training.core.log_probs import token_figures
from training.core.modeling import load_tokenizer
from training.core.packing import TokenisedExample, collate, plan_micro_batches
from training.core.randomness import generator_for
from training.core.sampling import (
    Draw,
    GenerateSampler,
    Sample,
    SamplingSettings,
    inverse_cdf,
    pad_left,
    plan_sampling,
)
from training.core.token_places import token_places

CPU = torch.device("cpu")
PAD = 258
# One token in ten ends a response, so that lengths differ.
SETTINGS = SamplingSettings(temperature=0.8, max_length=24, stop_ids=frozenset(range(26)), pad_id=PAD, seed=3)
PROMPTS = [tuple(range(60, 60 + length)) for length in (5, 1, 17, 3, 9, 2, 30)]
NUMBERS = [4, 9, 0, 33, 2, 8, 1]


@pytest.fixture
def model(tiny_model: Path) -> LanguageModel:
    return load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)


def sampler(model: LanguageModel, *, budget: int = 10**4, **more: Any) -> GenerateSampler:
    settings = replace(SETTINGS, **{name: more.pop(name) for name in list(more) if hasattr(SETTINGS, name)})
    return GenerateSampler(model, settings, MicroBatchBudget(budget, 1, World(), CPU), **more)


def draw(made: GenerateSampler, prompts: Any = PROMPTS, numbers: Any = NUMBERS) -> list[Sample]:
    samples = made.sample(prompts, numbers, purpose="rollout", step=5)
    assert samples is not None
    return samples


def same(found: list[Sample], expected: list[Sample]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.ended for each in found] == [each.ended for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def differ(found: list[Sample], expected: list[Sample]) -> None:
    assert all(one.tokens != other.tokens for one, other in zip(found, expected, strict=True))


def test_neither_batches_nor_order_nor_budgets_leave_a_trace(model: LanguageModel) -> None:
    alone = [draw(sampler(model), [prompt], [number])[0] for prompt, number in zip(PROMPTS, NUMBERS, strict=True)]
    assert {each.ended for each in alone} == {True, False}
    assert len({len(each.tokens) for each in alone}) > 3
    for budget in (10**4, 120, 1):
        same(draw(sampler(model, budget=budget)), alone)
    same(draw(sampler(model), PROMPTS[::-1], NUMBERS[::-1]), alone[::-1])
    same(draw(sampler(model), PROMPTS[2:4], NUMBERS[2:4]), alone[2:4])
    same(draw(sampler(model, max_length=40), PROMPTS, NUMBERS)[:1], alone[:1])  # it ends before


def test_a_prompt_that_several_samples_share_is_computed_once(model: LanguageModel) -> None:
    """And every sample is what it is alone, whatever shares its batch: other lengths, prompts that stand once."""
    prompts = [PROMPTS[2], PROMPTS[3], PROMPTS[2], PROMPTS[6], PROMPTS[2], PROMPTS[3]]
    numbers = [7, 1, 8, 2, 0, 5]
    alone = [draw(sampler(model), [prompt], [number])[0] for prompt, number in zip(prompts, numbers, strict=True)]
    widths: list[tuple[int, ...]] = []
    embed = model.whole.get_input_embeddings()
    handle = embed.register_forward_hook(lambda _, inputs, __: widths.append(tuple(inputs[0].shape)))
    same(draw(sampler(model), prompts, numbers), alone)
    handle.remove()
    assert widths[0] == (1, 1), "what cache the model keeps"
    assert widths[1] == (3, 29), "three distinct prompts, but for their last token"
    assert widths[2] == (6, 1), "of all rows the last token alone"


def test_each_part_of_the_occasion_decides(model: LanguageModel) -> None:
    first = draw(sampler(model))
    differ(draw(sampler(model, seed=4)), first)
    differ(draw(sampler(model), PROMPTS, [number + 1 for number in NUMBERS]), first)
    for purpose, step in (("rollout", 6), ("validation", 5)):
        other = sampler(model).sample(PROMPTS, NUMBERS, purpose=purpose, step=step)
        assert other is not None
        differ(other, first)


def test_a_longer_limit_has_the_same_first_draws(model: LanguageModel) -> None:
    short, long = (draw(sampler(model, max_length=limit, stop_ids=frozenset({PAD - 1}))) for limit in (7, 24))
    assert [each.tokens for each in short] == [each.tokens[:7] for each in long]


def test_log_probs_are_those_of_the_training_forward(model: LanguageModel) -> None:
    samples = draw(sampler(model))
    data = [TokenisedExample(prompt, (each.tokens,)) for prompt, each in zip(PROMPTS, samples, strict=True)]
    for packed in (True, False):
        for batch in plan_micro_batches(data, range(len(data)), packed=packed, budget=10**4):
            rows = collate(data, batch, packed=packed, pad_id=PAD, device=CPU)
            places = token_places(data, batch, device=CPU)
            found = token_figures(model, rows, places, temperature=0.8).log_probs.tolist()
            expected = [figure for number in batch.examples for figure in samples[number].log_probs]
            assert found == pytest.approx(expected, abs=1e-5)


def test_tokens_go_up_to_the_first_stop_token_and_hold_it(model: LanguageModel) -> None:
    for each in draw(sampler(model)):
        stops = [place for place, token in enumerate(each.tokens) if token in SETTINGS.stop_ids]
        assert stops == ([len(each.tokens) - 1] if each.ended else [])
        assert each.ended or len(each.tokens) == 24
        assert len(each.log_probs) == len(each.tokens)


def test_what_the_folder_says_about_generating_changes_nothing(
    model: LanguageModel, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "opinionated"))
    hostile = {
        "do_sample": True, "top_k": 5, "top_p": 0.5, "min_p": 0.2, "typical_p": 0.5, "temperature": 0.3,
        "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 24, "suppress_tokens": [60, 61, 62],
        "begin_suppress_tokens": [70], "bad_words_ids": [[80]], "forced_eos_token_id": 200, "num_beams": 2,
        "max_new_tokens": 3, "max_time": 1e-9, "eos_token_id": 100, "sequence_bias": [[[90], 9.0]], "use_cache": False,
        "num_return_sequences": 2, "guidance_scale": 3.0,
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(hostile))
    other = load_language_model(str(folder), device=CPU, autocast_dtype=torch.float32)
    assert other.whole.generation_config.top_k == 5
    same(draw(sampler(other)), draw(sampler(model)))
    assert other.whole.generation_config.top_k == 5  # given back


def test_frequencies_are_those_of_the_softmax(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0
    )
    plain = LlamaForCausalLM(config).eval()
    plain.lm_head.weight.data.normal_(std=0.3)
    plain.save_pretrained(tmp_path)
    model = load_language_model(str(tmp_path), device=CPU, autocast_dtype=torch.float32)
    count = 2000
    made = sampler(model, stop_ids=frozenset(), pad_id=0, max_length=1, temperature=0.7, budget=10**6)
    drawn = torch.tensor([each.tokens[0] for each in draw(made, [(1, 2)] * count, range(count))])
    with torch.no_grad():
        expected = count * (plain(torch.tensor([[1, 2]])).logits[0, -1] / 0.7).softmax(-1)
    assert expected.min() > 20
    statistic = float(((torch.bincount(drawn, minlength=5) - expected) ** 2 / expected).sum())
    # Chi-squared with 4 degrees of freedom: P(X > x) = exp(−x/2) (1 + x/2).
    assert math.exp(-statistic / 2) * (1 + statistic / 2) > 0.01


def test_the_draw_by_hand() -> None:
    log_p = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().expand(6, 4)
    uniforms = torch.tensor([0.0, 0.19, 0.2001, 0.69, 0.71, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(log_p, uniforms).tolist() == [0, 0, 2, 2, 3, 3]
    first_impossible = torch.tensor([[0.0, 1.0, 0.0]]).log()
    for uniform in (0.0, 1 - 2**-53):
        assert inverse_cdf(first_impossible, torch.tensor([uniform], dtype=torch.float64)).tolist() == [1]


def test_nothing_else_is_left_to_choose() -> None:
    made = Draw(torch.tensor([[0.99]]), temperature=2.0, greedy=False)
    scores = made(torch.zeros(1, 1), torch.tensor([[3.0, 1.0, 0.0]]))
    assert scores.tolist() == [[-math.inf, -math.inf, 0.0]]
    assert made.log_probs[0].item() == pytest.approx(-math.log(math.exp(1.5) + math.exp(0.5) + 1))


def test_a_draw_is_the_first_part_of_a_longer_one() -> None:
    short, long = (torch.rand(size, dtype=torch.float64, generator=generator_for(0, "a", 1)) for size in (3, 100))
    assert torch.equal(short, long[:3])


def test_greedy_takes_the_likeliest(model: LanguageModel) -> None:
    samples = draw(sampler(model, greedy=True, stop_ids=frozenset({PAD - 1})))
    for prompt, each in zip(PROMPTS, samples, strict=True):
        with torch.no_grad():
            logits = model.whole(torch.tensor([[*prompt, *each.tokens]])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(each.tokens)
        expected = (logits / 0.8).log_softmax(-1).max(-1).values.tolist()
        assert each.log_probs == pytest.approx(expected, abs=1e-5)


# --- thinking ---------------------------------------------------------------------------------------------------------


def think_at(folder: Path, model: LanguageModel, prompts: list[str], written: list[str]) -> list[Sample]:
    """Samples of a model that writes, whatever it would say, these texts (endlessly) behind these prompts."""
    tokenizer = load_tokenizer(str(folder))
    ids = [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    texts = [tokenizer(text)["input_ids"] for text in written]
    width = max(map(len, ids))

    def script(module: Any, inputs: Any, more: Any, output: Any) -> None:
        output.logits = torch.zeros_like(output.logits)
        step = state["step"]
        for row, text in enumerate(texts):
            output.logits[row, -1, text[step % len(text)]] = 1000.0
        state["step"] += 1

    state = {"step": 0}
    assert [len(each) for each in ids] == [width] * len(ids)
    handle = model.whole.register_forward_hook(script, with_kwargs=True)
    made = sampler(model, max_thinking=16, stop_ids=frozenset({tokenizer.eos_token_id}), decode=tokenizer.decode)
    try:
        return draw(made, ids, range(len(ids)))
    finally:
        handle.remove()


def test_thinking_that_is_not_closed_in_time_is_cut_off(model: LanguageModel, tiny_model: Path) -> None:
    texts = ["\n<think>hm, well", "<think>a</think>b", "no thinking ", "<think>i</think>abc<|im_end|>"]
    samples = think_at(tiny_model, model, ["p: "] * 4, texts)
    assert [len(each.tokens) for each in samples] == [16, 24, 24, 20]
    assert [each.ended for each in samples] == [False, False, False, True]


def test_a_prompt_may_open_the_thinking(model: LanguageModel, tiny_model: Path) -> None:
    samples = think_at(tiny_model, model, ["p <think>\n", "</think> p"], ["and so on", "and so on"])
    assert [len(each.tokens) for each in samples] == [16, 24]


def test_thinking_cannot_be_limited_without_its_text(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="decode"):
        draw(sampler(model, max_thinking=3))


# --- arithmetic, adapters, and what training leaves behind ------------------------------------------------------------


def test_a_sampler_in_half_precision_is_near_the_trainer(model: LanguageModel) -> None:
    samples = draw(sampler(model, autocast_dtype=torch.bfloat16))
    data = [TokenisedExample(prompt, (each.tokens,)) for prompt, each in zip(PROMPTS, samples, strict=True)]
    (batch,) = plan_micro_batches(data, range(len(data)), packed=False, budget=10**4)
    rows = collate(data, batch, packed=False, pad_id=PAD, device=CPU)
    trainer = token_figures(model, rows, token_places(data, batch, device=CPU), temperature=0.8).log_probs
    sampled = torch.tensor([figure for number in batch.examples for figure in samples[number].log_probs])
    gap = (trainer - sampled).abs()
    assert 1e-4 < float(gap.max()) < 0.1
    assert model.autocast_dtype == torch.float32


def test_the_reference_samples_as_the_base(model: LanguageModel) -> None:
    model.whole.requires_grad_(False)  # torch multiplies in another order where a gradient is wanted
    base = draw(sampler(model))
    policy = add_language_lora(model, rank=2, seed=0)
    for name, value in policy.trainable():
        torch.nn.init.constant_(value, 0.3 if "lora_B" in name else 0.1)
    assert [each.tokens for each in draw(sampler(policy))] != [each.tokens for each in base]
    with policy.reference():
        assert draw(sampler(policy)) == base


def test_a_model_in_training_is_sampled_and_handed_back_as_it_was(model: LanguageModel) -> None:
    expected = draw(sampler(model))
    recompute_alike(model.whole)
    model.whole.train()
    config = model.whole.generation_config
    assert draw(sampler(model)) == expected
    assert model.whole.training
    assert model.whole.generation_config is config
    assert all(value.requires_grad for value in model.whole.parameters())


def test_logits_that_are_not_finite_end_the_run(model: LanguageModel) -> None:
    model.whole.model.norm.weight.data[0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        draw(sampler(model))


# --- stopping, memory, batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1, 5, 40])
def test_it_stops_when_asked_between_batches_and_steps(model: LanguageModel, asked: int) -> None:
    calls = []

    def interrupted() -> bool:
        calls.append(True)
        return len(calls) > asked

    made = sampler(model, interrupted=interrupted, budget=80)
    assert made.sample(PROMPTS, NUMBERS, purpose="rollout", step=5) is None
    assert len(calls) <= asked + 2


def test_samples_are_the_same_after_memory_ran_out(model: LanguageModel) -> None:
    expected = draw(sampler(model))
    forwards: list[int] = []

    def no_room(module: Any, inputs: Any, more: Any) -> None:
        forwards.append(len(more["input_ids"]))
        if forwards[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.whole.register_forward_pre_hook(no_room, with_kwargs=True)
    said: list[str] = []
    made = sampler(model, budget=400)
    made.budget.say = said.append
    same(draw(made), expected)
    assert made.budget.tokens in (50, 100)
    assert said


def test_what_was_sampled_before_memory_ran_out_is_kept(model: LanguageModel) -> None:
    widths: list[int] = []

    def once(module: Any, inputs: Any, more: Any) -> None:
        if more["input_ids"].shape[1] > 1:
            widths.append(more["input_ids"].shape[1])
            if len(widths) == 2:
                raise MemoryError

    model.whole.register_forward_pre_hook(once, with_kwargs=True)
    draw(sampler(model, budget=60))
    assert widths.count(30) == 1


def test_batches_hold_prompts_of_similar_length_within_the_budget() -> None:
    assert plan_sampling([5, 1, 17, 3], [0, 1, 2, 3], 10, budget=30) == [[2], [0, 3], [1]]
    assert plan_sampling([5, 1, 17, 3], [1, 3], 10, budget=30) == [[3, 1]]
    assert plan_sampling([5], [0], 10, budget=1) == [[0]]
    assert plan_sampling([], [], 10, budget=1) == []


def test_padding_stands_on_the_left() -> None:
    ids, mask = pad_left([(5, 6), (7,)], pad_id=0)
    assert ids.tolist() == [[5, 6], [0, 7]]
    assert mask.tolist() == [[1, 1], [0, 1]]


def test_no_prompts_no_samples(model: LanguageModel) -> None:
    assert draw(sampler(model), [], []) == []
