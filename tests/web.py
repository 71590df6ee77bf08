"""The web server of production on the test's own database: gunicorn with threads and a connection pool."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.db import connection

REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def web_server(home: Path, *, workers: int = 1, threads: int = 4) -> Iterator[tuple[str, int]]:
    """Its address (host:port) and its main process. Needs `django_db(transaction=True)`: it sees what is committed.

    Args:
        home: a folder for its files.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    command = [sys.executable, "-m", "gunicorn", "webapp.wsgi:application", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--workers", str(workers), "--threads", str(threads)]
    environment = {
        **os.environ,
        "DATABASE_URL": database,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PLACKETT_HOME": str(home),
        "PLACKETT_PROCESS": "web",
        "PLACKETT_SECRET_KEY": settings.SECRET_KEY,  # so that it knows the sessions that a test begins
    }
    process = subprocess.Popen(
        [*command, "--no-control-socket"], cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        _wait(f"http://127.0.0.1:{port}/healthz", process)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start (exit {process.poll()})")
