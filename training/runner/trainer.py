"""A process of ours in its own group, with a lifeline: when we die, however violently, it ends itself."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
from django.conf import settings

# What a recipe has no use for: it reads files, so it needs no way into the database, the broker or people's sessions.
SECRETS = (
    "DATABASE_URL",
    "DATABASE_PASSWORD",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "PLACKETT_SECRET_KEY",
    "PLACKETT_METRICS_TOKEN",
    "PLACKETT_MLFLOW_TOKEN",
    "PLACKETT_MLFLOW_PASSWORD",
    "PGPASSWORD",
    "PLACKETT_S3_ACCESS_KEY",
    "PLACKETT_S3_SECRET_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
MARK = "PLACKETT_TRAINER"
START_TIME_TOLERANCE_SECONDS = 2.0
KILL_WAIT_SECONDS = 10.0


class Trainer:
    """A started process; its standard output and error go to a log."""

    def __init__(
        self, command: list[str], *, log: Path, cache: Path | None = None, mark: str = "", processes: int = 1
    ) -> None:
        """Starts the command in the repository's root; what it derives from the data it keeps in ``cache``.

        Args:
            mark: told to it and all that it starts; torchrun gives each of its processes a group of its own, so the
                group alone would not reach them.
            processes: how many it starts, which share this machine's processors.

        Raises:
            OSError: it cannot be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # The write end of the pipe is open in this process alone: it is what the trainer's life hangs on.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=settings.BASE_DIR,
                env=_environment(cache, mark, processes),
                start_new_session=True,
            )
        self.mark = mark
        self.process_id = self._process.pid
        self.started_at = _start_time(self.process_id) or 0.0

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Waits up to so many seconds for the end; the exit status, or None if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(seconds, 0))
        return self._process.poll()

    def terminate(self) -> None:
        """Asks the whole group to end (SIGTERM)."""
        signal_group(self.process_id, signal.SIGTERM)

    def end(self) -> None:
        """Kills whatever is left of the group and of those marked, and waits for it."""
        signal_group(self.process_id, signal.SIGKILL)
        kill_marked(self.mark)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def signal_group(process_id: int, number: signal.Signals) -> None:
    """Sends a signal to the group that the process leads, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_id, number)


def kill_marked(mark: str, *, but: str = "") -> int:
    """Kills every process of this account whose mark begins so, until none is left; returns how many there were.

    Args:
        mark: "" for none.
        but: the mark of those that are left alone.
    """
    found = set[int]()
    deadline = time.monotonic() + KILL_WAIT_SECONDS
    while mark and time.monotonic() < deadline:
        living = [process for process in psutil.process_iter() if _is_marked(process, mark, but)]
        if not living:
            break
        for process in living:
            found.add(process.pid)
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)
    return len(found)


def _is_marked(process: psutil.Process, mark: str, but: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        own = str(process.environ().get(MARK, ""))
    except (psutil.Error, OSError):
        return False
    return own.startswith(mark) and not (but and own.startswith(but))


def end_left_behind(process_id: int, started_at: float) -> bool:
    """Kills the group of a trainer that an attempt before us left on this host, if that very process still lives."""
    now = _start_time(process_id)
    if now is None or abs(now - started_at) > START_TIME_TOLERANCE_SECONDS:
        return False
    signal_group(process_id, signal.SIGKILL)
    # A zombie counts as ended: the frozen worker whose child it is cannot collect it.
    deadline = time.monotonic() + KILL_WAIT_SECONDS
    while _start_time(process_id) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return True


def _start_time(process_id: int) -> float | None:
    try:
        process = psutil.Process(process_id)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _environment(cache: Path | None, mark: str, processes: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in SECRETS}
    ours = {"PLACKETT_LIFELINE": "stdin", "PYTHONUNBUFFERED": "1"}
    ours |= {"PLACKETT_CACHE": str(cache)} if cache else {}
    ours |= {MARK: mark} if mark else {}
    return {"OMP_NUM_THREADS": str(max(processors() // processes, 1)), **kept, **ours}


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
