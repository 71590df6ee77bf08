"""Each rule of the database about runs, broken by raw SQL, is refused."""

from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import claim, make_snapshot, queue_run
from training.models import ModelVersion, Run, RunMetric
from training.services.claims import mark_running, succeed

pytestmark = pytest.mark.django_db


def sql(statement: str, *values: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def refused(statement: str, *values: Any, match: str) -> None:
    with pytest.raises((IntegrityError, DataError), match=match):
        sql(statement, *values)


def run_columns(**changes: Any) -> str:
    """An INSERT of a queued run, as a statement without parameters."""
    columns = {
        "name": "'x'", "kind": "'reward'", "state": "'queued'", "suspect": "false", "base_model": "'tiny'",
        "config": "'{}'", "queue": "'gpu'", "attempt": "0", "times_lost": "0", "worker": "''", "step": "0",
        "reason": "''", "log_tail": "''", "queued_at": "now()",
    } | changes  # fmt: skip
    return f"INSERT INTO training_run ({', '.join(columns)}) VALUES ({', '.join(map(str, columns.values()))})"


def test_a_run_in_good_order_is_taken(snapshot: Snapshot) -> None:
    sql(run_columns(project_id=snapshot.project_id, snapshot_id=snapshot.pk))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "'sing'"}, "run_kind_known"),
        ({"state": "'resting'"}, "begins waiting or queued"),
        ({"state": "'running'", "attempt": "1"}, "begins waiting or queued"),
        ({"attempt": "1"}, "begins waiting or queued"),
        ({"snapshot_id": "NULL"}, "run_trains_from_a_snapshot"),
        ({"queued_at": "NULL"}, "run_queued_at_known"),
        ({"state": "'waiting'"}, "run_waits_for_a_parent"),
        ({"lease_expires_at": "now()"}, "run_lease_while_active"),
        ({"finished_at": "now()"}, "run_finished_at_known"),
        ({"total_steps": "0"}, "run_total_steps_from_1"),
        ({"step": "-1"}, "training_run_step_check"),
    ],
)
def test_a_run_out_of_order_is_refused(snapshot: Snapshot, changes: dict[str, str], match: str) -> None:
    columns = {"project_id": snapshot.project_id, "snapshot_id": snapshot.pk} | changes
    refused(run_columns(**columns), match=match)


def test_lineage_stays_inside_one_project(snapshot: Snapshot) -> None:
    other = make_snapshot(make_project())
    refused(run_columns(project_id=snapshot.project_id, snapshot_id=other.pk), match="run_snapshot_of_its_project")
    parent = queue_run(other)
    columns = {"project_id": snapshot.project_id, "snapshot_id": snapshot.pk, "parent_id": parent.pk}
    refused(run_columns(**columns), match="run_parent_of_its_project")
    refused(
        "INSERT INTO training_modelversion (project_id, name, kind, stage, run_id, folder, size_bytes, report, shared)"
        " VALUES (%s, 'x', 'reward', 'new', %s, 'x', 0, '{}', false)",
        snapshot.project_id,
        parent.pk,
        match="model_run_of_its_project",
    )


def test_a_withdrawn_snapshot_trains_no_run(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    sql("UPDATE training_run SET state = 'cancelled', finished_at = now() WHERE id = %s", run.pk)
    sql("UPDATE annotate_snapshot SET state = 'withdrawn', withdrawn_at = now() WHERE id = %s", snapshot.pk)
    refused(run_columns(project_id=snapshot.project_id, snapshot_id=snapshot.pk), match="withdrawn snapshot")
    again = "UPDATE training_run SET state = 'queued', finished_at = NULL WHERE id = %s"
    refused(again, run.pk, match="withdrawn snapshot")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "'sft'"),
        ("base_model", "'other'"),
        ("config", """'{"seed": 1}'"""),
        ("created_at", "now() - interval '1 day'"),
        ("id", "987654"),
        ("snapshot_id", "NULL"),
    ],
)
def test_what_decides_a_run_is_fixed(snapshot: Snapshot, column: str, value: str) -> None:
    run = queue_run(snapshot)
    refused(f"UPDATE training_run SET {column} = {value} WHERE id = %s", run.pk, match="is fixed")


