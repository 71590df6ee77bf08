"""What SFT computes: the mean over response tokens of −ln p, its gradient, and the same over held-out documents.

The mean is over all tokens of a step, whichever micro-batch or process they are forwarded in: a long response counts
for more than a short one, as it does in the likelihood of the data, and how documents share rows changes nothing but
rounding. A mean of micro-batches' means would weigh tokens by the company they are in.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.core.bootstrap import Floats
from training.core.distributed import World
from training.core.documents import DocumentRows, Documents, lay_documents
from training.core.errors import TrainingError
from training.core.halving import MicroBatchBudget
from training.core.language import LanguageModel
from training.core.log_probs import TokenFigures, backward_through, token_figures
from training.core.packing import MicroBatch, PackedRows, collate, plan_micro_batches
from training.core.scoring import Layout
from training.core.sharding import even_out
from training.core.token_places import TokenPlaces, token_places

# Documents that the check at the start packs into one row.
PROBE_DOCUMENTS = 4


@dataclass(frozen=True)
class DocumentPart:
    """Rows of documents forwarded at once; of those that do not ``count``, sharded processes forward some in vain."""

    rows: DocumentRows
    batch: MicroBatch
    counts: bool

    @property
    def documents(self) -> list[int]:
        """The numbers of the documents, in the order of their flat tokens."""
        return [self.rows.members[row.example][place] for row in self.batch.rows for place in row.responses]

    def tensors(self, layout: Layout, device: torch.device) -> tuple[PackedRows, TokenPlaces]:
        """What a model forwards, and where the learned tokens are predicted."""
        examples = self.rows.examples
        rows = collate(examples, self.batch, packed=layout.packed, pad_id=layout.pad_id, device=device)
        return rows, token_places(examples, self.batch, device=device, skip=self.rows.skip)


def plan_documents(
    documents: Documents,
    numbers: Sequence[int],
    layout: Layout,
    *,
    tokens: int,
    world: World,
    device: torch.device,
    sharded: bool = False,
) -> list[DocumentPart]:
    """This process's share of some documents, ``tokens`` forwarded at once where a document allows it.

    Sharded processes all make the same number of parts, and all call it.
    """
    by_length = sorted(numbers, key=lambda number: (-documents.lengths[number], number))

    def parts(some: Sequence[int], *, counts: bool) -> list[DocumentPart]:
        rows = lay_documents(documents, some, packed=layout.packed, capacity=tokens)
        batches = plan_micro_batches(rows.examples, range(len(rows.examples)), packed=layout.packed, budget=tokens)
        return [DocumentPart(rows, batch, counts) for batch in batches]

    mine = parts(world.share(by_length), counts=True)
    if not sharded or not by_length:
        return mine
    (spare,) = parts(by_length[-1:], counts=False)
    return [part for part, _ in even_out(mine, spare, world=world, device=device)]


def imitate(
    model: LanguageModel,
    documents: Documents,
    numbers: Sequence[int],
    layout: Layout,
    *,
    tokens: int,
    world: World,
    sharded: bool = False,
    weight: float = 1.0,
) -> Tensor:
    """Forward and backward of this process's share of a step's documents; gradients are added to what is there.

    Args:
        numbers: the documents of the whole step, the same in every process.
        tokens: forwarded at once.
        weight: of the loss in the gradient.

    Returns:
        (2,) float64: this process's part of the step's loss (without ``weight``), and the tokens that it forwarded.
    """
    learned = sum(map(documents.targets, numbers))
    totals = torch.zeros(2, dtype=torch.float64, device=model.device)
    parts = plan_documents(documents, numbers, layout, tokens=tokens, world=world, device=model.device, sharded=sharded)
    for part in parts:
        scale = weight / learned if part.counts else 0.0

        def loss_of(figures: TokenFigures, place: slice, scale: float = scale) -> Tensor:
            return -scale * figures.log_probs.sum()

        _, figures = backward_through(model, *part.tensors(layout, model.device), loss_of, entropy=False)
        if part.counts:
            totals[0] -= figures.log_probs.double().sum() / learned
            totals[1] += part.batch.tokens
    return totals


@torch.no_grad()
def document_losses(
    model: LanguageModel,
    documents: Documents,
    layout: Layout,
    *,
    budget: MicroBatchBudget,
    interrupted: Callable[[], bool] = lambda: False,
) -> Floats | None:
    """(D,): the sum of −ln p over the learned tokens of each document, in every process; None if ``interrupted`` said
    so in any.

    Raises:
        TrainingError: a loss is not finite, or out of memory however little goes at once.
    """

    def share(tokens: int) -> dict[int, float]:
        return dict(_losses_of_share(model, documents, layout, budget, tokens, interrupted))

    found = budget.run(share, drop=lambda: None)
    together = {number: loss for part in budget.world.gather(found) for number, loss in part.items()}
    if not all(map(math.isfinite, together.values())):
        raise TrainingError("the model gives log-probabilities that are not finite")
    if len(together) < len(documents):
        return None
    return np.array([together[number] for number in range(len(documents))])


def _losses_of_share(
    model: LanguageModel,
    documents: Documents,
    layout: Layout,
    budget: MicroBatchBudget,
    tokens: int,
    interrupted: Callable[[], bool],
) -> Iterator[tuple[int, float]]:
    parts = plan_documents(
        documents, range(len(documents)), layout,
        tokens=tokens, world=budget.world, device=model.device, sharded=budget.sharded,
    )  # fmt: skip
    for part in parts:
        # What one process of a sharded model leaves out, the others would wait for.
        if budget.world.any(interrupted(), device=model.device) if budget.sharded else interrupted():
            return
        rows, places = part.tensors(layout, model.device)
        log_probs = torch.split(
            token_figures(model, rows, places, entropy=False).log_probs.double(), list(places.counts)
        )
        if part.counts:
            yield from zip(part.documents, (-float(each.sum()) for each in log_probs), strict=True)


def mean_loss(documents: Documents, losses: Floats) -> float | None:
    """The mean over all learned tokens, in nats; None without any."""
    return float(losses.sum() / documents.all_targets) if len(documents) else None


def document_packing_error(model: LanguageModel, documents: Documents, *, pad_id: int) -> float:
    """How far the log-probabilities of the longest documents are apart, packed into one row and each alone, relative
    to max(1, |ln p|); in float32."""
    longest = sorted(range(len(documents)), key=lambda number: (-documents.lengths[number], number))[:PROBE_DOCUMENTS]
    exact = replace(model, autocast_dtype=torch.float32)
    tokens = sum(documents.lengths[number] for number in longest)
    packed, alone = (
        _log_probs_by_document(exact, documents, longest, Layout(kind, pad_id), tokens) for kind in (True, False)
    )
    gaps = [(packed[number] - alone[number]).abs() / alone[number].abs().clamp(min=1) for number in longest]
    worst = torch.cat(gaps).max() if gaps else torch.zeros(())
    # A NaN compares as no gap at all.
    return float(worst) if bool(worst.isfinite()) else float("inf")


def _log_probs_by_document(
    model: LanguageModel, documents: Documents, numbers: Sequence[int], layout: Layout, tokens: int
) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for part in plan_documents(documents, numbers, layout, tokens=tokens, world=World(), device=model.device):
        rows, places = part.tensors(layout, model.device)
        pieces = torch.split(token_figures(model, rows, places, entropy=False).log_probs, list(places.counts))
        found.update(zip(part.documents, pieces, strict=True))
    return found
