"""Who cannot keep the lease ends the trainer in time; what a trainer gets and what is left of it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.db import connection, connections

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import claim, expire, make_snapshot, queue_run
from training.models import Run
from training.runner.attempt import CANCEL_SECONDS, POLL_SECONDS
from training.runner.lease import HEARTBEAT_SECONDS, KILL_AFTER, LOOK_SECONDS, TERMINATE_AFTER, Lease, clock
from training.runner.trainer import Trainer, end_left_behind
from training.services.claims import LEASE_SECONDS, Claim, StaleAttempt, release_expired
from training.services.runs import cancel_run

NOBODY = Claim(run_id=0, attempt=0)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_the_order_of_events_in_a_lease() -> None:
    assert 2 * HEARTBEAT_SECONDS < TERMINATE_AFTER < KILL_AFTER < LEASE_SECONDS
    assert KILL_AFTER - TERMINATE_AFTER >= 10  # what a recipe may take to save
    assert LOOK_SECONDS + POLL_SECONDS + CANCEL_SECONDS < 9  # so that a cancelled run is over within 10 s


@pytest.mark.parametrize(("silent", "signal"), [(TERMINATE_AFTER, 15), (KILL_AFTER, 9)])
def test_a_lease_that_is_not_renewed_ends_the_trainer(
    sleeper: subprocess.Popen[bytes], silent: float, signal: int
) -> None:
    with Lease(NOBODY, taken_at=clock() - silent - 0.1) as lease:
        lease.guard(sleeper.pid)
        assert sleeper.wait(timeout=20) == -signal
        if signal == 9:
            with pytest.raises(StaleAttempt):
                lease.keep()


def test_a_young_lease_and_a_closed_one_leave_the_trainer_alone(sleeper: subprocess.Popen[bytes]) -> None:
    with Lease(NOBODY, taken_at=clock()) as lease:
        lease.guard(sleeper.pid)
        time.sleep(1.2)  # two turns of the watchdog
    time.sleep(0.1)
    assert sleeper.poll() is None


@pytest.mark.django_db
def test_keeping_renews_when_due_and_tells_the_state(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    expire(run)
    with Lease(held, taken_at=clock() - HEARTBEAT_SECONDS) as lease:
        assert lease.keep() == Run.State.STARTING
        assert lease.seconds_left() > KILL_AFTER - 5
    assert release_expired() == 0
    cancel_run(run)
    with Lease(held, taken_at=clock() - HEARTBEAT_SECONDS) as lease:
        assert lease.keep() == Run.State.STOPPING


@pytest.mark.django_db
def test_keeping_what_was_taken_away_is_refused(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    held = claim()
    expire(run)
    release_expired()
    for silent in (1.5, HEARTBEAT_SECONDS):  # a look, and a renewal
        with Lease(held, taken_at=clock() - silent) as lease, pytest.raises(StaleAttempt):
            lease.keep()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_for_a_moment_is_waited_for() -> None:
    queue_run(make_snapshot(make_project()))
    held = claim()
    with Lease(held, taken_at=clock() - HEARTBEAT_SECONDS) as lease:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backend = cursor.fetchone()[0]
        other = connections.create_connection("default")
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])
        other.close()
        assert lease.keep() == Run.State.STARTING
        assert lease.seconds_left() < KILL_AFTER - HEARTBEAT_SECONDS + 1  # it was not renewed
        time.sleep(1.1)
        assert lease.keep() == Run.State.STARTING
        assert lease.seconds_left() > KILL_AFTER - 5


# --- the process -----------------------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_trainer_gets_no_way_into_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("DATABASE_URL", "REDIS_URL", "PLACKETT_SECRET_KEY", "PLACKETT_METRICS_TOKEN", "REDIS_PASSWORD_FILE")
    for name in (*names, "PLACKETT_MLFLOW_TOKEN", "PLACKETT_MLFLOW_PASSWORD", "PLACKETT_MLFLOW_PASSWORD_FILE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("KEPT", "kept")
    log = tmp_path / "log.txt"
    trainer = Trainer(python("import os; print(dict(os.environ))"), log=log)
    assert trainer.wait(20) == 0
    trainer.end()
    told = log.read_text()
    assert "secret" not in told and "'KEPT': 'kept'" in told
    assert "'PLACKETT_LIFELINE': 'stdin'" in told and "OMP_NUM_THREADS" in told


def test_the_whole_group_ends_with_the_trainer(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    trainer = Trainer(python(code), log=tmp_path / "log.txt")
    while not (told := (tmp_path / "log.txt").read_text()):
        time.sleep(0.05)
    child = psutil.Process(int(told))
    trainer.end()
    assert trainer.poll() == -9
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_only_the_very_trainer_that_was_left_behind_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    started_at = psutil.Process(sleeper.pid).create_time()
    assert not end_left_behind(sleeper.pid, started_at - 60)
    assert sleeper.poll() is None
    assert end_left_behind(sleeper.pid, started_at)
    assert sleeper.poll() is not None
    assert not end_left_behind(sleeper.pid, started_at)
