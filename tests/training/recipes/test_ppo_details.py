"""The details that decide whether PPO is right, in the recipe: its gradients against plain transformers and autograd,
what the value model is, what is clipped and in which order, and what no step may touch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.training.core.reward_sources.test_reward_models import backward_tokenizer
from tests.training.snapshots import write_jsonl
from training.core.errors import TrainingError
from training.core.modeling import load_reward_model
from training.core.reward_sources.episodes import Scores
from training.core.saving import ScoreScale, fold_scale, save_reward_model
from training.core.shaping import RunningScale
from training.recipes.answering import score_together
from training.recipes.ppo_learn import Minibatch, Sum, learn
from training.recipes.ppo_lesson import Lesson, make_lesson
from training.recipes.ppo_rollout import Rollout, reference_log_probs

Begin = Callable[..., Any]
MEAN = 0.7


@pytest.fixture(scope="module")
def reward_folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reward models that say 0.7 of an ordinary response: with the policy's tokenizer, and with another one."""
    folder = tmp_path_factory.mktemp("rewards")
    for name, tokenizer in (("same", AutoTokenizer.from_pretrained(tiny_model)), ("other", backward_tokenizer())):
        model = load_reward_model(str(tiny_model), seed=1, device=torch.device("cpu"), autocast_dtype=torch.float32)
        fold_scale(model, ScoreScale(mean=MEAN, std=1.0), thresholds={}, ties="skip")
        save_reward_model(model, tokenizer, folder / name, card="")
    return {path.name: path for path in folder.iterdir()}


def conversations(rollout: Rollout) -> list[tuple[int, list[int]]]:
    """Of each response, how many tokens its prompt has, and the ids of both."""
    return [(len(each.prompt_ids), [*each.prompt_ids, *each.response_ids]) for each in rollout.sampled.episodes]


# --- the gradients of a minibatch, written down once more -------------------------------------------------------------


def plain_loss(session: Any, models: Any, lesson: Lesson, prompts: list[int], beta: float) -> Tensor:
    """The loss of a minibatch by plain transformers, one response after the other, not packed and all at once."""
    config, rollout = session.config, lesson.rollout
    chosen = [number for number, group in enumerate(rollout.groups.tolist()) if group in prompts]
    starts = [sum(rollout.sampled.counts[:number]) for number in range(len(rollout.sampled.counts))]
    tokens = sum(rollout.sampled.counts[number] for number in chosen)
    total = torch.zeros(())
    for number in chosen:
        prompt, ids = conversations(rollout)[number]
        count = len(ids) - prompt
        of = slice(starts[number], starts[number] + count)
        logits = models.policy.whole(input_ids=torch.tensor([ids])).logits[0, prompt - 1 : -1] / config.temperature
        log_p = torch.log_softmax(logits, -1)
        new = log_p.gather(-1, torch.tensor(ids[prompt:])[:, None])[:, 0]
        ratio, advantages = (new - rollout.log_probs[of]).exp(), lesson.advantages[of]
        loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - config.clip, 1 + config.clip) * advantages)
        loss = loss * lesson.importance[of] + config.entropy_coefficient * (log_p.exp() * log_p).sum(-1)
        if config.kl_place == "loss":
            apart = new - rollout.reference_log_probs[of]
            loss = loss + beta * ((-apart).exp() - 1 + apart)
        weight = {"gae": 1 / tokens, "grpo": 1 / (len(chosen) * count), "dr-grpo": 1 / (len(chosen) * 8)}
        total = total + weight[config.advantage] * loss.sum()
        if models.value is not None:
            assert lesson.returns is not None and rollout.values is not None
            whole = models.value.whole
            hidden = whole.model(input_ids=torch.tensor([ids])).last_hidden_state[0, prompt - 1 : -1]
            values, old, returns = whole.score(hidden)[:, 0], rollout.values[of], lesson.returns[of]
            near = old + (values - old).clamp(-config.value_clip, config.value_clip)
            worst = torch.maximum((values - returns).square(), (near - returns).square())
            total = total + config.value_coefficient * worst.sum() / 2 / tokens
    return total


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "value_coefficient": 0.3, "value_clip": 0.01},
        {"advantage": "grpo", "samples_per_prompt": 3, "batch_size": 4},
        {"advantage": "dr-grpo", "samples_per_prompt": 2, "batch_size": 4, "kl_estimator": "k3"},
    ],
)
def test_gradients_of_a_minibatch_are_those_of_the_formulas(begin: Begin, settings: dict[str, Any]) -> None:
    """Entropy over padding (TRL #2022), a critic that is a token off (verl #1758), gradients lost between micro-batches
    (TRL #583), means of means and a temperature left out would all show here."""
    session, prepared, rollout = begin(entropy_coefficient=0.05, learning_rate=1e-2, inner_epochs=2, **settings)
    models = prepared.models
    lesson = make_lesson(session.config, rollout, kl_coefficient=0.5, scale=None)
    # Somewhere else than at the rollout, where the clipped terms decide for some tokens.
    moved = learn(session, models, lesson, step=1, kl_coefficient=0.5, ptx=None)
    assert 0 < moved.clipped < moved.tokens
    lesson.importance.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    prompts = [0, 2, 3]
    batch = Minibatch(session, models, lesson, prompts, kl_coefficient=0.5, learns_policy=True, ptx=None)
    batch._policy_gradients(40, key=0)
    if models.value is not None:
        batch._value_gradients(40)
    found = {name: value.grad.clone() for name, value in models.parameters.items() if value.grad is not None}
    models.drop_gradients()
    plain_loss(session, models, lesson, prompts, beta=0.5).backward()
    assert set(found) == set(models.parameters)
    for name, value in models.parameters.items():
        assert value.grad is not None and value.grad.norm() > 0
        assert (found[name] - value.grad).norm() <= 2e-5 * value.grad.norm(), name


