"""Real Celery workers and real trainers: a run from start to model, and every way in which one can be disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from celery import current_app
from django.conf import settings
from django.db import connection

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.chaos.census import Census, trainers_in
from tests.training.django.helpers import expire, make_snapshot
from tests.training.told import told_in
from training.models import ModelVersion, Run, RunAttempt, RunMetric
from training.services.doorbell import RING
from training.services.runs import cancel_run, resume_run, start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 240
LONG = {"batch_size": 1, "epochs": 2000, "checkpoint_every": 5, "evaluate_every": 5000}


class Worker:
    """A Celery worker of the queue gpu, started as the stack starts it, or by the command that stands `before`."""

    def __init__(
        self, home: Path, name: str, *, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", "gpu", "-n", f"{name}@%h"]
        command += ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
        database = connection.settings_dict
        url = f"postgresql://{quote(database['USER'])}@/{database['NAME']}?host={quote(str(database['HOST']))}"
        self.log = home / f"{name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, *command, "--loglevel", "INFO"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env={**os.environ, "PLACKETT_HOME": str(home), "DATABASE_URL": url, **(environment or {})},
                start_new_session=True,
            )

    def stop(self) -> None:
        """SIGTERM, as the stack does; SIGKILL if that is not heard."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models_root: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_root)
    Path(settings.MEDIA_ROOT).mkdir(parents=True, exist_ok=True)
    (home / "artifacts").symlink_to(settings.MEDIA_ROOT)
    return home


@pytest.fixture(autouse=True)
def same_folders(home: Path, settings: Any) -> None:
    settings.RUNS_ROOT, settings.MODELS_ROOT = home / "runs", home / "models"


@pytest.fixture
def start_worker(home: Path) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def start(name: str) -> Worker:
        workers.append(Worker(home, name))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def snapshot(db: None) -> Snapshot:
    return make_snapshot(make_project())


def start(snapshot: Snapshot, **config: Any) -> Run:
    return start_run(
        project=snapshot.project, started_by=None, kind="reward", snapshot=snapshot, base_model="tiny", config=config
    )


def wait_for(run: Run, what: Callable[[Run], object]) -> Run:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        run.refresh_from_db()
        if what(run):
            return run
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain: {run.state}, step {run.step}, {run.reason}\n{run.log_tail}")
        time.sleep(0.1)


def trainers_of(run: Run) -> list[psutil.Process]:
    """The living processes that work in the run's folder."""
    return trainers_in(run.folder)


def metrics_file(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "out" / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Run) -> list[tuple[int, float]]:
    return [(line["step"], pytest.approx(line["train/loss"], abs=1e-3)) for line in metrics_file(run)]


def deliver_to_all(workers: Sequence[Worker]) -> None:
    """One doorbell message, delivered again until every worker has had it."""
    message, deadline = str(uuid.uuid4()), time.monotonic() + PATIENCE_SECONDS
    while not all(f"{RING}[{message}] received" in worker.log.read_text() for worker in workers):
        assert time.monotonic() < deadline, [worker.log.read_text()[-2000:] for worker in workers]
        current_app.send_task(RING, queue="gpu", task_id=message, ignore_result=True)
        time.sleep(0.1)


def test_a_run_from_the_doorbell_to_the_registry(snapshot: Snapshot, start_worker: Callable[[str], Worker]) -> None:
    workers = [start_worker("gpu-1"), start_worker("gpu-2")]
    run = start(snapshot, epochs=2, batch_size=4)
    with Census(run.folder) as census:
        deliver_to_all(workers)
        wait_for(run, lambda run: run.is_finished)
        deliver_to_all(workers)
        time.sleep(1)
        run.refresh_from_db()
    assert (run.state, run.reason, run.attempt, run.step, run.total_steps) == ("succeeded", "", 1, 8, 8), run.log_tail
    assert census.most == 1
    assert run.exit is not None and run.exit["code"] == 0
    assert run.report == json.loads((run.folder / "out" / "report.json").read_text())

    rows = list(RunMetric.objects.filter(run=run).order_by("step"))
    written = metrics_file(run)
    assert [row.step for row in rows] == [line["step"] for line in written] == list(range(1, 9))
    for row, line in zip(rows, written, strict=True):
        assert row.values == {name: value for name, value in line.items() if name not in {"step", "attempt"}}
    assert "validation/accuracy" in rows[-1].values

    model = ModelVersion.objects.get(run=run)
    assert model.report["validation"]["accuracy"]["value"] == rows[-1].values["validation/accuracy"]
    assert (model.path / "config.json").is_file() and (model.path / "model.safetensors").is_file()
    assert model.size_bytes >= (model.path / "model.safetensors").stat().st_size > 0
    attempt = RunAttempt.objects.get(run=run)
    assert (attempt.outcome, attempt.from_step) == ("succeeded", 0)
    assert "train: 16 rankings" in run.log_tail
    assert not [*run.folder.glob("data-*"), *run.folder.glob("tokens-*")]  # no copy outlives the attempt
    assert not (run.folder / "out" / "cache").exists()


