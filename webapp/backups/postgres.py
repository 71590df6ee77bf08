"""pg_dump and pg_restore: where they are, how they reach the database, and what is in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from webapp import env
from webapp.backups.manifest import BackupError
from webapp.stack.errors import StackError
from webapp.stack.postgres import packaged_postgres


@dataclass(frozen=True)
class Frozen:
    """One moment of the database that pg_dump can be asked to write."""

    snapshot: str
    tables: dict[str, int]
    server: str


@contextmanager
def frozen_database() -> Iterator[Frozen]:
    """Holds one moment of the database while the block runs: the rows counted are the rows dumped.

    Raises:
        BackupError: the database cannot be reached.
    """
    with _connection() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        row = connection.execute("SELECT pg_export_snapshot(), current_setting('server_version')").fetchone()
        assert row is not None
        yield Frozen(snapshot=row[0], tables=_count(connection), server=row[1])


def dump_database(target: Path, *, snapshot: str) -> None:
    """Writes the database as it was at that moment, in pg_dump's custom format.

    Raises:
        BackupError: with what pg_dump said.
    """
    _run("pg_dump", "--format=custom", f"--snapshot={snapshot}", "--no-owner", "--no-privileges", f"--file={target}")


def load_database(dump: Path) -> None:
    """Puts a dump into the empty database: all of it or nothing.

    Raises:
        BackupError: with what pg_restore said.
    """
    _run("pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(dump))


def count_rows() -> dict[str, int]:
    """Rows of every table.

    Raises:
        BackupError: the database cannot be reached.
    """
    with _connection() as connection:
        return _count(connection)


def others_connected() -> int:
    """How many connections to this database there are besides ours."""
    with _connection() as connection:
        row = connection.execute(
            """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend'"""
        ).fetchone()
    assert row is not None
    return int(row[0])


def empty_database() -> None:
    """Removes every table, with what hangs on it."""
    with _connection() as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


def _count(connection: psycopg.Connection[Any]) -> dict[str, int]:
    names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    counts = {}
    for (name,) in names:
        row = connection.execute(sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name))).fetchone()
        assert row is not None
        counts[name] = int(row[0])
    return counts


@contextmanager
def _connection() -> Iterator[psycopg.Connection[Any]]:
    address, password = _address()
    try:
        opened = psycopg.connect(address, password=password or None)
    except psycopg.OperationalError as error:
        raise BackupError(f"Cannot reach the database: {' '.join(str(error).split())}") from None
    with opened:
        yield opened


def _address() -> tuple[str, str]:
    """The connection string without its password, and the password, which must not stand in a list of processes."""
    known = settings.DATABASES["default"]
    options = {name: value for name, value in known["OPTIONS"].items() if name in env.CONNECTION_PARAMETERS}
    where = {"dbname": known["NAME"], "user": known["USER"], "host": known["HOST"], "port": known["PORT"], **options}
    return make_conninfo("", **{name: value for name, value in where.items() if value != ""}), str(known["PASSWORD"])


def _run(name: str, *arguments: str) -> None:
    address, password = _address()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [str(_program(name)), "--no-password", f"--dbname={address}", *arguments],
        env={**kept, **({"PGPASSWORD": password} if password else {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackupError(f"{name} failed: {' '.join((done.stderr or done.stdout).split())[:1000]}")


def _program(name: str) -> Path:
    """The program in the folder asked for, else in the wheel of the embedded server, else on the path.

    Raises:
        BackupError: it is nowhere.
    """
    if folder := env.text("PLACKETT_POSTGRES_PROGRAMS"):
        found: Path | None = Path(folder) / name
    else:
        try:
            found = packaged_postgres().with_name(name)
        except StackError:
            found = None
    if found is not None and found.is_file():
        return found
    if not folder and (on_path := shutil.which(name)):
        return Path(on_path)
    raise BackupError(f"There is no {name}: install PostgreSQL's client programs, or set PLACKETT_POSTGRES_PROGRAMS.")
