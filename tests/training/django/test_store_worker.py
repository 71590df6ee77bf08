"""What a worker does with the bucket beside its runs: damaged pictures, disks that are tidied, a store that is away."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from annotate.models import Project, Snapshot
from tests.bucket import Line, bucket_address, use_bucket
from tests.training.django.helpers import make_snapshot, queue_run
from tests.training.django.test_registry_deletion import WEIGHTS, with_files
from tests.training.django.test_run_api import finished
from tests.training.django.test_store_models import move_to_bucket
from training.models import ModelVersion, Run
from training.runner.prepare import bring_base_model, copy_snapshot
from training.runner.reaching import CannotStart
from training.runner.storing import bring_back, check_shared, tidy_disk
from training.selectors_store import store_of
from training.services.placement import placement_faults
from training.store.bundles import RunStore, local_checkpoints
from webapp.backups.objects import missing_objects, objects_named

pytestmark = pytest.mark.django_db


@pytest.fixture
def line(settings: Any, tmp_path: Path) -> Any:
    line = Line(bucket_address())
    use_bucket(settings, tmp_path, address=line.address)
    yield line
    line.cut()


@pytest.fixture
def snapshot(line: Line, project: Project) -> Snapshot:
    return make_snapshot(project)


def nothing(*_: object) -> None:
    pass


def write_step(run: Run, step: int) -> None:
    """A checkpoint and the measurements up to it, as a trainer writes them."""
    folder = run.folder / "out" / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"step": step, "sha256": {}}))
    (folder / "state.json").write_text(json.dumps({"step": step}))
    (run.folder / "out" / "metrics.jsonl").write_text("".join(f'{{"step": {one + 1}}}\n' for one in range(step)))
    (run.folder / "out" / "run.json.tmp").write_text("of this moment alone")


def publish(run: Run, store: RunStore, *, attempt: int, step: int) -> None:
    write_step(run, step)
    assert store.publish(run.folder / "out", attempt=attempt, step=step, check=nothing, is_ours=lambda: True)


def test_the_newest_whole_picture_is_gone_on_from_unless_the_folder_is_newer(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    store = store_of(run)
    assert store is not None
    out = run.folder / "out"
    assert bring_back(run, store, attempt=1, pulse=nothing) == ([], "")
    publish(run, store, attempt=1, step=10)
    publish(run, store, attempt=1, step=20)
    write_step(run, 30)  # not sent yet
    found, taken = bring_back(run, store, attempt=2, pulse=nothing)
    assert [one.step for one in found] == [20, 10] and taken == "" and local_checkpoints(out) == [30, 20, 10]

    # Another machine had it as attempt 3 meanwhile: the folder here is no longer the run's.
    _, taken = bring_back(run, store, attempt=4, pulse=nothing)
    assert taken == "000001-000000000020.json" and local_checkpoints(out) == [20, 10]
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 20 and not (out / "run.json.tmp").exists()
    assert [path.name for path in run.folder.iterdir()] == ["out", "turn"] or len(list(run.folder.iterdir())) == 2

    (newest,) = [one for one in found[0].files if one.path == "metrics.jsonl"]
    store.store.write(store.key(newest), b"x" * newest.size_bytes)
    shutil.rmtree(run.folder)
    _, taken = bring_back(run, store, attempt=5, pulse=nothing)
    assert taken == "000001-000000000010.json" and local_checkpoints(out) == [10]
    assert store.store.size_of(store.key(newest)) is None  # so that the same, made anew, is sent
    # A later attempt's pictures go before an earlier one's, however far that came.
    publish(run, store, attempt=5, step=15)
    assert [(one.attempt, one.step) for one in store.bundles()] == [(5, 15), (1, 20), (1, 10)]


def test_of_two_writers_neither_harms_the_other(snapshot: Snapshot) -> None:
    run = queue_run(snapshot)
    first, second = store_of(run), store_of(run)
    assert first is not None and second is not None
    publish(run, first, attempt=1, step=10)
    # One that was lost and wakes up tidies away what the next attempt put there, before that wrote its manifest.
    gone = False

    def tidied() -> None:
        nonlocal gone
        if not gone and len(list(first.store.names(f"{first.prefix}/files/"))) > 4:
            gone = True
            first.keep(first.bundles())

    write_step(run, 20)
    for _ in range(2):
        try:
            bundle = second.publish(run.folder / "out", attempt=2, step=20, check=tidied, is_ours=lambda: True)
            break
        except Exception as error:
            assert "removed" in str(error)
    assert gone and bundle is not None
    shutil.rmtree(run.folder)
    _, taken = bring_back(run, second, attempt=3, pulse=nothing)
    assert taken == bundle.name
    assert second.publish(run.folder / "out", attempt=2, step=30, check=nothing, is_ours=lambda: False) is None
    assert [one.step for one in second.bundles()] == [20, 10]


def test_a_run_that_cannot_reach_the_bucket_says_so_before_it_begins(
    snapshot: Snapshot, line: Line, settings: Any, tmp_path: Path
) -> None:
    model = finished(snapshot)
    with_files(model)
    move_to_bucket(model.run)
    version = ModelVersion.objects.get(pk=model.pk)
    run = queue_run(snapshot, base_model=f"registry:{model.pk}", base_version=version)
    told = {"log": tmp_path / "log", "pulse": nothing, "started": nothing}
    settings.STORE_PATIENCE_SECONDS = 1
    line.cut()
    with pytest.raises(CannotStart, match="does not answer .* resume the run when the store answers"):
        copy_snapshot(snapshot, tmp_path / "data.jsonl", pulse=nothing)
    with pytest.raises(CannotStart, match="does not answer"):
        bring_base_model(run, **told)  # type: ignore[arg-type]
    line.mend()
    copy_snapshot(snapshot, tmp_path / "data.jsonl", pulse=nothing)
    assert (tmp_path / "data.jsonl").stat().st_size == snapshot.size_bytes
    folder = Path(bring_base_model(run, **told))  # type: ignore[arg-type]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS and (folder.parent / "adapter").is_dir()

    # What is deleted is not kept by those who fetched it.
    ModelVersion.objects.filter(pk=model.pk).update(deleted_at="2026-01-01T00:00:00Z")
    tidy_disk(but=run)
    assert not folder.exists()


def test_several_machines_need_a_folder_of_runs_that_they_share(snapshot: Snapshot, settings: Any) -> None:
    place: dict[str, Any] = {"queue": "gpu", "processes": 1, "nodes": 2, "shard": False}
    assert "PLACKETT_RUNS_SHARED" in placement_faults(**place)["nodes"]
    settings.RUNS_SHARED = True
    assert placement_faults(**place) == {}
    run = queue_run(snapshot, nodes=2)
    with pytest.raises(CannotStart, match="is not the folder of the machine that holds the run"):
        check_shared(run, attempt=1)
    run.folder.mkdir(parents=True)
    (run.folder / "turn").write_text("1")
    check_shared(run, attempt=1)


def test_a_disk_is_tidied_of_what_is_elsewhere_and_of_nothing_else(snapshot: Snapshot, settings: Any) -> None:
    runs = [queue_run(snapshot) for _ in range(4)]
    mine, waits, over, older = runs
    for run in runs:
        (run.folder / "out").mkdir(parents=True)
        if run != older:
            (run.folder / "turn").write_text("0")
    Run.objects.filter(pk__in=[over.pk, older.pk]).update(state="cancelled", finished_at="2026-01-01T00:00:00Z")
    (settings.RUNS_ROOT / "999" / "out").mkdir(parents=True)
    (settings.RUNS_ROOT / "999" / "turn").write_text("3")
    tidy_disk(but=mine)
    assert sorted(int(path.name) for path in settings.RUNS_ROOT.iterdir()) == sorted([mine.pk, waits.pk, older.pk])


def test_a_backup_names_what_the_rows_need_and_a_restore_knows_what_is_missing(snapshot: Snapshot) -> None:
    model = finished(snapshot)
    with_files(model)
    run = Run.objects.get(pk=model.run_id)
    store = store_of(run)
    assert store is not None
    assert store.publish(run.folder / "out", attempt=1, step=3, check=nothing, is_ours=lambda: True)
    move_to_bucket(run)
    Run.objects.filter(pk=run.pk).update(
        stored={**Run.objects.get(pk=run.pk).stored, "checkpoints": [{"step": 3, "size_bytes": 1}]}  # type: ignore[dict-item]
    )
    named = objects_named(checkpoints=True)
    there = {name for below in ("snapshots/", f"{store.prefix}/files/") for name, _ in store.store.names(below)}
    assert {one.path for one in named} == there and snapshot.file in there
    assert missing_objects(named) == []
    store.store.remove([snapshot.file])
    assert missing_objects(named) == [snapshot.file]
