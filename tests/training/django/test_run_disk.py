"""A disk that gets full in the middle of a run: the run fails with a clear reason, and goes on once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.models import Snapshot
from tests.training.django.test_run_worker import (
    LONG,
    Worker,
    home,  # noqa: F401 a fixture
    same_folders,  # noqa: F401 a fixture
    snapshot,  # noqa: F401 a fixture
    start,
    trainers_of,
    wait_for,
)
from training.models import RunAttempt, RunMetric
from training.runner.outcome import FULL_DISK
from training.services.runs import cancel_run, resume_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

# A disk of its own that nobody else sees: as root, or as the root of a user namespace where the system allows one.
ALONE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = [*ALONE, "sh", "-c", 'mount -t tmpfs -o size=8m none "$0" && exec "$@"']


@pytest.fixture
def worker(home: Path, tmp_path: Path) -> Iterator[Worker]:  # noqa: F811
    """A worker whose folder of runs is a disk of 8 MB."""
    if subprocess.run([*MOUNT, str(tmp_path), "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets us mount nothing")
    (home / "runs").mkdir(exist_ok=True)
    made = Worker(home, "gpu-small", before=[*MOUNT, str(home / "runs")])
    yield made
    made.stop()


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filler


def test_a_full_disk_fails_the_run_with_its_reason_and_a_resume_goes_on(
    snapshot: Snapshot,  # noqa: F811
    home: Path,  # noqa: F811
    worker: Worker,
) -> None:
    run = start(snapshot, **LONG)
    wait_for(run, lambda run: run.step >= 10)
    disk = Path(f"/proc/{worker.process.pid}/root{home / 'runs'}")
    filler = fill(disk)
    wait_for(run, lambda run: run.is_finished)
    assert (run.state, run.reason, run.attempt, run.times_lost) == ("failed", FULL_DISK, 1, 0), run.log_tail
    assert not trainers_of(run)
    assert not list(disk.rglob("*.tmp"))

    filler.unlink()
    reached = run.step
    resume_run(run)
    wait_for(run, lambda run: run.step > reached)
    cancel_run(run)
    wait_for(run, lambda run: run.is_finished)
    assert run.state == "cancelled"
    went_on_from = RunAttempt.objects.get(run=run, number=2).from_step
    assert went_on_from is not None and 5 <= went_on_from <= reached + 5
    steps = list(RunMetric.objects.filter(run=run).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, run.step + 1))
