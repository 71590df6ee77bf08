"""A real stack under test: starts `python -m webapp.stack`, reads what it prints, and never leaves anything behind."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def home_folder(owner: int | None = None) -> Iterator[Path]:
    """A data folder that an unprivileged server account can enter (pytest's own folders are 0700)."""
    with tempfile.TemporaryDirectory(prefix="plackett-home-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        if owner is not None:
            os.chown(folder, owner, -1)
        home = folder / "var"
        try:
            yield home
        finally:
            for process in processes_of(home):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def processes_of(home: Path) -> list[psutil.Process]:
    """Every living process of the data folder: named in its arguments, or as PLACKETT_HOME in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            named = any(str(home) in argument for argument in process.cmdline())
            if named or process.environ().get("PLACKETT_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


class RunningStack:
    """One `python -m webapp.stack` on `home`; without demo unless the environment says otherwise."""

    def __init__(
        self,
        home: Path,
        *,
        port: int,
        part: str = "",
        python: list[str] | None = None,
        user: int | None = None,
        **environment: str,
    ):
        self.home, self.port = home, port
        own = {
            "PLACKETT_HOME": str(home),
            "PLACKETT_PORT": str(port),
            "PLACKETT_DEMO": "0",
            "PLACKETT_HOST": "127.0.0.1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PLACKETT_")}
        for name in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"):
            inherited.pop(name, None)
        switch: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.process = subprocess.Popen(
            [*(python or [sys.executable]), "-m", "webapp.stack", *part.split()],
            cwd=REPOSITORY,
            env={**inherited, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **switch,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """The first new line that holds the text; fails if the supervisor ends or the time passes first."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {seconds} s:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"the supervisor ended before {text!r}:\n{self.output}")
            self.lines.append(line)
            if text in line:
                return line

    def wait_ready(self) -> str:
        return self.wait_for("Plackett is ready:")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and waits for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.wait_end()

    def wait_end(self, seconds: float = 60) -> int:
        status = self.process.wait(timeout=seconds)
        while (line := self._queue.get(timeout=10)) is not None:
            self.lines.append(line)
        return status

    def recorded(self) -> dict[str, int]:
        """Name and number of each process in the record."""
        record = json.loads((self.home / "processes.json").read_text())
        return {row["name"]: row["pid"] for row in record["processes"]}

    def database_url(self) -> str:
        return str(json.loads((self.home / "services.json").read_text())["database_url"])
