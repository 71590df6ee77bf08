"""What ``recipes.reward`` makes at its start: the data once, and a model with its optimizer for every member."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from training.core.dataset import Dataset
from training.core.encoding import Encoded, Rules
from training.core.errors import UsageError
from training.core.halving import MicroBatchBudget
from training.core.memory import peak_bytes
from training.core.modeling import (
    RewardModel,
    add_lora,
    choose_autocast,
    load_of,
    load_reward_model,
    load_tokenizer,
    make_optimizer,
    set_pad_token,
)
from training.core.objective import Objective, ObjectiveSettings, TieFacts, tie_facts
from training.core.packing import packing_refusal
from training.core.randomness import derive_seed
from training.core.records import SPLITS, Snapshot
from training.core.schedule import Course
from training.core.scoring import Layout, packing_error
from training.core.sharding import shard_model
from training.core.tokens import ChatEncoder, settle_pad_token
from training.recipes.configs import RewardConfig
from training.recipes.launch import Session
from training.recipes.preparing import compute_repeatably, course_of, encode_together, usable_length, words_of

PACKING_TOLERANCE = 1e-4


@dataclass
class Prepared:
    """What all members share. ``layout`` is decided on the first model that is made."""

    snapshot: Snapshot
    encoded: Encoded
    tokenizer: Any
    encoder: ChatEncoder
    settings: ObjectiveSettings
    facts: TieFacts
    steps: int
    layout: Layout = field(init=False)
    layout_reason: str = ""
    budget: MicroBatchBudget = field(init=False)

    @property
    def splits(self) -> dict[str, Dataset]:
        """The splits that this run reads."""
        return self.encoded.splits

    @property
    def train(self) -> Dataset:
        """The examples that are learned from."""
        return self.splits["train"]

    @property
    def validation(self) -> Dataset:
        """The held-out examples of the curves."""
        return self.splits["validation"]

    @property
    def held_out(self) -> dict[str, Dataset]:
        """The splits of the report."""
        return {split: data for split, data in self.splits.items() if split != "train"}


@dataclass
class Member:
    """One model of the ensemble on its way; ``parameters`` are the trained ones in the optimizer's order."""

    number: int
    model: RewardModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    parameters: dict[str, nn.Parameter]
    course: Course


def prepare(session: Session[RewardConfig], snapshot: Snapshot) -> Prepared:
    """Load the tokenizer and encode the splits that are read.

    Raises:
        UsageError: nothing to train on, or texts that cannot be encoded.
    """
    config = session.config
    tokenizer = load_tokenizer(config.model)
    encoder = ChatEncoder(tokenizer, show_thinking=config.thinking == "show")
    settings = ObjectiveSettings(
        loss=config.loss, ties=config.ties, unranked=config.unranked, strength=config.strength,
        margin_scale=config.margin_scale, centring=config.centring,
    )  # fmt: skip
    rules = Rules(
        splits=tuple(split for split in SPLITS if split != "test" or config.evaluate_split == "test"),
        max_length=usable_length(config),
        ties=settings.counts_ties,
        below=settings.counts_unranked,
        half=config.half,
    )
    encoded = encode_together(session, snapshot, encoder, rules)
    train = encoded.splits["train"]
    if not len(train):
        raise UsageError(
            f"{snapshot.path} has no ranking to train on: {snapshot.read} lines, dropped {words_of(encoded.dropped)}"
            + ("; ties alone teach --ties soft, rao-kupper and davidson" if encoded.dropped["no_pairs"] else "")
        )
    steps = course_of(config, prompts=len(train), seed=0).steps
    refuse_idle_flags(config, encoded, steps=steps)
    compute_repeatably(session.device)
    return Prepared(snapshot, encoded, tokenizer, encoder, settings, tie_facts(train), steps)


