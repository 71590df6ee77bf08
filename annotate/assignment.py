"""Deciding what is shown to whom and in which order. Pure: no Django, no I/O; services/queue.py carries it out."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PRIORITIES = 4
#: All lanes of the queue, most urgent first. A re-offered slot goes before the untouched ones of its priority, so that
#: tasks that were begun are finished first.
LANES = tuple(range(2 * PRIORITIES))


def lane_of(*, priority: int, reoffered: bool) -> int:
    """The lane of the queue in which a free slot waits.

    Args:
        priority: 0 (urgent) to 3 (low), as RankingTask.Priority.
        reoffered: the slot was held before, or was added to a task later.
    """
    if not 0 <= priority < PRIORITIES:
        raise ValueError(f"priority must be 0 to {PRIORITIES - 1}, not {priority}")
    return 2 * priority + (0 if reoffered else 1)


def presented_order(items: Sequence[T], *, seed: str, row: int) -> list[T]:
    """The order in which one annotator sees the items: row `row` of a Williams design over a shuffle drawn from `seed`.

    Over the design's K rows (2K for odd K) every item stands equally often at every position, and every item follows
    every other equally often, so neither position nor neighbour favours a response. Rows beyond the design repeat it.

    Args:
        items: the task's responses, in any fixed order.
        seed: names the task; the same seed gives the same base shuffle on every machine.
        row: which of the task's places this is, from 0.

    Source: E. J. Williams, Experimental designs balanced for the estimation of residual effects of treatments, 1949.
    """
    base = sorted(range(len(items)), key=lambda index: hashlib.sha256(f"{seed}/{index}".encode()).digest())
    design = williams_design(len(items))
    return [items[base[position]] for position in design[row % len(design)]]


def williams_design(size: int) -> list[list[int]]:
    """Rows of 0 … size−1, balanced for position and for first-order neighbours; size rows if even, 2·size if odd."""
    zigzag = [index // 2 if index % 2 == 0 else size - 1 - index // 2 for index in range(size)]
    rows = [[(value + shift) % size for value in zigzag] for shift in range(size)]
    return rows if size % 2 == 0 else rows + [row[::-1] for row in rows]
