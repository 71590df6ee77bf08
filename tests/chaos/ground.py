"""A whole stack of its own to kill parts of: servers, web and workers under the supervisor that restarts them."""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.stack.running import REPOSITORY, RunningStack, free_port, home_folder, processes_of
from tests.stack.users import starter_for
from webapp.stack.restarts import STEADY_SECONDS

PARTS = {
    "worker": ("worker-gpu",),
    "broker": ("Valkey",),
    "database": ("Postgres",),
    "servers": ("Valkey", "Postgres"),
}
RESTART_SECONDS = 120


@dataclass(frozen=True)
class Seen:
    """A run's row."""

    state: str
    step: int
    attempt: int
    times_lost: int
    reason: str

    @property
    def is_finished(self) -> bool:
        return self.state in {"succeeded", "failed", "cancelled"}


class Ground:
    """One running stack with a project and a snapshot in it."""

    def __init__(self, stack: RunningStack, *, project: str, snapshot: int, token: str) -> None:
        self.stack = stack
        self.home = stack.home
        self._project, self._snapshot, self._token = project, snapshot, token
        self._restarted_at: dict[str, float] = {}

    def start_run(self, *, kind: str, config: dict[str, Any], base_model: str = "tiny", **named: str) -> int:
        """Starts a run over the API, as anybody would; its number."""
        body = {"project": self._project, "snapshot": self._snapshot, "kind": kind, "base_model": base_model}
        answer = self._post("runs/", {**body, "config": config, **named})
        return int(answer["id"])

    def cancel(self, run: int) -> None:
        """Cancels it over the API."""
        self._post(f"runs/{run}/cancel/", {})

    def folder(self, run: int) -> Path:
        """Where the run's files are."""
        return self.home / "runs" / str(run)

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the database.

        Raises:
            psycopg.Error: it does not answer.
        """
        with psycopg.connect(self.stack.database_url(), autocommit=True, connect_timeout=5) as connection:
            return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]

    def look_at(self, run: int) -> Seen | None:
        """The run as the database has it; None while the database is away."""
        columns = "state, step, attempt, times_lost, reason"
        try:
            return Seen(*self.ask(f"SELECT {columns} FROM training_run WHERE id = %s", run)[0])
        except psycopg.Error:
            return None

    def let_lease_end(self, run: int) -> None:
        """The 45 seconds of the lease pass."""
        sql = "UPDATE training_run SET lease_expires_at = '2001-01-01' WHERE id = %s RETURNING id"
        assert self.ask(sql, run)

    def kill(self, victim: str) -> list[int]:
        """SIGKILL to parts of the stack; their process numbers."""
        processes = [self.stack.recorded()[part] for part in PARTS[victim]]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        return processes

    def wait_restarted(self, victim: str) -> None:
        """Waits until the supervisor has started the parts again."""
        missing = {f"{part} was started again." for part in PARTS[victim]}
        while missing:
            missing.remove(self.stack.wait_for("was started again.", seconds=RESTART_SECONDS))
        self._restarted_at[victim] = time.monotonic()

    def rest(self, victim: str) -> None:
        """Waits until the part has lived so long that the supervisor forgets the kill before: else it would in the end
        give the whole stack up, as it should."""
        since = time.monotonic() - self._restarted_at.get(victim, -STEADY_SECONDS)
        time.sleep(max(0.0, STEADY_SECONDS + 1 - since))

    def log_of(self, part: str) -> str:
        """The end of a part's log."""
        return (self.home / "logs" / f"{part}.log").read_text(errors="replace")[-6000:]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.stack.port}/api/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Token {self._token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.load(response)


@contextlib.contextmanager
def open_ground(user: pwd.struct_passwd | None = None) -> Iterator[Ground]:
    """Starts a stack in a temporary folder; afterwards it is stopped, and whatever is left of it is named and killed.

    Args:
        user: who starts it, instead of us.

    Raises:
        AssertionError: a process of it outlived its orderly stop.
    """
    with home_folder(owner=user.pw_uid if user else None) as home:
        starter = starter_for(user, home.parent)
        own = {"OMP_NUM_THREADS": "1", **starter.environment}
        stack = RunningStack(home, port=free_port(), python=starter.python, user=starter.user, **own)
        stack.wait_ready()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PLACKETT_")}
        for name in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"):
            environment.pop(name, None)
        told = subprocess.run(
            [*starter.python, "-m", "tests.chaos.prepare"],
            cwd=REPOSITORY,
            env={**environment, **starter.environment, "PLACKETT_HOME": str(home)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
            **({} if starter.user is None else {"user": starter.user, "group": starter.user, "extra_groups": []}),
        )
        yield Ground(stack, **json.loads(told.stdout.splitlines()[-1]))
        status = stack.end(signal.SIGINT)  # Ctrl-C
        left = processes_of(home)
        assert status == 0 and left == [], (status, left, stack.output)
