"""Starting and stopping child processes."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from webapp.stack.errors import StackError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def death_signal(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` after which the kernel sends `number` to the child when we die; None where there is no such thing.

    The kernel counts the thread that starts the child as the parent, so start it in one that lives as long as we do.
    """
    if _libc is None:
        return None
    prctl = _libc.prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)

    return ask


def stop_process(process: subprocess.Popen[bytes], signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Ends a child: sends each signal in turn and waits its seconds, until the child is gone; then SIGKILL."""
    for number, seconds in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(seconds, 0))
            return
    process.kill()
    process.wait()


def no_check() -> None:
    """Nothing to look at while waiting."""


def wait_until(
    ready: Callable[[], bool],
    *,
    process: subprocess.Popen[bytes],
    name: str,
    log: Path,
    seconds: float,
    check: Callable[[], None] = no_check,
) -> None:
    """Waits until `ready()` is true; `check()` is called all the while and may end the wait by raising.

    Raises:
        StackError: the process ended or `seconds` passed first; the message carries the last line of its log.
    """
    deadline = time.monotonic() + seconds
    pause = 0.02
    while not ready():
        check()
        if process.poll() is not None:
            raise StackError(f"{name} ended at start ({exit_reason(process)}): {last_line(log)} (log: {log})")
        if time.monotonic() > deadline:
            raise StackError(f"{name} was not ready within {seconds:.0f} s: {last_line(log)} (log: {log})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)  # each look at a recovering Postgres is a line in its log


def exit_reason(process: subprocess.Popen[bytes]) -> str:
    """How a finished child ended, in words."""
    code = process.returncode
    return f"signal {-code}" if code is not None and code < 0 else f"exit {code}"


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty; none if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


def last_line(log: Path) -> str:
    """The last line of a log, or a word that there is none."""
    return next(iter(last_lines(log, 1)), "its log is empty").strip()
