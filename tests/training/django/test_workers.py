"""Workers: what they say of themselves, who lives, and who may see what they hold."""

import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotate.models import Project, Snapshot, User
from tests.annotate.factories import make_user
from tests.training.django.helpers import RunCast, claim, make_snapshot, queue_run
from tests.training.django.test_run_api import client_of
from tests.training.django.test_run_pages import page_of
from training.models import Run, Worker
from training.runner import machine, presence
from training.runner.machine import look_at_gpus, look_at_machine
from training.runner.presence import Presence
from training.runner.station import Station
from training.selectors_workers import workers_for
from training.services.claims import claim_run, give_back
from training.services.members import join_run, open_membership
from training.services.workers import Gpu, Identity, Machine, announce_worker, dismiss_worker, forget_workers

pytestmark = pytest.mark.django_db

GIB = 2**30
H200 = Gpu(name="NVIDIA H200", memory_bytes=140 * GIB, memory_used_bytes=70 * GIB, busy=0.81)
MACHINE = Machine(processors=16, memory_bytes=128 * GIB, memory_used_bytes=12 * GIB, gpus=(H200,))
WHO = Identity(name="gpu@a", host="a", process_id=4321, queues=("gpu", "gpu.large"), version="0.1.0")


def announce(who: Identity = WHO, **changes: Any) -> Worker:
    announce_worker(who, machine=replace(MACHINE, **changes), up_seconds=60)
    return Worker.objects.get(name=who.name)


def unheard_for(name: str, seconds: float) -> None:
    Worker.objects.filter(name=name).update(seen_at=timezone.now() - timedelta(seconds=seconds))


# --- what they say ---------------------------------------------------------------------------------------------------


def test_a_worker_has_one_row_that_it_writes_anew() -> None:
    first = announce()
    assert (first.host, first.process_id, first.queues, first.version) == ("a", 4321, ["gpu", "gpu.large"], "0.1.0")
    assert (first.processors, first.memory_bytes, first.memory_used_bytes) == (16, 128 * GIB, 12 * GIB)
    assert first.gpus == [
        {"name": "NVIDIA H200", "memory_bytes": 140 * GIB, "memory_used_bytes": 70 * GIB, "busy": 0.81}
    ]
    assert timedelta(seconds=59) < first.seen_at - first.started_at < timedelta(seconds=61)
    unheard_for("gpu@a", 3600)
    again = announce(memory_used_bytes=13 * GIB, gpus=())
    assert again.pk == first.pk and again.seen_at >= first.seen_at and again.memory_used_bytes == 13 * GIB
    assert again.gpus == []
    announce(replace(WHO, name="gpu@b"))
    assert Worker.objects.count() == 2


def test_goodbye_is_said_for_oneself_alone() -> None:
    announce()
    dismiss_worker(replace(WHO, process_id=1))
    assert Worker.objects.get().stopped_at is None
    dismiss_worker(WHO)
    assert Worker.objects.get().stopped_at is not None
    assert announce().stopped_at is None  # a successor of the same name


def test_a_worker_is_forgotten_after_a_day() -> None:
    announce()
    announce(replace(WHO, name="gpu@b"))
    unheard_for("gpu@a", 24 * 3600 + 5)
    unheard_for("gpu@b", 24 * 3600 - 5)
    assert forget_workers() == 1
    assert Worker.objects.get().name == "gpu@b"


@pytest.mark.parametrize(("seconds", "alive"), [(0, True), (43, True), (47, False)])
def test_who_is_silent_for_a_lease_is_gone(people: RunCast, seconds: float, alive: bool) -> None:
    announce()
    unheard_for("gpu@a", seconds)
    (worker,) = workers_for(people.alice)
    assert worker.alive is alive
    assert seconds <= worker.silent.total_seconds() < seconds + 30
    dismiss_worker(WHO)
    assert workers_for(people.alice).get().alive is False


