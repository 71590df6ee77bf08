"""One program in a process of its own: started, watched over and cleared away."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("sandbox.py")
# Beyond the program's own time: for a busy machine to start two processes, and to end what the program started.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class ProgramLimits:
    """What a program may use. Times in seconds.

    Attributes:
        cpu_seconds: of computing, of each of its processes.
        wall_seconds: from start to end, waiting included; well above ``cpu_seconds``, for a busy machine.
        memory_bytes: address space of each process.
        file_bytes: of each file that it writes.
        processes: processes and threads at a time; where it has no account of its own, beside those of ours.
        open_files: at a time.
        parallel: programs at a time.
        own_account: whether root gives each program an account without rights of its own.
        namespaces: whether each gets namespaces of its own, where the kernel allows.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 512 << 20
    file_bytes: int = 16 << 20
    processes: int = 16
    open_files: int = 64
    parallel: int = field(default_factory=lambda: max(1, min(8, os.cpu_count() or 1)))
    own_account: bool = True
    namespaces: bool = True

    def without_account(self) -> "ProgramLimits":
        """The same, in the account of this process."""
        return replace(self, own_account=False)


@dataclass(frozen=True)
class Outcome:
    """How many tests passed, and what held of the isolation: ``network``, ``processes``, ``account``."""

    passed: int
    isolation: Mapping[str, bool]


class SandboxError(Exception):
    """A program could not be run at all; says nothing about the program."""


def run_program(code: str, tests: Sequence[str], limits: ProgramLimits) -> Outcome:
    """Run a program and then its tests in an empty folder, and clear everything away.

    Raises:
        SandboxError: the processes around the program could not be started, or did not come to an end.
    """
    request = json.dumps({"code": code, "tests": list(tests), "limits": asdict(limits)}).encode()
    with tempfile.TemporaryDirectory(prefix="plackett-program-", ignore_cleanup_errors=True) as folder:
        said = _supervise(request, folder, limits.wall_seconds + GRACE_SECONDS)
    return _outcome(said)


def _supervise(request: bytes, folder: str, seconds: float) -> list[str]:
    """What the supervisor says, line by line."""
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(SUPERVISOR), folder]
    try:
        process = subprocess.Popen(
            command, cwd=folder, env={}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise SandboxError(str(error)) from error
    try:
        said, _ = process.communicate(request, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"it did not come to an end within {seconds:g} s") from error
    finally:
        # Also after an error or a stop in between: nothing of it may outlive this call. The program itself, in a
        # session of its own, ends with the supervisor.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    return said.decode(errors="replace").splitlines()


def _outcome(said: Sequence[str]) -> Outcome:
    """First line: that the program was started, and how; second: the verdict. No verdict is the program's fault."""
    try:
        first = json.loads(said[0])
        if "error" in first:
            raise SandboxError(first["error"])
        verdict = json.loads(said[1]) if len(said) > 1 else {"passed": 0}
        return Outcome(passed=int(verdict["passed"]), isolation=first["isolation"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise SandboxError("the process around it ended before the program was started") from error
