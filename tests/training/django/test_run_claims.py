"""Claims and leases: one worker at a time, the clock is the database's, what is stale is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import claim, expire, make_snapshot, queue_run
from training.models import ModelVersion, Run, RunAttempt, RunMetric
from training.selectors import metrics_since
from training.services.claims import (
    MAX_TIMES_LOST,
    Claim,
    StaleAttempt,
    claim_run,
    end_cancelled,
    fail,
    give_back,
    mark_running,
    release_expired,
    renew_lease,
    succeed,
    update_run,
)
from training.services.metrics import StepMetrics, begin_attempt, record_metrics
from training.services.runs import cancel_run, resume_run

pytestmark = pytest.mark.django_db
State, Outcome = Run.State, RunAttempt.Outcome


def seen(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


def outcomes(run: Run) -> list[str]:
    return list(run.attempts.order_by("number").values_list("outcome", flat=True))


def test_the_run_that_has_waited_longest_is_claimed_first(snapshot: Snapshot) -> None:
    first, second = queue_run(snapshot), queue_run(snapshot)
    held = claim(worker="gpu@a")
    assert held == Claim(first.pk, 1)
    run = seen(first)
    assert (run.state, run.worker, run.attempt) == (State.STARTING, "gpu@a", 1)
    assert run.lease_expires_at is not None and run.heartbeat_at is not None
    assert (run.lease_expires_at - run.heartbeat_at).total_seconds() == 45
    assert claim() == Claim(second.pk, 1)
    assert claim_run(queues=["gpu"], worker="gpu@a", host="a") is None


def test_a_worker_claims_from_its_own_queues_alone(snapshot: Snapshot) -> None:
    run = queue_run(snapshot, queue="gpu.large")
    assert claim_run(queues=["gpu", "default"], worker="w", host="h") is None
    assert claim(queues=("gpu", "gpu.large")).run_id == run.pk


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_get_each_run_once() -> None:
    snapshot = make_snapshot(make_project())
    runs = {queue_run(snapshot).pk for _ in range(5)}
    gate = threading.Barrier(8)

    def worker(number: int) -> list[int]:
        try:
            gate.wait(timeout=30)
            found = []
            while (held := claim_run(queues=["gpu"], worker=f"w{number}", host="h")) is not None:
                found.append(held.run_id)
            return found
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        claimed = [run for found in pool.map(worker, range(8)) for run in found]
    # A worker that finds the only queued row locked goes away empty-handed; it looks again later.
    claimed += [held.run_id for held in iter(lambda: claim_run(queues=["gpu"], worker="w", host="h"), None)]
    assert sorted(claimed) == sorted(runs)
    assert RunAttempt.objects.count() == 5


def test_renewing_moves_the_end_of_the_lease(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    expire(run)
    assert renew_lease(held) == State.STARTING
    assert release_expired() == 0


def test_an_expired_run_goes_back_to_its_queue_and_on_to_another_worker(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    claim(worker="gpu@dead")
    assert release_expired() == 0
    expire(run)
    assert release_expired() == 1
    lost = seen(run)
    assert (lost.state, lost.times_lost) == (State.QUEUED, 1)
    assert "gpu@dead" in lost.reason
    assert claim(worker="gpu@b") == Claim(run.pk, 2)
    assert outcomes(run) == [Outcome.LOST, ""]


def test_a_run_that_is_lost_too_often_fails(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    for time in range(1, MAX_TIMES_LOST + 1):
        assert claim().attempt == time
        expire(run)
        release_expired()
    assert seen(run).state == State.FAILED
    assert "3 attempts" in seen(run).reason
    resume_run(seen(run))
    assert seen(run).times_lost == 0
    assert claim().attempt == MAX_TIMES_LOST + 1


def test_a_worker_that_stops_in_good_order_costs_no_try(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    for _ in range(MAX_TIMES_LOST + 1):
        assert give_back(claim(), lost=False, reason="stopped") == State.QUEUED
    assert seen(run).times_lost == 0
    assert outcomes(run) == [Outcome.RELEASED] * (MAX_TIMES_LOST + 1)


def test_every_write_of_a_stale_attempt_is_refused(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    stale = claim()
    expire(run)
    release_expired()
    current = claim()
    model = ModelVersion(project=run.project, name="m", kind="reward", run=run, folder="x", size_bytes=1)
    for write in (
        lambda: renew_lease(stale),
        lambda: update_run(stale, log_tail="x"),
        lambda: mark_running(stale, process_id=1, process_started_at=1.0),
        lambda: begin_attempt(stale, from_step=3, total_steps=9),
        lambda: record_metrics(stale, rows=[StepMetrics(1, {})], from_step=0),
        lambda: succeed(stale, model=model, step=9),
        lambda: fail(stale, reason="x"),
        lambda: end_cancelled(stale),
        lambda: give_back(stale, lost=True, reason="x"),
    ):
        with pytest.raises(StaleAttempt):
            write()
    after = seen(run)
    assert (after.state, after.attempt, after.step, after.log_tail, after.total_steps) == ("starting", 2, 0, "", None)
    assert not RunMetric.objects.exists() and not ModelVersion.objects.exists()
    assert outcomes(run) == [Outcome.LOST, ""]
    assert renew_lease(current) == State.STARTING


def test_a_stale_attempt_is_refused_before_anybody_else_has_the_run(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    stale = claim()
    expire(run)
    release_expired()
    with pytest.raises(StaleAttempt):
        fail(stale, reason="x")
    assert seen(run).state == State.QUEUED


def test_cancelling_what_nobody_has_is_done_at_once(snapshot: Snapshot) -> None:
    run = cancel_run(queue_run(snapshot))
    assert run.state == State.CANCELLED and run.finished_at is not None
    assert cancel_run(run).state == State.CANCELLED
    assert claim_run(queues=["gpu"], worker="w", host="h") is None


def test_cancelling_what_runs_asks_its_worker(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    assert cancel_run(run).state == State.STOPPING
    assert cancel_run(run).state == State.STOPPING
    assert renew_lease(held) == State.STOPPING
    mark_running(held, process_id=1, process_started_at=1.0)
    assert seen(run).state == State.STOPPING
    end_cancelled(held)
    assert seen(run).state == State.CANCELLED
    assert outcomes(run) == [Outcome.CANCELLED]


def test_a_cancelled_run_whose_worker_dies_is_cancelled(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    claim()
    cancel_run(run)
    expire(run)
    release_expired()
    assert seen(run).state == State.CANCELLED


def test_a_cancelled_run_whose_worker_stops_is_cancelled(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    cancel_run(run)
    assert give_back(held, lost=False, reason="stopped") == State.CANCELLED
    assert seen(run).state == State.CANCELLED


def test_the_registry_and_the_run_agree(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    model = ModelVersion(project=run.project, name="m", kind="reward", run=run, folder="x", size_bytes=1)
    with pytest.raises(ValueError, match="broken"), transaction.atomic():
        succeed(held, model=model, step=9)
        raise ValueError("broken")
    assert seen(run).state == State.RUNNING and not ModelVersion.objects.exists()


def test_a_resumed_run_tells_open_pages_what_to_drop(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    first = claim()
    begin_attempt(first, from_step=0, total_steps=20)
    record_metrics(first, rows=[StepMetrics(step, {"a": step}) for step in range(1, 9)], from_step=0)
    assert seen(run).step == 8
    expire(run)
    release_expired()
    second = claim()
    begin_attempt(second, from_step=5, total_steps=20)
    record_metrics(second, rows=[StepMetrics(6, {"a": 60}), StepMetrics(7, {"a": 70})], from_step=5)

    answer = metrics_since(seen(run), since_step=8, seen_attempt=1, limit=100)
    assert answer.discard_after == 5
    assert [(row.step, row.attempt, row.values) for row in answer.rows] == [(6, 2, {"a": 60}), (7, 2, {"a": 70})]
    assert metrics_since(seen(run), since_step=7, seen_attempt=2, limit=100).rows == []
    fresh = metrics_since(seen(run), since_step=0, seen_attempt=None, limit=100)
    assert [row.step for row in fresh.rows] == [1, 2, 3, 4, 5, 6, 7] and fresh.discard_after is None
    some = metrics_since(seen(run), since_step=0, seen_attempt=None, limit=3)
    assert [row.step for row in some.rows] == [1, 2, 3] and some.more


def test_recording_twice_changes_nothing_and_old_rows_only_fill_gaps(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    first = claim()
    record_metrics(first, rows=[StepMetrics(1, {"a": 1}), StepMetrics(3, {"a": 3})], from_step=0)
    expire(run)
    release_expired()
    second = claim()
    begin_attempt(second, from_step=3, total_steps=None)
    rows = [StepMetrics(step, {"a": 10 * step}) for step in (1, 2, 3, 4)]
    for _ in range(2):
        record_metrics(second, rows=rows, from_step=3)
    kept = RunMetric.objects.filter(run=run).order_by("step").values_list("step", "attempt", "values")
    assert list(kept) == [(1, 1, {"a": 1}), (2, 2, {"a": 20}), (3, 1, {"a": 3}), (4, 2, {"a": 40})]
