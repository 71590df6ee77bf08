"""Scores of whole splits, and how their responses are laid out in rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from training.core.dataset import Dataset
from training.core.distributed import World
from training.core.errors import TrainingError
from training.core.halving import MicroBatchBudget
from training.core.modeling import RewardModel
from training.core.packing import MicroBatch, TokenisedExample, collate, lay_rows, plan_micro_batches
from training.core.sharding import even_out


@dataclass(frozen=True)
class Layout:
    """How ids become rows: responses packed behind their prompt, or one a row."""

    packed: bool
    pad_id: int


@torch.no_grad()
def score_dataset(
    model: RewardModel,
    dataset: Dataset,
    layout: Layout,
    *,
    budget: MicroBatchBudget,
    numbers: Sequence[int] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Scores of all responses, example by example, in every process; None if ``interrupted`` said so in any.

    Args:
        budget: tokens forwarded at once, halved where memory does not suffice.
        numbers: the examples to score; all, if None.

    Raises:
        TrainingError: a score is not finite, or out of memory however little goes at once.
    """
    wanted = list(range(len(dataset)) if numbers is None else numbers)
    found = budget.run(
        lambda tokens: _score_share(model, dataset, layout, wanted, budget, tokens, interrupted), drop=lambda: None
    )
    together = {number: scores for part in budget.world.gather(found) for number, scores in part.items()}
    if not all(math.isfinite(score) for scores in together.values() for score in scores):
        raise TrainingError("the model gives scores that are not finite")
    if len(together) < len(wanted):
        return None
    return [together[number] for number in wanted]


def _score_share(
    model: RewardModel,
    dataset: Dataset,
    layout: Layout,
    wanted: Sequence[int],
    budget: MicroBatchBudget,
    tokens: int,
    interrupted: Callable[[], bool],
) -> dict[int, list[float]]:
    """This process's share of the scores, as far as it got."""
    found: dict[int, list[float]] = {}
    plan = plan_scoring(model, dataset, layout, wanted, budget=tokens, world=budget.world, sharded=budget.sharded)
    for batch, counts in plan:
        if budget.world.any(interrupted(), device=model.device) if budget.sharded else interrupted():
            break
        # Rows of one example that do not fit together go one by one.
        apart = batch.tokens > tokens and not budget.sharded
        parts = [MicroBatch(batch.examples, (row,)) for row in batch.rows] if apart else [batch]
        scores = iter([score for part in parts for score in _forward(model, dataset, layout, part)])
        for number in batch.examples if counts else ():
            found[number] = [next(scores) for _ in dataset.tokenised[number].responses]
    return found


def _forward(model: RewardModel, dataset: Dataset, layout: Layout, batch: MicroBatch) -> list[float]:
    rows = collate(dataset.tokenised, batch, packed=layout.packed, pad_id=layout.pad_id, device=model.device)
    scores: list[float] = model.score(rows).tolist()
    return scores


def plan_scoring(
    model: RewardModel,
    dataset: Dataset,
    layout: Layout,
    numbers: Sequence[int],
    *,
    budget: int,
    world: World,
    sharded: bool,
) -> list[tuple[MicroBatch, bool]]:
    """This process's micro-batches, each with whether it counts: sharded processes all make the same number."""
    by_length = sorted(numbers, key=lambda number: (-int(dataset.longest[number]), number))
    mine = world.share(by_length)
    batches = plan_micro_batches(dataset.tokenised, mine, packed=layout.packed, budget=budget)
    if not sharded or not by_length:
        return [(batch, True) for batch in batches]
    (spare,) = plan_micro_batches(dataset.tokenised, by_length[-1:], packed=layout.packed, budget=budget)
    return even_out(batches, spare, world=world, device=model.device)


def packing_error(model: RewardModel, longest: TokenisedExample, *, pad_id: int) -> float:
    """How far packed and separate scores of an example (the longest) are apart, relative to max(1, |score|).

    In float32, on its longest responses, four at most; the packed row is never split here.
    """
    some = TokenisedExample(longest.prompt, tuple(sorted(longest.responses, key=len)[-4:]))
    exact = replace(model, autocast_dtype=torch.float32)
    scores = []
    for packed in (True, False):
        rows = lay_rows(some, number=0, packed=packed, budget=some.tokens)
        batch = collate([some], MicroBatch((0,), tuple(rows)), packed=packed, pad_id=pad_id, device=model.device)
        with torch.no_grad():
            scores.append(exact.score(batch))
    gaps = (scores[0] - scores[1]).abs() / scores[1].abs().clamp(min=1)
    # A NaN compares as no gap at all.
    return float(gaps.max()) if bool(gaps.isfinite().all()) else float("inf")
