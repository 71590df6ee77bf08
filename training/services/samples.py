"""Mirroring a run's samples.jsonl into rows: what a policy said to a few prompts, as far as pages show it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Min

from annotate.models import Snapshot
from training.models import RunSample
from training.services.claims import Claim, update_run

BATCH = 200
MOST_ROWS = 2_000  # that are kept of a run, besides those from before training


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of samples.jsonl, its texts cut; see models.RunSample."""

    step: int
    place: int
    prompt: list[dict[str, str]]
    before: str | None = None
    before_score: float | None = None
    response: str = ""
    thinking: str | None = None
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    ended: bool | None = None
    shortened: bool = False


SAID = [name for name in Sample.__dataclass_fields__ if name not in {"step", "place"}]


@transaction.atomic
def record_samples(claim: Claim, *, rows: Sequence[Sample], from_step: int) -> None:
    """Writes what was said; repeating it is harmless. Of many steps the first and the newest are kept.

    Locks the run's snapshot, then the run. Writes nothing when the snapshot was withdrawn: its texts are gone for good.

    Args:
        rows: in the order of their steps.
        from_step: where this attempt went on. Rows up to it are an earlier attempt's and only fill gaps.

    Raises:
        StaleAttempt: the run is no longer this attempt's; nothing was written.
    """
    if not rows:
        return
    snapshot = Snapshot.objects.select_for_update(no_key=True).filter(runs=claim.run_id).first()
    update_run(claim, attempt=claim.attempt)  # changes nothing, and is refused to a stale attempt
    if snapshot is not None and snapshot.state != Snapshot.State.FROZEN:
        return
    first, kept = rows[0].step, rows[-MOST_ROWS:]
    kept = [*(row for row in rows if row.step == first and row.step < kept[0].step), *kept]
    earlier = [_row(claim, one) for one in kept if one.step <= from_step]
    RunSample.objects.bulk_create(earlier, batch_size=BATCH, ignore_conflicts=True)
    RunSample.objects.bulk_create(
        [_row(claim, one) for one in kept if one.step > from_step],
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=["run", "step", "place"],
        update_fields=["attempt", *SAID],
    )
    _forget_older(claim)


def _forget_older(claim: Claim) -> None:
    mine = RunSample.objects.filter(run=claim.run_id)
    oldest_kept = mine.order_by("-step", "-place").values_list("step", flat=True)[MOST_ROWS - 1 : MOST_ROWS].first()
    if oldest_kept is not None:
        first = mine.aggregate(first=Min("step"))["first"]
        mine.filter(step__lt=oldest_kept, step__gt=first).delete()


def _row(claim: Claim, one: Sample) -> RunSample:
    told: dict[str, Any] = asdict(one)
    return RunSample(run_id=claim.run_id, attempt=claim.attempt, **told)
