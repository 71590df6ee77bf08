"""The points that a run's curves are drawn from: few however long the run is, exact at its ends, and no spike lost."""

import importlib
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, claim, expire, queue_run
from training.models import MetricStretch, Run, RunMetric
from training.selectors import latest_metrics, metrics_since
from training.selectors_curves import MAX_STRETCHES, PLAIN_ROWS, Curves, curves_since
from training.services.claims import Claim, release_expired
from training.services.metrics import StepMetrics, begin_attempt, record_metrics

pytestmark = pytest.mark.django_db
LONG = 2_010
SPIKE = 777


def values(step: int) -> dict[str, float | None]:
    """A saw with one spike; every hundredth step is also held against held-out data, some values are not finite."""
    told: dict[str, float | None] = {"train/loss": 50.0 if step == SPIKE else step % 10 / 10}
    if step % 100 == 0:
        told["validation/loss"] = None if step == 500 else step / 1000
    return told


def record(held: Claim, steps: range, *, from_step: int = 0) -> None:
    for start in range(0, len(steps), 500):
        rows = [StepMetrics(step, values(step)) for step in steps[start : start + 500]]
        record_metrics(held, rows=rows, from_step=from_step)


@pytest.fixture
def held(snapshot: Snapshot) -> Claim:
    queue_run(snapshot, kind="sft")
    held = claim()
    begin_attempt(held, from_step=0, total_steps=LONG)
    return held


def ask(held: Claim, since_step: int = 0, attempt: int | None = None) -> Curves:
    series = ["train/loss", "validation/loss"]
    return curves_since(Run.objects.get(pk=held.run_id), series=series, since_step=since_step, seen_attempt=attempt)


def told_steps(points: list[Any]) -> float:
    return sum(point[2] if len(point) > 2 else 1 for point in points)


def test_a_short_run_is_told_step_by_step(held: Claim) -> None:
    assert ask(held) == Curves(1, True, 0, False, {"train/loss": [], "validation/loss": []})
    record(held, range(1, 131))
    found = ask(held)
    assert (found.attempt, found.whole, found.step, found.more) == (1, True, 130, False)
    assert found.points["train/loss"] == [[step, step % 10 / 10] for step in range(1, 131)]
    assert found.points["validation/loss"] == [[100, 0.1]]
    record(held, range(131, 134))
    more = ask(held, since_step=130, attempt=1)
    assert (more.whole, more.step) == (False, 133)
    assert more.points == {"train/loss": [[131, 0.1], [132, 0.2], [133, 0.3]], "validation/loss": []}
    assert ask(held, since_step=133, attempt=1).points == {"train/loss": [], "validation/loss": []}


def test_a_long_run_has_few_points_and_loses_no_spike(held: Claim) -> None:
    record(held, range(1, LONG + 1))
    found = ask(held)
    points = found.points["train/loss"]
    assert LONG > PLAIN_ROWS and len(points) <= MAX_STRETCHES + 2 * MetricStretch.STEPS
    assert [point[0] for point in points] == sorted(point[0] for point in points)
    assert told_steps(points) == LONG and found.step == LONG
    assert points[0] == [1, 0.1] and points[-1] == [LONG, 0.0]
    (spike,) = [point for point in points if point[-1] == 50.0]
    stretch = range(769, 833)  # 12 × 64 + 1 to 13 × 64
    mean = sum(value for step in stretch if (value := values(step)["train/loss"]) is not None) / 64
    assert spike == [832, pytest.approx(mean), 64, 770, 0.0, SPIKE, 50.0]
    # What is measured at few steps is told whole; what was not finite is no point.
    rare = found.points["validation/loss"]
    assert told_steps(rare) == LONG // 100 - 1
    assert {point[-1] for point in rare} == {step / 1000 for step in range(100, LONG, 100) if step != 500}


