"""A throw-away Postgres and Valkey for benchmarks that need a database, and the web server of production."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import django


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


@contextmanager
def gunicorn(application: str = "webapp.wsgi:application", *, workers: int = 1, threads: int = 4) -> Iterator[int]:
    """The web server of production on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", application, "--worker-class", "gthread"]
    command += [
        "--workers",
        str(workers),
        "--threads",
        str(threads),
        "--bind",
        f"127.0.0.1:{port}",
        "--keep-alive",
        "60",
        "--log-level",
        "warning",
    ]
    server = subprocess.Popen(command, env=os.environ.copy())
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()
