"""What a run will need, told before it is queued: steps, memory at its peak, and arithmetic.

Standard library only: the web asks this of settings, of a model's size and of counted texts; nothing is loaded. The
memory is that of ``training.core.memory``, which the recipes print at their start, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.core.memory import FLOAT_BYTES, Load, logit_bytes, peak_together, rest_bytes, without_weights
from training.core.model_sizes import ModelSize
from training.core.text_counts import MESSAGE_TOKENS, Amount, SplitTexts

# Operations a parameter and token: forward, and backward to the activations and to the weights.
FORWARD, OF_ACTIVATIONS, OF_WEIGHTS = 2, 2, 2
# Token by token the machine waits for memory: so many times the operations of the same tokens at once.
SAMPLING_DRAG = 4


@dataclass(frozen=True, slots=True)
class Task:
    """A run before it is queued.

    Attributes:
        kind: the recipe.
        config: all its settings, by name.
        size: of the base model.
        texts: of the snapshot, by split.
        scorers: sizes of the reward models that are held in memory beside it (PPO).
        shares_trunk: whether policy, value and reward model are adapters on one base (PPO).
    """

    kind: str
    config: Mapping[str, Any]
    size: ModelSize
    texts: Mapping[str, SplitTexts]
    scorers: Sequence[ModelSize] = ()
    shares_trunk: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a run needs.

    Attributes:
        peak_bytes: of each process that trains, without what its libraries take.
        rest_bytes: of weights, gradients and moments alone, however short the rows are.
        steps: 0 where there is nothing to train from.
        tokens: forwarded in training, all passes together.
        longest: tokens of the longest row that cannot be divided.
        operations: floating-point operations, all processes together.
    """

    peak_bytes: int
    rest_bytes: int
    steps: int
    tokens: float
    longest: int
    operations: float


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows that a kind reads, by split."""

    train: Amount = field(default_factory=Amount)
    validation: Amount = field(default_factory=Amount)


def need_of(task: Task) -> Need:
    """Steps, memory and arithmetic of a run."""
    rows, config = rows_of(task), task.config
    steps = steps_of(config, rows=rows.train.rows)
    limit = min(config["max_length"], task.size.context or config["max_length"])
    longest = min(limit, math.ceil(max(rows.train.longest, rows.validation.longest)))
    if task.kind == "ppo":
        longest = min(limit, longest + config["max_response_length"] + MESSAGE_TOKENS)
    at_once = max(config["micro_batch_tokens"], longest)
    in_a_step = min(config["batch_size"], rows.train.rows)
    tokens = steps * in_a_step * rows.train.tokens / max(rows.train.rows, 1)
    loads, frozen = loads_of(task)
    logits = 0 if task.kind == "reward" else logit_bytes(task.size.vocabulary, tokens=at_once)
    members = config.get("ensemble", 1) if task.kind == "reward" else 1
    return Need(
        peak_bytes=peak_together(loads, frozen=frozen, tokens=at_once) + logits,
        rest_bytes=sum(map(rest_bytes, loads)) + FLOAT_BYTES * frozen,
        steps=steps * members,
        tokens=tokens * members,
        longest=longest,
        operations=members * _operations(task, rows, steps=steps, tokens=tokens),
    )


def rows_of(task: Task) -> _Rows:
    """The rows of train and validation that the recipe reads."""
    name = {"sft": "answers", "ppo": "prompts"}.get(task.kind, "ranked")
    found = {split: getattr(texts, name) for split, texts in task.texts.items()}
    half = 0.5 if task.config.get("half", "all") != "all" else 1.0
    train: Amount = found.get("train", Amount())
    return _Rows(train.times(half) if half < 1 else train, found.get("validation", Amount()))


def steps_of(config: Mapping[str, Any], *, rows: int) -> int:
    """As ``training.core.schedule``: ``max_steps`` if given, else whole passes; what ends a run early counts, too."""
    steps = int(config["max_steps"] or config["epochs"] * math.ceil(rows / config["batch_size"]))
    return min(steps, config["stop_after"] or steps)


def loads_of(task: Task) -> tuple[list[Load], int]:
    """The models that are trained, and how many parameters are held beside them and never trained."""
    how: dict[str, Any] = {
        "lora_rank": task.config["lora_rank"],
        "recomputed": task.config["gradient_checkpointing"],
    }
    if task.kind == "reward":
        return [task.size.as_scores(**how)], 0
    policy = task.size.as_policy(**how)
    if task.kind != "ppo":
        return [policy], 0
    loads, value = [policy], task.size.as_scores(**how)
    if task.config["advantage"] == "gae":
        loads.append(without_weights(value) if task.shares_trunk else value)
    reference = 0 if task.config["lora_rank"] else task.size.parameters
    if task.shares_trunk:
        return loads, value.trained  # the reward model's adapter
    return loads, reference + sum(size.trunk + size.shape.hidden for size in task.scorers)


def _operations(task: Task, rows: _Rows, *, steps: int, tokens: float) -> float:
    size, config = task.size.parameters, task.config
    learning = FORWARD + OF_ACTIVATIONS + (0 if config["lora_rank"] else OF_WEIGHTS)
    learning += FORWARD if config["gradient_checkpointing"] else 0
    if task.kind == "ppo":
        return size * _ppo_operations(task, rows, steps=steps, learning=learning)
    passes = max(steps // config["evaluate_every"], 1) if config["evaluate_every"] else config["epochs"]
    held_out = rows.validation.tokens * min(passes, max(steps, 1))
    found = learning * tokens + FORWARD * held_out
    if task.kind == "dpo":
        found += FORWARD * (min(tokens, rows.train.tokens) + rows.validation.tokens)  # the reference, once
    return float(size * found)


def _ppo_operations(task: Task, rows: _Rows, *, steps: int, learning: int) -> float:
    """A parameter of the policy: what all models do, as if they were of one size."""
    config = task.config
    of_prompt = rows.train.tokens / max(rows.train.rows, 1)
    length = of_prompt + config["max_response_length"]
    models = 2 if config["advantage"] == "gae" else 1
    rollout = SAMPLING_DRAG * FORWARD + FORWARD * (models + 1 + len(task.scorers))
    responses = min(config["batch_size"], max(rows.train.rows, 1)) * config["samples_per_prompt"]
    step = responses * length * (rollout + config["inner_epochs"] * models * learning)
    evaluations = 1 + (steps // config["evaluate_every"] if config["evaluate_every"] else 0)
    asked = min(config["evaluation_prompts"], rows.validation.rows)
    return float(steps * step + evaluations * asked * length * rollout)
