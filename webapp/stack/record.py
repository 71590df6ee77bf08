"""Which processes a supervisor started, kept in the data folder so that the next one can end what was left behind.

A process number alone names nothing for long: numbers are given out anew. A record therefore holds the moment at which
the process started as well, in the kernel's own count, which a change of the clock does not touch.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

RECORD_NAME = "processes.json"
LOCK_NAME = "supervisor.lock"


@dataclass(frozen=True)
class RecordedProcess:
    """One process that a supervisor started."""

    name: str
    pid: int
    started: str


def take_lock(home: Path) -> IO[str] | None:
    """The exclusive right to run a stack on this data folder; None if another supervisor has it.

    The kernel gives it back when the process ends, however it ends. Keep the file open.
    """
    file = (home / LOCK_NAME).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def start_mark(pid: int) -> str:
    """The moment at which a running process started, as a text to compare.

    Raises:
        psutil.NoSuchProcess: it does not run.
    """
    if sys.platform != "linux":
        return repr(psutil.Process(pid).create_time())
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{after_name[19]}"


def write_record(home: Path, *, url: str, processes: Iterable[tuple[str, int]]) -> None:
    """Replaces the record: this supervisor, where it listens, and its (name, pid) children."""
    rows = []
    for name, pid in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            rows.append(RecordedProcess(name=name, pid=pid, started=start_mark(pid)))
    partial = home / f"{RECORD_NAME}.partial"
    partial.write_text(json.dumps({"supervisor": os.getpid(), "url": url, "processes": [asdict(row) for row in rows]}))
    partial.rename(home / RECORD_NAME)


def clear_record(home: Path) -> None:
    """Forgets the processes after an orderly stop."""
    (home / RECORD_NAME).unlink(missing_ok=True)


def read_record(home: Path) -> tuple[str, list[RecordedProcess]]:
    """The address and the processes of the last supervisor; nothing if there is no record or it cannot be read."""
    try:
        record = json.loads((home / RECORD_NAME).read_text())
        return record["url"], [RecordedProcess(**row) for row in record["processes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return "", []


def find_orphans(home: Path) -> list[tuple[str, psutil.Process]]:
    """The recorded processes that still run, workers and web before the servers that they need.

    A Postgres on our cluster counts too: whoever holds the lock on the data folder started the last one.
    """
    found: list[tuple[str, psutil.Process]] = []
    for row in reversed(read_record(home)[1]):
        try:
            if start_mark(row.pid) == row.started:
                found.append((row.name, psutil.Process(row.pid)))
        except psutil.NoSuchProcess:
            continue
    postmaster = running_postmaster(home / "postgres" / "data")
    if postmaster is not None and all(process.pid != postmaster.pid for _, process in found):
        found.append(("Postgres", postmaster))
    return found


def running_postmaster(cluster: Path) -> psutil.Process | None:
    """The Postgres that runs on this cluster, by the cluster's own lock file."""
    try:
        process = psutil.Process(int((cluster / "postmaster.pid").read_text().splitlines()[0]))
        if process.name().startswith("postgres") and Path(process.cwd()) == cluster.resolve():
            return process
    except (OSError, ValueError, IndexError, psutil.Error):
        pass
    return None


def end_orphan(name: str, process: psutil.Process, *, seconds: float) -> None:
    """Ends one process and all that it started: politely, then, after `seconds`, for good."""
    try:
        family = [*process.children(recursive=True), process]
        process.send_signal(signal.SIGINT if name == "Postgres" else signal.SIGTERM)
    except psutil.NoSuchProcess:
        return
    left = _wait_gone(family, seconds)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    _wait_gone(left, 5)


def _wait_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(process: psutil.Process) -> bool:
    # An orphan's parent may be a container's first process that never collects it: a zombie is gone for us.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
