"""The parts of a stack that are ordinary commands: the web and the workers."""

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from webapp.stack.config import REPOSITORY
from webapp.stack.processes import no_check, stop_process

MAX_LOG_BYTES = 10_000_000


class Child(Protocol):
    """What the supervisor starts, watches and stops."""

    name: str
    log: Path
    process: subprocess.Popen[bytes] | None

    def start(self, *, check: Callable[[], None]) -> None:
        """Starts the process; a server is ready when this returns. `check` is called while it waits."""

    def stop(self, timeout: float) -> None:
        """Ends the process within about `timeout` seconds; harmless if it does not run."""


class CommandChild:
    """A command of ours in a session of its own, so that Ctrl-C at the terminal reaches the supervisor alone."""

    def __init__(self, name: str, command: list[str], *, log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._environment = environment

    def start(self, *, check: Callable[[], None] = no_check) -> None:
        """Starts the command; it is not waited for."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=self._environment,
                start_new_session=True,
            )

    def stop(self, timeout: float) -> None:
        """SIGTERM to the command alone, which sees to its own children; whatever is left after `timeout` is killed."""
        if self.process is None:
            return
        family = _descendants(self.process.pid)
        stop_process(self.process, [(signal.SIGTERM, timeout)])
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def rotated(log: Path) -> Path:
    """The same path, after moving a log that has grown large aside; one older one is kept."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.rename(log.with_suffix(".log.1"))
    return log


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
