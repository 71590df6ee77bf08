"""Runs whose workers have nothing in common but the database and a bucket: real workers, real trainers, a real S3."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.models import Snapshot
from tests.annotate.factories import make_project
from tests.bucket import Line, bucket_address, environment, use_bucket
from tests.training.django.helpers import expire, make_snapshot
from tests.training.django.test_run_worker import Worker, start, wait_for
from training.models import ModelVersion, RunAttempt, RunMetric
from training.selectors_models import files_to_take
from training.selectors_store import store_of
from training.services.runs import resume_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

# Some seconds, a checkpoint every ten steps.
STEPS = {"batch_size": 1, "epochs": 10, "checkpoint_every": 10, "evaluate_every": 5000}


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(bucket_address())
    yield line
    line.cut()


@pytest.fixture
def bucket(settings: Any, tmp_path: Path, line: Line) -> dict[str, str]:
    """The web server's settings, on a machine of its own; what a worker's environment says of the bucket."""
    prefix = use_bucket(settings, tmp_path / "web")
    return environment(line.address, prefix)


@pytest.fixture
def start_worker(tmp_path: Path, models_root: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker with a folder of its own."""
    workers: list[Worker] = []

    def start_one(name: str, **environment: str) -> Worker:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        if not (home / "models").exists():
            (home / "models").symlink_to(models_root)
        workers.append(Worker(home, name, environment=environment))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.stop()


@pytest.fixture
def snapshot(db: None, bucket: dict[str, str]) -> Snapshot:
    return make_snapshot(make_project())


def test_another_machine_goes_on_from_the_checkpoint_in_the_bucket(
    snapshot: Snapshot, bucket: dict[str, str], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    first = start_worker("gpu-1", **bucket)
    run = start(snapshot, **STEPS)
    store = store_of(run)
    assert store is not None
    wait_for(run, lambda run: store.bundles())
    first.kill()
    expire(run)  # the 45 seconds of the lease pass
    start_worker("gpu-2", **bucket)
    wait_for(run, lambda run: run.is_finished)
    assert (run.state, run.reason, run.attempt) == ("succeeded", "", 2), run.log_tail
    second = RunAttempt.objects.get(run=run, number=2)
    assert second.from_step is not None and second.from_step > 0 and second.bundle.startswith("000001-")
    assert "gpu-2" in second.worker
    steps = list(RunMetric.objects.filter(run=run).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, run.total_steps + 1))  # type: ignore[operator]

    model = ModelVersion.objects.get(run=run)
    wait_for(run, lambda run: not (tmp_path / "gpu-2" / "runs" / str(run.pk)).exists())
    assert not model.path.exists()
    files = {one.name: one for one in files_to_take(model)}
    assert {"config.json", "model.safetensors", "README.md"} <= files.keys()
    assert sum(one.size_bytes for one in files.values()) == model.size_bytes
    names = {one["path"].split("/")[0] for one in run.stored["files"]}  # type: ignore[index]
    assert {"model", "metrics.jsonl", "report.json", "run.json"} <= names and "checkpoints" not in names
    newest = run.stored["checkpoints"][0]["step"]  # type: ignore[index]
    assert newest >= second.from_step  # the model is there: nobody waits for the last ones
    # What the second machine fetched and made is there for its next run.
    (fetched,) = (tmp_path / "gpu-2" / "fetched").iterdir()
    assert (fetched / "out" / "model" / "config.json").is_file() and not (fetched / "out" / "checkpoints").exists()


def test_a_run_goes_on_while_the_bucket_is_away_and_succeeds_only_when_its_model_is_there(
    snapshot: Snapshot, bucket: dict[str, str], line: Line, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker("gpu", **bucket, PLACKETT_STORE_PATIENCE="2")
    run = start(snapshot, **STEPS)
    wait_for(run, lambda run: run.step > 0)
    line.cut()
    wait_for(run, lambda run: run.is_finished)
    assert run.state == "failed" and run.step == run.total_steps == 160, run.reason
    assert "could not be put into the artifact store" in run.reason and "resume" in run.reason
    assert not ModelVersion.objects.exists()
    out = tmp_path / "gpu" / "runs" / str(run.pk) / "out"
    assert (out / "model" / "config.json").is_file()
    begun = json.loads((out / "run.json").read_text())["attempts"]

    line.mend()
    resume_run(run)
    wait_for(run, lambda run: run.is_finished)
    assert (run.state, run.reason, run.attempt) == ("succeeded", "", 2), run.log_tail
    store = store_of(run)
    assert store is not None
    (told,) = [one for one in run.stored["files"] if one["path"] == "run.json"]  # type: ignore[index]
    content = json.loads(store.store.read(f"{store.prefix}/files/{told['sha256']}"))
    assert content["attempts"] == begun  # nothing was trained again
    assert f"run {run.pk}: checkpoints are not in the store yet" in worker.log.read_text()
