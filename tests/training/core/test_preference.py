"""DPO's loss: against its formula over plain transformers, response by response, however rows are laid and shared."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from tests.training.snapshots import record, write_jsonl
from training.core.distributed import World
from training.core.documents import ResponseEnding
from training.core.encoding import Rules, encode_snapshot
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel, load_language_model
from training.core.local_models import byte_tokenizer
from training.core.objective import Objective, ObjectiveSettings, TieFacts
from training.core.packing import TokenisedExample
from training.core.preference import (
    PolicyResponses,
    Preferences,
    Reference,
    implicit_rewards,
    packing_error,
    response_log_probs,
)
from training.core.preference_step import TOTALS, prefer, step_figures
from training.core.randomness import generator_for
from training.core.records import read_rankings
from training.core.scoring import Layout
from training.core.tokens import ChatEncoder, stop_ids

CPU = torch.device("cpu")
PAD = 258
BETA = 0.3


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LanguageModel:
    return load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)


@pytest.fixture
def model(loaded: LanguageModel) -> LanguageModel:
    """Without what another test left in its gradients."""
    loaded.whole.zero_grad(set_to_none=True)
    return loaded


def preferences_of(folder: Path, *sizes: int, below: bool = False) -> Preferences:
    """One prompt for each number of responses; the first ranking has a tie, and leaves its last response unranked."""
    lines = [record(number, split="train", k=k) for number, k in enumerate(sizes)]
    if sizes[0] > 3:
        lines[0]["ranking"] = [["r1"], ["r0", "r2"]]
    encoder = ChatEncoder(byte_tokenizer())
    rules = Rules(splits=("train",), max_length=1000, below=below)
    snapshot = read_rankings(write_jsonl(folder / "data.jsonl", lines))
    data = encode_snapshot(snapshot, encoder, rules, roots=[folder / "cache"]).splits["train"]
    return Preferences(data, PolicyResponses(data.tokenised, ResponseEnding(encoder, stop_ids(encoder))))


@pytest.fixture
def preferences(tmp_path: Path) -> Preferences:
    return preferences_of(tmp_path, 4, 2, 3)


def drawn_reference(preferences: Preferences) -> Reference:
    """Some log-probabilities that are not the model's."""
    count = sum(sum(preferences.sizes(number)) for number in range(len(preferences)))
    values = -5.5 + torch.rand(count, generator=generator_for(0, "reference"))
    return Reference(preferences, values.numpy())


def objective_of(loss: str, unranked: str = "ignore") -> Objective:
    return Objective(ObjectiveSettings(loss=loss, unranked=unranked), TieFacts(0.0, 1))


