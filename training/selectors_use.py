"""Reads: what a run took, in device hours, and how busy its machines were; who trains it together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import (
    BooleanField,
    DurationField,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce, Greatest, Now

from training.models import Run, RunAttempt, RunMember, RunUse

NOTHING = timedelta(0)
SILENT_SPANS = 4  # so much apart, two spans are not joined by a line

# What all attempts took together, the one that goes on until now: the clock is the database's.
_WORKED = (
    RunAttempt.objects.filter(run=OuterRef("pk"))
    .order_by()
    .values("run")
    .annotate(
        worked=Sum(
            ExpressionWrapper(
                Greatest(Coalesce(F("ended_at"), Now()) - F("started_at"), NOTHING), output_field=DurationField()
            )
        )
    )
    .values("worked")
)


def with_time_worked(runs: QuerySet[Run]) -> QuerySet[Run]:
    """The runs with `worked`, which `device_hours` reads: a list then asks the database once."""
    return runs.annotate(worked=Coalesce(Subquery(_WORKED, output_field=DurationField()), NOTHING))


def device_hours(run: Run) -> float:
    """The time of all attempts, times the processes of a machine, times the machines."""
    known = run if "worked" in vars(run) else with_time_worked(Run.objects.only("pk")).get(pk=run.pk)
    worked: timedelta = vars(known)["worked"]
    return worked.total_seconds() / 3600 * run.processes * run.nodes


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount of money."""

    amount: Decimal
    currency: str


def cost_of(hours: float) -> Cost | None:
    """What device hours cost; None where the operator has set no price (PLACKETT_DEVICE_HOUR_PRICE)."""
    if settings.DEVICE_HOUR_PRICE is None:
        return None
    price, currency = settings.DEVICE_HOUR_PRICE
    return Cost((price * Decimal(hours)).quantize(Decimal("0.01")), currency)


def members_of(run: Run) -> QuerySet[RunMember]:
    """The machines of the run's last attempt by rank, each with `silent`: its lease has ended without a word."""
    members = RunMember.objects.filter(run=run, attempt=run.attempt).order_by("rank")
    silent = Q(ended_at=None, rank__gte=1, lease_expires_at__lt=Now())
    return members.annotate(silent=ExpressionWrapper(silent, output_field=BooleanField()))


@dataclass(frozen=True, slots=True)
class UseLine:
    """One figure of one machine over time.

    Attributes:
        figure: `gpu_busy` (a share), `gpu_memory` or `memory` (GiB).
        name: the GPU, and the worker where there are several.
        whole: what there is of it, in the same unit.
        points: [minutes since the run began, value]; value None: nothing is known for a while.
    """

    figure: str
    name: str
    whole: float
    points: list[list[float | None]]


def use_of(run: Run) -> list[UseLine]:
    """How busy the machines were that worked on the run: at most 720 points a line."""
    by_worker: dict[str, list[RunUse]] = {}
    for span in RunUse.objects.filter(run=run).order_by("worker", "number"):
        by_worker.setdefault(span.worker, []).append(span)
    lines = []
    for worker, spans in by_worker.items():
        last, after = spans[-1], f" · {worker}" if len(by_worker) > 1 else ""
        for place, gpu in enumerate(last.gpus):
            name = f"{place}: {gpu['name']}{after}"
            found = [span.gpus[place] if place < len(span.gpus) else {} for span in spans]
            lines += [
                UseLine("gpu_busy", name, 1.0, _points(spans, [one.get("busy") for one in found])),
                UseLine(
                    "gpu_memory",
                    name,
                    gpu["memory_bytes"] / 2**30,
                    _points(spans, [_gib(one.get("memory_used_bytes")) for one in found]),
                ),
            ]
        used = [_gib(span.memory_used_bytes) for span in spans]
        lines.append(UseLine("memory", worker, last.memory_bytes / 2**30, _points(spans, used)))
    return [line for line in lines if any(value is not None for _, value in line.points)]


def _gib(value: int | None) -> float | None:
    return None if value is None else value / 2**30


def _points(spans: Sequence[RunUse], values: Sequence[float | None]) -> list[list[float | None]]:
    """At the middle of each span; where spans are missing in between, one without a value."""
    points: list[list[float | None]] = []
    before: RunUse | None = None
    for span, value in zip(spans, values, strict=True):
        if before is not None and span.number - before.number > SILENT_SPANS:
            points.append([_minutes(before, 1.0), None])
        points.append([_minutes(span, 0.5), None if value is None else round(value, 4)])
        before = span
    return points


def _minutes(span: RunUse, part: float) -> float:
    return round((span.number + part) * span.seconds / 60, 3)
