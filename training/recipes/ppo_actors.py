"""Who takes part in ``recipes.ppo``: policy, reference and value model, in a shared trunk or with their own weights."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from training.core.adapters import recompute_alike
from training.core.errors import UsageError
from training.core.language import LanguageModel, load_language_model
from training.core.modeling import (
    RewardModel,
    add_lora,
    choose_autocast,
    load_reward_model,
    load_tokenizer,
    set_pad_token,
)
from training.core.randomness import derive_seed
from training.core.reward_sources.grammar import parse_reward
from training.core.reward_sources.models import same_tokenizer
from training.core.saving import MEAN_KEY
from training.core.scorer import Scorer, member_folders
from training.core.tokens import ChatEncoder
from training.core.trunk import SharedTrunk, make_shared_trunk, refusal, trunk_scorer
from training.recipes.configs import PpoConfig
from training.recipes.launch import Session
from training.recipes.policy_setup import load_policy


@dataclass
class Actors:
    """Policy, reference and value model, however their weights are kept; ``scorers`` are reward models in memory."""

    policy: LanguageModel
    reference: LanguageModel
    value: RewardModel | None
    value_zero: float
    pad_id: int
    scorers: dict[str, Scorer] = field(default_factory=dict)
    trunk: SharedTrunk | None = None


def make_actors(session: Session[PpoConfig], encoder: ChatEncoder) -> Actors:
    """One frozen base with adapters where that is possible, else weights of their own; the log says which."""
    config = session.config
    name = _only_reward_model(config)
    reason = trunk_refusal(config, name)
    if reason is None:
        assert name is not None
        base, pad_id = load_policy(session, encoder, bare=True)
        trunk = make_shared_trunk(base, lora_rank=config.lora_rank, seed=config.seed, reward_run=Path(name))
        session.say("shared trunk: one frozen base, with adapters for policy, value and reward")
        session.say("reference: that base, without an adapter")
        scorer = trunk_scorer(trunk, Path(name), show_thinking=config.thinking == "show")
        expecting = trunk.value if config.advantage == "gae" else None
        return Actors(trunk.policy, trunk.reference, expecting, trunk.score_mean, pad_id, {name: scorer}, trunk)
    session.say(f"separate weights: {reason}")
    policy, reference, pad_id = make_policy(session, encoder)
    if config.advantage != "gae":
        return Actors(policy, reference, None, 0.0, pad_id)
    value, zero = make_value(session, encoder, pad_id)
    return Actors(policy, reference, value, zero, pad_id)


def trunk_refusal(config: PpoConfig, reward_model: str | None) -> str | None:
    """Why the models cannot share a trunk, or None."""
    if config.trunk == "separate":
        return "--trunk separate"
    if config.shard:
        return "a shared trunk is not sharded"
    if config.value_model is not None:
        return "--value-model"
    if reward_model is None:
        return "there is no reward model, or more than one"
    return refusal(config.model, Path(reward_model), lora_rank=config.lora_rank)


def make_policy(session: Session[PpoConfig], encoder: ChatEncoder) -> tuple[LanguageModel, LanguageModel, int]:
    """The policy, the model that it starts from (itself without its adapter, or a frozen copy), and the pad id."""
    config = session.config
    policy, pad_id = load_policy(session, encoder)
    if config.lora_rank:
        session.say("reference: the policy without its adapter")
        return policy, replace(policy, adapter_name=None), pad_id
    # In bfloat16 it would take half the memory and round otherwise than the policy: a divergence before any step.
    reference = load_language_model(config.model, device=session.device, autocast_dtype=policy.autocast_dtype)
    set_pad_token(reference, pad_id)
    reference.whole.requires_grad_(False).eval()
    session.say("reference: a frozen copy")
    return policy, reference, pad_id


def make_value(session: Session[PpoConfig], encoder: ChatEncoder, pad_id: int) -> tuple[RewardModel, float]:
    """The value model with its own weights, and what it says where nothing is expected.

    It starts as the model that --value-model names, else as the reward model, else as --model with a fresh head.

    Raises:
        UsageError: --value-model cannot be used.
    """
    config = session.config
    autocast = choose_autocast(config.dtype, session.device)
    name = config.value_model or _first_reward_model(config)
    if name is not None:
        name = member_folders(name)[0]
        if not same_tokenizer(encoder, ChatEncoder(load_tokenizer(name))):
            if config.value_model:
                raise UsageError(
                    f"--value-model {name} has another tokenizer than the policy, whose tokens it has to read"
                )
            session.say("value model: from --model, for the reward model has another tokenizer")
            name = None
    seed = derive_seed(config.seed, "value")
    value = load_reward_model(name or config.model, seed=seed, device=session.device, autocast_dtype=autocast)
    # What its scores say of an ordinary response is nothing to expect.
    zero = float(getattr(value.whole.config, MEAN_KEY, 0.0)) if name else 0.0
    set_pad_token(value, pad_id)
    if config.lora_rank:
        value = add_lora(value, rank=config.lora_rank, seed=seed)
    if config.gradient_checkpointing:
        recompute_alike(value.whole)
    value.whole.train()
    session.say(f"value model: from {name or config.model}, its own weights")
    return value, zero


def _reward_models(config: PpoConfig) -> list[str]:
    specs = [parse_reward(text) for text in config.rewards]
    return [spec.argument for spec in specs if spec.kind in ("model", "ensemble")]


def _first_reward_model(config: PpoConfig) -> str | None:
    """The reward model whose weights the value model may start from."""
    return next(iter(_reward_models(config)), None)


def _only_reward_model(config: PpoConfig) -> str | None:
    """The reward model, where there is one alone."""
    found = _reward_models(config)
    return found[0] if len(found) == 1 else None