def test_ptx_is_the_mean_loss_of_a_token_over_as_many_documents_as_responses(begin: Begin, tmp_path: Path) -> None:
    """Documents of unlike lengths, forwarded in parts: a mean over tokens, weighted by its coefficient alone."""
    lines = [
        {"type": "demonstration", "split": "train", "response": "word " * (1 + number % 4) + str(number),
         "prompt": [{"role": "user", "content": f"ask {number}"}]}
        for number in range(12)
    ]  # fmt: skip
    session, prepared, rollout = begin(
        ptx_data=str(write_jsonl(tmp_path / "ptx.jsonl", lines)), ptx_coefficient=0.3, learning_rate=1e-2
    )
    models, ptx, documents = prepared.models, prepared.ptx, prepared.ptx.documents
    lesson = make_lesson(session.config, rollout, kl_coefficient=0.5, scale=None)
    gradients = []
    for data in (None, ptx):
        batch = Minibatch(session, models, lesson, [0, 2, 3], kl_coefficient=0.5, learns_policy=True, ptx=data)
        sums = batch._policy_gradients(40, key=5)
        gradients.append(
            {name: value.grad.clone() for name, value in models.parameters.items() if value.grad is not None}
        )
        models.drop_gradients()
    drawn = ptx.drawn(batch.responses, 5)
    assert len(set(drawn)) == 3
    total = torch.zeros(())
    for number in drawn:
        ids, context = documents.ids(number), documents.lengths[number] - documents.targets(number)
        logits = models.policy.whole(input_ids=torch.tensor([ids])).logits[0, context - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(ids[context:]), reduction="sum")
    mean = total / sum(documents.targets(number) for number in drawn)
    (0.3 * mean).backward()
    assert float(sums[Sum.PTX]) == pytest.approx(mean.item(), rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name in gradients[0]:
        value, found = models.parameters[name], gradients[1][name] - gradients[0][name]
        assert value.grad is not None and value.grad.norm() > 0
        assert (found - value.grad).norm() <= 2e-5 * gradients[1][name].norm(), name


# --- the value model --------------------------------------------------------------------------------------------------


def test_values_are_read_before_each_token_and_begin_as_the_reward_model(
    begin: Begin, reward_folders: dict[str, Path]
) -> None:
    _, _, rollout = begin(reward=[f"model:{reward_folders['same']}"])
    model = AutoModelForSequenceClassification.from_pretrained(reward_folders["same"])
    expected = [
        # Not its logits: a pad may have been sampled, and they pool before pads.
        model.score(model.model(input_ids=torch.tensor([ids[:place]])).last_hidden_state[0, -1]).item() - MEAN
        for prompt, ids in conversations(rollout)[:2]
        for place in range(prompt, len(ids))
    ]
    assert rollout.values is not None
    assert rollout.values[: len(expected)].tolist() == pytest.approx(expected, abs=1e-5)


def test_neither_reference_nor_reward_move_while_policy_and_value_learn(
    begin: Begin, reward_folders: dict[str, Path]
) -> None:
    """The value model begins with the reward model's weights, but has its own."""
    session, prepared, rollout = begin(reward=[f"model:{reward_folders['same']}"], learning_rate=1e-2)
    models = prepared.models
    before = {name: value.detach().clone() for name, value in models.parameters.items()}
    lesson = make_lesson(session.config, rollout, kl_coefficient=0.05, scale=None)
    learn(session, models, lesson, step=1, kl_coefficient=0.05, ptx=None)
    assert not any(torch.equal(value, before[name]) for name, value in models.parameters.items())
    assert torch.equal(reference_log_probs(session, models, rollout.sampled), rollout.reference_log_probs)
    assert score_together(session, models.sources, rollout.sampled) == rollout.scores


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4}])
def test_in_half_precision_too_the_policy_begins_as_its_reference(begin: Begin, settings: dict[str, Any]) -> None:
    _, _, rollout = begin(dtype="bfloat16", **settings)
    assert torch.equal(rollout.log_probs, rollout.reference_log_probs)
    assert not torch.equal(rollout.log_probs, rollout.sampler_log_probs)


