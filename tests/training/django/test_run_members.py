"""Runs of several processes and of several machines: who may join, what ends for all, real trainings on loopback."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now

from annotate.models import Snapshot
from tests.training.django.helpers import queue_run
from tests.training.django.test_run_worker import (  # noqa: F401 fixtures
    Worker,
    home,
    metrics_file,
    same_folders,
    start_worker,
    wait_for,
)
from training.models import Run, RunAttempt, RunMember
from training.models import Worker as WorkerRow
from training.runner.attempt import Attempt
from training.runner.lease import clock
from training.runner.member import MemberAttempt
from training.runner.mirror import Exit
from training.runner.outcome import Ending, Why
from training.runner.prepare import Meeting, launched, mark_of
from training.runner.trainer import MARK
from training.services.claims import Claim, StaleAttempt, claim_run, give_back, mark_running
from training.services.members import (
    Membership,
    announce_port,
    join_run,
    leave_run,
    lost_member,
    meeting_place,
    member_that_left,
    members_there,
    open_membership,
    renew_membership,
)
from training.services.runs import cancel_run, start_run

pytestmark = pytest.mark.django_db(transaction=True)


def be_alive(*names: str, queues: tuple[str, ...] = ("gpu",), processes: int = 2) -> None:
    """Workers that say so."""
    for name in names:
        WorkerRow.objects.create(
            name=name, host="h", process_id=1, queues=list(queues), processors=2, memory_bytes=2**33,
            memory_used_bytes=0, started_at=Now(), processes=processes,
        )  # fmt: skip


def take(worker: str, **changes: Any) -> Claim | None:
    return claim_run(**({"queues": ["gpu"], "worker": worker, "host": "h", "processes": 2} | changes))


def join(worker: str, **changes: Any) -> Membership | None:
    values = {"queues": ["gpu"], "worker": worker, "host": "h", "address": "127.0.0.1", "processes": 2}
    return join_run(**(values | changes))  # type: ignore[arg-type]


def gathered(snapshot: Snapshot) -> tuple[Run, Claim, Membership]:
    """A run of two machines with both its members."""
    run = queue_run(snapshot, nodes=2)
    be_alive("a", "b")
    held = take("a")
    assert held is not None
    open_membership(held, worker="a", host="h", address="127.0.0.1")
    member = join("b")
    assert member is not None
    return run, held, member


def test_a_worker_takes_no_more_processes_than_it_offers(snapshot: Snapshot) -> None:
    queue_run(snapshot, processes=4)
    assert take("a") is None
    assert take("a", processes=4) is not None


def test_several_machines_are_claimed_once_so_many_are_free(snapshot: Snapshot) -> None:
    run = queue_run(snapshot, nodes=2)
    be_alive("a")
    be_alive("elsewhere", queues=("cpu",))
    assert take("a") is None
    be_alive("b")
    held = take("a")
    assert held is not None and held.run_id == run.pk
    other = queue_run(snapshot, nodes=2)
    be_alive("c", "d")
    assert take("c") is None, "while one run gathers its members, no other does"
    assert join("b") is None, "nobody joins before the first is there"
    open_membership(held, worker="a", host="h", address="127.0.0.1")
    assert join("b", processes=0) is None and join("b", queues=["cpu"]) is None
    assert members_there(held) == 1
    member = join("b")
    assert member == Membership(run.pk, 1, 1) and members_there(held) == 2
    assert join("c") is None, "it is complete"
    mark_running(held, process_id=1, process_started_at=1.0)
    assert take("c") is not None, other


def test_members_meet_where_the_first_is(snapshot: Snapshot) -> None:
    _run, held, member = gathered(snapshot)
    assert meeting_place(member) is None
    announce_port(held, 4711)
    assert meeting_place(member) == ("127.0.0.1", 4711)
    assert renew_membership(member) == "starting"


def test_who_leaves_badly_or_falls_silent_is_lost_and_who_is_done_is_not(snapshot: Snapshot) -> None:
    _run, held, member = gathered(snapshot)
    assert lost_member(held) == ""
    RunMember.objects.filter(rank=1).update(lease_expires_at="2001-01-01T00:00:00Z")
    assert lost_member(held) == "b" and members_there(held) == 1
    renew_membership(member)
    assert lost_member(held) == ""
    leave_run(member, outcome=RunMember.Outcome.DONE)
    assert lost_member(held) == "" and members_there(held) == 2
    with pytest.raises(StaleAttempt):
        renew_membership(member)


def attempt_of(held: Claim, worker: str) -> Attempt:
    return Attempt(held, worker=worker, host="h", taken_at=clock(), stop=threading.Event())


def test_a_worker_that_is_stopped_gives_its_place_back_at_once(snapshot: Snapshot, runs_root: Path) -> None:
    run, held, member = gathered(snapshot)
    stop = threading.Event()
    stop.set()
    MemberAttempt(member, host="h", taken_at=clock(), stop=stop).carry_out()
    assert RunMember.objects.get(rank=1).outcome == "left"
    assert (member_that_left(held), lost_member(held), members_there(held)) == ("b", "", 1)
    RunMember.objects.filter(rank=0).delete()
    attempt_of(held, "a").carry_out()  # it gathers, and does not wait for who will not come
    run.refresh_from_db()
    assert (run.state, run.times_lost) == ("queued", 0) and "The worker b was stopped" in run.reason
    assert RunAttempt.objects.get().outcome == "released"


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending(1, None, None), "released"),  # its processes went away before the holder looked
        (Ending(143, Exit(143, "stopped", {}), None), "released"),  # all agreed to stop
        (Ending(-15, None, Why.MEMBER_LEFT), "released"),
        (Ending(2, Exit(2, "bad data", {}), None), "failed"),
        (Ending(-15, None, Why.CANCELLED), "cancelled"),
    ],
)
def test_whose_worker_was_stopped_uses_up_no_attempt(
    snapshot: Snapshot, runs_root: Path, ending: Ending, outcome: str
) -> None:
    run, held, member = gathered(snapshot)
    leave_run(member, outcome=RunMember.Outcome.LEFT)
    if outcome == "cancelled":
        cancel_run(run)
    attempt_of(held, "a")._settle(ending)
    run.refresh_from_db()
    assert (RunAttempt.objects.get().outcome, run.times_lost) == (outcome, 0)


def test_an_attempt_ends_for_all_its_members(snapshot: Snapshot) -> None:
    run, held, member = gathered(snapshot)
    give_back(held, lost=True, reason="because")
    assert list(RunMember.objects.values_list("outcome", flat=True)) == ["lost", "lost"]
    with pytest.raises(StaleAttempt):
        renew_membership(member)
    with pytest.raises(StaleAttempt):
        announce_port(held, 1)
    run.refresh_from_db()
    assert run.state == "queued"
    again = take("b")
    assert again is not None and again.attempt == 2
    open_membership(again, worker="b", host="h", address="127.0.0.1")
    assert join("a") == Membership(run.pk, 2, 1)
    assert set(RunMember.objects.filter(ended_at=None).values_list("attempt", flat=True)) == {2}


BROKEN = {
    "of an attempt that is over": "INSERT INTO training_runmember (run_id, attempt, rank, worker, host, address, "
    "lease_expires_at, outcome) VALUES (%(run)s, 2, 1, 'c', 'h', '', now(), '')",
    "twice the same rank": "INSERT INTO training_runmember (run_id, attempt, rank, worker, host, address, "
    "lease_expires_at, outcome) VALUES (%(run)s, 1, 1, 'c', 'h', '', now(), '')",
    "more than the run wants": "INSERT INTO training_runmember (run_id, attempt, rank, worker, host, address, "
    "lease_expires_at, outcome) VALUES (%(run)s, 1, 2, 'c', 'h', '', now(), '')",
    "moved": "UPDATE training_runmember SET worker = 'c' WHERE rank = 1",
    "without a lease": "UPDATE training_runmember SET lease_expires_at = NULL WHERE rank = 1",
    "ended with an unknown outcome": "UPDATE training_runmember SET ended_at = now(), outcome = 'x' WHERE rank = 1",
    "ended without an outcome": "UPDATE training_runmember SET ended_at = now() WHERE rank = 1",
    "another size": "UPDATE training_run SET nodes = 3",
    "another number of processes": "UPDATE training_run SET processes = 3",
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_database_refuses(what: str, snapshot: Snapshot) -> None:
    run, _held, _member = gathered(snapshot)
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(BROKEN[what], {"run": run.pk})
    assert RunMember.objects.filter(ended_at=None).count() == 2


def test_commands_of_one_process_of_several_and_of_several_machines(snapshot: Snapshot) -> None:
    command = ["python", "-m", "training.recipes.sft", "--x"]
    assert launched(command, Run(processes=1, nodes=1), None) == command
    several = launched(command, Run(processes=4, nodes=1), None)
    assert several[:3] == ["python", "-m", "torch.distributed.run"] and several[-3:] == command[1:]
    assert {"--nproc-per-node=4", "--standalone"} <= set(several)
    machines = launched(command, Run(processes=2, nodes=3), Meeting("10.0.0.1", 4711, 2))
    assert {"--nnodes=3", "--node-rank=2", "--master-addr=10.0.0.1", "--master-port=4711"} <= set(machines)


# --- real workers ----------------------------------------------------------------------------------------------------


def processes_of(run: Run) -> dict[str, list[psutil.Process]]:
    """The recipe's living processes, without torchrun itself, by the mark that tells the member."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or "torch.distributed.run" in process.cmdline():
                continue
            mark = str(process.environ().get(MARK, ""))
        except (psutil.Error, OSError):
            continue
        if mark.startswith(mark_of(run)) and f"--output={run.folder / 'out'}" in process.cmdline():
            found.setdefault(mark, []).append(process)
    return found


