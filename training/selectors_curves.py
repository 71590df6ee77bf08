"""Reads for the curves of a run: few points however many steps there are, and no spike lost."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.fields.json import KT

from training.models import MetricStretch, Run, RunAttempt, RunMetric

PLAIN_ROWS = 1_500  # so many rows are told one by one
MAX_STRETCHES = 300
STEPS = MetricStretch.STEPS

Point = list[float | None]
"""[step, value]; of several steps [last, mean, count, step of the lowest, lowest, step of the highest, highest]."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Points of a run after a step.

    Attributes:
        attempt: the last attempt that said where it goes on; 0 before the first.
        whole: they are from the first step on; what was there before holds no longer.
        step: the last step that they hold.
        more: there are further rows after it.
        points: by series, in the order of the steps.
    """

    attempt: int
    whole: bool
    step: int
    more: bool
    points: dict[str, list[Point]]


def curves_since(run: Run, *, series: list[str], since_step: int, seen_attempt: int | None) -> Curves:
    """What the curves gained after a step; all of them again when an attempt has begun that the caller has not seen.

    Args:
        seen_attempt: the attempt that the caller's last answer named; None for a caller who has nothing yet.
    """
    begun = RunAttempt.objects.filter(run=run, from_step__isnull=False).order_by("-number")
    attempt = begun.values_list("number", flat=True).first() or 0
    whole = seen_attempt != attempt or since_step == 0
    rows = RunMetric.objects.filter(run=run)
    if not whole:
        return _curves(attempt, rows.filter(step__gt=since_step), series, since_step=since_step, whole=False)
    last = rows.order_by("-step").values_list("step", flat=True).first() or 0
    if last <= PLAIN_ROWS:
        return _curves(attempt, rows, series, since_step=0, whole=True)
    # The first and the last steps are told one by one: what stands beside the curve is exact.
    end = (last - 1) // STEPS
    ends = rows.filter(Q(step__lte=STEPS) | Q(step__gt=end * STEPS))
    found = _curves(attempt, ends, series, since_step=0, whole=True)
    stretches = _stretches(run, series, end=end)
    for name, points in found.points.items():
        place = next((at for at, point in enumerate(points) if point[0] is not None and point[0] > STEPS), len(points))
        points[place:place] = _merged(stretches[name])
    return found


def _curves(attempt: int, rows: QuerySet[RunMetric], series: list[str], *, since_step: int, whole: bool) -> Curves:
    """Every row as a point of the series that it has."""
    columns = {f"s{number}": KT(f"values__{name}") for number, name in enumerate(series)}
    found = list(rows.order_by("step").annotate(**columns).values_list("step", *columns)[: PLAIN_ROWS + 1])
    told = found[:PLAIN_ROWS]
    points: dict[str, list[Point]] = {name: [] for name in series}
    for step, *values in told:
        for name, value in zip(series, values, strict=True):
            if value is not None:
                points[name].append([step, float(value)])
    step = told[-1][0] if told else since_step
    return Curves(attempt, whole, step, len(found) > PLAIN_ROWS, points)


def _stretches(run: Run, series: list[str], *, end: int) -> dict[str, list[list[Any]]]:
    """The stretches of each series, their last step in front, but for the first."""
    found: dict[str, list[list[Any]]] = {name: [] for name in series}
    rows = MetricStretch.objects.filter(run=run, number__gte=1, number__lt=end).order_by("number")
    columns = [f"values__{name}" for name in series]
    for number, *values in rows.values_list("number", *columns):
        for name, figures in zip(series, values, strict=True):
            if figures is not None:
                found[name].append([(number + 1) * STEPS, *figures])
    return found


def _merged(stretches: list[list[Any]]) -> list[Point]:
    """Neighbours put together until there are no more than MAX_STRETCHES."""
    size = -(-len(stretches) // MAX_STRETCHES) or 1
    return [_one_of(stretches[at : at + size]) for at in range(0, len(stretches), size)]


def _one_of(some: list[list[Any]]) -> Point:
    count = sum(one[1] for one in some)
    mean = sum(one[1] * one[2] for one in some) / count
    low = min(some, key=lambda one: one[4])
    high = max(some, key=lambda one: one[6])
    return [some[-1][0], mean, count, low[3], low[4], high[5], high[6]]
