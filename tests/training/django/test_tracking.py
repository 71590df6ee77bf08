"""Runs told to MLflow's own server; and trackers that are slow, away or refuse, which is no affair of the run's."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from annotate.models import Snapshot
from tests.training.django.helpers import claim, queue_run
from tests.training.told import Recipe, points, told_in
from training.models import Run
from training.runner import tracking
from training.runner.mlflow import Server, basic, metric_name
from training.runner.tracking import End, Tracking
from training.services.claims import Claim, give_back
from training.services.tracking import note_tracker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("runs_root")]

SECRET = "a-secret-of-ours"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-m", "tests.training.django.mlflow_server", str(folder)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None and process.stdin is not None
    port = process.stdout.readline().strip()
    assert port, (folder / "log.txt").read_text()
    yield Server(f"http://127.0.0.1:{port}")
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=30)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(tracking, "LOOK_EVERY_SECONDS", 0.02)
    settings.MLFLOW_TOKEN, settings.MLFLOW_EXPERIMENT = SECRET, "tests of {project}"


@pytest.fixture
def run(snapshot: Snapshot) -> Run:
    return queue_run(snapshot, config={"seed": 7, "reward": ["exact"], "warmup": None})


@pytest.fixture
def recipe(run: Run) -> Recipe:
    run.folder.mkdir(parents=True)
    return Recipe(run.folder / "out")


def begin(run: Run) -> Tracking:
    held = claim()
    found = Tracking(run, held, output=run.folder / "out", log=run.folder / "log.txt", holds=lambda: True)
    found.start()
    return found


def eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def trackers(run: Run) -> dict[str, Any]:
    run.refresh_from_db()
    return dict(run.trackers)


def runs_there(mlflow: Server, run: Run, *, view: str = "ACTIVE_ONLY") -> list[dict[str, Any]]:
    name = f"tests of {run.project.slug}"
    experiment = mlflow.get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
    return mlflow.post("runs/search", experiment_ids=[experiment], run_view_type=view).get("runs", [])


def losses_there(mlflow: Server, there: dict[str, Any]) -> list[tuple[int, float]]:
    told = mlflow.get("metrics/get-history", run_id=there["info"]["run_id"], metric_key="train/loss", max_results="999")
    return sorted((one["step"], one["value"]) for one in told["metrics"])


def test_mlflow_shows_a_resumed_run_once_with_each_step_once(
    mlflow: Server, run: Run, recipe: Recipe, settings: Any
) -> None:
    settings.MLFLOW_URI = mlflow.uri
    first = begin(run)
    recipe.begin(0)
    recipe.train(7, 1.0, **{"ppo/reward/regex:^a//b$": 0.5})
    there = eventually(lambda: trackers(run).get("MLflow", {}).get("url") and runs_there(mlflow, run))[0]
    assert trackers(run)["MLflow"]["url"].endswith(f"/runs/{there['info']['run_id']}")
    eventually(lambda: len(losses_there(mlflow, there)) == 7)
    tags = [{"key": "mlflow.note.content", "value": "Look at this one."}, {"key": "team", "value": "blue"}]
    mlflow.post("runs/log-batch", run_id=there["info"]["run_id"], tags=tags)
    run.refresh_from_db()
    give_back(Claim(run.pk, run.attempt), lost=False, reason="x")
    first.close(End("queued", "x", None))
    assert runs_there(mlflow, run)[0]["info"]["status"] == "SCHEDULED"

    second = begin(run)
    recipe.begin(3)
    recipe.train(5, 2.0)
    second.close(End("succeeded", "", 42))
    (after,) = runs_there(mlflow, run)
    assert losses_there(mlflow, after) == points((1, 3, 1.0), (4, 5, 2.0))
    assert (after["info"]["status"], after["info"]["run_name"]) == ("FINISHED", "a run")
    assert {one["key"] for one in after["data"]["metrics"]} >= {"train/loss", "ppo/reward/regex__a/b_"}
    found = {one["key"]: one["value"] for one in after["data"]["params"]}
    assert found == {"seed": "7", "reward": '["exact"]', "warmup": "null", "processes": "1", "nodes": "1"}
    found = {one["key"]: one["value"] for one in after["data"]["tags"]}
    assert (found["mlflow.note.content"], found["team"], found["plackett.model"]) == ("Look at this one.", "blue", "42")
    assert found["plackett.snapshot_sha256"] == run.snapshot.sha256  # type: ignore[union-attr]
    assert (found["plackett.run"], found["plackett.attempt"]) == (str(run.pk), "2")
    (deleted,) = runs_there(mlflow, run, view="DELETED_ONLY")
    assert deleted["info"]["run_id"] == there["info"]["run_id"]
    assert told_in(run.folder / "tensorboard") == points((1, 3, 1.0), (4, 5, 2.0))


class Refusing(HTTPServer):
    """Answers everything with one status, after a while; keeps what it was sent."""

    def __init__(self, status: int, *, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.seconds, self.seen = status, seconds, list[str]()
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Refusing

    def answer(self) -> None:
        self.server.seen.append(self.headers["Authorization"])
        self.server.over.wait(self.server.seconds)
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(json.dumps({"error_code": "NO", "message": f"not with {SECRET}"}).encode())

    do_GET = do_POST = answer

    def log_message(self, *_: Any) -> None:
        return


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "refuses the log-in"), (302, "sends us elsewhere"), (400, "HTTP 400"), (500, "HTTP 500")],
)
def test_who_refuses_is_given_up_with_one_warning_and_no_secret(
    run: Run, recipe: Recipe, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, status: int, words: str
) -> None:
    monkeypatch.setattr(tracking, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    server = Refusing(status)
    settings.MLFLOW_URI = f"http://127.0.0.1:{server.server_port}"
    told = begin(run)
    recipe.begin(0)
    recipe.train(2, 1.0)
    fault = eventually(lambda: trackers(run).get("MLflow", {}).get("fault"))
    told.close(End("succeeded", "", None))
    server.shutdown()
    server.server_close()
    assert words in fault and set(server.seen) == {f"Bearer {SECRET}"}
    log = (run.folder / "log.txt").read_text()
    assert log.count("MLflow is told no more of this run") == 1 and words in log
    assert SECRET not in log + fault + caplog.text
    assert told_in(run.folder / "tensorboard") == points((1, 2, 1.0)), "the others go on"


def test_who_is_slow_or_away_holds_nothing_up(
    run: Run, recipe: Recipe, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "WAIT_SECONDS", 0.2)
    slow = Refusing(500, seconds=60)
    settings.MLFLOW_URI = f"http://127.0.0.1:{slow.server_port}"
    told = begin(run)
    recipe.begin(0)
    recipe.train(2, 1.0)
    eventually(lambda: slow.seen)  # it has been asked, and does not answer
    before = time.monotonic()
    told.close(End("succeeded", "", None))
    assert time.monotonic() - before < 30, "the run's end does not wait for it"
    slow.over.set()
    slow.shutdown()
    slow.server_close()


def test_an_attempt_that_lost_the_run_tells_nothing_more(run: Run, recipe: Recipe, settings: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings.MLFLOW_URI = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    held, holds = claim(), [True]
    lost = Tracking(run, held, output=run.folder / "out", log=run.folder / "log.txt", holds=lambda: holds[0])
    lost.start()
    recipe.begin(0)
    recipe.train(2, 1.0)
    eventually((run.folder / "tensorboard").is_dir)
    give_back(held, lost=True, reason="x")
    claim()
    holds[0] = False
    recipe.train(4, 1.0)
    lost.close(None)
    note_tracker(held, name="MLflow", fault="late")
    assert trackers(run) == {} and not (run.folder / "log.txt").exists()
    assert told_in(run.folder / "tensorboard") == points((1, 2, 1.0))


@pytest.mark.parametrize(
    ("name", "there"), [("train/loss", "train/loss"), ("a:b c", "a_b c"), ("/../x//y/", "x/y"), ("..", "_")]
)
def test_names_are_as_mlflow_takes_them(name: str, there: str) -> None:
    assert metric_name(name) == there


def test_a_name_and_a_password_are_a_header() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