@pytest.mark.django_db(transaction=True)
def test_a_station_says_that_it_lives_and_says_goodbye() -> None:
    station = Station(queues=["no-such-queue", "another"], worker="test@here")
    station.open()
    worker = eventually(lambda: Worker.objects.filter(name="test@here").first())
    assert (worker.queues, worker.stopped_at) == (["another", "no-such-queue"], None)
    assert worker.process_id == psutil.Process().pid
    assert worker.version and worker.processors >= 1 and 0 < worker.memory_used_bytes < worker.memory_bytes
    station.close()
    station.join(30)
    assert Worker.objects.get().stopped_at is not None


@pytest.mark.django_db(transaction=True)
def test_what_goes_wrong_once_does_not_silence_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[Exception] = [OperationalError("away"), RuntimeError("odd")]

    def look() -> Machine:
        if problems:
            raise problems.pop()
        return MACHINE

    monkeypatch.setattr(presence, "TELL_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(presence, "look_at_machine", look)
    speaking = Presence(WHO)
    speaking.open()
    eventually(lambda: Worker.objects.filter(processors=16).first())
    speaking.close(30)
    assert not problems and Worker.objects.get().stopped_at is not None


def eventually(look: Any) -> Any:
    deadline = time.monotonic() + 60
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


# --- the machine -----------------------------------------------------------------------------------------------------


def test_this_machine_is_what_the_system_says() -> None:
    seen = look_at_machine()
    assert seen.memory_bytes == psutil.virtual_memory().total
    assert 0 < seen.memory_used_bytes < seen.memory_bytes
    assert 1 <= seen.processors <= (psutil.cpu_count() or 1)


class NoDriver(Exception):
    pass


def nvml(*names: str | bytes, fails: bool = False) -> Any:
    """As much of pynvml as is asked of it, for so many GPUs; the last does not tell how busy it is."""

    def start() -> None:
        if fails:
            raise NoDriver

    def busy(place: int) -> Any:
        if place == len(names) - 1:
            raise NoDriver
        return SimpleNamespace(gpu=81)

    return SimpleNamespace(
        NVMLError=NoDriver,
        nvmlInit=start,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda place: place,
        nvmlDeviceGetName=lambda place: names[place],
        nvmlDeviceGetUUID=lambda place: f"GPU-{'abc'[place]}-1",
        nvmlDeviceGetMemoryInfo=lambda place: SimpleNamespace(total=10 * (place + 1), used=place, free=0),
        nvmlDeviceGetUtilizationRates=busy,
    )


def test_gpus_are_told_as_the_driver_tells_them() -> None:
    found = look_at_gpus(nvml("one", b"two"), chosen=None)
    assert found == (Gpu("one", 10, 0, 0.81), Gpu("two", 20, 1, None))


@pytest.mark.parametrize("library", [None, nvml("one", fails=True), nvml()])
def test_without_package_driver_or_card_there_is_no_gpu(library: Any) -> None:
    assert look_at_gpus(library, chosen=None) == ()


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("", ""),
        ("0", "a"),
        ("2, 0", "ca"),
        ("GPU-b", "b"),
        ("GPU-c-1,0", "ca"),
        ("1,9,0", "b"),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("MIG-1234", "abc"),
    ],
)
def test_gpus_are_those_that_cuda_would_use(chosen: str, names: str) -> None:
    assert "".join(gpu.name for gpu in look_at_gpus(nvml("a", "b", "c"), chosen=chosen)) == names


def test_a_worker_looks_at_gpus_without_torch() -> None:
    code = "import django; django.setup(); from training.runner import machine; machine.look_at_machine(); import sys; "
    code += "print(sorted({'torch', 'pynvml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pynvml']", done.stderr


def test_the_version_is_that_of_the_checkout(settings: Any, tmp_path: Any) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", machine.version())
    settings.BASE_DIR = tmp_path
    assert machine.version() == ""


# --- who sees what ---------------------------------------------------------------------------------------------------


