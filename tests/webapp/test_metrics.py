"""/metrics: who may read it, and that its figures follow what happens."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import OperationalError, connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from annotate.models import Role, Snapshot, User
from annotate.services.queue import next_leases
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.settings import METRICS_TOKEN
from tests.stack.running import free_port
from tests.training.django.helpers import claim, expire, make_snapshot, queue_run
from training.models import Run, Worker
from training.services.claims import Claim, fail, mark_running, succeed
from training.services.runs import cancel_run
from webapp import metrics, metrics_folder

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-prometheus"
Figures = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def token(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN


@pytest.fixture
def no_token(settings: Any) -> None:
    settings.METRICS_TOKEN = ""


def parsed(text: str) -> Figures:
    """Figures by name and the values of their labels in the order of the labels' names."""
    return {
        (
            sample.name.removeprefix("plackett_"),
            tuple(sample.labels[name] for name in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures() -> Figures:
    answer = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    return parsed(answer.content.decode())


# --- who may read it -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_the_token_and_nothing_else_opens_it() -> None:
    for given, status in (
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (None, 404),
        ("Bearer", 404),
        ("Bearer ", 404),
        (f"Bearer {TOKEN}x", 404),
        (f"Bearer {TOKEN[:-1]}", 404),
        (f"Token {TOKEN}", 404),
        (TOKEN, 404),
        ("Bearer tök\xe9n", 404),
    ):
        answer = Client().get("/metrics", headers={"Authorization": given} if given is not None else {})
        assert answer.status_code == status, given
        assert (b"plackett_runs" in answer.content) == (status == 200)
    good = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert good["Content-Type"].startswith("text/plain; version=0.0.4") and "no-store" in good["Cache-Control"]
    assert Client().post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405


def anybody() -> list[User]:
    project = make_project()
    return [
        make_user(),
        make_user(project=project, role=Role.MANAGER, engineer=True),
        make_user(is_superuser=True, is_staff=True),
    ]


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_no_log_in_opens_it() -> None:
    for user in anybody():
        client = Client()
        client.force_login(user)
        pages = [client.get(address) for address in ("/metrics", "/no-such-address")]
        assert [page.status_code for page in pages] == [404, 404]
        same = [re.sub(r"\w{64}|/metrics|/no-such-address", "…", page.content.decode()) for page in pages]
        assert same[0] == same[1]


@pytest.mark.django_db
@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("10.0.0.7", {}, 404),
        ("::ffff:10.0.0.7", {}, 404),
        ("", {}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 404),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}, 404),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 404),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, 404),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 404),
        ("127.0.0.1", {"Authorization": "Bearer "}, 200),
    ],
)
def test_without_a_token_this_machine_alone_reads_it(address: str, headers: dict[str, str], status: int) -> None:
    assert Client(REMOTE_ADDR=address).get("/metrics", headers=headers).status_code == status


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_with_a_token_this_machine_needs_it_too() -> None:
    assert Client(REMOTE_ADDR="127.0.0.1").get("/metrics").status_code == 404


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_a_request_is_counted_by_view_method_and_status() -> None:
    before = figures()

    def more(name: str, *labels: str) -> float:
        return figures().get((name, labels), 0) - before.get((name, labels), 0)

    for address in ("/healthz", "/healthz", "/p/one/", "/p/another/", "/nowhere/1/", "/nowhere/2/"):
        Client().get(address)
    Client().generic("BREW", "/healthz")
    assert more("http_requests_total", "GET", "200", "healthz") == 2
    assert more("http_requests_total", "GET", "302", "project") == 2
    assert more("http_requests_total", "GET", "404", "unknown") == 2
    assert more("http_requests_total", "other", "405", "healthz") == 1
    assert more("http_request_seconds_count", "GET", "healthz") == 2
    assert more("http_request_seconds_bucket", "+Inf", "GET", "healthz") == 2
    assert 0 < more("http_request_seconds_sum", "GET", "healthz") < 60
    assert more("http_requests_total", "GET", "200", "metrics") >= 1
    assert not [labels for _, labels in figures() if any("nowhere" in one or "another" in one for one in labels)]


