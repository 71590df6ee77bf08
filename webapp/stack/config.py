"""What the supervisor is asked to run, read from the environment."""

import contextlib
import errno
import ipaddress
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from webapp import env
from webapp.stack.errors import StackError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WEB_WORKERS = 2


@dataclass(frozen=True)
class StackConfig:
    """One stack: where its data lives, where it listens, and which servers are not its own."""

    home: Path
    host: str
    port: int
    demo: bool
    web_threads: int
    database_url: str
    """A Postgres of the operator's own; empty = embedded."""
    redis_url: str
    """A Redis or Valkey of the operator's own; empty = embedded."""

    @classmethod
    def from_environment(cls) -> "StackConfig":
        """Reads PLACKETT_*, DATABASE_URL and REDIS_URL; a value that makes no sense ends the process with one line."""
        return cls(
            home=Path(env.text("PLACKETT_HOME", str(REPOSITORY / "var"))).expanduser().resolve(),
            host=env.text("PLACKETT_HOST", "127.0.0.1").strip("[]"),
            port=env.integer("PLACKETT_PORT", 8000, 1, 65535),
            demo=env.flag("PLACKETT_DEMO", True),
            web_threads=env.integer("PLACKETT_WEB_THREADS", 8, 1, 256),
            database_url=env.private("DATABASE_URL"),
            redis_url=env.private("REDIS_URL"),
        )

    @property
    def url(self) -> str:
        """The address to open in a browser on this machine."""
        host = self.host
        if self._is_every_address():
            host = "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def bind(self) -> str:
        """The address as gunicorn reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def logs(self) -> Path:
        """The folder of every child's log."""
        return self.home / "logs"

    def child_environment(self, urls: dict[str, str]) -> dict[str, str]:
        """The environment of web, workers and commands, with the addresses of the servers filled in."""
        return {
            **os.environ,
            **urls,
            "PLACKETT_HOME": str(self.home),
            "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE") or "webapp.settings",
            "PYTHONUNBUFFERED": "1",
        }

    def web_command(self) -> list[str]:
        """gunicorn with threads; no preload, as a connection pool does not survive a fork."""
        command = [sys.executable, "-m", "gunicorn", "webapp.wsgi:application", "--bind", self.bind]
        command += ["--worker-class", "gthread", "--workers", str(WEB_WORKERS), "--threads", str(self.web_threads)]
        command += ["--graceful-timeout", "2", "--no-control-socket", "--capture-output"]
        # Workers prove that they live by touching a file; on a slow disk that alone can look like a hang.
        return [*command, "--worker-tmp-dir", "/dev/shm"] if Path("/dev/shm").is_dir() else command

    def worker_command(self, queues: str) -> list[str]:
        """A Celery worker of some queues, separated by commas and named after the first: `default` for short jobs,
        every other for runs.

        A worker of runs has its one job in a thread of the main process, which is the one that hears SIGTERM: it can
        stop the trainer and give the run back before it ends. A forked pool would not tell the job.
        """
        queue = queues.partition(",")[0]
        pool = ["--concurrency", "2"] if queue == "default" else ["--pool", "threads", "--concurrency", "1"]
        command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", queues, "-n", f"{queue}@%h", *pool]
        return [*command, "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

    def beat_command(self) -> list[str]:
        """Celery's clock: sends what is due by the schedule of webapp.settings; one of them is enough."""
        folder = self.home / "beat"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "celery", "-A", "webapp", "beat", "-n", "beat@%h", "--enable-remote-control"]
        return [*command, "--schedule", str(folder / "schedule"), "--loglevel", "INFO"]

    def ping_command(self, part: str) -> list[str]:
        """Asks, over the broker, whether the worker of a queue (or `beat`) on this host still hears.

        Its exit status is 0 if it answered.
        """
        command = [sys.executable, "-m", "celery", "-A", "webapp", "inspect", "ping", "--timeout", "10"]
        return [*command, "--destination", f"{part.partition(',')[0]}@{socket.gethostname()}"]

    def check_port(self) -> None:
        """Makes sure that the web can listen.

        Raises:
            StackError: something else holds the port, or the address is not this machine's.
        """
        try:
            address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        except socket.gaierror:
            raise StackError(f"PLACKETT_HOST={self.host} is not an address.") from None
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address[4])
            except PermissionError:
                raise StackError(f"Port {self.port} needs root: set PLACKETT_PORT to one above 1023.") from None
            except OSError as error:
                raise StackError(self._port_problem(error)) from None

    def _port_problem(self, error: OSError) -> str:
        if error.errno != errno.EADDRINUSE:
            return f"Cannot listen on PLACKETT_HOST={self.host}: {error.strerror}."
        holder = _holder_of(self.port)
        return f"Port {self.port} is held by {holder}: stop it, or set PLACKETT_PORT to a free port."

    def _is_every_address(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def _holder_of(port: int) -> str:
    # Only root may see every process's connections on macOS, and other users' on Linux.
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another program"
