"""One base, four models: none moves when another is trained, and each is what it would be alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.core.adapters import recompute_alike
from training.core.errors import TrainingError, UsageError
from training.core.files import model_fingerprint, write_json
from training.core.language import load_language_model
from training.core.log_probs import backward_through, token_figures
from training.core.modeling import RewardModel, add_lora, load_reward_model, load_tokenizer
from training.core.packing import PackedRows, TokenisedExample, collate, plan_micro_batches
from training.core.saving import ScoreScale, fold_scale, save_reward_model
from training.core.scorer import load_scorer
from training.core.token_places import TokenPlaces, token_places
from training.core.trunk import SharedTrunk, make_shared_trunk, refusal, reward_run_of, trunk_scorer

CPU = torch.device("cpu")
DATA = [TokenisedExample((3, 4, 5), ((6, 7), (8, 9, 10))), TokenisedExample((20, 21), ((22,), (23, 24)))]
PAD = 258


def fill(named: Any, marks: tuple[str, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in named:
            if any(mark in name for mark in marks):
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))


@pytest.fixture(scope="module")
def reward_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reward run with LoRA leaves, as far as a trunk reads it."""
    folder = tmp_path_factory.mktemp("reward")
    model = load_reward_model(str(tiny_model), seed=0, device=CPU, autocast_dtype=torch.float32)
    model = add_lora(model, rank=3, seed=0)
    fill(model.trainable(), ("lora_",), 1)
    fold_scale(model, ScoreScale(1.5, 0.5), thresholds={}, ties="skip")
    config = {"lora_rank": 3, "model": str(tiny_model), "ensemble": 1}
    write_json(
        folder / "run.json",
        {"recipe": "reward", "config": config, "model_fingerprint": model_fingerprint(str(tiny_model))},
    )
    tokenizer = load_tokenizer(str(tiny_model))
    save_reward_model(model, tokenizer, folder / "model", card="", adapter=folder / "adapter")
    return folder


@pytest.fixture
def trunk(tiny_model: Path, reward_run: Path) -> SharedTrunk:
    base = load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)
    return make_shared_trunk(base, lora_rank=2, seed=0, reward_run=reward_run)


def lay() -> tuple[PackedRows, TokenPlaces]:
    (batch,) = plan_micro_batches(DATA, range(len(DATA)), packed=True, budget=1000)
    return collate(DATA, batch, packed=True, pad_id=PAD, device=CPU), token_places(DATA, batch, device=CPU)


ROWS, PLACES = lay()


def look(trunk: SharedTrunk) -> dict[str, Tensor]:
    """What each view says now."""
    with torch.no_grad():
        return {
            "policy": token_figures(trunk.policy, ROWS, PLACES).log_probs,
            "reference": token_figures(trunk.reference, ROWS, PLACES).log_probs,
            "value": trunk.value.score(ROWS),
            "reward": trunk.reward.score(ROWS),
        }


def train_policy(trunk: SharedTrunk) -> None:
    parameters = [value for _, value in trunk.policy.trainable()]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(2):
        backward_through(trunk.policy, ROWS, PLACES, lambda figures, part: figures.log_probs.sum())
        optimizer.step()
        optimizer.zero_grad()


def train_value(trunk: SharedTrunk) -> None:
    parameters = [value for _, value in trunk.value.trainable()]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(2):
        (trunk.value.score(ROWS) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("train", "moved"), [(train_policy, "policy"), (train_value, "value")])
def test_training_one_moves_no_other_by_a_bit(
    trunk: SharedTrunk, train: Callable[[SharedTrunk], None], moved: str
) -> None:
    before = look(trunk)
    train(trunk)
    after = look(trunk)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {moved}
    trunk.check_base()


def test_the_policy_begins_as_the_base_and_the_value_model_as_the_reward_model(
    trunk: SharedTrunk, tiny_model: Path
) -> None:
    found = look(trunk)
    plain = load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)
    assert found["policy"].tolist() == pytest.approx(token_figures(plain, ROWS, PLACES).log_probs.tolist(), abs=1e-6)
    assert torch.equal(found["policy"], found["reference"])
    assert torch.equal(found["value"], found["reward"])
    assert found["value"].requires_grad is False


def test_the_reward_view_scores_as_the_runs_saved_model(trunk: SharedTrunk, reward_run: Path, tiny_model: Path) -> None:
    saved = load_scorer(str(reward_run / "model"), device=CPU, autocast_dtype=torch.float32, show_thinking=False)
    scores = saved.model.score(ROWS)
    assert scores.std() > 0.01
    train_policy(trunk)
    assert trunk.reward.score(ROWS).tolist() == pytest.approx(scores.tolist(), abs=1e-4)
    view = trunk_scorer(trunk, reward_run, show_thinking=False)
    assert (view.mean, view.scale, view.pad_id, view.ties) == (saved.mean, saved.scale, saved.pad_id, saved.ties)
    assert (trunk.score_mean, view.mean) == (3.0, 3.0)
    unadapted = load_reward_model(str(tiny_model), seed=0, device=CPU, autocast_dtype=torch.float32)
    assert unadapted.score(ROWS).tolist() != pytest.approx(scores.tolist(), abs=1e-2)


