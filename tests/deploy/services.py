"""Runs services of the compose file outside Docker: their own commands, health checks and environment.

What only Docker could give has stand-ins: host names become the test's servers, /run/secrets a temporary folder, /data
another; `docker-entrypoint.sh redis-server` is a script that starts the Valkey from the wheel.
"""

import importlib.metadata
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.deploy.files import BASE, REPOSITORY, compose, filled
from tests.stack.running import free_port
from webapp.stack.postgres import packaged_postgres

PATIENCE_SECONDS = 300
NOT_PACKAGES = {"pip", "setuptools"}

REDIS_CLI = """\
import os, sys, redis
with redis.Redis(port=int(os.environ["TEST_REDIS_PORT"]), password=os.environ["REDISCLI_AUTH"]) as client:
    print({True: "PONG"}[getattr(client, sys.argv[1])()])
"""
# Put in front of everything: whatever does not come from the packages of the web image cannot be imported.
WITHOUT = """\
import importlib.abc, sys
ABSENT = {absent!r}
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}: it is not in the web image", name=name)
sys.meta_path.insert(0, Absent())
"""


class Composed:
    """The services on one set of test servers; `close` ends every process and waits for it."""

    def __init__(self, folder: Path, *, database_url: str) -> None:
        self.folder, self.home = folder, folder / "data"
        self.port, self.redis_port = free_port(), free_port()
        self._database_url = database_url
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.home.mkdir(mode=0o700)
        (folder / "secrets").mkdir()
        for name in compose(BASE)["secrets"]:
            (folder / "secrets" / name).write_text(secrets.token_hex(16))
        self.services = filled(compose(BASE), {"PLACKETT_PORT": str(self.port)})["services"]
        self._write_stand_ins()

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Starts the service's command; its output is in `log(name)`."""
        with self.log(name).open("ab") as output:
            self._processes[name] = subprocess.Popen(
                self._command(self.services[name]["command"]),
                cwd=REPOSITORY,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._processes[name]

    def wait_healthy(self, name: str) -> None:
        """Repeats the service's health check until it passes; fails when the service ends or time is up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.check(name)).returncode != 0:
            living = name not in self._processes or self._processes[name].poll() is None
            assert living and time.monotonic() < deadline, f"{name}: {answer.stdout}{answer.stderr}\n{self.tail(name)}"
            time.sleep(0.2)

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Runs the service's health check once."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        return self.run(command, name)

    def run(self, command: list[str], name: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, as `docker compose exec NAME COMMAND` would."""
        return subprocess.run(
            self._command(command),
            cwd=REPOSITORY,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def stop(self, name: str) -> int:
        """SIGTERM, as Docker does; returns the exit status. Fails where the service outlives its grace period."""
        process = self._processes.pop(name)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        grace = int(self.services[name]["stop_grace_period"].removesuffix("s"))
        try:
            return process.wait(timeout=grace)
        finally:
            for one in [*family, *([psutil.Process(process.pid)] if process.poll() is None else [])]:
                if one.is_running():
                    one.kill()

    def close(self) -> None:
        """Ends whatever still runs."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def tail(self, name: str) -> str:
        return self.log(name).read_text()[-3000:] if self.log(name).exists() else ""

    def environment(self, name: str) -> dict[str, str]:
        """What the service's environment is, in the test's places, and nothing of ours."""
        own = {key: self._here(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        if "PLACKETT_HOST" in own:
            own |= {"PLACKETT_HOST": "127.0.0.1", "PLACKETT_HOME": str(self.home)}
        path = f"{self.folder / 'bin'}:{packaged_postgres().parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        own |= {"PATH": path, "TEST_REDIS_PORT": str(self.redis_port), "OMP_NUM_THREADS": "1", "HOME": str(self.home)}
        if self.services[name].get("image") == "plackett-web":
            own["PYTHONPATH"] = str(self.folder / "without")
        return own

    def _here(self, text: str) -> str:
        if text.startswith("postgresql://"):
            return self._database_url
        return text.replace("/run/secrets", str(self.folder / "secrets")).replace(
            "redis://redis:6379", f"redis://127.0.0.1:{self.redis_port}"
        )

    def _command(self, words: list[str]) -> list[str]:
        socket_folder = re.search("host=([^&]*)", self._database_url)
        assert socket_folder
        words = [self._here(word) for word in words]
        if words[0] == "pg_isready":  # the tests' Postgres listens on its socket alone
            words = [word.replace("--host=127.0.0.1", f"--host={socket_folder[1]}") for word in words]
        return words

    def _write_stand_ins(self) -> None:
        from webapp.stack.valkey import _program

        data = self.folder / "redis"
        data.mkdir()
        server = f'shift; exec {_program()} "$@" --port {self.redis_port} --bind 127.0.0.1 --dir {data}'
        python = shlex.quote(sys.executable)
        self._script("docker-entrypoint.sh", f'[ "$1" = redis-server ] || exit 1\n{server}')
        self._script("redis-cli", f'exec {python} -c {shlex.quote(REDIS_CLI)} "$@"')
        (self.folder / "without").mkdir()
        (self.folder / "without" / "sitecustomize.py").write_text(WITHOUT.format(absent=sorted(not_in_web_image())))

    def _script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def not_in_web_image() -> set[str]:
    """Every module here that belongs to no package of requirements/web.txt."""
    pins = (REPOSITORY / "requirements" / "web.txt").read_text().splitlines()
    kept = NOT_PACKAGES | {_normal(pin.partition("==")[0]) for pin in pins if "==" in pin}
    owners = importlib.metadata.packages_distributions()
    return {module for module, names in owners.items() if not kept & {_normal(name) for name in names}}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
