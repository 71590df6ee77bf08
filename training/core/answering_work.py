"""What answering prompts, and scoring rankings, will need, told before a run is queued. Standard library only.

The companion of ``workload`` for runs that train nothing: ``recipes.sample``, ``evaluate_policy``, ``evaluate_reward``.
Each model is told at the longest responses that the settings allow, so memory is what may be needed and time what it
comes to at most.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.core.memory import FLOAT_BYTES, kept_values
from training.core.model_sizes import ModelSize
from training.core.text_counts import MESSAGE_TOKENS, Amount, SplitTexts
from training.core.workload import FORWARD, SAMPLING_DRAG, Need

# A batch that is sampled has so many times the tokens of one that is trained on; as ``recipes.judging`` has it.
SAMPLING_SHARE = 4
# Of each entry of the vocabulary and row where a token is drawn: logits, their float32 copies, log-probabilities,
# probabilities, their sum in float64, and what is left for the choice.
DRAWN_BYTES = 7 * FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class Answering:
    """A run before it is queued that has models answer prompts.

    Attributes:
        config: all its settings, by name.
        speakers: the models that answer one after the other, each with its responses to a prompt.
        scorers: the reward models that are held beside each of them.
        texts: of the snapshot, by split.
    """

    config: Mapping[str, Any]
    speakers: Sequence[tuple[ModelSize, int]]
    scorers: Sequence[ModelSize]
    texts: Mapping[str, SplitTexts]


def need_of_answers(task: Answering) -> Need:
    """Steps, memory and arithmetic of having models answer prompts."""
    config, length = task.config, task.config["max_response_length"]
    prompts = _joined(task.texts, config["split"])
    asked = min(prompts.rows, config["max_prompts"] or prompts.rows)
    room = config["max_prompt_length"] or config["max_length"] - length
    longest = min(math.ceil(prompts.longest), room)
    mean = min(prompts.tokens / max(prompts.rows, 1), room)
    scorers = [size.trunk + size.shape.hidden for size in task.scorers]
    scoring = max((_passing_bytes(size, max(config["micro_batch_tokens"], longest + length)) for size in task.scorers),
                  default=0)  # fmt: skip
    peaks, operations, tokens = [], 0.0, 0.0
    for size, each in task.speakers:
        speaking = _speaking_bytes(size, config, prompt=longest, rows=min(config["batch_size"], asked) * each)
        peaks.append(FLOAT_BYTES * (size.parameters + sum(scorers)) + max(speaking, scoring))
        responses = asked * each
        tokens += responses * (mean + length)
        operations += FORWARD * responses * size.parameters * (mean + SAMPLING_DRAG * length)
        operations += FORWARD * responses * sum(scorers) * (mean + length)
    largest = max((size.parameters for size, _ in task.speakers), default=0)
    return Need(
        peak_bytes=max(peaks, default=0),
        rest_bytes=FLOAT_BYTES * (largest + sum(scorers)),
        steps=len(task.speakers) * math.ceil(asked / config["batch_size"]),
        tokens=tokens,
        longest=longest + length,
        operations=operations,
    )


def need_of_scores(config: Mapping[str, Any], size: ModelSize, texts: Mapping[str, SplitTexts]) -> Need:
    """Memory and arithmetic of scoring the rankings of a split, which is one step."""
    ranked = _joined(texts, config["split"], name="ranked")
    longest = min(math.ceil(ranked.longest), config["max_length"])
    weights = FLOAT_BYTES * (size.trunk + size.shape.hidden)
    return Need(
        peak_bytes=weights + _passing_bytes(size, max(config["micro_batch_tokens"], longest)),
        rest_bytes=weights,
        steps=1 if ranked.rows else 0,
        tokens=ranked.tokens,
        longest=longest,
        operations=float(FORWARD * size.trunk * ranked.tokens),
    )


def cache_bytes(size: ModelSize, *, tokens: int) -> int:
    """What keys and values of so many tokens take, in float32."""
    shape = size.shape
    return 2 * FLOAT_BYTES * shape.layers * shape.key_heads * shape.head_size * tokens


def _speaking_bytes(size: ModelSize, config: Mapping[str, Any], *, prompt: int, rows: int) -> int:
    """Of sampling, besides weights: the rows at once are those that the budget holds."""
    row = prompt + int(config["max_response_length"]) + MESSAGE_TOKENS
    at_once = max(1, min(rows, SAMPLING_SHARE * int(config["micro_batch_tokens"]) // row))
    cache = cache_bytes(size, tokens=at_once * row)
    # With each token a layer's part of the cache is written anew, while the one before is still there.
    again = cache // size.shape.layers
    return cache + again + max(_passing_bytes(size, at_once * prompt), DRAWN_BYTES * at_once * size.vocabulary)


def _passing_bytes(size: ModelSize, tokens: int) -> int:
    """Of one layer of a forward pass, which keeps nothing for a backward pass."""
    return FLOAT_BYTES * tokens * kept_values(size.shape)


def _joined(texts: Mapping[str, SplitTexts], split: str, *, name: str = "prompts") -> Amount:
    """The rows of one split, or of all."""
    found = Amount()
    for each, counted in texts.items():
        if split in ("all", each):
            part: Amount = getattr(counted, name)
            longest = max(found.longest, part.longest)
            found = Amount(found.rows + part.rows, found.tokens + part.tokens, longest)
    return found
