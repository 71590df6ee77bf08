"""The models of ``recipes.ppo``: policy, reference, value, rewards, and the sampler that speaks for the policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel
from training.core.log_probs import token_figures
from training.core.modeling import (
    RewardModel,
    make_optimizer,
)
from training.core.packing import PackedRows, TokenisedExample, packing_refusal
from training.core.randomness import generator_for
from training.core.reward_sources.episodes import RewardSource
from training.core.reward_sources.grammar import parse_reward
from training.core.reward_sources.making import make_sources
from training.core.reward_sources.models import Reading
from training.core.sampling import GenerateSampler, Sampler, SamplingSettings
from training.core.scorer import Scorer
from training.core.sharding import shard_model
from training.core.token_places import TokenPlaces
from training.core.tokens import ChatEncoder, stop_ids
from training.core.trunk import SharedTrunk
from training.recipes.configs import PpoConfig
from training.recipes.judging import SAMPLING_SHARE, make_reading
from training.recipes.launch import Session
from training.recipes.ppo_actors import make_actors
from training.recipes.ppo_rows import Rows
from training.recipes.prompts import PromptData

# As in the code of Ziegler et al. and Huang et al. 2022; Adam's usual 1e-8 lets single tokens move weights far.
ADAM_EPSILON = 1e-5
PACKING_TOLERANCE = 1e-4


@dataclass
class Models:
    """What a rollout goes through. ``value`` is None where the other responses to a prompt take its place.

    ``value_zero`` is what the value model says where it expects nothing: the mean of the reward model that it was.
    ``policy_parameters`` and ``value_parameters`` are trained, by name in ``parameters``, in the optimizer's order.
    """

    policy: LanguageModel
    reference: LanguageModel
    value: RewardModel | None
    value_zero: float
    sources: list[RewardSource]
    sampler: Sampler
    reference_sampler: Sampler
    rows: Rows
    optimizer: torch.optim.Optimizer
    parameters: dict[str, nn.Parameter]
    budgets: dict[str, MicroBatchBudget]
    stop_ids: frozenset[int]
    trunk: SharedTrunk | None = None

    @property
    def policy_parameters(self) -> list[nn.Parameter]:
        """The trained parameters of the policy."""
        return [value for name, value in self.parameters.items() if name.startswith("policy.")]

    @property
    def value_parameters(self) -> list[nn.Parameter]:
        """The trained parameters of the value model."""
        return [value for name, value in self.parameters.items() if name.startswith("value.")]

    def values(self, rows: PackedRows, places: TokenPlaces) -> Tensor:
        """What is expected before each response token, (M,), in rewards."""
        assert self.value is not None
        found = self.value.score(replace(rows, score_row=places.row, score_column=places.column))
        return found - self.value_zero

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad(set_to_none=True)


def make_models(session: Session[PpoConfig], data: PromptData, encoder: ChatEncoder) -> Models:
    """Load everything that a rollout needs.

    Raises:
        UsageError: a model or a reward that cannot be used.
    """
    config = session.config
    actors = make_actors(session, encoder)
    policy, reference, value = actors.policy, actors.reference, actors.value
    budgets = make_budgets(session, longest=data.longest + config.max_response_length)
    rows = choose_rows(session, policy, value, data, actors.pad_id, budgets["rows"])
    if config.shard:
        for model in {id(each.whole): each for each in (policy, reference, value) if each is not None}.values():
            shard_model(model, session.world)
    optimizer, parameters = make_ppo_optimizer(config, policy, value)
    ends = stop_ids(encoder, policy.whole.generation_config)
    settings = SamplingSettings(
        temperature=config.temperature,
        max_length=config.max_response_length,
        stop_ids=ends,
        pad_id=rows.pad_id,
        seed=config.seed,
        max_thinking=config.max_thinking_length,
    )
    samplers = [
        GenerateSampler(model, settings, budgets["sampling"], decode=_decoder(encoder.tokenizer),
                        interrupted=lambda: session.stop.requested)
        for model in (policy, reference)
    ]  # fmt: skip
    return Models(
        policy=policy,
        reference=reference,
        value=value,
        value_zero=actors.value_zero,
        trunk=actors.trunk,
        sources=make_rewards(session, data, encoder, budgets["scoring"], scorers=actors.scorers),
        sampler=samplers[0],
        reference_sampler=samplers[1],
        rows=rows,
        optimizer=optimizer,
        parameters=parameters,
        budgets=budgets,
        stop_ids=ends,
    )


def make_rewards(
    session: Session[PpoConfig],
    data: PromptData,
    encoder: ChatEncoder,
    budget: MicroBatchBudget,
    *,
    scorers: Mapping[str, Scorer],
) -> list[RewardSource]:
    """What is rewarded; every prompt is looked at for what its reward needs."""
    config = session.config
    reading = reading_of(session, data, encoder, budget)
    specs = [parse_reward(text) for text in config.rewards]
    lines = [record for prompts in data.splits.values() for record in prompts.records()]
    return make_sources(
        specs,
        lines,
        reading=reading,
        allow_code_execution=config.allow_code_execution,
        # Whoever starts a recipe by its command line may run any code anyway.
        allowed_functions=None,
        scorers=scorers,
        say=session.say,
    )


def check_rewards(session: Session[PpoConfig], data: PromptData, encoder: ChatEncoder) -> None:
    """Refuse rewards that cannot be, as far as that shows without a model: flags, patterns, functions, answers.

    Raises:
        UsageError: naming the flag, and the line.
    """
    config = session.config
    specs = [parse_reward(text) for text in config.rewards]
    plain = [spec for spec in specs if spec.kind not in ("model", "ensemble")]
    budget = make_budgets(session, longest=data.longest + config.max_response_length)["scoring"]
    make_sources(
        plain,
        (record for prompts in data.splits.values() for record in prompts.records()),
        reading=reading_of(session, data, encoder, budget),
        allow_code_execution=config.allow_code_execution,
        allowed_functions=None,
    )


def reading_of(
    session: Session[PpoConfig], data: PromptData, encoder: ChatEncoder, budget: MicroBatchBudget
) -> Reading:
    """How reward models read what the policy wrote."""
    return make_reading(session, encoder, budget, longest_prompt=data.longest,
                        max_response_length=session.config.max_response_length)  # fmt: skip


def make_budgets(session: Session[PpoConfig], *, longest: int) -> dict[str, MicroBatchBudget]:
    """Tokens at once in training, sampling and scoring; each is halved by itself where memory does not suffice."""
    config = session.config
    shares = {"rows": 1, "sampling": SAMPLING_SHARE, "scoring": 1}
    return {
        name: MicroBatchBudget(
            tokens=share * config.micro_batch_tokens,
            floor=longest,
            world=session.world,
            device=session.device,
            sharded=config.shard and name != "scoring",
            say=session.say,
        )
        for name, share in shares.items()
    }


def choose_rows(
    session: Session[PpoConfig],
    policy: LanguageModel,
    value: RewardModel | None,
    data: PromptData,
    pad_id: int,
    budget: MicroBatchBudget,
) -> Rows:
    """Several samples of a prompt go behind it in one row, where the architectures allow it and log-probs agree."""
    config = session.config

    def rows(packed: bool) -> Rows:
        return Rows(packed, pad_id, session.world, session.device, budget, sharded=config.shard)

    if config.samples_per_prompt == 1:
        return rows(False)
    longest = data.longest + config.max_response_length
    models = [model for model in (policy, value) if model is not None]
    refusals = [packing_refusal(model.whole.config.get_text_config(), longest=longest) for model in models]
    reason = next((refusal for refusal in refusals if refusal is not None), None)
    if reason is None:
        gap = packing_gap(policy, rows, length=min(config.max_response_length, 64), prompt=data.train.ids(0))
        if gap <= PACKING_TOLERANCE or policy.autocast_dtype != torch.float32:
            session.say(f"rows: prompts shared by their responses (log-probs differ by {gap:.1e} from separate ones)")
            return rows(True)
        reason = f"packed and separate log-probs differ by {gap:.1e}"
    session.say(f"rows: one response each ({reason})")
    return rows(False)


def packing_gap(policy: LanguageModel, rows: Any, *, length: int, prompt: tuple[int, ...]) -> float:
    """How far log-probs of packed and separate responses (random ids) are apart, in nats."""
    vocabulary = policy.whole.get_input_embeddings().num_embeddings
    drawn = torch.randint(vocabulary, (2, length), generator=generator_for(0, "packing"))
    examples = [TokenisedExample(prompt, tuple(tuple(each) for each in drawn.tolist()))]
    found = [
        rows(packed).figures(
            examples, lambda packed_rows, places: [token_figures(policy, packed_rows, places).log_probs]
        )[0]
        for packed in (True, False)
    ]
    return float((found[0] - found[1]).abs().max())


def make_ppo_optimizer(
    config: PpoConfig, policy: LanguageModel, value: RewardModel | None
) -> tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]:
    """One AdamW over both models; each group of parameters with the peak of its learning rate."""
    value_rate = config.value_learning_rate or config.learning_rate
    optimizer, parameters = make_optimizer(
        ((f"policy.{name}", weight) for name, weight in policy.trainable()),
        learning_rate=config.learning_rate, weight_decay=config.weight_decay, epsilon=ADAM_EPSILON,
    )  # fmt: skip
    for group in optimizer.param_groups:
        group["peak"] = config.learning_rate
    if value is None:
        return optimizer, parameters
    of_value, named = make_optimizer(
        ((f"value.{name}", weight) for name, weight in value.trainable()),
        learning_rate=value_rate, weight_decay=config.weight_decay, epsilon=ADAM_EPSILON,
    )  # fmt: skip
    for group in of_value.param_groups:
        optimizer.add_param_group({**group, "peak": value_rate})
    return optimizer, parameters | named


def _decoder(tokenizer: Any) -> Any:
    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return decode
