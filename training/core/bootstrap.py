"""Percentile intervals by drawing whole groups: all figures of a report see the same draws, so that they are paired.

Groups, not pairs, are drawn, because the pairs of a group share texts (DESIGN: intervals).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 2000
# How many group counts are held at once; bounds memory where there are many groups.
COUNTS_AT_ONCE = 8_000_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Statistic:
    """A figure that is a function of sums over groups.

    Attributes:
        sums: (G, C), each group's share of the C sums.
        combine: (…, C) totals → (…) the figure; NaN where it is not defined.
        beside: what else stands with its ``value``, ``low`` and ``high``; may hold further statistics.
    """

    sums: Floats
    combine: Callable[[Floats], Floats]
    beside: dict[str, Any] = field(default_factory=dict)


def mean(values: Floats, group: Ints, *, groups: int, beside: dict[str, Any] | None = None) -> Statistic:
    """The mean of values (M,), each of the group that ``group`` (M,) numbers from 0 to ``groups`` − 1."""
    sums = np.bincount(group, weights=values, minlength=groups)
    return Statistic(np.stack([sums, np.bincount(group, minlength=groups)], axis=1), _ratio, beside or {})


def correlation(first: Floats, second: Floats, group: Ints, *, groups: int) -> Statistic:
    """Pearson's coefficient of two columns (M,) that are centred already."""
    products = (first * second, first * first, second * second)
    sums = [np.bincount(group, weights=values, minlength=groups) for values in products]
    return Statistic(np.stack(sums, axis=1), _cosine)


def with_intervals(tree: Any, *, seed: int) -> Any:
    """The tree of dicts and lists with every statistic replaced by ``{"value", "low", "high"}`` and what is beside it.

    The ends are those of the 95 % percentile interval over draws of as many groups as there are. They are None where
    fewer than two groups take part, the value too where it is not defined.
    """
    found = list(_statistics(tree))
    if not found:
        return _written(tree, {})
    drawn = _draw_sums(np.concatenate([one.sums for one in found], axis=1), seed=seed)
    ends: dict[int, dict[str, float | None]] = {}
    start = 0
    for one in found:
        stop = start + one.sums.shape[1]
        ends[id(one)] = _interval(one, drawn[:, start:stop])
        start = stop
    return _written(tree, ends)


def _draw_sums(sums: Floats, *, seed: int) -> Floats:
    """(draws, C): the sums over each draw of G groups from the G, with replacement."""
    groups = len(sums)
    if not groups:
        return np.zeros((1, sums.shape[1]))
    generator = np.random.default_rng(seed)
    at_once = max(1, min(BOOTSTRAP_DRAWS, COUNTS_AT_ONCE // groups))
    totals = []
    for start in range(0, BOOTSTRAP_DRAWS, at_once):
        draws = min(at_once, BOOTSTRAP_DRAWS - start)
        # Counting what is drawn is some ten times as fast as asking for multinomial counts.
        chosen = generator.integers(0, groups, size=(draws, groups)) + np.arange(draws)[:, None] * groups
        counts = np.bincount(chosen.ravel(), minlength=draws * groups).reshape(draws, groups)
        totals.append(counts.astype(np.float64) @ sums)
    return np.concatenate(totals)


def _interval(one: Statistic, drawn: Floats) -> dict[str, float | None]:
    with np.errstate(divide="ignore", invalid="ignore"):
        value, values = float(one.combine(one.sums.sum(axis=0))), one.combine(drawn)
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if np.count_nonzero(one.sums.any(axis=1)) < 2:
        return {"value": value, "low": None, "high": None}
    # A draw may hold no group that takes part.
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def _statistics(tree: Any) -> Iterator[Statistic]:
    if isinstance(tree, Statistic):
        yield tree
        tree = tree.beside
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _statistics(part)


def _written(tree: Any, ends: dict[int, dict[str, float | None]]) -> Any:
    if isinstance(tree, Statistic):
        return ends[id(tree)] | _written(tree.beside, ends)
    if isinstance(tree, dict):
        return {name: _written(part, ends) for name, part in tree.items()}
    return [_written(part, ends) for part in tree] if isinstance(tree, list) else tree


def _ratio(totals: Floats) -> Floats:
    found: Floats = totals[..., 0] / totals[..., 1]
    return found


def _cosine(totals: Floats) -> Floats:
    found: Floats = totals[..., 0] / np.sqrt(totals[..., 1] * totals[..., 2])
    return found
