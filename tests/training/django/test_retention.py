"""What stays of the checkpoints of runs that are over, in a folder and in a bucket; who may keep them."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from annotate.models import Snapshot
from tests.bucket import use_bucket
from tests.training.django.helpers import RunCast, claim, queue_run
from tests.training.django.test_run_api import client_of, finished
from training.models import Retention, Run
from training.selectors_store import store_of
from training.services.claims import fail
from training.services.retention import keep_checkpoints, prune_checkpoints
from training.services.runs import resume_run
from training.store.bundles import local_checkpoints, plain
from webapp.tasks import prune_checkpoints as task

pytestmark = pytest.mark.django_db


def ended(run: Run, *, days: float, **fields: Any) -> Run:
    """The run as it would be had it ended so many days ago."""
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=days), **fields)
    return Run.objects.get(pk=run.pk)


def with_checkpoints(run: Run, *steps: int) -> Run:
    for step in steps:
        folder = run.folder / "out" / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(b"w" * step)
        (folder / "manifest.json").write_text('{"sha256": {}}')
    (run.folder / "out" / "metrics.jsonl").write_text("{}\n")
    return run


def kept(run: Run) -> list[int]:
    return local_checkpoints(run.folder / "out")


@pytest.fixture
def succeeded(snapshot: Snapshot, runs_root: Path) -> Run:
    run = finished(snapshot).run
    assert run is not None
    return with_checkpoints(run, 10, 20, 30)


@pytest.fixture
def failed(snapshot: Snapshot, runs_root: Path) -> Run:
    run = queue_run(snapshot)
    fail(claim(), reason="It broke.")
    return with_checkpoints(run, 10, 20)


def test_a_run_that_succeeded_keeps_its_newest_for_a_week(succeeded: Run, capsys: Any) -> None:
    run = ended(succeeded, days=6.9)
    call_command("prune_checkpoints", "--dry-run")
    assert "Would remove 2 checkpoints of 1 runs, 58 bytes" in capsys.readouterr().out and len(kept(run)) == 3
    assert [(one.run, one.steps) for one in prune_checkpoints()] == [(run, [10, 20])]
    assert kept(run) == [30] and prune_checkpoints() == []
    run = ended(run, days=7.1)
    assert task() == 1 and kept(run) == []
    run.refresh_from_db()
    assert run.checkpoints_removed_at is not None and (run.folder / "out" / "metrics.jsonl").is_file()


def test_of_a_suspect_run_the_step_whose_weights_it_published_stays(succeeded: Run) -> None:
    run = ended(succeeded, days=1, suspect=True, report={"kept_step": 10})
    prune_checkpoints()
    assert kept(run) == [30, 10]
    run = ended(run, days=8)
    prune_checkpoints()
    assert kept(run) == [10]


def test_a_run_that_failed_can_go_on_for_its_term_and_not_after(failed: Run, settings: Any) -> None:
    run = ended(failed, days=29)
    assert prune_checkpoints() == [] and kept(run) == [20, 10]
    resume_run(run)
    assert prune_checkpoints() == []
    run = ended(run, days=31, state="cancelled")
    assert len(prune_checkpoints()) == 1 and kept(run) == []
    # What it made after it was resumed is removed in its turn.
    run = ended(resume_run(run), days=1, state="cancelled")
    with_checkpoints_again(run)
    assert prune_checkpoints() == []
    settings.RESUME_DAYS = 0
    assert len(prune_checkpoints()) == 1


def with_checkpoints_again(run: Run) -> None:
    shutil.rmtree(run.folder)
    with_checkpoints(run, 5)


@pytest.mark.parametrize("how", ["parent", "base", "input", "wanted", "alive", "project"])
def test_what_somebody_still_needs_stays(failed: Run, snapshot: Snapshot, how: str) -> None:
    run = ended(failed, days=100)
    if how == "parent":
        queue_run(snapshot, state="waiting", parent=run, queued_at=None)
    elif how == "base":
        queue_run(snapshot, base_model=f"run:{run.pk}")
    elif how == "input":
        queue_run(snapshot).inputs.create(role="reward_model", name=f"run:{run.pk}")
    elif how == "wanted":
        keep_checkpoints(run, keep=True)
    elif how == "alive":
        resume_run(run)
        claim()
    else:
        Retention.objects.create(project=run.project, resume_days=101)
    assert prune_checkpoints() == [] and kept(run) == [20, 10]
    if how == "wanted":
        keep_checkpoints(run, keep=False)
        assert len(prune_checkpoints()) == 1


def test_a_link_is_removed_and_nothing_behind_it(failed: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    (failed.folder / "out" / "checkpoints" / "step-30").symlink_to(tmp_path / "elsewhere")
    ended(failed, days=31)
    prune_checkpoints()
    assert (tmp_path / "elsewhere" / "mine").is_file()


def test_it_is_the_same_in_a_bucket(succeeded: Run, settings: Any, tmp_path: Path) -> None:
    folder = succeeded.folder / "out"
    use_bucket(settings, tmp_path / "web")
    run = ended(succeeded, days=1)
    store = store_of(run)
    assert store is not None

    def publish(step: int | None) -> Any:
        return store.publish(folder, attempt=1, step=step, check=lambda: None, is_ours=lambda: True)

    publish(30)
    shutil.rmtree(folder / "checkpoints" / "step-10")
    shutil.move(folder / "checkpoints" / "step-30", folder / "checkpoints" / "step-40")
    newest, result = publish(40), publish(None)
    told = [{"step": step, "size_bytes": newest.size_of(step)} for step in newest.checkpoints]
    Run.objects.filter(pk=run.pk).update(stored={"files": plain(result.files), "checkpoints": told})

    assert [one.steps for one in prune_checkpoints()] == [[10, 20, 30]]
    run.refresh_from_db()
    assert [one["step"] for one in run.stored["checkpoints"]] == [40]
    (left,) = store.bundles()
    assert left.checkpoints == [40] and "metrics.jsonl" in [one.path for one in left.files]
    assert prune_checkpoints() == []
    run = ended(run, days=8)
    assert [one.steps for one in prune_checkpoints()] == [[40]]
    assert store.bundles() == [] and [name for name, _ in store.store.names(f"{store.prefix}/manifests/")] != []
    objects = {name.rpartition("/")[2] for name, _ in store.store.names(f"{store.prefix}/files/")}
    assert objects == {one.sha256 for one in result.files}


def page(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_page_says_what_is_kept_and_engineers_choose(
    failed: Run, people: RunCast, settings: Any, django_user_model: Any
) -> None:
    alice, address = page(people.alice), f"/runs/{failed.pk}/"
    shown = alice.get(address).content.decode()
    assert "2 are kept" in shown and "The run can go on from them until" in shown and "Keep them" in shown
    shown = alice.post(f"{address}keep/", {"keep": "1"}, follow=True).content.decode()
    assert "They stay until somebody lets them go." in shown and "Let them go" in shown
    url = f"/api/v1/runs/{failed.pk}/checkpoints/"
    answer = client_of(people.alice).get(url).json()
    assert answer["keep"] is True and answer["until"] is None and answer["removed"] is False
    assert [one["step"] for one in answer["checkpoints"]] == [20, 10]
    answer = client_of(people.alice).post(url, {"keep": False}).json()
    assert answer["keep"] is False and answer["until"] is not None
    ended(failed, days=31)
    prune_checkpoints()
    assert "resumed, the run would start over" in alice.get(address).content.decode()
    for user, status in ((people.charlie, 404), (people.bob, 403)):
        assert client_of(user).post(url, {"keep": True}).status_code == status
        assert page(user).post(f"{address}keep/", {"keep": "1"}).status_code == status
