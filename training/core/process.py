"""A recipe as a process: its folder and lock, how it is asked to stop, and how it says what came of it.

Exit codes: 0 done or stopped by ``--stop-after``; 2 bad arguments or data; 3 training failed; 4 no room left to write;
143 stopped by SIGTERM. The same fact stands in ``exit.json``, which is what a runner reads, unless the disk is full.
"""

import fcntl
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from training.core.errors import UsageError
from training.core.files import read_json, write_json

DONE, REFUSED, FAILED, NO_ROOM, STOPPED = 0, 2, 3, 4, 143

STOP_SECONDS = 9.5  # gone within 10 s, the freeing of its memory included
SHORT_SECONDS = 2.0  # of that, what a piece of work that is under way may take to its end
LOCK_WAIT_SECONDS = 15.0
LOCK_NAME, EXIT_NAME = ".lock", "exit.json"


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write_exit(folder: Path, code: int, reason: str, *, step: int | None = None, peer_lost: bool = False) -> None:
    """Write ``exit.json``: code, reason in one line, last finished step and time.

    ``peer_lost``: one of several processes went away without a word, so that another try may well succeed.
    """
    told = {"code": code, "reason": reason, "step": step, "exited_at": now()}
    write_json(folder / EXIT_NAME, told | ({"peer_lost": True} if peer_lost else {}))


def is_unused(folder: Path) -> bool:
    """Whether a run may start in the folder: absent, empty, or holding no more than the word of a refused start."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    left = {path.name for path in folder.iterdir()} - {LOCK_NAME}
    refusal = read_json(folder / EXIT_NAME)
    return not left or (left == {EXIT_NAME} and isinstance(refusal, dict) and refusal.get("code") == REFUSED)


class FolderLock:
    """An exclusive lock on a run's folder, held until the process ends, however it ends."""

    def __init__(self, folder: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        """Take the lock; a process that was just told to stop is given ``wait_seconds`` to leave.

        Raises:
            UsageError: another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(folder / LOCK_NAME, "ab")  # noqa: SIM115 held as long as the process
        deadline = time.monotonic() + wait_seconds
        while not self._try():
            if time.monotonic() > deadline:
                self._file.close()
                raise UsageError(f"another process is at work in {folder}")
            time.sleep(0.1)

    def release(self) -> None:
        """Let go of the folder."""
        self._file.close()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class StopWatch:
    """Notices SIGTERM, SIGINT and a lost lifeline, and ends the process if it does not end itself in time.

    Signals are read by a thread: Python's own handlers wait for the main thread, which may sit in one backward pass
    for a minute. With ``PLACKETT_LIFELINE=stdin`` the end of stdin counts as a request to stop. While nothing is worth
    saving (``grace_seconds`` 0, as at first) the process ends at once.
    """

    def __init__(self, on_deadline: Callable[[str], None]) -> None:
        """Args: ``on_deadline`` is called with the reason, right before the process is ended with code 143."""
        self.reason: str | None = None
        self.grace_seconds = 0.0
        self._asked_at = -math.inf
        self._on_deadline = on_deadline
        self._closed = False
        self._lock = threading.Lock()

    @property
    def requested(self) -> bool:
        """Whether the process is to stop."""
        return self.reason is not None

    @property
    def pressing(self) -> bool:
        """Whether the process is to stop, and work that may be short has had its time to come to its end."""
        return self.requested and time.monotonic() - self._asked_at >= SHORT_SECONDS

    def install(self) -> None:
        """Take over SIGTERM and SIGINT, and watch stdin if that is the lifeline. Main thread only."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_to_the_thread)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch_signals, args=(reader,), daemon=True).start()
        if os.environ.get("PLACKETT_LIFELINE") == "stdin":
            threading.Thread(target=self._watch_lifeline, daemon=True).start()

    def close(self) -> None:
        """From here on the process ends on its own terms; a request no longer ends it."""
        with self._lock:
            self._closed = True

    def _request(self, reason: str) -> None:
        """Ask the process to stop, the first reason stands; it is ended when its grace is over."""
        if self.reason is not None:
            return
        self._asked_at = time.monotonic()
        self.reason = reason
        timer = threading.Timer(self.grace_seconds, self._end)
        timer.daemon = True
        timer.start()

    def _watch_signals(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                self._request(f"stopped by {signal.Signals(number[0]).name}")

    def _watch_lifeline(self) -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        self._request("stopped by the end of the lifeline")

    def _end(self) -> None:
        with self._lock:
            if not self._closed:
                self._on_deadline(self.reason or "")
                os._exit(STOPPED)


def _leave_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Replaces the default action; the watching thread reads the signal's number from the wakeup descriptor."""


def one_line(error: BaseException | str) -> str:
    """An error as one line of text, never empty."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def log(message: str) -> None:
    """One plain line on stderr."""
    print(message, file=sys.stderr, flush=True)