def test_a_failure_tells_its_reason_and_the_last_lines(
    snapshot: Snapshot, start_worker: Callable[[str], Worker]
) -> None:
    tampered = make_snapshot(snapshot.project, name="tampered")
    file = Path(settings.MEDIA_ROOT, tampered.file)
    file.write_bytes(file.read_bytes() + b"\n")
    start_worker("gpu")
    run, never = start(snapshot, max_length=8), start(tampered)
    wait_for(run, lambda run: run.is_finished)
    assert run.state == "failed" and run.attempt == 1
    assert run.exit is not None and run.exit["code"] == 2
    assert run.reason == run.exit["reason"] and run.reason in run.log_tail
    wait_for(never, lambda run: run.is_finished)
    assert never.state == "failed" and "not the one that was frozen" in never.reason
    assert not ModelVersion.objects.exists() and not trainers_of(run) + trainers_of(never)


def test_cancel_resume_and_a_worker_stopped_in_good_order(
    snapshot: Snapshot, start_worker: Callable[[str], Worker]
) -> None:
    worker = start_worker("gpu")
    run = start(snapshot, **LONG)
    wait_for(run, lambda run: run.step > 0)
    cancel_run(run)
    wait_for(run, lambda run: run.is_finished)
    assert run.state == "cancelled" and not trainers_of(run)
    cancelled_at = run.step

    resume_run(run)
    wait_for(run, lambda run: run.step > cancelled_at)
    second = RunAttempt.objects.get(run=run, number=2)
    assert second.from_step is not None and 0 < second.from_step <= cancelled_at
    worker.stop()
    run.refresh_from_db()
    assert (run.state, run.times_lost, run.attempt) == ("queued", 0, 2) and not trainers_of(run)
    assert list(run.attempts.values_list("outcome", flat=True)) == ["cancelled", "released"]
    steps = list(RunMetric.objects.filter(run=run).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, run.step + 1)) == [line["step"] for line in metrics_file(run)]
    assert told_in(run.folder / "tensorboard") == losses_of(run)


def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_wakes(
    snapshot: Snapshot, start_worker: Callable[[str], Worker]
) -> None:
    frozen = start_worker("gpu-frozen")
    run = start(snapshot, **LONG)
    with Census(run.folder) as census:
        wait_for(run, lambda run: run.step >= 10)
        frozen.process.send_signal(signal.SIGSTOP)
        expire(run)  # the 45 seconds of the lease pass; its trainer lives on
        start_worker("gpu-awake")
        second = RunAttempt.objects.filter(run=run, number=2, from_step__gte=5)
        wait_for(run, lambda run: second.exists())
        frozen.process.send_signal(signal.SIGCONT)
        wait_for(run, lambda run: "attempt 1 has lost it" in frozen.log.read_text())
        assert (run.attempt, run.state) == (2, "running") and "gpu-awake" in run.worker
        # The one that woke up is free again, and not in the other's way. A trainer that hears nothing is ended too.
        (trainer,) = trainers_of(run)
        trainer.send_signal(signal.SIGSTOP)
        cancel_run(run)
        wait_for(run, lambda run: run.is_finished)
    assert census.most == 1
    assert list(run.attempts.values_list("outcome", flat=True)) == ["lost", "cancelled"]
    steps = list(RunMetric.objects.filter(run=run).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, run.step + 1)) == [line["step"] for line in metrics_file(run)]
    assert told_in(run.folder / "tensorboard") == losses_of(run)
