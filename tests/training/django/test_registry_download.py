"""A model to take away: by download and by command, whole and checked, or not at all."""

import hashlib
import io
import os
import resource
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast
from tests.training.django.test_registry_deletion import WEIGHTS, with_files
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_run_api import client_of, finished
from training.api import models as api
from training.models import ModelVersion
from training.services import model_archive

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(snapshot: Snapshot, runs_root: Path) -> ModelVersion:
    found = finished(snapshot)
    with_files(found)
    (found.path / "deep").mkdir()
    (found.path / "deep" / ("n" * 120 + ".json")).write_bytes(b"x" * 512)
    (found.path / "empty.txt").write_bytes(b"")
    (found.path / "secret").symlink_to("/etc/passwd")
    return found


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves half read takes no place from the next."""
    monkeypatch.setattr(api, "_room", threading.BoundedSemaphore(api.AT_ONCE))


NAMES = ["README.md", "SHA256SUMS", "config.json", "deep/" + "n" * 120 + ".json", "empty.txt", "model.safetensors"]


def download(model: ModelVersion, user: Any) -> Any:
    return client_of(user).get(f"/api/v1/models/{model.pk}/download/")


def test_the_archive_holds_the_files_and_their_sums(model: ModelVersion, people: RunCast, tmp_path: Path) -> None:
    answer = download(model, people.alice)
    assert answer.status_code == 200 and answer["Content-Type"] == "application/x-tar"
    content = b"".join(answer.streaming_content)
    assert int(answer["Content-Length"]) == len(content)
    folder = f"{model.project.slug}-model-{model.pk}"
    assert answer["Content-Disposition"] == f'attachment; filename="{folder}.tar"'
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(tmp_path, filter="data")
    found = tmp_path / folder
    assert sorted(str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()) == NAMES
    assert (found / "model.safetensors").read_bytes() == WEIGHTS
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=found, check=True)
    assert len((found / "SHA256SUMS").read_text().splitlines()) == len(NAMES) - 1
    head = client_of(people.alice).head(f"/api/v1/models/{model.pk}/download/")
    assert (head["Content-Length"], head.content) == (answer["Content-Length"], b"")


def test_a_large_file_takes_no_memory(model: ModelVersion, people: RunCast) -> None:
    size = 300 << 20
    with (model.path / "model.safetensors").open("wb") as file:
        file.truncate(size)  # a hole: no room on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = largest = 0
    for block in download(model, people.alice).streaming_content:
        seen, largest = seen + len(block), max(largest, len(block))
    assert seen > size and largest <= 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_a_file_that_changes_meanwhile_breaks_the_download(model: ModelVersion, people: RunCast) -> None:
    for change in (lambda path: os.truncate(path, 10), lambda path: path.unlink()):
        answer = download(model, people.alice)
        change(model.path / "model.safetensors")
        with pytest.raises((model_archive.Broken, OSError)):
            b"".join(answer.streaming_content)
        model.path.joinpath("model.safetensors").write_bytes(WEIGHTS)


def test_two_downloads_at_once_and_a_place_is_given_back(model: ModelVersion, people: RunCast) -> None:
    answers = [download(model, people.alice) for _ in range(api.AT_ONCE + 1)]
    assert [answer.status_code for answer in answers] == [200] * api.AT_ONCE + [429]
    assert answers[-1]["Retry-After"] == str(api.RETRY_SECONDS)
    for answer in answers[: api.AT_ONCE]:
        b"".join(answer.streaming_content)
    for _ in range(api.AT_ONCE + 1):
        b"".join(download(model, people.alice).streaming_content)


def test_what_is_not_there_is_not_sent(model: ModelVersion, snapshot: Snapshot, people: RunCast) -> None:
    for other, code in (
        (make_model(snapshot), "damaged"),
        (make_model(snapshot, deleted_at="2026-01-01T00:00:00Z"), "deleted"),
    ):
        answer = download(other, people.alice)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)


def test_downloads_are_for_engineers_and_shared_models_for_all_of_them(model: ModelVersion, people: RunCast) -> None:
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401)):
        assert download(model, user).status_code == status
    assert client_of(people.alice, "write").get(f"/api/v1/models/{model.pk}/download/").status_code == 403
    ModelVersion.objects.filter(pk=model.pk).update(shared=True)
    assert download(model, people.bob).status_code == 403
    assert download(model, people.charlie).status_code == 200


# --- as a copy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_before", [True, False])
def test_the_export_is_the_same_folder(model: ModelVersion, tmp_path: Path, made_before: bool, capsys: Any) -> None:
    target = tmp_path / "below" / "export"
    if made_before:
        target.mkdir(parents=True)
    call_command("export_model", model.pk, str(target), verbosity=0)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == NAMES
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=target, check=True)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert [path.name for path in target.parent.iterdir()] == ["export"]
    assert "5 files" in capsys.readouterr().out


def test_the_export_overwrites_nothing(model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in ("full", "full/mine", "link"):
        with pytest.raises(CommandError, match="not an empty folder"):
            call_command("export_model", model.pk, str(tmp_path / target), verbosity=0)
    assert (tmp_path / "full" / "mine").read_text() == "mine"


def test_a_copy_that_is_not_like_the_original_is_not_left(
    model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_archive, "_digest", lambda path: hashlib.sha256(b"bit rot").hexdigest())
    with pytest.raises(CommandError, match="was not written as it was read"):
        call_command("export_model", model.pk, str(tmp_path / "export"), verbosity=0)
    assert not [path for path in tmp_path.iterdir() if "export" in path.name]


def test_a_dry_run_writes_nothing(model: ModelVersion, tmp_path: Path, capsys: Any) -> None:
    call_command("export_model", model.pk, str(tmp_path / "export"), dry_run=True)
    assert "0 files were written" in capsys.readouterr().out and not (tmp_path / "export").exists()
    for pk in (model.pk + 1, make_model(model.run.snapshot, deleted_at="2026-01-01T00:00:00Z").pk):  # type: ignore[union-attr,arg-type]
        with pytest.raises(CommandError):
            call_command("export_model", pk, str(tmp_path / "export"))
