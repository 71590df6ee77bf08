"""Starting a run: all that can be checked is checked before it is queued; the command line does the same."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Snapshot
from annotate.services.imports import import_files
from annotate.services.snapshots import freeze_snapshot, withdraw_snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import claim, make_snapshot
from tests.training.snapshots import record, records, write_jsonl
from training.models import ModelVersion, Run
from training.selectors import train_pairs
from training.services.claims import fail
from training.services.runs import cancel_run, resume_run, start_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def start(snapshot: Snapshot, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "project": snapshot.project,
        "started_by": None,
        "kind": "reward",
        "snapshot": snapshot,
        "base_model": "tiny",
        "config": {},
    }
    return start_run(**(values | changes))


def faults_of(snapshot: Snapshot, **changes: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        start(snapshot, **changes)
    assert not Run.objects.exists()
    return refusal.value.fields


def test_a_started_run_is_queued_with_every_setting(snapshot: Snapshot) -> None:
    run = start(snapshot, config={"learning_rate": "1e-4", "epochs": 3})
    assert (run.state, run.queue, run.attempt, run.step) == ("queued", "gpu", 0, 0)
    assert run.name == "Reward model from first"
    assert run.config["learning_rate"] == 1e-4 and run.config["epochs"] == 3
    assert run.config["batch_size"] == 8  # the default of today stays with the run
    assert not set(run.config) & {"model", "data", "output", "resume"}


def test_wrong_settings_are_named_one_by_one(snapshot: Snapshot) -> None:
    config = {"epochs": 0, "batch_size": "many", "colour": 1, "data": "/etc/passwd", "output": "/tmp", "ties": "maybe"}
    faults = faults_of(snapshot, config=config, name="x" * 121, base_model="nothing here")
    assert set(faults) == {f"config.{name}" for name in config} | {"name", "base_model"}


@pytest.mark.parametrize(
    "name",
    ["", "missing", "../tiny", "/etc", "a/b/c", "registry:999999", "registry:x", "tiny/../tiny", ".tiny", "ti ny"],
)
def test_base_models_that_are_none_are_refused(snapshot: Snapshot, name: str) -> None:
    assert set(faults_of(snapshot, base_model=name)) == {"base_model"}


def test_base_models_by_folder_hub_and_registry(snapshot: Snapshot, settings: Any, tmp_path: Path) -> None:
    settings.MODELS_ROOT = tmp_path
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    policy = ModelVersion.objects.create(
        project=snapshot.project, name="p", kind="policy", folder="9/out/model", size_bytes=1
    )
    assert start(snapshot, base_model="mine").base_version is None
    assert start(snapshot, base_model="owner/name").base_model == "owner/name"
    assert start(snapshot, base_model=f"registry:{policy.pk}").base_version == policy


def test_a_model_of_another_project_is_no_base_unless_shared(snapshot: Snapshot) -> None:
    other = ModelVersion.objects.create(project=make_project(), name="p", kind="policy", folder="f", size_bytes=1)
    assert "no such model" in faults_of(snapshot, base_model=f"registry:{other.pk}")["base_model"]
    ModelVersion.objects.filter(pk=other.pk).update(shared=True)
    assert start(snapshot, base_model=f"registry:{other.pk}").base_version == other


def test_a_reward_model_is_no_base_of_one(snapshot: Snapshot) -> None:
    model = ModelVersion.objects.create(project=snapshot.project, name="r", kind="reward", folder="f", size_bytes=1)
    assert "policy" in faults_of(snapshot, base_model=f"registry:{model.pk}")["base_model"]


def test_snapshots_that_cannot_be_trained_from_are_refused(project: Project) -> None:
    elsewhere = make_snapshot(make_project())
    assert "no such snapshot" in faults_of(elsewhere, project=project)["snapshot"]
    held_out = make_snapshot(project, [record(1, split="validation")])
    assert "train split" in faults_of(held_out)["snapshot"]
    gone = make_snapshot(project)
    withdraw_snapshot(snapshot=gone)
    assert "withdrawn" in faults_of(gone)["snapshot"]


def test_a_snapshot_made_by_the_real_service_counts_its_pairs(tmp_path: Path) -> None:
    project = make_project()
    path = write_jsonl(tmp_path / "data.jsonl", records(train=6, validation=2))
    import_files(project=project, files=[path], format="plackett")
    snapshot = freeze_snapshot(project=project, name="frozen")
    assert train_pairs(snapshot) == 20  # K = 2, 3, 4 twice: 1 + 3 + 6, twice
    assert start(snapshot).snapshot == snapshot


def test_only_what_failed_or_was_cancelled_is_resumed(snapshot: Snapshot) -> None:
    run = start(snapshot)
    with pytest.raises(Conflict):
        resume_run(run)
    fail(claim(), reason="because")
    again = resume_run(run)
    assert (again.state, again.reason, again.finished_at, again.cancel_requested_at) == ("queued", "", None, None)
    cancel_run(again)
    withdraw_snapshot(snapshot=snapshot)
    with pytest.raises(Conflict, match="withdrawn"):
        resume_run(run)


def test_what_is_finished_cannot_be_cancelled(snapshot: Snapshot) -> None:
    run = start(snapshot)
    fail(claim(), reason="because")
    with pytest.raises(Conflict, match="failed"):
        cancel_run(run)


# --- manage.py start_run ---------------------------------------------------------------------------------------------


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("start_run", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_queues_a_run_from_the_newest_snapshot(snapshot: Snapshot) -> None:
    newest = make_snapshot(snapshot.project, name="second")
    told = command("--project", snapshot.project.slug, "--base-model", "tiny", "--set", "batch-size=2")
    run = Run.objects.get()
    assert run.snapshot == newest and run.config["batch_size"] == 2
    assert f"Run {run.pk} was queued" in told


def test_the_command_can_only_look(snapshot: Snapshot) -> None:
    told = command("--project", snapshot.project.slug, "--base-model", "tiny", "--dry-run")
    assert "dry run" in told and not Run.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--project", "nowhere"], "no project nowhere"),
        (["--base-model", "missing"], "base_model: There is no model folder missing"),
        (["--set", "epochs"], "NAME=VALUE"),
        (["--set", "epochs=0"], "config.epochs: must be at least 1"),
        (["--snapshot", "987654"], "no snapshot 987654"),
        (["--user", "nobody"], "no user nobody"),
        (["--kind", "evaluate"], "baseline: A policy is compared with another"),
        (["--kind", "sing"], "kind: One of reward, sft, dpo, ppo, evaluate, sample"),
    ],
)
def test_the_command_says_what_is_wrong(snapshot: Snapshot, arguments: list[str], match: str) -> None:
    base = ["--project", snapshot.project.slug, "--base-model", "tiny"]
    with pytest.raises(CommandError, match=match):
        command(*base, *arguments)
    assert not Run.objects.exists()
