"""Reads: what a policy said to a few prompts while it was trained, step by step, the newest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Min

from annotate.models import Snapshot
from training.models import Run, RunSample


@dataclass(frozen=True, slots=True)
class SampledStep:
    """The rows of one step, by place; what was said before training stands in each, where it is known."""

    step: int
    rows: list[RunSample]


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Some steps, the newest first, and whether there are older ones."""

    steps: list[SampledStep]
    older: bool


def may_show_samples(run: Run) -> bool:
    """Whether the texts that were made from the run's data may be shown; not after a withdrawal."""
    return run.snapshot is None or run.snapshot.state == Snapshot.State.FROZEN


def samples_of(run: Run, *, steps: int, before_step: int | None = None) -> SampleTable:
    """The samples of the newest steps.

    Args:
        steps: how many steps at most.
        before_step: only those before this one.
    """
    if not may_show_samples(run):
        return SampleTable([], False)
    mine = RunSample.objects.filter(run=run)
    asked = mine if before_step is None else mine.filter(step__lt=before_step)
    newest = list(asked.order_by("-step").values_list("step", flat=True).distinct()[: steps + 1])
    rows: dict[int, list[RunSample]] = {step: [] for step in newest[:steps]}
    for row in mine.filter(step__in=list(rows)).order_by("place"):
        rows[row.step].append(row)
    found = [SampledStep(step, some) for step, some in rows.items()]
    _tell_before(run, [row for one in found for row in one.rows])
    return SampleTable(found, len(newest) > steps)


def _tell_before(run: Run, rows: Sequence[RunSample]) -> None:
    """Rows that do not say what was answered before training take it from those of the first step."""
    lacking = [row for row in rows if row.before is None]
    if not lacking:
        return
    first = RunSample.objects.filter(run=run).aggregate(step=Min("step"))["step"]
    said = {row.place: row for row in RunSample.objects.filter(run=run, step=first)}
    for row in lacking:
        if row.step != first and row.place in said:
            row.before, row.before_score = said[row.place].response, said[row.place].score