def test_views_may_be_nested_and_leave_requires_grad_alone(trunk: SharedTrunk) -> None:
    train_policy(trunk)
    train_value(trunk)
    before = look(trunk)
    wanted = {name: value.requires_grad for name, value in trunk.policy.whole.named_parameters()}
    with trunk.policy.forwarding():
        with trunk.reference.forwarding():
            inner = look(trunk)
        assert all(torch.equal(before[name], inner[name]) for name in before)
    with trunk.policy.reference():
        assert torch.equal(token_figures(trunk.policy, ROWS, PLACES).log_probs, before["reference"])
        assert torch.equal(trunk.value.score(ROWS), before["value"])
    assert {name: value.requires_grad for name, value in trunk.policy.whole.named_parameters()} == wanted


def test_each_trains_what_is_its_own(trunk: SharedTrunk) -> None:
    policy, value = dict(trunk.policy.trainable()), dict(trunk.value.trainable())
    assert len(policy) == 2 * 2 * 7
    assert len(value) == 2 * 2 * 7 + 1
    assert all(".policy." in name for name in policy)
    assert all(".value." in name or name == "score.weight" for name in value)
    assert list(trunk.reference.trainable()) == list(trunk.reward.trainable()) == []
    wanted = {id(each) for each in (*policy.values(), *value.values())}
    assert all(each.requires_grad == (id(each) in wanted) for each in trunk.policy.whole.parameters())


def test_layers_computed_again_go_through_the_adapter_they_went_through(trunk: SharedTrunk) -> None:
    fill(trunk.policy.trainable(), ("lora_",), 2)

    def gradients() -> list[Tensor]:
        trunk.policy.whole.zero_grad()
        trunk.value.head.zero_grad()
        backward_through(trunk.policy, ROWS, PLACES, lambda figures, part: figures.log_probs.sum())
        scores = trunk.value.score(ROWS)
        trunk.reward.score(ROWS)  # another one goes last
        scores.sum().backward()  # type: ignore[no-untyped-call]
        named = (*trunk.policy.trainable(), *trunk.value.trainable())
        return [value.grad.clone() for _, value in named if value.grad is not None]

    plain = gradients()
    recompute_alike(trunk.policy.whole)
    trunk.policy.whole.train()
    again = gradients()
    assert len(plain) == len(again) == 4 * 2 * 7 + 1
    for one, other in zip(plain, again, strict=True):
        assert (one - other).norm() <= 1e-5 * one.norm().clamp(min=1e-6)


def test_a_base_that_changes_is_found_out(trunk: SharedTrunk) -> None:
    with torch.no_grad():
        trunk.policy.whole.model.norm.weight[3] += 1e-6
    with pytest.raises(TrainingError, match="shared base has changed"):
        trunk.check_base()


def test_the_view_goes_where_reward_models_go(trunk: SharedTrunk) -> None:
    from training.core.scoring import packing_error

    assert packing_error(trunk.value, DATA[0], pad_id=PAD) < 1e-5
    assert isinstance(trunk.value, RewardModel)


# --- when it is offered -----------------------------------------------------------------------------------------------


def test_a_run_on_this_base_with_lora_is_not_refused(tiny_model: Path, reward_run: Path) -> None:
    assert refusal(str(tiny_model), reward_run, lora_rank=4) is None
    assert refusal(str(tiny_model), reward_run / "model", lora_rank=4) is None
    assert reward_run_of(reward_run / "model") == reward_run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": "sft"}, "is no run of the reward recipe"),
        ({"config": {"lora_rank": 0}}, "trained with all its weights"),
        ({"config": {"lora_rank": 3, "ensemble": 2}}, "is an ensemble"),
        ({"model_fingerprint": "another"}, "trained on another base"),
    ],
)
def test_other_runs_are_refused_in_words(
    tiny_model: Path, reward_run: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder = Path(shutil.copytree(reward_run, tmp_path / "run"))
    run = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", run | change)
    assert words in str(refusal(str(tiny_model), folder, lora_rank=2))


def test_what_is_no_finished_run_is_refused(tiny_model: Path, reward_run: Path, tmp_path: Path) -> None:
    assert "no --lora-rank" in str(refusal(str(tiny_model), reward_run, lora_rank=0))
    assert "no run of the reward recipe" in str(refusal(str(tiny_model), tiny_model, lora_rank=2))
    shutil.copy(reward_run / "run.json", tmp_path)
    assert "has not come to its end" in str(refusal(str(tiny_model), tmp_path, lora_rank=2))


def test_other_weights_of_the_same_shape_are_refused(tiny_model: Path, reward_run: Path) -> None:
    base = load_language_model(str(tiny_model), device=CPU, autocast_dtype=torch.float32)
    with torch.no_grad():
        base.whole.model.embed_tokens.weight[7, 7] += 0.01
    with pytest.raises(UsageError, match="another base: model.embed_tokens.weight differs"):
        make_shared_trunk(base, lora_rank=2, seed=0, reward_run=reward_run)