def test_neighbouring_stretches_are_put_together_where_there_are_many(
    held: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(held, range(1, LONG + 1))
    whole = ask(held).points["train/loss"]
    monkeypatch.setattr("training.selectors_curves.MAX_STRETCHES", 10)
    few = ask(held).points["train/loss"]
    assert len(few) < len(whole) and told_steps(few) == LONG
    assert max(point[-1] or 0 for point in few) == 50.0 and [50.0, SPIKE] in [point[:-3:-1] for point in few]
    mean = sum(point[1] * (point[2] if len(point) > 2 else 1) for point in few) / LONG
    assert mean == pytest.approx(sum(values(step)["train/loss"] or 0 for step in range(1, LONG + 1)) / LONG)


def test_a_resumed_run_tells_its_curves_anew(held: Claim) -> None:
    record(held, range(1, LONG + 1))
    run = Run.objects.get(pk=held.run_id)
    expire(run)
    release_expired()
    again = claim()
    # It was claimed, but has yet to say where it goes on: what was told still holds.
    assert ask(held, since_step=LONG, attempt=1).whole is False
    assert metrics_since(Run.objects.get(pk=run.pk), since_step=LONG, seen_attempt=1, limit=9).attempt == 1
    begin_attempt(again, from_step=SPIKE - 1, total_steps=LONG)
    assert MetricStretch.objects.filter(run=run).count() == (SPIKE - 1) // 64
    rows = [StepMetrics(step, {"train/loss": 7.0}) for step in range(SPIKE, LONG + 1)]
    record_metrics(again, rows=rows, from_step=SPIKE - 1)
    found = ask(held, since_step=LONG, attempt=1)
    assert (found.attempt, found.whole) == (2, True)
    points = found.points["train/loss"]
    assert told_steps(points) == LONG and max(point[-1] or 0 for point in points) == 7.0
    assert (
        metrics_since(Run.objects.get(pk=run.pk), since_step=LONG, seen_attempt=1, limit=9).discard_after == SPIKE - 1
    )


def stretches() -> dict[tuple[int, int], dict[str, Any]]:
    """All of them; means are rounded, because sums of floats depend on the order."""
    rows = MetricStretch.objects.order_by("number").values_list("run", "number", "values")
    return {
        (run, number): {name: [round(one, 9) for one in figures] for name, figures in values.items()}
        for run, number, values in rows
    }


def test_stretches_are_the_same_when_made_at_once_from_the_rows(held: Claim) -> None:
    record(held, range(1, LONG + 1))
    before = stretches()
    assert list(before) == [(held.run_id, number) for number in range(LONG // 64)]
    MetricStretch.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module("training.migrations.0007_stretches_of_metrics").FILL)
    assert stretches() == before


def test_the_last_held_out_figures_are_found_however_far_back(held: Claim) -> None:
    record(held, range(1, 131))
    run = Run.objects.get(pk=held.run_id)
    assert latest_metrics(run)["validation/loss"] == 0.1
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")  # on few rows it costs the same
        rows = RunMetric.objects.filter(run=run).order_by("-step").values_list("values", flat=True)
        rare = rows.filter(values__has_any_keys=["validation/accuracy", "validation/loss", "validation/score"])
        assert "metric_held_out" in rare[:1].explain()


def test_the_page_gets_the_points_of_its_kind(held: Claim, people: RunCast) -> None:
    record(held, range(1, 4))
    client = Client()
    client.force_login(people.alice)
    address = f"/runs/{held.run_id}/curves/"
    found = client.get(address).json()
    assert (found["finished"], found["step"], found["whole"]) == (False, 3, True)
    drawn = {"train/loss", "validation/loss", "validation/perplexity", "train/grad_norm"}
    assert set(found["points"]) == drawn | {"time/step_seconds"}  # by which minutes are told
    assert client.get(f"{address}?since_step=2&attempt=1").json()["points"]["train/loss"] == [[3, 0.3]]
    for odd in ("since_step=-1", "since_step=x&attempt=1", "attempt=99999999999999"):
        assert client.get(f"{address}?{odd}").json()["whole"] is True
