"""Every example of docs/client.md is run, in its order, against a real server; runs are ended as workers end them."""

import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from pytest_django.live_server_helper import LiveServer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from annotate.models import Project, Ranking, Role, Snapshot, User
from annotate.services.machines import create_machine
from annotate.services.queue import next_leases
from annotate.services.tokens import create_token
from plackett.cli import main
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.plackett.fences import DOCS, fences
from tests.training.django.helpers import queue_run
from training.core.local_models import make_tiny_model
from training.models import ModelVersion, Run
from training.services.claims import claim_run, mark_running, succeed, update_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    found = make_project("demo", overlap=2)
    bob = make_user("bob", project=found)
    for number in range(3):
        make_task(found, overlap=2, question=f"Why {number}?")
        submit(next_leases(project=found, annotator=bob)[0], bob)
    return found


@pytest.fixture
def alice(project: Project) -> User:
    return make_user("alice", project=project, role=Role.MANAGER, engineer=True)


@pytest.fixture
def worker() -> Iterator[None]:
    """Claims runs and ends them well, by the calls that workers make; nothing is trained."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            if (claim := claim_run(queues=["gpu", "cpu"], worker="w", host="h")) is not None:
                mark_running(claim, process_id=1, process_started_at=1.0)
                update_run(claim, step=1, total_steps=1)
                succeed(claim, model=None, step=1)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def reward_model(project: Project, alice: User, folder: Path) -> ModelVersion:
    """A tiny reward model in the registry, as a run would have left it."""
    tiny = make_tiny_model(folder / "tiny")
    snapshot = Snapshot.objects.create(
        project=project, name="s", sha256="0" * 64, size_bytes=1, change=0, file="none", created_by=alice
    )
    done = queue_run(snapshot, queue="nobodys")
    Run.objects.filter(pk=done.pk).update(state=Run.State.CANCELLED, finished_at=Now())
    found = ModelVersion.objects.create(
        project=project, name="judge", kind="reward", run=done, folder="runs/judge/model", size_bytes=1
    )
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1).save_pretrained(found.path)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(found.path)
    return found


def test_every_example_works(
    project: Project,
    alice: User,
    worker: None,
    live_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: Any,
) -> None:
    settings.RUNS_ROOT, settings.MODELS_ROOT = tmp_path / "runs", tmp_path / "models"
    token = create_token(user=alice, name="t", scopes=["read", "write", "train", "annotate"])[1]
    machine, machine_token = create_machine(project=project, by=alice, name="judge")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACKETT_CREDENTIALS", str(tmp_path / "kept.json"))
    (tmp_path / "token.txt").write_text(token + "\n")
    shown = re.search(r"^```\n(\{.*?)^```$", (DOCS / "client.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "prompts.jsonl").write_text(shown[1] if shown else "")
    names: dict[str, Any] = {"server": live_server.url, "token": token, "machine_token": machine_token}
    names["model_id"] = reward_model(project, alice, tmp_path).pk
    printed: list[str] = []
    for kind, text, where in fences("client.md"):
        if kind == "console":
            for line in text.splitlines():
                command = line.removeprefix("$ plackett ").replace("http://127.0.0.1:8000", live_server.url)
                command = re.sub(r"(--snapshot|^wait) 1\b", lambda found: f"{found[1]} {printed[-1]}", command)
                assert main(shlex.split(command)) == 0, (line, capsys.readouterr().err)
                printed.append(capsys.readouterr().out.strip().splitlines()[-1])
        elif kind == "python":
            exec(compile(text, where, "exec"), names)
    assert (tmp_path / "prefs.jsonl").read_text().count("\n") == 3, "the second pull brought nothing twice"
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 9
    assert names["done"]["state"] == "succeeded" and names["pairs"].num_rows == 9
    ranked = Ranking.objects.filter(annotator=machine.user)
    assert ranked.count() == 6, "three tasks that were there, two pushed, one made in Python"
    from datasets import load_from_disk  # heavy

    assert load_from_disk(str(tmp_path / "pairs")).column_names == ["prompt", "chosen", "rejected"]
    assert User.objects.filter(username="demo.llm-judge", kind="machine").exists()
    assert Run.objects.filter(state="succeeded").count() == 2