STEPS = 60


def train(snapshot: Snapshot, **place: int) -> Run:
    return start_run(
        project=snapshot.project, started_by=None, kind="reward", snapshot=snapshot, base_model="tiny", queue="gpu",
        config={"batch_size": 4, "max_steps": STEPS, "checkpoint_every": 5, "evaluate_every": STEPS}, **place,
    )  # fmt: skip


def kill_at(run: Run, *, step: int, rank: int) -> None:
    """Kills a recipe's process of a member once so many steps are written; the file is ahead of the database."""
    metrics = run.folder / "out" / "metrics.jsonl"
    wait_for(run, lambda run: metrics.is_file() and metrics.read_bytes().count(b"\n") >= step)
    (victim,) = processes_of(run)[mark_of(run, 1, rank)]
    os.kill(victim.pid, signal.SIGKILL)


@pytest.mark.slow
def test_two_machines_outlive_a_kill_and_are_as_one_of_two_processes(
    snapshot: Snapshot,
    start_worker: Callable[[str], Worker],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLACKETT_PROCESSES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workers = {name: start_worker(name) for name in ("gpu-a", "gpu-b")}
    apart = train(snapshot, nodes=2)
    kill_at(apart, step=7, rank=1)
    wait_for(apart, lambda run: run.attempt == 2 and run.step > 15)
    second = RunMember.objects.get(run=apart, attempt=2, rank=1)
    workers[second.worker.partition("@")[0]].stop()
    wait_for(apart, lambda run: run.state == "queued")
    assert RunMember.objects.get(pk=second.pk).outcome == "left" and "was stopped" in apart.reason
    start_worker("gpu-c")
    wait_for(apart, lambda run: run.is_finished)
    assert (apart.state, apart.attempt, apart.times_lost) == ("succeeded", 3, 1), apart.log_tail
    assert [one.outcome for one in RunAttempt.objects.filter(run=apart)] == ["lost", "released", "succeeded"]
    members = list(RunMember.objects.filter(run=apart, attempt=3))
    assert [(one.rank, one.outcome) for one in members] == [(0, "done"), (1, "done")]
    assert len({one.worker for one in members}) == 2 and members[0].port
    assert (RunAttempt.objects.get(run=apart, number=2).from_step or 0) >= 5
    assert (RunAttempt.objects.get(run=apart, number=3).from_step or 0) >= 15
    assert not processes_of(apart)

    together = train(snapshot, processes=2)
    wait_for(together, lambda run: run.is_finished)
    assert (together.state, together.attempt) == ("succeeded", 1), together.log_tail
    found, expected = ([row["train/loss"] for row in metrics_file(run)] for run in (apart, together))
    assert len(found) == STEPS and found == pytest.approx(expected, rel=1e-5)
