"""The whole stack with real processes: one life from the first start to the last stop, and the ways not to start.

(That an ordinary user runs it too, tests/chaos/test_seeded.py shows, where these tests run as root.)
"""

import os
import signal
import socket
import urllib.request
from pathlib import Path

import psycopg
import pytest

from tests.stack.running import RunningStack, free_port, home_folder, processes_of

pytestmark = pytest.mark.stack
PARTS = {"Postgres", "Valkey", "web", "beat", "worker-default", "worker-gpu"}


def get(url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return int(response.status)


def is_open_to_others(path: Path) -> bool:
    public = "static" in path.parts or path.is_symlink() or not path.is_file()
    return not public and bool(path.stat().st_mode & 0o077)


def test_a_stack_from_first_start_to_last_stop() -> None:
    with home_folder() as home:
        port = free_port()
        first = RunningStack(home, port=port)
        assert first.wait_ready() == f"Plackett is ready: http://127.0.0.1:{port}"
        assert "Applying annotate." in first.output, "migrations show their progress"
        assert get(f"http://127.0.0.1:{port}/readyz") == 200
        assert set(first.recorded()) == PARTS
        assert not (home / "demo-logins.json").exists()
        with psycopg.connect(first.database_url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 41 AS number")

        assert [path for path in home.rglob("*") if is_open_to_others(path)] == []

        # The same data folder again, on another port: one line, and the first goes on.
        again = RunningStack(home, port=free_port())
        assert again.wait_end() == 0
        assert again.lines == [f"Plackett already runs on {home}: http://127.0.0.1:{port}"]

        # A part that ends is named, with the end of its log, and started again.
        os.kill(first.recorded()["web"], signal.SIGKILL)
        first.wait_for("web ended unexpectedly (signal 9)")
        first.wait_for("web was started again")

        left_behind = first.recorded()
        first.process.kill()
        first.process.wait()
        assert {process.pid for process in processes_of(home)} >= set(left_behind.values()), "killed: its parts live on"

        second = RunningStack(home, port=port)
        second.wait_ready()
        assert "Applying" not in second.output, "nothing to migrate the second time"
        assert second.output.count("left behind by a stack that was killed") == len(PARTS)
        living = {process.pid for process in processes_of(home)}
        assert not living & set(left_behind.values())
        with psycopg.connect(second.database_url()) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (41,)
        assert second.end() == 0
        assert processes_of(home) == []


def test_the_servers_alone_for_putting_a_backup_back() -> None:
    with home_folder() as home:
        servers = RunningStack(home, port=free_port(), part="servers")
        servers.wait_for("The servers are up, and nothing else")
        assert set(servers.recorded()) == {"Postgres", "Valkey"}
        with psycopg.connect(servers.database_url(), autocommit=True) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
            assert tables == (0,), "no migration has made the place anything but empty"
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        assert servers.end(signal.SIGINT) == 0
        assert processes_of(home) == []

        # Stopped in good order, it leaves nothing behind that the next start would have to end.
        again = RunningStack(home, port=free_port(), part="servers")
        again.wait_for("The servers are up, and nothing else")
        assert "left behind" not in again.output
        with psycopg.connect(again.database_url()) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (42,)
        assert again.end() == 0


def test_a_part_that_cannot_live_takes_the_start_down_and_is_named() -> None:
    with home_folder() as home:
        stack = RunningStack(home, port=free_port(), DJANGO_SETTINGS_MODULE="no.such.settings")
        assert stack.wait_end() == 1
        assert "No module named 'no'" in stack.output
        assert stack.lines[-1].startswith("plackett: the database could not be prepared")
        assert processes_of(home) == []


def test_a_port_held_by_something_else_is_one_line_and_nothing_is_started() -> None:
    with home_folder() as home, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        stack = RunningStack(home, port=port)
        assert stack.wait_end() == 1
        assert len(stack.lines) == 1
        assert stack.lines[0].startswith(f"plackett: Port {port} is held by")
        assert f"process {os.getpid()}" in stack.lines[0]
        assert not (home / "postgres").exists()


@pytest.mark.parametrize(("file", "content"), [("version", "2\n"), ("postgres/data/PG_VERSION", "99\n")])
def test_data_made_by_a_newer_version_is_one_line(file: str, content: str) -> None:
    with home_folder() as home:
        marker = home / file
        marker.parent.mkdir(parents=True)
        marker.write_text(content)
        for folder in (home, *marker.parents[:2]):
            folder.chmod(0o755)
        stack = RunningStack(home, port=free_port())
        assert stack.wait_end() == 1
        complaints = [line for line in stack.lines if line.startswith("plackett:")]
        assert len(complaints) == 1 and "newer" in complaints[0], stack.output
        assert processes_of(home) == []
        assert marker.read_text() == content


def test_a_start_that_is_interrupted_leaves_nothing_running() -> None:
    with home_folder() as home:
        stack = RunningStack(home, port=free_port())
        stack.wait_for("Preparing the database")
        assert stack.end(signal.SIGINT) == 0
        assert processes_of(home) == []
