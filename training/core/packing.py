"""Packing: a prompt once, its responses after it in one row, scored as if each stood alone behind the prompt.

A response sees the prompt and itself; its positions go on from the prompt's end, as they would alone. Rows of several
prompts with similar lengths make a micro-batch. A model that cannot be packed gets one row a response, from the same
code: a row with one response is the plain sequence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROMPT_SEGMENT, PAD_SEGMENT = 0, -1

# Decoders whose attention is full in every layer or windowed as their config says, and that take a 4-D mask and
# position ids as given. Anything else is off until somebody has looked at it.
PACKABLE_TYPES = frozenset(
    ("gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
)
LENGTH_FREE_ROPE = frozenset(("default", "linear", "llama3", "yarn"))


@dataclass(frozen=True)
class TokenisedExample:
    """One prompt's ids and the ids of each response (ending included), in the order of ``Example.responses``."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest response."""
        return len(self.prompt) + max(map(len, self.responses))

    @property
    def tokens(self) -> int:
        """Tokens of one row that holds it whole."""
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True)
class Row:
    """Some responses of one example behind its prompt; ``example`` and ``responses`` are positions."""

    example: int
    responses: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class MicroBatch:
    """Rows forwarded at once. Every response of an example is in the micro-batch that holds the example."""

    examples: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Tokens forwarded, padding included."""
        return len(self.rows) * max(row.length for row in self.rows)


@dataclass(frozen=True)
class PackedRows:
    """What a model forwards.

    Shapes: ``input_ids`` and ``position_ids`` (B, T); ``attention_mask`` (B, 1, T, T) bool, True = may be seen, or
    (B, T) where rows are not packed; ``score_row`` and ``score_column`` (N,), the last token of each response, example
    by example in the order of ``MicroBatch.examples``, within one in the order of its responses. ``lengths``: of each
    row, the tokens of its prompt and of each response, padding left out; None where rows are not packed.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    score_row: Tensor
    score_column: Tensor
    lengths: tuple[tuple[int, ...], ...] | None = None


def packing_refusal(config: Any, *, longest: int) -> str | None:
    """Why the config of a model forbids packing sequences of up to ``longest`` tokens, or None."""
    model_type = getattr(config, "model_type", "unknown")
    if model_type not in PACKABLE_TYPES:
        return f"architecture {model_type} is not known to allow it"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of kind {', '.join(sorted(kinds))}"
    window = getattr(config, "sliding_window", None)
    # A window that the config switches off stays in it as a number (Qwen2).
    if window and getattr(config, "use_sliding_window", True) and window < longest:
        return f"its attention window ({window}) is shorter than the longest sequence ({longest})"
    if others := rope_types(config) - LENGTH_FREE_ROPE:
        return f"its position scaling ({', '.join(sorted(others))}) depends on the length"
    return None


def rope_types(config: Any) -> set[str]:
    """The kinds of rotary position scaling of a config; some name them layer kind by layer kind."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if not isinstance(rope, dict):
        return {"unknown"}
    parts = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    # Configs from before 2024 say "type".
    return {str(part.get("rope_type") or part.get("type") or "default") for part in parts}


def lay_rows(example: TokenisedExample, *, number: int, packed: bool, budget: int) -> list[Row]:
    """The rows of one example, responses in order; a new row starts where ``budget`` tokens would be exceeded."""
    rows: list[Row] = []
    members: list[int] = []
    length = len(example.prompt)
    for place, response in enumerate(example.responses):
        if members and (not packed or length + len(response) > budget):
            rows.append(Row(number, tuple(members), length))
            members, length = [], len(example.prompt)
        members.append(place)
        length += len(response)
    return [*rows, Row(number, tuple(members), length)]


def plan_micro_batches(
    examples: Sequence[TokenisedExample], numbers: Iterable[int], *, packed: bool, budget: int
) -> list[MicroBatch]:
    """Group examples of similar length so that rows × longest row stays within ``budget`` tokens where possible.

    An example over the budget is a micro-batch of its own. The longest come first, so that memory that does not
    suffice shows at once.
    """
    laid = [(number, lay_rows(examples[number], number=number, packed=packed, budget=budget)) for number in numbers]
    laid.sort(key=lambda item: (-max(row.length for row in item[1]), item[0]))
    batches: list[MicroBatch] = []
    for number, rows in laid:
        if batches:
            wider = MicroBatch((*batches[-1].examples, number), (*batches[-1].rows, *rows))
            if wider.tokens <= budget:
                batches[-1] = wider
                continue
        batches.append(MicroBatch((number,), tuple(rows)))
    return batches


def collate(
    examples: Sequence[TokenisedExample], batch: MicroBatch, *, packed: bool, pad_id: int, device: torch.device
) -> PackedRows:
    """The tensors of a micro-batch, padded on the right to its longest row."""
    width = max(row.length for row in batch.rows)
    ids = torch.full((len(batch.rows), width), pad_id)
    positions = torch.zeros((len(batch.rows), width), dtype=torch.long)
    segments = torch.full((len(batch.rows), width), PAD_SEGMENT)
    score_rows, score_columns, lengths = [], [], []
    for number, row in enumerate(batch.rows):
        example = examples[row.example]
        start = len(example.prompt)
        ids[number, :start] = torch.tensor(example.prompt)
        positions[number, :start] = torch.arange(start)
        segments[number, :start] = PROMPT_SEGMENT
        for segment, place in enumerate(row.responses, start=1):
            end = start + len(example.responses[place])
            ids[number, start:end] = torch.tensor(example.responses[place])
            positions[number, start:end] = torch.arange(len(example.prompt), len(example.prompt) + end - start)
            segments[number, start:end] = segment
            score_rows.append(number)
            score_columns.append(end - 1)
            start = end
        lengths.append((len(example.prompt), *(len(example.responses[place]) for place in row.responses)))
    mask = packed_mask(segments) if packed else (segments != PAD_SEGMENT).long()
    return PackedRows(
        input_ids=ids.to(device, non_blocking=True),
        position_ids=positions.to(device, non_blocking=True),
        attention_mask=mask.to(device, non_blocking=True),
        score_row=torch.tensor(score_rows, device=device),
        score_column=torch.tensor(score_columns, device=device),
        lengths=tuple(lengths) if packed else None,
    )


def packed_mask(segments: Tensor) -> Tensor:
    """Which keys each query sees: (B, T) segments → (B, 1, T, T) bool.

    A key is seen if it is not later, and of the prompt or of the query's own segment. Padding sees itself alone: a row
    of the softmax without any key would be NaN.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    earlier = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    own_prompt = (key == PROMPT_SEGMENT) & (query != PAD_SEGMENT)
    same = (key == query) & (query != PAD_SEGMENT)
    itself = torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)
    return (((own_prompt | same) & earlier) | itself)[:, None]