@pytest.fixture
def held(snapshot: Snapshot, people: RunCast) -> Run:
    """A run of Alice's project, held by a worker; another worker holds one of Charlie's."""
    announce()
    run = queue_run(snapshot, name="Alice's run")
    claim(worker="gpu@a")
    announce(replace(WHO, name="gpu@b", host="b"), gpus=())
    elsewhere = people.charlie.memberships.get().project
    queue_run(make_snapshot(elsewhere), name="Charlie's run")
    claim(worker="gpu@b")
    return run


def test_the_page_says_who_lives_and_what_they_hold(held: Run, people: RunCast) -> None:
    html = page_of(people.alice).get("/workers/").content.decode()
    assert "gpu@a" in html and "gpu@b" in html and html.count("last sign of life just now") == 2
    assert html.count('<span class="state good">alive</span>') == 2
    assert f'href="/runs/{held.pk}/"' in html and "Alice&#x27;s run" in html and "attempt 1" in html
    assert "Charlie" not in html and "A run of another project" in html
    assert "NVIDIA H200" in html and f"70.0{NBSP}GB of 140.0{NBSP}GB" in html and f"81{NBSP}% busy" in html
    assert f"12.0{NBSP}GB of 128.0{NBSP}GB" in html and "16 processors" in html
    assert "No GPU" in html and "Queues gpu, gpu.large" in html and "version 0.1.0" in html
    assert 'hx-trigger="every 5s"' in html and "style=" not in html and "<script>" not in html


NBSP = "\N{NO-BREAK SPACE}"


def test_who_takes_part_in_a_run_of_several_machines_says_in_which(snapshot: Snapshot, people: RunCast) -> None:
    for name in ("a", "b"):
        announce(replace(WHO, name=name, queues=("gpu",), processes=2))
    run = queue_run(snapshot, nodes=2, processes=2, name="together")
    held = claim_run(queues=["gpu"], worker="a", host="a", processes=2)
    assert held is not None
    open_membership(held, worker="a", host="a", address="")
    join_run(queues=["gpu"], worker="b", host="b", address="", processes=2)
    html = page_of(people.alice).get("/workers/").content.decode()
    assert html.count("together") == 2 and "machine 1 of 2" in html and "machine 2 of 2" in html
    assert html.count("Starts 2 processes of a run side by side") == 2
    told = client_of(people.alice).get("/api/v1/workers/").json()["results"]
    parts = [(one["processes"], one["holds"][0]["machine"], one["holds"][0]["machines"]) for one in told]
    assert parts == [(2, 1, 2), (2, 2, 2)] and {one["holds"][0]["run"] for one in told} == {run.pk}
    html = page_of(people.charlie).get("/workers/").content.decode()
    assert "together" not in html and html.count("A run of another project") == 2 and "machine 2" not in html
    give_back(held, lost=False, reason="x")
    assert "together" not in page_of(people.alice).get("/workers/").content.decode()


def test_a_superuser_sees_every_name(held: Run, people: RunCast) -> None:
    html = page_of(people.sue).get("/workers/").content.decode()
    assert "Alice&#x27;s run" in html and "Charlie&#x27;s run" in html and "another project" not in html


def test_who_is_gone_or_stopped_says_so(held: Run, people: RunCast) -> None:
    unheard_for("gpu@a", 600)
    dismiss_worker(replace(WHO, name="gpu@b", host="b"))
    html = page_of(people.alice).get("/workers/").content.decode()
    assert '<span class="state bad">gone</span>' in html and "10 min ago" in html
    assert '<span class="state ">stopped</span>' in html
    assert "NVIDIA" not in html  # what is no longer so is not shown
    announce()
    unheard_for("gpu@a", 30)
    assert '<span class="state warn">silent</span>' in page_of(people.alice).get("/workers/").content.decode()


def test_without_workers_the_page_says_what_follows(people: RunCast) -> None:
    assert "No worker has been heard of" in page_of(people.alice).get("/workers/").content.decode()