def refuse_idle_flags(config: RewardConfig, encoded: Encoded, *, steps: int) -> None:
    """Flags that this data, or the other flags, leave without any effect.

    Raises:
        UsageError: naming the flag.
    """
    if config.strength != "ignore" and not encoded.splits["train"].says_strengths:
        raise UsageError(f"--strength {config.strength}: no ranking to train on says how much better one tier is")
    if not config.early_stopping:
        return
    if not len(encoded.splits["validation"]):
        raise UsageError("--early-stopping needs validation rankings, and there are none")
    if (steps // config.evaluate_every if config.evaluate_every else config.epochs) < 2:
        raise UsageError("--early-stopping compares validations, and there would be one: set --evaluate-every")


def make_member(session: Session[RewardConfig], prepared: Prepared, number: int) -> Member:
    """A member's model, fresh from --model, with a head, an order of prompts and LoRA layers of its own seed.

    Raises:
        UsageError: a model that cannot be used.
    """
    config = session.config
    seed = config.seed if number == 0 else derive_seed(config.seed, "member", number)
    autocast = choose_autocast(config.dtype, session.device)
    model = load_reward_model(config.model, seed=seed, device=session.device, autocast_dtype=autocast)
    embedding_rows = model.whole.get_input_embeddings().num_embeddings
    pad_id = settle_pad_token(prepared.encoder, embedding_rows=embedding_rows)
    set_pad_token(model, pad_id)
    if config.lora_rank:
        model = add_lora(model, rank=config.lora_rank, seed=seed)
    if config.gradient_checkpointing:
        model.whole.activation_checkpointing_enable()
    model.whole.train()
    if not prepared.layout_reason:
        decide_layout(session, prepared, model, pad_id=pad_id)
        describe_start(session, prepared, model)
    if config.shard:
        shard_model(model, session.world)
    objective = Objective(prepared.settings, prepared.facts).to(session.device)
    optimizer, parameters = make_optimizer(
        model.trainable(), learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    thresholds = {f"objective.{name}": value for name, value in objective.named_parameters()}
    if thresholds:
        optimizer.add_param_group({"params": list(thresholds.values()), "weight_decay": 0.0})
    for group in optimizer.param_groups:
        group["peak"] = config.learning_rate
    if thresholds:
        optimizer.param_groups[-1]["peak"] = config.threshold_learning_rate
    course = course_of(config, prompts=len(prepared.train), seed=seed)
    return Member(number, model, objective, optimizer, parameters | thresholds, course)


def decide_layout(session: Session[RewardConfig], prepared: Prepared, model: RewardModel, *, pad_id: int) -> None:
    """Settle how responses become rows, and how many tokens go at once."""
    splits = list(prepared.splits.values())
    prepared.layout, prepared.layout_reason = choose_layout(model, splits, pad_id=pad_id)
    prepared.budget = MicroBatchBudget(
        tokens=session.config.micro_batch_tokens,
        floor=int(prepared.train.longest.max()),
        world=session.world,
        device=session.device,
        sharded=session.config.shard,
        say=session.say,
    )


def choose_layout(model: RewardModel, splits: Iterable[Dataset], *, pad_id: int) -> tuple[Layout, str]:
    """Whether rows are packed, and why: the config has to allow it, then the longest example has to score alike."""
    packed, separate = Layout(True, pad_id), Layout(False, pad_id)
    data = max(splits, key=lambda data: int(data.longest.max(initial=0)))
    place = int(data.longest.argmax())
    if refusal := packing_refusal(model.whole.config.get_text_config(), longest=int(data.longest[place])):
        return separate, f"one response a row: {refusal}"
    gap = packing_error(model, data.tokenised[place], pad_id=pad_id)
    if not gap <= PACKING_TOLERANCE:
        return separate, f"one response a row: packed and separate scores differ by {gap:.1e}"
    return packed, f"prompts shared by their responses (packed and separate scores differ by {gap:.1e})"


def describe_start(session: Session[RewardConfig], prepared: Prepared, model: RewardModel) -> None:
    """Device, arithmetic, sizes, data and layout, before the first step."""
    config, encoded = session.config, prepared.encoded
    load = load_of(model)
    tokens = max(config.micro_batch_tokens, int(prepared.train.longest.max()))
    arithmetic = str(model.autocast_dtype).removeprefix("torch.")
    session.say(f"device {model.device}, weights float32, forward {arithmetic}, {session.world.size} process(es)")
    session.say(f"training {load.trained:,} of {load.weights:,} parameters, about "
                 f"{peak_bytes(load, tokens=tokens) / 2**30:.1f} GiB at the peak")  # fmt: skip
    session.say(f"chat template: {prepared.encoder.template_name}; pad {prepared.tokenizer.pad_token!r}")
    for split, data in prepared.splits.items():
        session.say(f"{split}: {data.rankings} rankings, {len(data)} prompts, {data.pairs} pairs")
    if encoded.dropped:
        session.say(f"dropped: {words_of(encoded.dropped)}")
    session.say(f"rows: {prepared.layout_reason}")
    members = f", {config.ensemble} models one after the other" if config.ensemble > 1 else ""
    session.say(f"{prepared.steps} steps of up to {config.batch_size} prompts{members}")


def facts_of(prepared: Prepared, model: RewardModel, *, ensemble: int) -> dict[str, Any]:
    """What ``run.json`` keeps of the decisions made at the start."""
    return {
        "device": str(model.device),
        "forward_dtype": str(model.autocast_dtype).removeprefix("torch."),
        "chat_template": prepared.encoder.template_name,
        "packed": prepared.layout.packed,
        "steps": prepared.steps * ensemble,
    }
