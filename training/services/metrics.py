"""Mirroring a run's metrics.jsonl into rows, so that pages and API need no access to the worker's disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models.functions import Now

from training.models import RunAttempt, RunMetric
from training.services.claims import Claim, update_run

BATCH = 500


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One line of metrics.jsonl: what was measured at a step; null for what was not finite."""

    step: int
    values: dict[str, float | None]


@transaction.atomic
def begin_attempt(claim: Claim, *, from_step: int, total_steps: int | None) -> None:
    """Notes at which step the trainer goes on, and drops what was measured beyond it: those steps are done again.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    update_run(claim, step=from_step, total_steps=total_steps)
    RunAttempt.objects.filter(run_id=claim.run_id, number=claim.attempt).update(from_step=from_step)
    RunMetric.objects.filter(run_id=claim.run_id, step__gt=from_step).delete()


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


def _row(claim: Claim, one: StepMetrics) -> RunMetric:
    return RunMetric(run_id=claim.run_id, step=one.step, attempt=claim.attempt, values=one.values, recorded_at=Now())
