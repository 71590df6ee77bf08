"""Postgres and Valkey for the tests: the same servers and classes as `make run`, in a temporary folder.

    with_servers = start_test_servers(root)     # (postgres_url, redis_url, stop)

Contract: both servers are children of a keeper process, not of the caller. The keeper holds the read end of a pipe to
the caller; when that pipe closes, by `stop()` or because the caller died however violently, it stops both servers and
deletes `root`. If the keeper itself is killed, the kernel stops the servers (Linux). Data is not flushed to disk.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def make_servers_root() -> Path:
    """A temporary folder that an unprivileged server account can enter (pytest's own folders are 0700)."""
    root = Path(tempfile.mkdtemp(prefix="plackett-test-", dir="/tmp"))
    root.chmod(0o711)
    return root


def start_test_servers(root: Path | None = None) -> tuple[str, str, Callable[[], None]]:
    """Starts one Postgres and one Valkey under `root`, a folder of their own that is deleted at the end.

    Returns:
        The Postgres URL (user `plackett`, who may create databases), the Redis URL, and `stop()`, harmless to repeat.

    Raises:
        RuntimeError: the servers did not start; the message says why.
    """
    root = root or make_servers_root()
    keeper = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    line = keeper.stdout.readline()
    if not line:
        raise RuntimeError(f"the test servers did not start (exit {keeper.wait()}); see the lines above")
    urls = json.loads(line)

    def stop() -> None:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(timeout=60)

    return urls["postgres"], urls["redis"], stop


def keep(root: Path) -> None:
    """The keeper: starts the servers, prints their URLs as one JSON line, and stops them when standard input ends."""
    sys.path.insert(0, str(REPOSITORY))
    import psycopg

    from webapp.stack.postgres import EmbeddedPostgres
    from webapp.stack.valkey import EmbeddedValkey

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    postgres = EmbeddedPostgres(root / "postgres", fsync=False, die_with_parent=True)
    valkey = EmbeddedValkey(root / "valkey", append_only=False, die_with_parent=True)
    try:
        postgres.start()
        with psycopg.connect(postgres._admin_url(), autocommit=True) as admin:
            admin.execute("GRANT SET ON PARAMETER session_replication_role TO plackett")  # see tests/emptying.py
        valkey.start()
        print(json.dumps({"postgres": postgres.url, "redis": valkey.url}), flush=True)
        sys.stdin.read()
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