def test_counting_asks_the_database_nothing(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        Client().get("/healthz")


# --- runs, workers, annotation ---------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(db: None) -> Snapshot:
    return make_snapshot(make_project())


def mark(held: Claim) -> Claim:
    mark_running(held, process_id=1, process_started_at=1.0)
    return held


@pytest.mark.usefixtures("token")
def test_a_run_is_counted_in_each_state(snapshot: Snapshot) -> None:
    before = figures()
    assert {name for name, _ in before} >= {"runs", "run_leases", "slot_leases", "workers", "database_up"}
    done = queue_run(snapshot)
    succeed(mark(claim()), model=None, step=1)
    queue_run(snapshot)
    fail(claim(), reason="x")
    cancel_run(queue_run(snapshot))
    stopping = queue_run(snapshot)
    claim()
    cancel_run(stopping)
    queue_run(snapshot)
    mark(claim())
    queue_run(snapshot)
    claim()
    Run.objects.create(
        project=snapshot.project,
        name="w",
        kind="reward",
        snapshot=snapshot,
        base_model="tiny",
        state="waiting",
        parent=done,
    )
    queue_run(snapshot)
    after = figures()
    for state in Run.State.values:
        assert after["runs", (state,)] - before["runs", (state,)] == 1, state
    assert after["run_leases", ("open",)] - before["run_leases", ("open",)] == 3
    expire(stopping)
    expired = figures()
    assert expired["run_leases", ("open",)] - before["run_leases", ("open",)] == 2
    assert expired["run_leases", ("expired",)] - before["run_leases", ("expired",)] == 1


@pytest.mark.usefixtures("token")
def test_queues_tell_their_length_their_oldest_and_who_serves_them(snapshot: Snapshot) -> None:
    first, _ = queue_run(snapshot, queue="gpu.large"), queue_run(snapshot, queue="gpu.large")
    Run.objects.filter(pk=first.pk).update(queued_at="2001-01-01T00:00:00Z")
    seen = figures()
    assert seen["queue_runs", ("gpu.large",)] == 2
    assert seen["queue_oldest_seconds", ("gpu.large",)] > 20 * 365 * 24 * 3600
    assert seen["queue_workers", ("gpu.large",)] == 0 and seen["workers", ()] == 0
    for name, when in (("a", None), ("b", None), ("gone", "2001-01-01T00:00:00Z")):
        make_worker(name, queues=["gpu.large", "spare"], **({"seen_at": when} if when else {}))
    make_worker("stopped", queues=["spare"], stopped_at="2001-01-01T00:00:00Z")
    seen = figures()
    assert (seen["queue_workers", ("gpu.large",)], seen["queue_workers", ("spare",)]) == (2, 2)
    assert seen["workers", ()] == 2
    assert (seen["queue_runs", ("spare",)], seen["queue_oldest_seconds", ("spare",)]) == (0, 0)


def make_worker(name: str, **fields: Any) -> Worker:
    values = {"host": "h", "process_id": 1, "processors": 2, "memory_bytes": 8, "memory_used_bytes": 4}
    return Worker.objects.create(name=name, started_at="2001-01-01T00:00:00Z", **(values | fields))


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_leases_of_annotators_and_what_they_recorded() -> None:
    project = make_project()
    bob, dora = make_user(project=project), make_user(project=project)
    make_task(project, overlap=2)
    before = figures()
    slot, other = (next_leases(project=project, annotator=one)[0] for one in (bob, dora))
    held = figures()
    assert held["slot_leases", ("open",)] - before["slot_leases", ("open",)] == 2
    submit(slot, bob)
    type(other).objects.filter(pk=other.pk).update(expires_at="2001-01-01T00:00:00Z")
    after = figures()
    assert after["slot_leases", ("open",)] == before["slot_leases", ("open",)]
    assert after["slot_leases", ("expired",)] - before["slot_leases", ("expired",)] == 1
    assert after["changes_total", ()] - before["changes_total", ()] == 1


@pytest.mark.usefixtures("token")
def test_a_scrape_costs_a_few_queries_however_many_runs(snapshot: Snapshot, django_assert_num_queries: Any) -> None:
    for _ in range(3):
        queue_run(snapshot)
    with django_assert_num_queries(7):  # a savepoint, the limit of time, four figures, the savepoint's end
        figures()


@pytest.mark.usefixtures("token")
def test_a_slow_database_is_not_waited_for(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(60)")

    monkeypatch.setattr(metrics, "STATEMENT_SECONDS", 0.05)
    monkeypatch.setattr(metrics, "run_figures", slow)
    seen = figures()
    assert seen["database_up", ()] == 0
    assert "runs" not in {name for name, _ in seen} and "http_requests_total" in {name for name, _ in seen}
    monkeypatch.undo()


@pytest.mark.usefixtures("token")
def test_without_a_database_the_requests_are_still_told(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> Any:
        raise OperationalError("no such server")

    monkeypatch.setattr(metrics, "run_figures", unreachable)
    assert figures()["database_up", ()] == 0


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def server(transactional_db: None, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """gunicorn with two processes, as `make run` starts it."""
    database = connection.settings_dict
    url = f"postgresql://{quote(database['USER'])}@/{database['NAME']}?host={quote(str(database['HOST']))}"
    environment = {**os.environ, "DATABASE_URL": url, "PLACKETT_HOME": str(tmp_path), "PLACKETT_DEMO": "0"}
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "webapp.wsgi:application", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "2", "--worker-class", "gthread", "--threads", "2", "--no-control-socket"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}", tmp_path
    finally:
        process.terminate()
        process.wait(timeout=30)


def fetch(url: str) -> str:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return str(answer.read().decode())


def patiently(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            return fetch(url)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.slow
def test_any_process_tells_the_requests_of_all(server: tuple[str, Path]) -> None:
    url, home = server
    patiently(f"{url}/healthz")
    sent = 1
    (folder,) = [path for path in (home / "metrics").iterdir() if path.is_dir()]
    with ThreadPoolExecutor(8) as pool:
        while not both_counted(folder):
            assert sent < 4000
            list(pool.map(fetch, [f"{url}/healthz"] * 40))
            sent += 40
        told = pool.map(lambda _: parsed(fetch(f"{url}/metrics")), range(16))
        assert {one["http_requests_total", ("GET", "200", "healthz")] for one in told} == {sent}


def both_counted(folder: Path) -> bool:
    files = list(folder.glob("counter_*.db"))
    return len(files) == 2 and all(b"healthz" in file.read_bytes() for file in files)


IN_A_PROCESS = """
import sys
from pathlib import Path
from webapp.metrics_folder import share_counts
print(share_counts(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def in_a_process(home: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that shares its counts until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_lives_as_long_as_a_process_holds_it(tmp_path: Path) -> None:
    left_behind = tmp_path / "metrics" / "elsewhere-1"
    left_behind.mkdir(parents=True)
    first, folder = in_a_process(tmp_path)
    second, same = in_a_process(tmp_path)
    assert folder == same and not left_behind.exists()
    for kind, size in metrics_folder.FILES.items():
        assert {file.name: file.stat().st_size for file in folder.glob(f"{kind}_*.db")} == {
            f"{kind}_{one.pid}.db": size for one in (first, second)
        }
    second.communicate("")
    third, _ = in_a_process(tmp_path)  # takes over the counts of the one that ended
    assert sorted(folder.glob("counter_*.db")) == sorted(folder / f"counter_{one.pid}.db" for one in (first, third))
    for one in (first, third):
        one.communicate("")
    (folder / "counter_1.db").write_bytes(b"old")
    last, again = in_a_process(tmp_path)
    assert again == folder and not (folder / "counter_1.db").exists()
    last.communicate("")


def test_a_home_that_cannot_be_written_leaves_each_process_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(metrics_folder.VARIABLE, raising=False)
    (tmp_path / "metrics").write_text("no folder")
    assert metrics_folder.share_counts(tmp_path) is None
    assert metrics_folder.VARIABLE not in os.environ
