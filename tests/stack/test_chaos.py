"""Every part of a stack killed in turn, twice, while people use it: it heals by itself and keeps the data."""

import os
import signal
import time
import urllib.request

import psycopg
import pytest

from tests.stack.running import RunningStack, free_port, home_folder, processes_of

pytestmark = [pytest.mark.stack, pytest.mark.chaos]
PARTS = ("worker-gpu", "worker-default", "web", "Valkey", "Postgres")


def is_ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_every_part_killed_twice_comes_back() -> None:
    with home_folder() as home:
        port = free_port()
        stack = RunningStack(home, port=port)
        stack.wait_ready()
        with psycopg.connect(stack.database_url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        for round_number in (1, 2):
            for part in PARTS:
                with psycopg.connect(stack.database_url(), autocommit=True) as connection:
                    connection.execute("INSERT INTO kept VALUES (%s)", [round_number])
                before = stack.recorded()[part]
                os.kill(before, signal.SIGKILL)
                stack.wait_for(f"{part} ended unexpectedly (signal 9)")
                stack.wait_for(f"{part} was started again", seconds=180)
                assert stack.recorded()[part] != before
                deadline = time.monotonic() + 120
                while not is_ready(port):
                    assert time.monotonic() < deadline, stack.output
                    time.sleep(0.2)
        with psycopg.connect(stack.database_url()) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2 * len(PARTS),)
        assert stack.end() == 0
        assert processes_of(home) == []
