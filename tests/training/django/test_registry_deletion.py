"""Deletion: the model's files and nothing else, never under a run that reads it; what could not be removed is said."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, claim, make_snapshot, queue_run
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_registry_stages import page_of
from tests.training.django.test_run_api import client_of, finished
from training.models import ModelEvent, ModelVersion, Run, RunInput
from training.services.claims import fail
from training.services.registry import delete_model, remove_left_files

pytestmark = pytest.mark.django_db

WEIGHTS = b"0123456789" * 1000


def with_files(model: ModelVersion) -> Path:
    """The model's folder with files in it, beside what else a run leaves; returns the run's `out`."""
    for place in (".", "../adapter", "../ensemble/0", "../judge/model", "../checkpoints/step-3"):
        folder = model.path / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(WEIGHTS)
    (model.path / "README.md").write_text("---\ntags: [plackett]\n---\n\n# Reward model\n\nFrom *people*.\n")
    (model.path.parent / "report.json").write_text("{}")
    return model.path.parent


@pytest.fixture
def model(snapshot: Snapshot, runs_root: Path) -> ModelVersion:
    found = finished(snapshot)
    with_files(found)
    return found


def delete(model: ModelVersion, user: Any, capture: Any) -> Any:
    with capture(execute=True):
        return client_of(user).delete(f"/api/v1/models/{model.pk}/")


def whats(model: ModelVersion) -> list[str]:
    return [one.what for one in ModelEvent.objects.filter(model=model).order_by("pk")]


def test_the_files_go_and_the_lineage_stays(
    model: ModelVersion, people: RunCast, runs_root: Path, django_capture_on_commit_callbacks: Any
) -> None:
    neighbour = runs_root / "neighbour" / "out" / "model"
    neighbour.mkdir(parents=True)
    answer = delete(model, people.alice, django_capture_on_commit_callbacks)
    assert answer.status_code == 200, answer.content
    assert answer.json()["deleted_at"] is not None
    out = model.path.parent
    assert sorted(path.name for path in out.iterdir()) == ["report.json"] and neighbour.is_dir()
    model.refresh_from_db()
    assert model.files_removed_at is not None and model.run is not None
    assert whats(model) == ["deleted", "files_removed"] and ModelEvent.objects.order_by("pk")[0].actor == people.alice
    # Again: nothing to do, nothing to say.
    assert delete(model, people.alice, django_capture_on_commit_callbacks).status_code == 200
    assert whats(model) == ["deleted", "files_removed"]


def test_nothing_is_removed_before_the_deletion_is_committed(model: ModelVersion, people: RunCast) -> None:
    delete_model(model, actor=people.alice)  # inside the test's transaction, which never commits
    assert (model.path / "model.safetensors").is_file()
    assert ModelVersion.objects.get().deleted_at is not None and ModelVersion.objects.get().files_removed_at is None


@pytest.mark.parametrize("reads", ["base", "input", "waiting"])
def test_it_is_kept_while_a_run_that_is_not_finished_reads_it(
    model: ModelVersion, snapshot: Snapshot, people: RunCast, reads: str, django_capture_on_commit_callbacks: Any
) -> None:
    fields = {"base": {"base_version": model}, "waiting": {"base_version": model, "state": "waiting"}}.get(reads, {})
    if reads == "waiting":
        fields |= {"parent": model.run, "queued_at": None}
    run = queue_run(snapshot, **fields)
    if reads == "input":
        RunInput.objects.create(run=run, role="reward_model", name=f"registry:{model.pk}", version=model)
    answer = delete(model, people.alice, django_capture_on_commit_callbacks)
    assert answer.status_code == 409, answer.content
    assert answer.json()["error"]["code"] == "in_use" and answer.json()["error"]["extra"] == {"runs": [run.pk]}
    assert (model.path / "model.safetensors").is_file() and whats(model) == []
    Run.objects.filter(pk=run.pk).update(state="cancelled", finished_at="2026-01-01T00:00:00Z")
    assert delete(model, people.alice, django_capture_on_commit_callbacks).status_code == 200


def test_a_finished_run_that_read_it_does_not_hold_it(
    model: ModelVersion, snapshot: Snapshot, people: RunCast, django_capture_on_commit_callbacks: Any
) -> None:
    queue_run(snapshot, base_version=model)
    fail(claim(), reason="because")
    assert delete(model, people.alice, django_capture_on_commit_callbacks).status_code == 200


def test_what_is_in_production_is_kept(
    model: ModelVersion, people: RunCast, django_capture_on_commit_callbacks: Any
) -> None:
    ModelVersion.objects.update(stage="production")
    answer = delete(model, people.alice, django_capture_on_commit_callbacks)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "in_production")
    assert model.path.is_dir()


def test_what_could_not_be_removed_is_said_and_tried_again(
    model: ModelVersion, people: RunCast, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(model.path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", broken)
        answer = delete(model, people.alice, django_capture_on_commit_callbacks)
        assert answer.status_code == 200 and answer.json()["files_removed_at"] is None
        assert remove_left_files() == 0
    # Nobody finds half a model meanwhile, and the same reason is told once.
    assert not model.path.exists() and (model.path.parent / ".trash-model").is_dir()
    assert whats(model) == ["deleted", "files_kept"]
    html = page_of(people.alice).get(f"/models/{model.pk}/").content.decode()
    assert "could not be removed yet" in html and "Permission denied" in html
    with django_capture_on_commit_callbacks(execute=True):
        page_of(people.alice).post(f"/models/{model.pk}/delete/")
    assert [path.name for path in model.path.parent.iterdir()] == ["report.json"]
    assert whats(model) == ["deleted", "files_kept", "files_removed"]


@pytest.mark.django_db(transaction=True)
def test_the_page_tells_what_became_of_the_files(
    model: ModelVersion, people: RunCast, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/models/{model.pk}/delete/"
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *args: Path("/proc/no-such/file").touch())
        told = page_of(people.alice).post(address, follow=True).content.decode()
        assert "its files could not be removed yet" in told and "Try again" in told
    assert "files were removed; its lineage stays" in page_of(people.alice).post(address, follow=True).content.decode()


def test_left_files_are_removed_by_whoever_looks_after_the_server(
    model: ModelVersion, snapshot: Snapshot, people: RunCast
) -> None:
    kept = finished(snapshot)
    with_files(kept)
    delete_model(model, actor=people.alice)
    assert remove_left_files() == 1
    assert not model.path.exists() and kept.path.is_dir()
    assert remove_left_files() == 0


@pytest.mark.parametrize("folder", ["../outside/model", "/{outside}/model", "1/../../outside/model", "", ".", ".."])
def test_nothing_outside_the_folder_of_runs_is_removed(
    snapshot: Snapshot, people: RunCast, runs_root: Path, folder: str
) -> None:
    outside = runs_root.parent / "outside"
    for place in (outside / "model", runs_root / "1"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    model = make_model(snapshot, folder=folder.format(outside=outside), deleted_at="2026-01-01T00:00:00Z")
    assert remove_left_files() == 0
    assert (outside / "model" / "config.json").is_file() and (runs_root / "1" / "config.json").is_file()
    assert whats(model) == ["files_kept"]


@pytest.mark.parametrize("linked", ["run", "model", "inside"])
def test_links_are_not_followed(snapshot: Snapshot, runs_root: Path, linked: str) -> None:
    """A link on the way is refused; of one in the place of the model, or in it, the link alone goes."""
    other = runs_root / "other" / "out" / "model"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    out = runs_root / "1" / "out"
    if linked == "run":
        (runs_root / "1").symlink_to(runs_root / "other")
    elif linked == "model":
        out.mkdir(parents=True)
        (out / "model").symlink_to(other)
    else:
        (out / "model").mkdir(parents=True)
        (out / "model" / "weights").symlink_to(other)
    make_model(snapshot, folder="1/out/model", deleted_at="2026-01-01T00:00:00Z")
    assert remove_left_files() == (0 if linked == "run" else 1)
    assert (other / "config.json").is_file()
    assert linked == "run" or not (out / "model").is_symlink() and list(out.iterdir()) == []


def test_without_the_folder_of_runs_nothing_is_said_to_be_gone(snapshot: Snapshot, runs_root: Path) -> None:
    make_model(snapshot, folder="1/out/model", deleted_at="2026-01-01T00:00:00Z")
    assert not runs_root.exists() and remove_left_files() == 0
    runs_root.mkdir()
    assert remove_left_files() == 1


def test_only_engineers_of_its_own_project_delete(
    model: ModelVersion, people: RunCast, django_capture_on_commit_callbacks: Any
) -> None:
    for user, status, page_status in ((people.charlie, 404, 404), (people.bob, 403, 403), (None, 401, 302)):
        assert delete(model, user, django_capture_on_commit_callbacks).status_code == status
        for method in ("get", "post"):
            assert getattr(page_of(user), method)(f"/models/{model.pk}/delete/").status_code == page_status
    ModelVersion.objects.update(shared=True)
    assert delete(model, people.charlie, django_capture_on_commit_callbacks).status_code == 403
    assert client_of(people.alice, "read", "write").delete(f"/api/v1/models/{model.pk}/").status_code == 403
    assert model.path.is_dir() and whats(model) == []


def test_the_page_asks_first_and_names_the_runs_that_hold_it(
    model: ModelVersion, snapshot: Snapshot, people: RunCast
) -> None:
    ModelVersion.objects.update(shared=True)
    client = page_of(people.alice)
    assert "Delete this model?" in client.get(f"/models/{model.pk}/delete/").content.decode()
    assert ModelVersion.objects.get().deleted_at is None
    mine = queue_run(snapshot, base_version=model, name="my <run>")
    queue_run(make_snapshot(people.charlie.memberships.get().project), base_version=model, name="theirs")
    html = client.get(f"/models/{model.pk}/delete/").content.decode()
    assert "my &lt;run&gt;" in html and f"/runs/{mine.pk}/" in html
    assert "theirs" not in html and "one run of another project" in html
    assert '<button class="danger">' not in html
    assert "not finished read it" in client.post(f"/models/{model.pk}/delete/", follow=True).content.decode()
    assert ModelVersion.objects.get().deleted_at is None


def test_a_deleted_model_tells_what_it_was(
    model: ModelVersion, people: RunCast, django_capture_on_commit_callbacks: Any
) -> None:
    assert delete(model, people.alice, django_capture_on_commit_callbacks).status_code == 200
    html = page_of(people.alice).get(f"/models/{model.pk}/").content.decode()
    assert "It was deleted on" in html and "71.0\xa0%" in html and f"/runs/{model.run_id}/" in html
    assert "/promote/" not in html and "/download/" not in html
    listed = client_of(people.alice).get("/api/v1/models/").json()["results"][0]
    assert listed["deleted_at"] is not None and listed["files_removed_at"] is not None
