"""A throw-away Postgres and Valkey for benchmarks that need a database, and the web server of production."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import django
import psutil


@contextmanager
def django_on_scratch_servers() -> Iterator[None]:
    """Sets Django up on an empty, migrated database that is gone afterwards."""
    from tests.servers import start_test_servers

    postgres_url, redis_url, stop = start_test_servers()
    os.environ.update(
        DATABASE_URL=postgres_url,
        REDIS_URL=redis_url,
        PLACKETT_HOME=tempfile.mkdtemp(prefix="plackett-bench-"),
        DJANGO_SETTINGS_MODULE="tests.settings",
    )
    try:
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        yield
    finally:
        stop()


@dataclass(frozen=True)
class Web:
    """A running web server: its port, and its main process, whose children answer."""

    port: int
    process: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def gunicorn(application: str = "webapp.wsgi:application", *, workers: int = 1, threads: int = 4) -> Iterator[Web]:
    """The web server of production on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", application, "--worker-class", "gthread", "--workers", str(workers)]
    command += ["--threads", str(threads), "--bind", f"127.0.0.1:{port}", "--keep-alive", "60", "--no-control-socket"]
    server = subprocess.Popen([*command, "--log-level", "warning"], env=os.environ.copy())
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Web(port, server.pid)
    finally:
        server.terminate()
        server.wait()


def peak_of_workers(web: Web) -> int:
    """The most bytes that the largest of the server's processes has had in memory so far."""
    return max(_peak(child.pid) for child in psutil.Process(web.process).children())


def _peak(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
