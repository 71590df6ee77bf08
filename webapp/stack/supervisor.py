"""Runs a whole stack on one machine: servers, migrations, web and workers, started and stopped in order.

Servers first, then what needs them; on the way down the workers first, so that they stop their trainers and give
their runs back while the database still answers. A part that ends by itself is started again after growing pauses;
one that keeps ending takes the stack down, so that a process manager outside sees it.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from webapp import env
from webapp.stack.accounts import make_home
from webapp.stack.children import Child, CommandChild, rotated
from webapp.stack.config import REPOSITORY, StackConfig
from webapp.stack.errors import StackError
from webapp.stack.postgres import EmbeddedPostgres
from webapp.stack.processes import exit_reason, last_lines, stop_process
from webapp.stack.record import clear_record, end_orphan, find_orphans, read_record, take_lock, write_record
from webapp.stack.restarts import RestartPolicy
from webapp.stack.valkey import EmbeddedValkey

DATA_VERSION = 1
"""Raised when an older Plackett could no longer read the data folder; the database keeps its own account of this."""

READY_SECONDS = 120
STOP_SECONDS = {"worker-default": 13, "worker-gpu": 13, "beat": 3, "web": 3, "Valkey": 1, "Postgres": 18}
"""How long each part may take to end. A trainer has 10 s to save, so its worker has a little more. Postgres writes back
all it holds, so it gets what the others leave of 18 s: a stop has to be done within 20 s, and killing what did not obey
takes a moment too."""


class StopAsked(Exception):
    """Ctrl-C or SIGTERM came while something was being started."""


def main(*, servers_only: bool = False) -> int:
    """Runs the stack until it is asked to stop; or, to put a backup back, its Postgres and Valkey alone.

    Returns:
        0 after an orderly stop, or if this data folder's stack runs already; 1 if it could not start or go on.
    """
    # Snapshots, models and logs hold people's texts: no other user of the machine reads them.
    os.umask(0o077)
    config = StackConfig.from_environment()
    try:
        make_home(config.home)
        lock = take_lock(config.home)
        if lock is None:
            say(f"Plackett already runs on {config.home}: {read_record(config.home)[0] or 'it is just starting'}")
            return 0
        with lock:
            return Stack(config, servers_only=servers_only).run()
    except (StackError, PermissionError) as error:
        print(f"plackett: {error}", file=sys.stderr)
        return 1


def say(line: str) -> None:
    """One line for the person at the terminal, at once."""
    print(line, flush=True)


class Stack:
    """One life of the stack; use it from the main thread."""

    def __init__(self, config: StackConfig, *, servers_only: bool = False) -> None:
        self.config = config
        self._servers_only = servers_only
        self._children: list[Child] = []
        self._signalled_at = 0.0
        self._restarts = RestartPolicy()
        self._due: dict[str, float] = {}

    def run(self) -> int:
        """Starts everything, watches it until a signal comes, stops everything.

        Raises:
            StackError: it could not start or go on; nothing is left running.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._watch()
        except StopAsked:
            pass
        except StackError:
            if not self._signalled_at:  # else a child that heard Ctrl-C before us failed because of it
                raise
        finally:
            self._stop()
        return 0

    # --- up ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        check_data_version(self.config.home)
        for name, process in find_orphans(self.config.home):
            say(f"Ending {name} (process {process.pid}), left behind by a stack that was killed …")
            end_orphan(name, process, seconds=STOP_SECONDS.get(name, 10))
        if not self._servers_only:
            self.config.check_port()
        self.config.logs.mkdir(exist_ok=True)
        environment = self.config.child_environment(self._start_servers())
        if self._servers_only:
            say("The servers are up, and nothing else. Ctrl-C stops them.")
            return
        say("Preparing the database …")
        if self._run_to_end([sys.executable, "manage.py", "prepare"], environment)[0] != 0:
            raise StackError("the database could not be prepared; the lines above say why.")
        self._start_commands(environment)
        link = "" if self.config.demo else self._first_admin_link(environment)
        self._wait_ready()
        self._announce(link)

    def _start_servers(self) -> dict[str, str]:
        """Starts the servers that are not the operator's own, and leaves their addresses for `manage.py` by hand."""
        home, logs = self.config.home, self.config.logs
        embedded = {}
        if not self.config.database_url:
            postgres = EmbeddedPostgres(home / "postgres", log=rotated(logs / "postgres.log"))
            self._start_child(postgres)
            embedded["database_url"] = postgres.url
        if not self.config.redis_url:
            valkey = EmbeddedValkey(home / "valkey", log=rotated(logs / "valkey.log"))
            self._start_child(valkey)
            embedded["redis_url"] = valkey.url
        (home / "services.json").write_text(json.dumps(embedded))
        return {name.upper(): url for name, url in embedded.items()}

    def _start_commands(self, environment: dict[str, str]) -> None:
        say("Starting the web and two workers …")
        commands = {"web": self.config.web_command(), "beat": self.config.beat_command()}
        # One machine, one device: a single worker takes the runs of every queue, one at a time.
        for name, queues in {"worker-default": "default", "worker-gpu": ",".join(env.run_queues())}.items():
            commands[name] = self.config.worker_command(queues)
        for name, command in commands.items():
            log = rotated(self.config.logs / f"{name}.log")
            self._start_child(CommandChild(name, command, log=log, environment=environment))

    def _start_child(self, child: Child) -> None:
        self._children.append(child)
        began = time.monotonic()
        child.start(check=self._while_starting)
        self._while_starting()
        if isinstance(child, EmbeddedPostgres | EmbeddedValkey):
            say(f"{child.name} is up ({time.monotonic() - began:.1f} s){_data_elsewhere(child.data_dir)}.")
        self._restarts.started(child.name, at=time.monotonic())

    def _while_starting(self) -> None:
        """Records new processes as soon as they exist, and gives up the start if a signal came."""
        living = [(child.name, child.process.pid) for child in self._children if child.process is not None]
        write_record(self.config.home, url=self.config.url, processes=living)
        if self._signalled_at:
            raise StopAsked

    def _run_to_end(self, command: list[str], environment: dict[str, str], *, capture: bool = False) -> tuple[int, str]:
        """Runs a command of ours; returns its exit status and, if captured, what it printed."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
        )
        while process.poll() is None:
            if self._signalled_at:
                stop_process(process, [(signal.SIGTERM, 5)])
                raise StopAsked
            time.sleep(0.05)
        return process.returncode, process.stdout.read().decode().strip() if process.stdout else ""

    def _first_admin_link(self, environment: dict[str, str]) -> str:
        status, path = self._run_to_end([sys.executable, "manage.py", "first_admin_link"], environment, capture=True)
        if status != 0:
            raise StackError("the link for the first admin could not be made; the lines above say why.")
        return path

    def _wait_ready(self) -> None:
        """Waits until /readyz answers 200, which means that the web reaches database and broker."""
        deadline = time.monotonic() + READY_SECONDS
        while not answers(f"{self.config.url}/readyz"):
            for child in self._children:
                if _ended(child):
                    raise StackError(_obituary(child))
            if time.monotonic() > deadline:
                raise StackError(f"the web was not ready within {READY_SECONDS} s (log: {self.config.logs}/web.log)")
            self._while_starting()
            time.sleep(0.1)

    def _announce(self, link: str) -> None:
        say(f"Plackett is ready: {self.config.url}")
        if link:
            say(f"First admin: open {self.config.url}{link} once to choose a name and a password.")
        logins = self.config.home / "demo-logins.json"
        if self.config.demo and logins.exists():
            for role, login in json.loads(logins.read_text()).items():
                say(f"  {role:<10} {login['username']} / {login['password']}")
            say(f"  (these and their API tokens: {logins})")

    # --- watch -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._signalled_at:
            for child in self._children:
                if child.name in self._due:
                    self._restart_if_due(child)
                elif _ended(child):
                    self._plan_restart(child, _obituary(child))
            time.sleep(0.2)

    def _plan_restart(self, child: Child, what_happened: str) -> None:
        pause = self._restarts.pause(child.name, at=time.monotonic())
        if pause is None:
            raise StackError(f"{what_happened}\nplackett: {child.name} keeps ending, so everything is stopped.")
        say(f"{what_happened}\nStarting {child.name} again in {pause} s …")
        self._due[child.name] = time.monotonic() + pause

    def _restart_if_due(self, child: Child) -> None:
        if time.monotonic() < self._due[child.name]:
            return
        del self._due[child.name]
        try:
            child.start(check=self._while_starting)
            self._while_starting()
        except StackError as error:
            self._plan_restart(child, str(error))
        else:
            self._restarts.started(child.name, at=time.monotonic())
            say(f"{child.name} was started again.")

    # --- down --------------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks for a stop, a later Ctrl-C for a quick one.

        Only a later one, and only Ctrl-C: `make` passes SIGTERM on, so that `timeout` and systemd deliver it twice.
        """
        hurry = number == signal.SIGINT and self._signalled_at and time.monotonic() > self._signalled_at + 1
        self._signalled_at = self._signalled_at or time.monotonic()
        if hurry:
            for child in self._children:
                if child.process is not None and child.process.poll() is None:
                    child.process.send_signal(signal.SIGQUIT)  # the quick way out of all four programs

    def _stop(self) -> None:
        """The workers and, while they give their runs back, the web; then the broker, then the database."""
        if any(child.process is not None for child in self._children):
            say("Stopping …")
        deadline = time.monotonic() + STOP_SECONDS["Postgres"]
        commands = [child for child in reversed(self._children) if isinstance(child, CommandChild)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda command: command.stop(STOP_SECONDS[command.name]), commands))
        for child in reversed(self._children):
            if child not in commands:
                child.stop(min(STOP_SECONDS[child.name], deadline - time.monotonic()))
        if self._children:  # else the record may still name orphans that were not reached
            clear_record(self.config.home)