MOVES = {
    "waiting": {"queued", "cancelled", "failed"},
    "queued": {"starting", "cancelled"},
    "starting": {"running", "stopping", "queued", "failed", "cancelled"},
    "running": {"stopping", "queued", "succeeded", "failed", "cancelled"},
    "stopping": {"succeeded", "failed", "cancelled"},
    "succeeded": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
HELD = (
    "worker = 'w', lease_expires_at = now(), heartbeat_at = now(), started_at = now(), cancel_requested_at = now(),"
    " finished_at = NULL"
)
FREE = "lease_expires_at = NULL, finished_at = NULL"
DONE = "lease_expires_at = NULL, finished_at = now(), reason = 'why'"
COLUMNS = {
    "waiting": FREE, "queued": FREE, "starting": HELD, "running": HELD, "stopping": HELD,
    "succeeded": DONE, "failed": DONE, "cancelled": DONE,
}  # fmt: skip
WAYS = {
    "waiting": [],
    "queued": ["queued"],
    "starting": ["queued", "starting"],
    "running": ["queued", "starting", "running"],
    "stopping": ["queued", "starting", "stopping"],
    "succeeded": ["queued", "starting", "running", "succeeded"],
    "failed": ["queued", "starting", "failed"],
    "cancelled": ["queued", "cancelled"],
}


def move(run: Run, state: str, *, claimed: bool = False) -> None:
    attempt = ", attempt = attempt + 1" if claimed else ""
    sql(f"UPDATE training_run SET state = '{state}', {COLUMNS[state]}{attempt} WHERE id = %s", run.pk)


@pytest.mark.parametrize("before", MOVES)
def test_a_run_moves_only_along_its_ways(snapshot: Snapshot, before: str) -> None:
    for after in MOVES:
        run = queue_run(snapshot, state="waiting", parent=queue_run(snapshot))
        for state in WAYS[before]:
            move(run, state, claimed=state == "starting")
        claimed = (before, after) == ("queued", "starting")
        if after in MOVES[before] or after == before:
            move(run, after, claimed=claimed)
        else:
            with pytest.raises(IntegrityError, match="does not move|next attempt"):
                move(run, after, claimed=claimed)


def test_the_attempt_counts_claims_and_nothing_else(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    refused("UPDATE training_run SET attempt = 1 WHERE id = %s", run.pk, match="next attempt")
    refused(
        f"UPDATE training_run SET state = 'starting', {HELD}, attempt = 2 WHERE id = %s", run.pk, match="next attempt"
    )
    refused(f"UPDATE training_run SET state = 'starting', {HELD} WHERE id = %s", run.pk, match="next attempt")


@pytest.mark.parametrize(
    ("state", "columns", "match"),
    [
        ("starting", FREE, "run_lease_while_active"),
        ("starting", HELD.replace("worker = 'w'", "worker = ''"), "run_lease_while_active"),
        ("cancelled", FREE, "run_finished_at_known"),
        ("cancelled", DONE.replace("lease_expires_at = NULL", "lease_expires_at = now()"), "run_lease_while_active"),
    ],
)
def test_a_state_brings_its_columns(snapshot: Snapshot, state: str, columns: str, match: str) -> None:
    run = queue_run(snapshot)
    attempt = ", attempt = 1" if state == "starting" else ""
    refused(f"UPDATE training_run SET state = '{state}', {columns}{attempt} WHERE id = %s", run.pk, match=match)


def test_a_failure_has_a_reason_and_a_stop_was_asked_for(snapshot: Snapshot) -> None:
    queue_run(snapshot)
    held = claim()
    failed = f"UPDATE training_run SET state = 'failed', {DONE.replace('why', '')} WHERE id = %s"
    refused(failed, held.run_id, match="run_failure_has_a_reason")
    refused("UPDATE training_run SET state = 'stopping' WHERE id = %s", held.run_id, match="run_stops_when_asked")


METRIC = "INSERT INTO training_runmetric (run_id, step, attempt, values) VALUES (%s, %s, %s, '{}')"


def test_only_the_attempt_that_holds_a_run_writes_its_metrics(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    refused(METRIC, run.pk, 1, 0, match="only the attempt that holds|metric_of_an_attempt")
    first = claim()
    sql(METRIC, run.pk, 1, first.attempt)
    refused(METRIC, run.pk, 2, first.attempt + 1, match="metric_of_an_attempt")
    sql("UPDATE training_runattempt SET outcome = 'lost', ended_at = now() WHERE run_id = %s", run.pk)
    move(run, "queued")
    refused(METRIC, run.pk, 2, first.attempt, match="only the attempt that holds")
    second = claim()
    refused(METRIC, run.pk, 2, first.attempt, match="only the attempt that holds")
    refused("UPDATE training_runmetric SET values = '{\"a\": 1}' WHERE run_id = %s", run.pk, match="only the attempt")
    sql(METRIC, run.pk, 2, second.attempt)


def test_a_step_has_one_row_and_counts_from_1(snapshot: Snapshot) -> None:
    queue_run(snapshot)
    held = claim()
    sql(METRIC, held.run_id, 1, held.attempt)
    refused(METRIC, held.run_id, 1, held.attempt, match="one_metric_row_per_step")
    refused(METRIC, held.run_id, 0, held.attempt, match="metric_step_from_1")
    assert RunMetric.objects.count() == 1


ATTEMPT = "INSERT INTO training_runattempt (run_id, number, worker, host, outcome) VALUES (%s, %s, 'w', 'h', %s)"


def test_attempts_are_told_apart_and_stay(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    refused(ATTEMPT, run.pk, held.attempt, "", match="one_attempt_per_number")
    refused(ATTEMPT, run.pk, 7, "", match="one_open_attempt_per_run")
    refused(ATTEMPT, run.pk, 7, "bored", match="attempt_outcome_known")
    refused(ATTEMPT, run.pk, 7, "lost", match="attempt_outcome_known")
    sql("UPDATE training_runattempt SET outcome = 'lost', ended_at = now() WHERE run_id = %s", run.pk)
    refused("UPDATE training_runattempt SET outcome = 'failed' WHERE run_id = %s", run.pk, match="stays as it is")


def test_where_a_model_came_from_is_fixed(snapshot: Snapshot) -> None:
    queue_run(snapshot)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    model = ModelVersion(
        project=snapshot.project, name="m", kind="reward", run_id=held.run_id, folder="1/out/model", size_bytes=1
    )
    succeed(held, model=model, step=1)
    for change in ("run_id = NULL", "kind = 'policy'", "folder = 'elsewhere'", "parent_id = id"):
        refused(f"UPDATE training_modelversion SET {change} WHERE id = %s", model.pk, match="is fixed|its_parent")
    sql("UPDATE training_modelversion SET stage = 'candidate', name = 'n', shared = true WHERE id = %s", model.pk)
    refused("UPDATE training_modelversion SET stage = 'loved' WHERE id = %s", model.pk, match="model_stage_known")
    refused("UPDATE training_modelversion SET size_bytes = -1 WHERE id = %s", model.pk, match="model_size_not_negative")
