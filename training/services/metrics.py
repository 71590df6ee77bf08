"""Mirroring a run's metrics.jsonl into rows, so that pages and API need no access to the worker's disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models.functions import Now

from training.models import MetricStretch, RunAttempt, RunMetric, RunSample
from training.services.claims import Claim, update_run

BATCH = 500


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One line of metrics.jsonl: what was measured at a step; null for what was not finite."""

    step: int
    values: dict[str, float | None]


@transaction.atomic
def begin_attempt(claim: Claim, *, from_step: int, total_steps: int | None) -> None:
    """Notes at which step the trainer goes on, and drops what was measured and said beyond it: that is done again.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    update_run(claim, step=from_step, total_steps=total_steps)
    RunAttempt.objects.filter(run_id=claim.run_id, number=claim.attempt).update(from_step=from_step)
    RunMetric.objects.filter(run_id=claim.run_id, step__gt=from_step).delete()
    RunSample.objects.filter(run_id=claim.run_id, step__gt=from_step).delete()
    MetricStretch.objects.filter(run_id=claim.run_id, number__gte=from_step // MetricStretch.STEPS).delete()


@transaction.atomic
def record_metrics(claim: Claim, *, rows: Sequence[StepMetrics], from_step: int) -> None:
    """Writes measurements and moves the run's step; repeating it is harmless.

    Args:
        rows: in the order of their steps.
        from_step: where this attempt went on. Rows up to it are an earlier attempt's and only fill gaps.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    if not rows:
        return
    update_run(claim, step=rows[-1].step)
    earlier = [_row(claim, one) for one in rows if one.step <= from_step]
    RunMetric.objects.bulk_create(earlier, batch_size=BATCH, ignore_conflicts=True)
    RunMetric.objects.bulk_create(
        [_row(claim, one) for one in rows if one.step > from_step],
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=["run", "step"],
        update_fields=["attempt", "values", "recorded_at"],
    )
    _close_stretches(claim, rows)


CLOSE = """
    INSERT INTO training_metricstretch (run_id, number, "values")
    SELECT %(run)s, number,
           jsonb_object_agg(name, jsonb_build_array(count, mean, low_step, low, high_step, high))
    FROM (
        SELECT (step - 1) / %(steps)s AS number, name, count(*) AS count, avg(value) AS mean,
               (array_agg(step ORDER BY value, step))[1] AS low_step, min(value) AS low,
               (array_agg(step ORDER BY value DESC, step))[1] AS high_step, max(value) AS high
        FROM training_runmetric metric,
             LATERAL (SELECT key AS name, (one.value #>> '{}')::float8 AS value FROM jsonb_each(metric."values") AS one
                      WHERE jsonb_typeof(one.value) = 'number') AS measured
        WHERE run_id = %(run)s AND step > %(after)s AND step <= %(until)s
        GROUP BY 1, 2
    ) AS figures
    GROUP BY number
    ON CONFLICT (run_id, number) DO UPDATE SET "values" = EXCLUDED."values"
"""


def _close_stretches(claim: Claim, rows: Sequence[StepMetrics]) -> None:
    """Sums up the stretches whose last step is among the rows; the claim's row is locked."""
    steps = MetricStretch.STEPS
    first, end = (rows[0].step - 1) // steps, rows[-1].step // steps
    if first < end:
        with connection.cursor() as cursor:
            place = {"run": claim.run_id, "steps": steps, "after": first * steps, "until": end * steps}
            cursor.execute(CLOSE, place)


def _row(claim: Claim, one: StepMetrics) -> RunMetric:
    return RunMetric(run_id=claim.run_id, step=one.step, attempt=claim.attempt, values=one.values, recorded_at=Now())