def check_data_version(home: Path) -> None:
    """Refuses a data folder made by a newer Plackett; marks a new one.

    Raises:
        StackError: it is newer, or the mark cannot be read.
    """
    mark = home / "version"
    if not mark.exists():
        mark.write_text(f"{DATA_VERSION}\n")
    text = mark.read_text().strip()
    if not text.isdecimal():
        raise StackError(f"{mark} should hold a number, not {text[:40]!r}.")
    if int(text) > DATA_VERSION:
        raise StackError(
            f"{home} was made by a newer Plackett (data version {text}, this one knows {DATA_VERSION}): "
            "update Plackett, or set PLACKETT_HOME to another folder."
        )


def _data_elsewhere(data_dir: Path) -> str:
    """A word about data that the server's account could not reach in the data folder."""
    return f"; its data is in {data_dir.resolve()}" if data_dir.is_symlink() else ""


def _ended(child: Child) -> bool:
    return child.process is not None and child.process.poll() is not None


def _obituary(child: Child) -> str:
    assert child.process is not None
    tail = "".join(f"\n  | {line}" for line in last_lines(child.log, 10))
    return f"{child.name} ended unexpectedly ({exit_reason(child.process)}); the end of {child.log}:{tail}"


def answers(url: str) -> bool:
    """Whether the address answers 200 within 5 seconds."""
    # Never through a proxy of the environment: the address is this machine's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
