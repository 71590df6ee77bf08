"""How a rollout's responses are forwarded: in micro-batches, shared among the processes, and back in their order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.core.distributed import World
from training.core.halving import MicroBatchBudget
from training.core.packing import MicroBatch, PackedRows, TokenisedExample, collate, plan_micro_batches
from training.core.sharding import even_out
from training.core.token_places import TokenPlaces, token_places

# What a model makes of a micro-batch: figures (M,) of its flat response tokens, one tensor each.
Forward = Callable[[PackedRows, TokenPlaces], Sequence[Tensor]]


@dataclass(frozen=True)
class Part:
    """Rows forwarded at once, and whether they count: sharded processes with fewer rows forward some in vain."""

    batch: MicroBatch
    counts: bool


@dataclass(frozen=True)
class Rows:
    """Prompts with their responses on the way through models.

    ``packed``: the responses to a prompt behind it in one row. ``sharded``: each forward is a meeting of all processes.
    """

    packed: bool
    pad_id: int
    world: World
    device: torch.device
    budget: MicroBatchBudget
    sharded: bool = False

    def parts(self, examples: Sequence[TokenisedExample], numbers: Sequence[int], *, tokens: int) -> list[Part]:
        """This process's share of some examples, the longest first, ``tokens`` at once where rows allow it."""
        ordered = sorted(numbers, key=lambda number: (-examples[number].longest, number))
        batches = plan_micro_batches(examples, self.world.share(ordered), packed=self.packed, budget=tokens)
        if self.sharded:
            (spare,) = plan_micro_batches(examples, ordered[-1:], packed=self.packed, budget=tokens)
            even = even_out(batches, spare, world=self.world, device=self.device)
            return [Part(batch, counts) for batch, counts in even]
        return [Part(piece, True) for batch in batches for piece in _within(batch, tokens)]

    def forward(
        self, examples: Sequence[TokenisedExample], part: Part, *, skip: Mapping[tuple[int, int], int] | None = None
    ) -> tuple[PackedRows, TokenPlaces]:
        """A part's tensors, and where its response tokens are predicted, without those to ``skip``."""
        rows = collate(examples, part.batch, packed=self.packed, pad_id=self.pad_id, device=self.device)
        return rows, token_places(examples, part.batch, device=self.device, skip=skip)

    @torch.no_grad()
    def figures(self, examples: Sequence[TokenisedExample], of: Forward) -> list[Tensor]:
        """Figures of all response tokens, in every process: each flat (M,) on CPU in float32, response by response.

        Raises:
            TrainingError: out of memory however little goes at once.
        """
        found = self.budget.run(lambda tokens: self._share_of_figures(examples, of, tokens), drop=lambda: None)
        together = {place: figures for share in self.world.gather(found) for place, figures in share.items()}
        ordered = [together[place] for place in sorted(together)]
        return [torch.cat(column) for column in zip(*ordered, strict=True)]

    def _share_of_figures(
        self, examples: Sequence[TokenisedExample], of: Forward, tokens: int
    ) -> dict[tuple[int, int], list[Tensor]]:
        """By (example, response): its figures."""
        found: dict[tuple[int, int], list[Tensor]] = {}
        for part in self.parts(examples, range(len(examples)), tokens=tokens):
            rows, places = self.forward(examples, part)
            columns = [torch.split(figure.float().cpu(), list(places.counts)) for figure in of(rows, places)]
            if part.counts:
                # Copies: a view would keep, and send, all of its micro-batch.
                pieces = ([each.clone() for each in pieces] for pieces in zip(*columns, strict=True))
                found.update(zip(responses_of(part.batch), pieces, strict=True))
        return found


def responses_of(batch: MicroBatch) -> list[tuple[int, int]]:
    """(example, response) of each response of a micro-batch, in the order of its flat tokens."""
    return [(row.example, place) for row in batch.rows for place in row.responses]


def _within(batch: MicroBatch, tokens: int) -> list[MicroBatch]:
    """Rows of one example that do not fit together go one by one: what is learned from one does not need the others."""
    if batch.tokens <= tokens or len(batch.rows) == 1:
        return [batch]
    return [MicroBatch(batch.examples, (row,)) for row in batch.rows]