def test_the_moving_part_comes_only_when_something_moved(held: Run, people: RunCast) -> None:
    client = page_of(people.alice)
    html = client.get("/workers/live/").content.decode()
    found = re.search(r"seen=(\w+)", html)
    assert found is not None and "<html" not in html
    announce()  # nothing new but that it lives
    assert client.get(f"/workers/live/?seen={found[1]}").status_code == 204
    announce(memory_used_bytes=100 * GIB)
    moved = client.get(f"/workers/live/?seen={found[1]}")
    assert moved.status_code == 200 and f"100.0{NBSP}GB" in moved.content.decode()


def test_a_worker_that_gave_its_run_back_holds_none(snapshot: Snapshot, people: RunCast) -> None:
    announce()
    queue_run(snapshot, name="the run")
    give_back(claim(worker="gpu@a"), lost=False, reason="x")
    html = page_of(people.alice).get("/workers/").content.decode()
    assert "Holds no run." in html and "the run" not in html


def test_the_api_tells_the_same(held: Run, people: RunCast) -> None:
    first, second = client_of(people.alice).get("/api/v1/workers/").json()["results"]
    assert (first["name"], first["alive"], first["queues"], first["stopped_at"]) == (
        "gpu@a",
        True,
        ["gpu", "gpu.large"],
        None,
    )
    assert first["gpus"] == [
        {"name": "NVIDIA H200", "memory_bytes": 140 * GIB, "memory_used_bytes": 70 * GIB, "busy": 0.81}
    ]
    (mine,) = first["holds"]
    assert (mine["run"], mine["name"], mine["project"], mine["attempt"]) == (
        held.pk,
        "Alice's run",
        held.project.slug,
        1,
    )
    (theirs,) = second["holds"]
    assert theirs.pop("since") and set(theirs.values()) == {None}
    assert second["gpus"] == []
    named = client_of(people.charlie).get("/api/v1/workers/").json()["results"][1]["holds"][0]
    assert named["name"] == "Charlie's run"


@pytest.mark.parametrize("address", ["/workers/", "/workers/live/", "/api/v1/workers/"])
def test_workers_are_for_engineers_of_any_project(held: Run, people: RunCast, address: str) -> None:
    """Charlie, an outsider of Alice's project, is an engineer elsewhere: he sees the workers, not what is hers."""
    of = client_of if address.startswith("/api/") else page_of
    seen = of(people.charlie).get(address)
    assert seen.status_code == 200 and b"gpu@a" in seen.content and b"Alice" not in seen.content
    assert b"Charlie" in seen.content
    for user in (people.bob, make_user()):
        refused = of(user).get(address)
        assert refused.status_code == 403 and b"gpu@a" not in refused.content
    stranger = of(None).get(address)
    assert stranger.status_code == (302 if address == "/workers/" else 401)


def test_an_engineer_who_left_sees_no_workers(held: Run, people: RunCast) -> None:
    people.alice.memberships.update(deactivated_at=timezone.now())
    assert page_of(people.alice).get("/workers/").status_code == 403


def test_a_superuser_without_any_project_sees_workers() -> None:
    announce()
    Project.objects.all().delete()
    sue = make_user(is_superuser=True)
    assert page_of(sue).get("/workers/").status_code == 200


def test_the_list_of_runs_leads_to_the_workers(people: RunCast) -> None:
    assert 'href="/workers/"' in page_of(people.alice).get("/runs/").content.decode()
    assert 'href="/workers/"' not in page_of(people.bob).get("/runs/").content.decode()


def test_the_page_costs_as_many_queries_for_many_workers(snapshot: Snapshot, people: RunCast) -> None:
    def queries(user: User) -> int:
        client = page_of(user)
        with CaptureQueriesContext(connection) as counted:
            client.get("/workers/live/")
        return len(counted)

    announce()
    before = queries(people.alice)
    for number in range(5):
        announce(replace(WHO, name=f"gpu@{number}"))
        queue_run(snapshot)
        claim(worker=f"gpu@{number}")
    assert queries(people.alice) == before
