"""Models that are in a bucket alone: read, taken away, pushed and deleted by a web server that has no file of them."""

import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command

from annotate.interchange.native import record_from_object
from annotate.services.imports import import_records
from annotate.services.snapshots import freeze_snapshot, open_snapshot, withdraw_snapshot
from tests.bucket import Line, bucket_address, use_bucket
from tests.training.django.helpers import RunCast, make_sampled, make_snapshot
from tests.training.django.test_registry_deletion import WEIGHTS, delete, whats, with_files
from tests.training.django.test_registry_hub import TOKEN, Hub, hub
from tests.training.django.test_registry_stages import page_of
from tests.training.django.test_run_api import client_of, finished
from training.models import ModelEvent, ModelVersion, Run
from training.selectors_responses import responses_of
from training.selectors_store import readable_folder, store_of
from training.services.registry import remove_left_files
from training.store.bundles import Bundle, plain
from webapp.tasks import remove_left_files as remove_left_files_task

pytestmark = pytest.mark.django_db

__all__ = ["hub"]  # a fixture

HEAD = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
TENSORS = struct.pack("<Q", len(HEAD)) + HEAD + bytes(24)


@pytest.fixture
def line(settings: Any, tmp_path: Path) -> Any:
    line = Line(bucket_address())
    use_bucket(settings, tmp_path, address=line.address)
    yield line
    line.cut()


@pytest.fixture
def model(line: Line, project: Any) -> ModelVersion:
    """A model of a run that a worker elsewhere carried out."""
    found = finished(make_snapshot(project))
    out = with_files(found)
    (found.path / "small.safetensors").write_bytes(TENSORS)
    move_to_bucket(found.run)
    assert not out.exists()
    return ModelVersion.objects.get(pk=found.pk)


def move_to_bucket(run: Run | None) -> None:
    """What a worker does with the results of a run that came to its end."""
    assert run is not None and (store := store_of(run)) is not None
    run.refresh_from_db()
    bundle = store.publish(run.folder / "out", attempt=run.attempt, step=None, check=lambda: None, is_ours=lambda: True)
    assert bundle is not None
    Run.objects.filter(pk=run.pk).update(stored={"files": plain(bundle.files), "checkpoints": []})
    shutil.rmtree(run.folder)


NAMES = ["README.md", "SHA256SUMS", "config.json", "model.safetensors", "small.safetensors"]


def test_it_is_shown_and_taken_away(model: ModelVersion, people: RunCast, tmp_path: Path, capsys: Any) -> None:
    shown = page_of(people.alice).get(model.get_absolute_url()).content.decode()
    assert "From <em>people</em>." in shown and all(name in shown for name in NAMES if name != "SHA256SUMS")
    sketch = readable_folder(model)
    assert sketch is not None and (sketch / "small.safetensors").read_bytes() == TENSORS  # no more than a head here
    assert (sketch / "model.safetensors").stat().st_size == len(WEIGHTS)

    answer = client_of(people.alice).get(f"/api/v1/models/{model.pk}/download/")
    content = b"".join(answer.streaming_content)
    assert int(answer["Content-Length"]) == len(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(tmp_path / "tar", filter="data")
    call_command("export_model", model.pk, str(tmp_path / "export"), verbosity=0)
    for found in (tmp_path / "export", next((tmp_path / "tar").iterdir())):
        assert sorted(path.name for path in found.iterdir()) == NAMES
        assert (found / "model.safetensors").read_bytes() == WEIGHTS
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=found, check=True)
    assert client_of(people.charlie).get(f"/api/v1/models/{model.pk}/download/").status_code == 404


def test_what_is_damaged_or_away_is_never_taken_for_whole(
    model: ModelVersion, people: RunCast, line: Line, tmp_path: Path
) -> None:
    store = store_of(model.run)  # type: ignore[arg-type]
    assert store is not None
    weights = hashlib.sha256(WEIGHTS).hexdigest()
    store.store.write(f"{store.prefix}/files/{weights}", b"x" + WEIGHTS[1:])
    for break_it in (lambda: None, line.cut):
        break_it()
        with pytest.raises(CommandError, match="Nothing was exported: .* artifact store"):
            call_command("export_model", model.pk, str(tmp_path / "export"), verbosity=0)
        assert not (tmp_path / "export").exists()
    assert page_of(people.alice).get(model.get_absolute_url()).status_code == 200  # without its card


def test_it_is_pushed(model: ModelVersion, hub: Hub, tmp_path: Path, settings: Any) -> None:
    call_command("push_model", model.pk, "me/scorer")
    assert hub.files["model.safetensors"] == WEIGHTS and "config.json" in hub.files and TOKEN
    assert ModelEvent.objects.filter(model=model, what="pushed").exists()
    assert not list(settings.FETCHED_ROOT.glob(".push-*"))


def test_its_deletion_leaves_what_is_not_the_model_and_is_tried_again(
    model: ModelVersion, people: RunCast, line: Line, django_capture_on_commit_callbacks: Any
) -> None:
    store = store_of(model.run)  # type: ignore[arg-type]
    assert store is not None and len(list(store.store.names(store.prefix))) == 5
    line.cut()
    assert delete(model, people.alice, django_capture_on_commit_callbacks).json()["files_removed_at"] is None
    assert whats(model) == ["deleted", "files_kept"]
    line.mend()
    assert remove_left_files() == 1 and whats(model) == ["deleted", "files_kept", "files_removed"]
    run = Run.objects.get(pk=model.run_id)
    told = Bundle.from_json(store.store.read(f"{store.prefix}/manifests/000001-result.json"))
    assert [one.path for one in told.files] == ["report.json"]
    assert run.stored == {"files": plain(told.files), "checkpoints": []}
    assert len(list(store.store.names(store.prefix))) == 2  # the report and the manifest
    answer = client_of(people.alice).get(f"/api/v1/models/{model.pk}/download/")
    assert answer.json()["error"]["code"] == "deleted"


def test_responses_and_snapshots_are_read_from_there(
    line: Line, project: Any, django_capture_on_commit_callbacks: Any
) -> None:
    responses = [{"id": name, "text": name} for name in "ab"]
    said = {"prompt": "Tea?", "responses": responses, "ranking": [["a"], ["b"]], "annotator": "Ann", "split": "train"}
    import_records(project=project, records=[record_from_object(said)])
    first, second = (freeze_snapshot(project=project, name=name) for name in ("first", "second"))
    assert first.sha256 == second.sha256
    assert first.file != second.file  # equal content, a file each
    run = make_sampled(first, [["a", "b"], ["c"]])
    move_to_bucket(run)
    run.refresh_from_db()
    found = responses_of(run)
    assert found is not None and [one.text for prompt in found.prompts() for one in prompt.responses] == ["a", "b", "c"]
    with open_snapshot(first) as file:
        assert hashlib.sha256(file.read()).hexdigest() == first.sha256
    line.cut()
    with pytest.raises(OSError, match="artifact store"):
        open_snapshot(second)
    line.mend()
    line.cut()
    with django_capture_on_commit_callbacks(execute=True):
        withdraw_snapshot(snapshot=first)
    line.mend()
    assert default_storage.exists(first.file) and remove_left_files_task() == 1
    assert not default_storage.exists(first.file) and default_storage.exists(second.file)