def plain_rewards(model: LanguageModel, preferences: Preferences, reference: Reference, number: int) -> list[Tensor]:
    """β · (Σ ln π − Σ ln π_ref) of each response alone behind its prompt, with graph, in float64."""
    example, start, found = preferences.responses[number], 0, []
    for response in example.responses:
        ids = torch.tensor([example.prompt + response])
        log_p = model.whole(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        own = log_p[len(example.prompt) - 1 :].sum()
        found.append(BETA * (own - reference.of([number])[start : start + len(response)].double().sum()))
        start += len(response)
    return found


def gradients_of(model: LanguageModel) -> dict[str, Tensor]:
    found = {name: value.grad.clone() for name, value in model.trainable() if value.grad is not None}
    model.whole.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float((value - second[name]).norm()) <= 1e-5 * float(second[name].norm()) + 1e-9, name


def by_the_formula(kind: str, rewards: list[Tensor], tiers: list[list[int]]) -> Tensor:
    """−ln σ, the mean over strict pairs; or −Σ ln softmax over what is not placed yet, the mean over the choices."""
    if kind == "pairwise":
        pairs = [(a, b) for better, worse in combinations(tiers, 2) for a in better for b in worse]
        return -torch.stack([logsigmoid(rewards[a] - rewards[b]) for a, b in pairs]).mean()
    terms = []
    for place, tier in enumerate(tiers[:-1]):
        lower = [rewards[each] for rest in tiers[place + 1 :] for each in rest]
        terms += [rewards[each] - torch.stack([rewards[each], *lower]).logsumexp(0) for each in tier]
    return -torch.stack(terms).mean()


@pytest.mark.parametrize("kind", ["pairwise", "plackett-luce"])
@pytest.mark.parametrize(("packed", "tokens"), [(True, 5000), (True, 70), (False, 5000), (False, 1)])
def test_the_loss_and_its_gradient_are_those_of_the_formula(
    model: LanguageModel, preferences: Preferences, kind: str, packed: bool, tokens: int
) -> None:
    reference = drawn_reference(preferences)
    losses = []
    for number in range(3):
        (ranking,) = preferences.rankings[number].rankings
        tiers = [list(tier) for tier in ranking.tiers]
        losses.append(by_the_formula(kind, plain_rewards(model, preferences, reference, number), tiers))
    expected = torch.stack(losses).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = gradients_of(model)
    totals = prefer(
        model, preferences, reference, objective_of(kind), [2, 0, 1], Layout(packed, PAD),
        beta=BETA, tokens=tokens, world=World(),
    )  # fmt: skip
    assert totals[0].item() == pytest.approx(expected.item(), abs=1e-5)
    assert_same_gradients(gradients_of(model), gradients)


def test_a_pair_is_a_pair_under_either_loss(model: LanguageModel, tmp_path: Path) -> None:
    """And by hand: −ln σ(β · (Δ preferred − Δ other))."""
    pairs = preferences_of(tmp_path, 2, 2)
    reference, found = drawn_reference(pairs), []
    for kind in ("pairwise", "plackett-luce"):
        settings = {"beta": BETA, "tokens": 500, "world": World()}
        totals = prefer(model, pairs, reference, objective_of(kind), [0, 1], Layout(True, PAD), **settings)  # type: ignore[arg-type]
        found.append((totals, gradients_of(model)))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert_same_gradients(found[0][1], found[1][1])
    margins = []
    for number in range(2):
        better, worse = (tier[0] for tier in pairs.rankings[number].rankings[0].tiers)
        rewards = [reward.item() for reward in plain_rewards(model, pairs, reference, number)]
        margins.append(rewards[better] - rewards[worse])
    assert found[0][0][0].item() == pytest.approx(sum(math.log1p(math.exp(-each)) for each in margins) / 2, abs=1e-5)
    figures = step_figures(found[0][0].tolist())
    assert figures["dpo/margin"] == pytest.approx(sum(margins) / 2, abs=1e-5)
    assert figures["train/accuracy"] == sum(margin > 0 for margin in margins) / 2
    assert figures["dpo/preferred"] - figures["dpo/other"] == pytest.approx(figures["dpo/margin"])
    budget = MicroBatchBudget(tokens=500, floor=100, world=World(), device=CPU)
    log_probs = response_log_probs(model, pairs.responses, Layout(True, PAD), budget=budget)
    assert log_probs is not None
    ratio = log_probs - reference.values
    assert figures["dpo/kl"] == pytest.approx(np.mean(np.exp(-ratio) - 1 + ratio), rel=1e-4)


def test_what_is_unranked_may_stand_below(model: LanguageModel, tmp_path: Path) -> None:
    below = preferences_of(tmp_path, 4, below=True)
    reference = drawn_reference(below)
    (ranking,) = below.rankings[0].rankings
    tiers = [*map(list, ranking.tiers), list(ranking.unranked)]
    rewards = plain_rewards(model, below, reference, 0)
    for kind in ("pairwise", "plackett-luce"):
        totals = prefer(
            model, below, reference, objective_of(kind, "below"), [0], Layout(True, PAD),
            beta=BETA, tokens=500, world=World(),
        )  # fmt: skip
        assert totals[0].item() == pytest.approx(by_the_formula(kind, rewards, tiers).item(), abs=1e-5)


def test_before_the_first_step_nothing_is_preferred(model: LanguageModel, preferences: Preferences) -> None:
    budget = MicroBatchBudget(tokens=300, floor=100, world=World(), device=CPU)
    layout = Layout(True, PAD)
    values = response_log_probs(model, preferences.responses, layout, budget=budget)
    assert values is not None
    reference = Reference(preferences, values)
    totals = prefer(
        model, preferences, reference, objective_of("pairwise"), [0, 1, 2], layout,
        beta=BETA, tokens=300, world=World(),
    )  # fmt: skip
    gradients_of(model)
    figures = step_figures(totals.tolist())
    assert figures["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert figures["dpo/margin"] == pytest.approx(0, abs=1e-4)
    assert figures["dpo/kl"] == pytest.approx(0, abs=1e-6)
    assert np.abs(np.concatenate(implicit_rewards(preferences, values, reference, beta=BETA))).max() == 0
    stopped = response_log_probs(model, preferences.responses, layout, budget=budget, interrupted=lambda: True)
    assert stopped is None


def test_a_step_shared_by_processes_is_the_same_step(model: LanguageModel, preferences: Preferences) -> None:
    reference, objective = drawn_reference(preferences), objective_of("plackett-luce")

    def share(world: World) -> Tensor:
        return prefer(
            model, preferences, reference, objective, [0, 1, 2], Layout(True, PAD), beta=BETA, tokens=90, world=world
        )

    whole = share(World())
    gradients = gradients_of(model)
    parts = torch.stack([share(World(rank, 2)) for rank in range(2)]).sum(0)
    torch.testing.assert_close(parts[: TOTALS.index("tokens")], whole[: TOTALS.index("tokens")], atol=1e-6, rtol=1e-6)
    assert_same_gradients(gradients_of(model), gradients)


def test_rewards_are_those_of_each_response_alone(
    model: LanguageModel, preferences: Preferences, tiny_model: Path
) -> None:
    reference = drawn_reference(preferences)
    budget = MicroBatchBudget(tokens=60, floor=60, world=World(), device=CPU)
    plain = LanguageModel(AutoModelForCausalLM.from_pretrained(tiny_model), None, CPU, torch.float32)
    expected = [
        [reward.item() for reward in plain_rewards(plain, preferences, reference, number)] for number in range(3)
    ]
    for packed in (True, False):
        values = response_log_probs(model, preferences.responses, Layout(packed, PAD), budget=budget)
        assert values is not None
        found = implicit_rewards(preferences, values, reference, beta=BETA)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-4)


def test_responses_end_with_the_stop_token(preferences: Preferences) -> None:
    tokenizer = byte_tokenizer()
    for whole, cut in zip(preferences.rankings.tokenised, preferences.responses, strict=True):
        assert whole.prompt == cut.prompt
        for long, short in zip(whole.responses, cut.responses, strict=True):
            assert tokenizer.decode(long) == tokenizer.decode(short) + "\n"
            assert short[-1] == tokenizer.eos_token_id
    assert preferences.responses[1:] == [preferences.responses[1], preferences.responses[2]]


def test_a_reference_may_be_of_some_examples(model: LanguageModel, preferences: Preferences) -> None:
    budget, layout = MicroBatchBudget(tokens=300, floor=100, world=World(), device=CPU), Layout(True, PAD)
    every = response_log_probs(model, preferences.responses, layout, budget=budget)
    some = response_log_probs(model, preferences.responses, layout, budget=budget, numbers=[0, 2])
    assert every is not None and some is not None
    whole, part = Reference(preferences, every), Reference(preferences, some, [0, 2])
    torch.testing.assert_close(part.of([2, 0]), whole.of([2, 0]), atol=1e-5, rtol=0)
    assert not len(part.of([1]))


def test_a_reference_of_other_tokens_is_refused(preferences: Preferences) -> None:
    with pytest.raises(ValueError, match="3 log-probabilities of"):
        Reference(preferences, np.zeros(3, np.float32))


def test_the_check_at_the_start_compares_packed_with_separate(model: LanguageModel) -> None:
    example = TokenisedExample(tuple(range(9)), (tuple(range(30)), tuple(range(50, 58)), (7,)))
    assert packing_error(model, example, pad_id=PAD) < 1e-5