def test_a_reward_model_with_another_tokenizer_reads_texts_and_is_no_value_model(
    begin: Begin, reward_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL refuses it (#3595)."""
    _, prepared, rollout = begin(reward=[f"model:{reward_folders['other']}"])
    assert "the text, with its own tokenizer and template" in (told := capsys.readouterr().err)
    assert "value model: from --model, for the reward model has another tokenizer" in told
    assert prepared.models.value_zero == 0
    assert len(set(rollout.scores.total)) > 1


# --- one update -------------------------------------------------------------------------------------------------------


def test_policy_and_value_are_clipped_each_by_itself(begin: Begin) -> None:
    """TRL's PPO clips nothing."""
    session, prepared, rollout = begin(max_grad_norm=1e-3, inner_epochs=1, entropy_coefficient=0.1)
    models = prepared.models
    models.optimizer = torch.optim.SGD(models.parameters.values(), lr=1.0)
    before = {name: value.detach().clone() for name, value in models.parameters.items()}
    lesson = make_lesson(session.config, rollout, kl_coefficient=0.05, scale=None)
    found = learn(session, models, lesson, step=1, kl_coefficient=0.05, ptx=None)
    assert min(*found.policy_norms, *found.value_norms) > 0.01
    for kind in ("policy.", "value."):
        moved = [(value - before[name]).norm() for name, value in models.parameters.items() if name.startswith(kind)]
        assert torch.stack(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_adam_has_the_epsilon_of_the_papers_code_and_each_model_its_rate(begin: Begin) -> None:
    _, prepared, _ = begin(learning_rate=1e-3, value_learning_rate=1e-2)
    groups = prepared.models.optimizer.param_groups
    assert {group["eps"] for group in groups} == {1e-5}
    assert {group["peak"] for group in groups} == {1e-3, 1e-2}


# --- from scores to rewards -------------------------------------------------------------------------------------------


def test_scores_are_divided_then_clipped_then_penalised_and_never_centred(begin: Begin) -> None:
    session, _, rollout = begin(normalise_reward=True, clip_reward=1.5, missing_eos_penalty=5.0)
    scores = [4.0, 0.0, 2.0, 2.0, 0.0, 4.0, 2.0, 2.0]  # deviation √2
    lesson = make_lesson(
        session.config, replace(rollout, scores=Scores(scores, {})), kl_coefficient=0.0, scale=RunningScale()
    )
    expected = [
        min(score / 2**0.5, 1.5) - (0.0 if ended else 5.0)
        for score, ended in zip(scores, rollout.ended.tolist(), strict=True)
    ]
    assert lesson.rewards.sum(1).tolist() == pytest.approx(expected)


def test_a_reward_beyond_float32_ends_the_run(begin: Begin) -> None:
    """It would be infinite where it is learned from, and each of its steps left out."""
    session, _, rollout = begin()
    huge = replace(rollout, scores=Scores([1.0] * 7 + [-1e39], {}))
    with pytest.raises(TrainingError, match=r"reward of -1e\+39 is too large"):
        make_lesson(session.config, huge, kl_coefficient=0.0, scale=RunningScale())
