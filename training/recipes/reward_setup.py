"""What ``recipes.reward`` makes once at its start: tokenizer, model, encoded splits, row layout and course."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from training.core.dataset import Dataset, Layout, build_dataset, packing_error
from training.core.errors import UsageError
from training.core.modeling import (
    RewardModel,
    add_lora,
    choose_autocast,
    estimate_peak_bytes,
    load_reward_model,
    load_tokenizer,
    set_pad_token,
)
from training.core.packing import packing_refusal
from training.core.records import SPLITS, Snapshot
from training.core.schedule import Course, make_course
from training.core.tokens import ChatEncoder, settle_pad_token
from training.recipes.configs import RewardConfig
from training.recipes.launch import Session

PACKING_TOLERANCE = 1e-4


@dataclass
class Prepared:
    """All that the loop needs, made once at the start."""

    snapshot: Snapshot
    splits: dict[str, Dataset]
    tokenizer: Any
    encoder: ChatEncoder
    model: RewardModel
    layout: Layout
    layout_reason: str
    course: Course
    dropped: Counter[str]

    @property
    def train(self) -> Dataset:
        """The examples that are learned from."""
        return self.splits["train"]

    @property
    def validation(self) -> Dataset:
        """The held-out examples of the curves."""
        return self.splits["validation"]


def prepare(session: Session[RewardConfig], snapshot: Snapshot) -> Prepared:
    """Load tokenizer and model, encode the splits that are read, and decide on packing.

    Raises:
        UsageError: nothing to train on, or a model that cannot be used.
    """
    config = session.config
    tokenizer = load_tokenizer(config.model)
    encoder = ChatEncoder(tokenizer, show_thinking=config.thinking == "show")
    autocast = choose_autocast(config.dtype, session.device)
    model = load_reward_model(config.model, seed=config.seed, device=session.device, autocast_dtype=autocast)
    embedding_rows = model.whole.get_input_embeddings().num_embeddings
    pad_id = settle_pad_token(encoder, embedding_rows=embedding_rows)
    set_pad_token(model, pad_id)
    if config.lora_rank:
        model = add_lora(model, rank=config.lora_rank, seed=config.seed)
    if config.gradient_checkpointing:
        model.whole.activation_checkpointing_enable()
    model.whole.train()
    if session.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # That also fills fresh memory, against reads of what was never written; it costs time and changes no result.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    dropped = Counter(snapshot.dropped)
    splits = encode_splits(config, snapshot, encoder, model, dropped)
    if not splits["train"].examples:
        raise UsageError(f"{snapshot.path} has no ranking to train on (read {snapshot.read}, dropped {dict(dropped)})")
    layout, reason = choose_layout(model, splits, budget=config.micro_batch_tokens, pad_id=pad_id)
    course = make_course(
        prompts=len(splits["train"].examples),
        batch_size=config.batch_size,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )
    prepared = Prepared(snapshot, splits, tokenizer, encoder, model, layout, reason, course, dropped)
    describe_start(session, prepared)
    return prepared


def encode_splits(
    config: RewardConfig, snapshot: Snapshot, encoder: ChatEncoder, model: RewardModel, dropped: Counter[str]
) -> dict[str, Dataset]:
    """The data of each split that this run reads; the others are counted as dropped."""
    limit = getattr(model.whole.config.get_text_config(), "max_position_embeddings", None)
    max_length = min(config.max_length, limit or config.max_length)
    splits = {}
    for split in SPLITS:
        records = [record for record in snapshot.rankings if record.split == split]
        if split == "test" and config.evaluate_split != "test":
            dropped.update({"test_split": len(records)} if records else {})
            continue
        splits[split] = build_dataset(records, encoder, ties=config.ties, max_length=max_length, dropped=dropped)
    return splits


def choose_layout(model: RewardModel, splits: dict[str, Dataset], *, budget: int, pad_id: int) -> tuple[Layout, str]:
    """Whether rows are packed, and why: the config has to allow it, then the longest example has to score alike."""
    packed, separate = Layout(True, budget, pad_id), Layout(False, budget, pad_id)
    longest = max(splits.values(), key=lambda data: max((each.longest for each in data.tokenised), default=0))
    length = max(example.longest for example in longest.tokenised)
    if refusal := packing_refusal(model.whole.config.get_text_config(), longest=length):
        return separate, f"one response a row: {refusal}"
    gap = packing_error(model, longest, pad_id=pad_id)
    if not gap <= PACKING_TOLERANCE:
        return separate, f"one response a row: packed and separate scores differ by {gap:.1e}"
    return packed, f"prompts shared by their responses (packed and separate scores differ by {gap:.1e})"


def describe_start(session: Session[RewardConfig], prepared: Prepared) -> None:
    """Device, arithmetic, sizes, data and layout, before the first step."""
    model, course = prepared.model, prepared.course
    trained = sum(value.numel() for _, value in model.trainable())
    whole = sum(value.numel() for value in model.whole.parameters())
    tokens = max(session.config.micro_batch_tokens, max(each.longest for each in prepared.train.tokenised))
    arithmetic = str(model.autocast_dtype).removeprefix("torch.")
    session.say(f"device {model.device}, weights float32, forward {arithmetic}, {session.world.size} process(es)")
    session.say(f"training {trained:,} of {whole:,} parameters, about "
                 f"{estimate_peak_bytes(model, tokens=tokens) / 2**30:.1f} GiB at the peak")  # fmt: skip
    session.say(f"chat template: {prepared.encoder.template_name}; pad {prepared.tokenizer.pad_token!r}")
    for split, data in prepared.splits.items():
        session.say(f"{split}: {data.rankings} rankings, {len(data.examples)} prompts, {data.pairs} pairs")
    if prepared.dropped:
        session.say("dropped: " + ", ".join(f"{count} {name}" for name, count in sorted(prepared.dropped.items())))
    session.say(f"rows: {prepared.layout_reason}")
    session.say(f"{course.steps} steps of up to {course.batch_size} prompts")


def facts_of(session: Session[RewardConfig], prepared: Prepared) -> dict[str, Any]:
    """What ``run.json`` keeps of the decisions made at the start."""
    return {
        "device": str(prepared.model.device),
        "forward_dtype": str(prepared.model.autocast_dtype).removeprefix("torch."),
        "chat_template": prepared.encoder.template_name,
        "packed": prepared.layout.packed,
        "steps": prepared.course.steps,
    }
