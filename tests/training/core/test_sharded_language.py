"""A language model sharded over two processes: log-probs, gradients, samples and the saved folder of one process."""

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.training.ranks import run_ranks
from training.core.distributed import World, is_sharded, whole_tensor
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel, add_language_lora, load_language_model
from training.core.log_probs import TokenFigures, backward_through, token_figures
from training.core.modeling import load_tokenizer
from training.core.packing import PackedRows, TokenisedExample, collate, plan_micro_batches
from training.core.policy_saving import save_policy
from training.core.sampling import GenerateSampler, Sample, SamplingSettings
from training.core.sharding import even_out, gather_model, shard_model
from training.core.token_places import TokenPlaces, token_places

CPU = torch.device("cpu")
KINDS = ("tied", "untied", "lora")
# Three for the first process, two for the second, which has a forward less to make.
DATA = [
    TokenisedExample(tuple(range(60, 64 + 3 * number)), (tuple(range(70, 75)), tuple(range(80, 83 + number))))
    for number in range(5)
]
SETTINGS = SamplingSettings(temperature=0.8, max_length=20, stop_ids=frozenset(range(26)), pad_id=258, seed=3)
# The first process has five in two batches, which go on for long, the second two that end at once.
PROMPTS = [[tuple(range(60, 65 + place)) for place in range(5)], [(70, 71, 72), (73,)]]
NUMBERS = [[16, 24, 6, 10, 23], [21, 22]]


def make(folder: Path, kind: str) -> LanguageModel:
    model = load_language_model(str(folder), device=CPU, autocast_dtype=torch.float32)
    if kind == "lora":
        model = add_language_lora(model, rank=2, seed=0)
        for name, value in model.trainable():
            if "lora_B" in name:
                torch.nn.init.constant_(value, 0.02)
    model.whole.train()
    return model


def lay(number: int, *, skip: int = 0) -> tuple[PackedRows, TokenPlaces]:
    (batch,) = plan_micro_batches(DATA, [number], packed=True, budget=1000)
    skipped = {(number, place): len(tokens) for place, tokens in enumerate(DATA[number].responses)} if skip else None
    return (
        collate(DATA, batch, packed=True, pad_id=258, device=CPU),
        token_places(DATA, batch, device=CPU, skip=skipped),
    )


def loss_of(figures: TokenFigures, part: slice) -> Tensor:
    return -(figures.log_probs + 0.1 * figures.entropy).sum() / 50


def gradients(model: LanguageModel, world: World) -> dict[str, Any]:
    for number, counts in even_out(world.share(list(range(len(DATA)))), 0, world=world, device=CPU):
        backward_through(model, *lay(number, skip=not counts), loss_of, temperature=0.7)
    world.sum_gradients(value for _, value in model.trainable())
    return {name: as_array(value.grad) for name, value in model.trainable() if value.grad is not None}


def as_array(tensor: Tensor) -> Any:
    whole = whole_tensor(tensor)
    assert whole is not None
    return whole.clone().numpy()


def sample(model: LanguageModel, world: World, prompts: Any, numbers: Any, budget: int) -> list[Sample]:
    tokens = MicroBatchBudget(budget, 1, world, CPU, sharded=world.size > 1)
    found = GenerateSampler(model, SETTINGS, tokens).sample(prompts, numbers, purpose="rollout", step=1)
    assert found is not None
    return found


def stopped(model: LanguageModel, world: World) -> bool:
    """Whether both give up when one of them is asked to, in the middle of a batch."""
    calls: list[bool] = []

    def interrupted() -> bool:
        calls.append(True)
        return world.rank == 1 and len(calls) > 2

    budget = MicroBatchBudget(100, 1, world, CPU, sharded=True)
    made = GenerateSampler(model, replace(SETTINGS, stop_ids=frozenset()), budget, interrupted=interrupted)
    return made.sample(PROMPTS[world.rank], NUMBERS[world.rank], purpose="rollout", step=1) is None


def work(world: World, folders: dict[str, Path], output: Path) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for kind, folder in folders.items():
        model = make(folder, kind)
        shard_model(model, world)
        answers[f"sharded {kind}"] = all(is_sharded(value) for value in model.whole.parameters())
        answers[f"figures {kind}"] = token_figures(model, *lay(4), temperature=0.7).log_probs.numpy()
        answers[f"gradients {kind}"] = gradients(model, world)
        answers[f"samples {kind}"] = sample(model, world, PROMPTS[world.rank], NUMBERS[world.rank], 100)
        if kind == "tied":
            idle = world.rank == 0
            answers["idle"] = sample(model, world, [] if idle else [(60, 61)], [] if idle else [0], 100)
            answers["stopped"] = stopped(model, world)
            answers["again"] = sample(model, world, PROMPTS[world.rank], NUMBERS[world.rank], 100)
        gather_model(model, world)
        if world.is_main:
            save_policy(model, load_tokenizer(str(folder)), output / kind, card="")
    return answers


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    untied = tmp_path_factory.mktemp("untied")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=False)
    plain.lm_head.weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    plain.save_pretrained(untied)
    load_tokenizer(str(tiny_model)).save_pretrained(untied)
    return {"tied": tiny_model, "untied": untied, "lora": tiny_model}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def ranks(fork_server: ForkServerContext, folders: dict[str, Path], output: Path) -> Iterator[list[Any]]:
    answers = run_ranks(fork_server, work, folders, output)
    assert all(isinstance(each, dict) for each in answers), answers
    yield answers


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_and_gradients_are_those_of_one_process(
    ranks: list[Any], folders: dict[str, Path], kind: str
) -> None:
    model = make(folders[kind], kind)
    figures = token_figures(model, *lay(4), temperature=0.7).log_probs.tolist()
    expected = gradients(model, World())
    for answers in ranks:
        assert answers[f"sharded {kind}"]
        assert answers[f"figures {kind}"].tolist() == pytest.approx(figures, abs=1e-5)
        found = answers[f"gradients {kind}"]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            gap = torch.tensor(found[name] - value).norm() / torch.tensor(value).norm().clamp(min=1e-9)
            assert gap <= 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_very_different_lengths_are_those_of_one_process(
    ranks: list[Any], folders: dict[str, Path], kind: str
) -> None:
    model = make(folders[kind], kind)
    everything = sample(model, World(), PROMPTS[0] + PROMPTS[1], NUMBERS[0] + NUMBERS[1], 10**4)
    lengths = [len(each.tokens) for each in everything]
    assert max(lengths[5:]) <= 3 < 15 <= max(lengths[:5])
    found = [each for answers in ranks for each in answers[f"samples {kind}"]]
    assert [each.tokens for each in found] == [each.tokens for each in everything]
    for one, other in zip(found, everything, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_process_without_prompts_keeps_the_others_company(ranks: list[Any]) -> None:
    assert [len(answers["idle"]) for answers in ranks] == [0, 1]


def test_one_that_is_asked_to_stop_stops_all_and_none_is_left_waiting(ranks: list[Any]) -> None:
    assert [answers["stopped"] for answers in ranks] == [True, True]
    assert all(answers["again"] == answers["samples tied"] for answers in ranks)


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_folder_says_what_the_sharded_model_said(ranks: list[Any], output: Path, kind: str) -> None:
    saved = load_language_model(str(output / kind), device=CPU, autocast_dtype=torch.float32)
    assert (saved.head.weight is saved.whole.get_input_embeddings().weight) == (kind != "untied")
    found = token_figures(saved, *lay(4), temperature=0.7).log_probs.tolist()
    assert found == pytest.approx(ranks[0][f"figures {kind}"].tolist(), abs=1e-5)
