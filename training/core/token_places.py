"""Where in packed rows each response token is predicted: flat indices, response by response, token by token."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.packing import MicroBatch, Row, TokenisedExample


@dataclass(frozen=True)
class TokenPlaces:
    """The response tokens of a micro-batch that are targets.

    Responses stand in the order of the micro-batch: example by example, response by response, token by token.

    Shapes: ``row``, ``column`` (M,): where the hidden state lies that the token is predicted from, its predecessor's
    (the prompt's last token for the first); ``target`` (M,): the token's id; ``counts``: targets of each response,
    which sum to M.
    """

    row: Tensor
    column: Tensor
    target: Tensor
    counts: tuple[int, ...]


def token_places(
    examples: Sequence[TokenisedExample],
    batch: MicroBatch,
    *,
    device: torch.device,
    skip: Mapping[tuple[int, int], int] | None = None,
) -> TokenPlaces:
    """The places of all response tokens of a micro-batch, as ``collate`` lays it out.

    Args:
        skip: leading tokens of a response that are no targets, by (example number, response place); 0 where absent.
            Behind an empty prompt it is at least 1: nothing predicts the first token of a document.

    Raises:
        ValueError: the first token of a document is wanted, or more is skipped than the response has.
    """
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    for number, row in enumerate(batch.rows):
        for predecessors, tokens in _targets(examples, row, skip or {}):
            rows += [number] * len(tokens)
            columns += predecessors
            targets += tokens
            counts.append(len(tokens))
    return TokenPlaces(
        row=torch.tensor(rows, dtype=torch.long).to(device, non_blocking=True),
        column=torch.tensor(columns, dtype=torch.long).to(device, non_blocking=True),
        target=torch.tensor(targets, dtype=torch.long).to(device, non_blocking=True),
        counts=tuple(counts),
    )


def _targets(
    examples: Sequence[TokenisedExample], row: Row, skip: Mapping[tuple[int, int], int]
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """Of each response of a row: the columns of the predecessors of its targets, and the targets."""
    example = examples[row.example]
    start = len(example.prompt)
    for place in row.responses:
        tokens = example.responses[place]
        skipped = skip.get((row.example, place), 0)
        if skipped > len(tokens) or (not example.prompt and tokens and skipped < 1):
            raise ValueError(f"example {row.example}, response {place}: cannot skip {skipped} of {len(tokens)} tokens")
        # Every response goes on from the prompt's end, wherever in the row it stands.
        predecessors = [len(example.prompt) - 1, *range(start, start + len(tokens) - 1)]
        yield predecessors[skipped : len(tokens)], tokens[skipped:]
        start += len(tokens)
