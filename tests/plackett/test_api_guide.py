"""Every example of docs/api.md is run from top to bottom against a real server: curl's in a shell, Python's here.

What a worker does besides (it trains, and sends what webhooks are told) a thread does, by the calls of workers.
"""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from pytest_django.live_server_helper import LiveServer

from annotate.models import ApiToken, Project, Ranking, User, Webhook
from annotate.services import outbox
from annotate.services.tokens import create_token
from tests.annotate.factories import make_user
from tests.plackett.fences import fences
from training.models import ModelVersion, Run
from training.services.claims import Claim, claim_run, mark_running, succeed, update_run
from training.services.metrics import StepMetrics, record_metrics

pytestmark = [
    pytest.mark.django_db(transaction=True, reset_sequences=True),
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are not installed"),
]


def train(claim: Claim) -> None:
    """Four steps and a model, as a trainer and its worker leave them."""
    mark_running(claim, process_id=1, process_started_at=1.0)
    update_run(claim, total_steps=4)
    rows = [StepMetrics(step, {"train/loss": 1 / step}) for step in range(1, 5)]
    record_metrics(claim, rows=rows, from_step=0)
    run = Run.objects.get(pk=claim.run_id)
    made = ModelVersion(
        project=run.project, name=f"reward {run.pk}", kind="reward", run=run, folder=f"{run.pk}/model", size_bytes=2
    )
    made.path.mkdir(parents=True)
    (made.path / "config.json").write_text("{}")
    succeed(claim, model=made, step=4)


@pytest.fixture
def worker(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    settings.WEBHOOK_PRIVATE, settings.RUNS_ROOT = True, tmp_path / "runs"
    monkeypatch.setattr(outbox, "PAUSES", (timedelta(seconds=0.1),) * 10_000)
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            if (claim := claim_run(queues=["gpu", "cpu"], worker="w", host="h")) is not None:
                train(claim)
            outbox.deliver_due()
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def admin() -> User:
    return make_user("admin", is_superuser=True, is_staff=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Reader:
    """Follows the guide in a folder of theirs, with their server and token instead of those in it."""

    def __init__(self, server: str, token: str, folder: Path) -> None:
        self.folder, self.exports, self.printed = folder, "", ""
        self.names: dict[str, Any] = {}
        port = free_port()
        self.otherwise = {
            "http://127.0.0.1:8000": server,
            "pk_…": token,
            "https://hooks.example.org/plackett": f"http://127.0.0.1:{port}/plackett",
            "9000": str(port),
            "sleep 5": "sleep 0.05",
            "time.sleep(1)": "time.sleep(0.05)",
        }

    def follow(self, language: str, text: str, where: str) -> None:
        for theirs, own in self.otherwise.items():
            text = text.replace(theirs, own)
        {"bash": self.in_a_shell, "python": self.in_python, "json": self.compare}[language](text, where)

    def in_a_shell(self, text: str, where: str) -> None:
        self.exports += "".join(f"{line}\n" for line in text.splitlines() if line.startswith("export "))
        script = f"set -eu -o pipefail\n{self.exports}{text}"
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{where}: {done.stderr}{done.stdout}"
        self.printed = done.stdout

    def in_python(self, text: str, where: str) -> None:
        exec(compile(text, where, "exec"), self.names)

    def compare(self, text: str, where: str) -> None:
        assert fits(json.loads(text), json.loads(self.printed)), f"{where}: {self.printed}"


def fits(shown: Any, given: Any) -> bool:
    """Whether an answer is as the guide shows it; "…" is anything, and it may hold more than is shown."""
    if isinstance(shown, dict):
        return isinstance(given, dict) and all(name in given and fits(one, given[name]) for name, one in shown.items())
    if isinstance(shown, list):
        return isinstance(given, list) and len(shown) == len(given) and all(map(fits, shown, given))
    return bool(shown in ("…", given))


def test_every_example_works(
    admin: User, worker: None, live_server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = create_token(user=admin, name="guide", scopes=ApiToken.Scope.values)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVER", live_server.url)
    monkeypatch.setenv("TOKEN", token)
    reader = Reader(live_server.url, token, tmp_path)
    found = fences("api.md")
    assert {language for language, _text, _where in found} == {"bash", "python", "json"} and len(found) > 35
    for one in found:
        if "from trl import" not in one[1]:  # that one is run where TRL is loaded anyway
            reader.follow(*one)
        if receiver := reader.names.pop("receiver", None):
            receiver.server_close()  # else each further delivery would wait for it

    tea = Project.objects.get(slug="tea")
    assert Project.objects.filter(slug="coffee").exists()
    rankings = Ranking.objects.filter(project=tea)
    assert set(rankings.values_list("annotator__kind", flat=True)) == {"human", "machine", "imported"}
    assert rankings.filter(revision=2).count() >= 2 and reader.names["taken_back"]
    assert Run.objects.filter(state="succeeded").count() == 2
    assert [model.stage for model in ModelVersion.objects.order_by("pk")] == ["candidate", "production"]
    assert ModelVersion.objects.filter(deleted_at=None).count() == 1 and (tmp_path / "production").is_dir()
    assert not Webhook.objects.exists() and reader.names["refused"].status_code == 409
    goes_on(reader, tmp_path)


def goes_on(reader: Reader, folder: Path) -> None:
    """The guide's download of a snapshot takes what is there, and does not trust it."""
    path, manifest = folder / "second.jsonl", reader.names["snapshot"]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    reader.names["download"](manifest, path)
    assert path.read_bytes() == whole
    path.write_bytes(b"x" * 100)
    with pytest.raises(OSError):
        reader.names["download"](manifest, path)
    assert not path.exists()
