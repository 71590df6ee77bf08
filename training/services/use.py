"""How busy a machine was while it worked on a run: what its worker says every ten seconds, in at most MOST_SPANS spans.

A reading falls in the span of its time. When a run has gone on for longer than MOST_SPANS of its spans, each two
neighbours become one of twice the length: a day is told as well as a minute, and a month takes no more room.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from django.db import connection, transaction

from training.models import RunUse
from training.services.workers import NAME_CHARACTERS, Machine

FIRST_SECONDS = 10
MOST_SPANS = 720

AT_WORK = """
    SELECT run.id, extract(epoch FROM now() - run.started_at)::float8
    FROM training_run run
    WHERE run.started_at IS NOT NULL AND run.id IN (
        SELECT run_id FROM training_runattempt WHERE worker = %(worker)s AND outcome = ''
        UNION SELECT run_id FROM training_runmember WHERE worker = %(worker)s AND ended_at IS NULL
    )
"""


def record_use(worker: str, *, machine: Machine) -> None:
    """Adds a reading of the worker's machine to each run that it works on. Only the worker itself calls this."""
    name = worker[:NAME_CHARACTERS]
    with connection.cursor() as cursor:
        cursor.execute(AT_WORK, {"worker": name})
        held = cursor.fetchall()
    for run_id, elapsed in held:
        _record(run_id, name, machine, elapsed=max(elapsed, 0.0))


@transaction.atomic
def _record(run_id: int, worker: str, machine: Machine, *, elapsed: float) -> None:
    reading = RunUse(
        run_id=run_id,
        worker=worker,
        seconds=FIRST_SECONDS,
        memory_bytes=machine.memory_bytes,
        memory_used_bytes=machine.memory_used_bytes,
        gpus=[asdict(gpu) for gpu in machine.gpus],
    )
    spans = RunUse.objects.filter(run=run_id, worker=worker).order_by("number")
    last = spans.last()
    if last is not None:
        reading.seconds = last.seconds
    while elapsed // reading.seconds >= MOST_SPANS:
        reading.seconds *= 2
    if last is not None and reading.seconds != last.seconds:
        coarse = list(_coarsened(list(spans), seconds=reading.seconds))
        spans.delete()
        RunUse.objects.bulk_create(coarse)
        last = spans.last()
    reading.number = int(elapsed // reading.seconds)
    if last is not None and last.number >= reading.number:
        merged = _mean([last, reading])
        merged.pk, merged.number = last.pk, last.number
        merged.save(force_update=True)
    else:
        reading.save(force_insert=True)


def _coarsened(spans: Sequence[RunUse], *, seconds: int) -> Iterator[RunUse]:
    """The spans put together to longer ones of so many seconds."""
    together: dict[int, list[RunUse]] = {}
    for span in spans:
        together.setdefault(span.number * span.seconds // seconds, []).append(span)
    for number, some in together.items():
        mean = _mean(some)
        mean.number, mean.seconds = number, seconds
        yield mean


def _mean(spans: Sequence[RunUse]) -> RunUse:
    """One span for all of them, each with the weight of its readings; the machine is that of the last."""
    last, readings = spans[-1], [span.readings for span in spans]
    return RunUse(
        run_id=last.run_id,
        worker=last.worker,
        number=last.number,
        seconds=last.seconds,
        readings=sum(readings),
        memory_bytes=last.memory_bytes,
        memory_used_bytes=round(_weighted([span.memory_used_bytes for span in spans], readings) or 0),
        gpus=[
            {**gpu, **_mean_gpu([{} if one is None else one for one in some], readings)}
            for gpu, some in zip(last.gpus, zip_longest(*(span.gpus for span in spans)), strict=False)
        ],
    )


def _mean_gpu(some: Sequence[Mapping[str, Any]], readings: Sequence[int]) -> dict[str, float | None]:
    used = _weighted([one.get("memory_used_bytes") for one in some], readings)
    return {
        "memory_used_bytes": None if used is None else round(used),
        "busy": _weighted([one.get("busy") for one in some], readings),
    }


def _weighted(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None
