"""Programs of the policy in real processes: what counts as passing, what they cannot do, and what is left of them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.training.core.reward_sources.episodes import episode
from training.core.errors import TrainingError, UsageError
from training.core.reward_sources import running
from training.core.reward_sources.episodes import score_all
from training.core.reward_sources.programs import TestsReward, code_of, settle_isolation
from training.core.reward_sources.running import Outcome, ProgramLimits, SandboxError, run_program

LIMITS = ProgramLimits(
    cpu_seconds=1, wall_seconds=8.0, memory_bytes=128 << 20, file_bytes=1 << 20, processes=16, parallel=2
)
# As at home, and as on a kernel that gives neither namespaces nor accounts.
BARE = replace(LIMITS, namespaces=False, own_account=False)
WITH_ACCOUNT = [pytest.param(LIMITS, id="all"), pytest.param(replace(LIMITS, namespaces=False), id="account")]
EITHER = pytest.mark.parametrize("limits", [*WITH_ACCOUNT, pytest.param(BARE, id="bare")])
# The kernel counts no processes of root: without an account of their own, programs would bomb the machine.
COUNTED = pytest.mark.parametrize("limits", WITH_ACCOUNT) if os.geteuid() == 0 else EITHER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux' own")


def passes(code: str, *tests: str, limits: ProgramLimits = LIMITS) -> int:
    return run_program(code, tests or ("assert True",), limits).passed


@pytest.fixture
def mark() -> Iterator[str]:
    """A word that shows in the command line of whatever a program leaves behind; ended, if need be, in the end."""
    word = f"left-behind-{os.getpid()}-{time.monotonic_ns()}"
    yield word
    for process in processes_with(word):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 9)


def processes_with(word: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


# --- what counts ------------------------------------------------------------------------------------------------------


@EITHER
def test_a_right_program_passes_and_a_wrong_one_does_not(limits: ProgramLimits) -> None:
    tests = ("assert f(2) == 4", "assert f(0) == 0", "assert f(3) == 9")
    assert passes("def f(x): return x * x", *tests, limits=limits) == 3
    assert passes("def f(x): return x + x", *tests, limits=limits) == 2


@pytest.mark.parametrize(
    "code",
    [
        "def f(x:",
        "raise ValueError",
        "import no_such_module",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "exit()",
        "import os; os.execv('/bin/true', ['true'])",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV); os._exit(0)",
        "\0",
        "\ud800",
        "import os\nfor n in range(3, 2000):\n try: os.write(n, b'1 1\\n')\n except OSError: pass\nos._exit(0)",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "def f(): f()\nf()",
        "(" * 5000 + ")" * 5000,
        "x = bytearray(1 << 30)",
        "x = [0]\nwhile True: x += x",
        "while True: pass",
    ],
)
def test_a_program_that_does_not_come_to_its_tests_passes_none(code: str) -> None:
    assert passes(code) == 0


@pytest.mark.parametrize("test", ["sys.exit(0)", "os._exit(0)", "raise KeyboardInterrupt", "f(", "assert 0", "\0"])
def test_a_test_that_ends_or_breaks_is_not_passed(test: str) -> None:
    assert passes("import os, sys", test) == 0


def test_a_program_is_no_main_program_but_a_module() -> None:
    code = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(input())\n"
    )
    assert passes(code, "assert Point(3).x == 3") == 1


def test_the_standard_library_is_within_reach() -> None:
    # Also where the interpreter's folder is closed to the account; packages with submodules, and compiled ones.
    code = "import asyncio, csv, decimal, heapq, json.tool, statistics, unittest.mock, xml.dom.minidom, zlib, _bz2"
    assert passes(code, "assert statistics.mean([1, 3]) == 2", "import collections.abc, concurrent.futures") == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("def f(): pass", "def f(): pass"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\nor better\n  ```py\nx = 2\n  ```", "x = 2\n"),
        ("```python\nx = 1\ny =", "x = 1\ny =\n"),
        ("```python\n```", "\n"),
        ("", ""),
    ],
)
def test_the_program_is_the_last_fenced_block_or_the_whole_answer(answer: str, code: str) -> None:
    assert code_of(answer) == code


def test_scores_are_all_or_nothing_or_a_share_in_the_order_of_the_episodes() -> None:
    tests = ["assert f(1) == 1", "assert f(2) == 4"]
    said: list[str] = []
    episodes = [episode(f"```python\ndef f(x): return x {operation} x\n```", record={"tests": tests})
                for operation in ("*", "/", "-", "*")]  # fmt: skip
    assert TestsReward("tests", 1.0, LIMITS, say=said.append).score(episodes) == [1.0, 0.0, 0.0, 1.0]
    assert TestsReward("tests", 1.0, LIMITS, share=True).score(episodes) == [1.0, 0.5, 0.0, 1.0]
    assert len(said) == 1
    assert said[0].startswith("programs run 2 at a time, 1 s of CPU and 128 MiB each, with ")
    assert TestsReward("tests", 1.0, LIMITS).score([]) == []


# --- what a program cannot do -----------------------------------------------------------------------------------------


def test_the_environment_is_empty_but_for_a_folder_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACKETT_SECRET", "hush")
    tests = (
        "assert set(os.environ) == {'HOME', 'TMPDIR'}",
        "assert os.getcwd() == os.environ['HOME'] == os.environ['TMPDIR']",
        "assert os.listdir('.') == []",
        "assert sys.stdin.read() == ''",
        "assert not any('PLACKETT' in path or 'site-packages' in path for path in sys.path)",
        "open('a', 'w').write('b'); os.chmod('.', 0)",
    )
    with tempfile.TemporaryDirectory() as own:  # others run programs, too
        os.chmod(own, 0o711)
        monkeypatch.setattr(tempfile, "tempdir", own)
        assert passes("import os, sys", *tests) == len(tests)
        assert os.listdir(own) == []


@EITHER
def test_the_environment_of_the_trainer_cannot_be_read_by_another_account(limits: ProgramLimits) -> None:
    """In our own it can: docs/rewards.md says so."""
    code = f"data = open('/proc/{os.getpid()}/environ', 'rb').read()"
    is_other = os.geteuid() == 0 and limits.own_account
    assert passes(code, limits=limits) == (0 if is_other else 1)


@EITHER
def test_a_file_does_not_grow_beyond_its_limit(limits: ProgramLimits) -> None:
    code = (
        "import os\n"
        "try:\n"
        "    with open('large', 'wb') as file:\n"
        "        while True: file.write(bytes(1 << 16))\n"
        "except OSError: pass\n"
    )
    assert passes(code, "assert os.path.getsize('large') <= 1 << 20", limits=limits) == 1


def test_megabytes_of_output_go_nowhere() -> None:
    code = "import sys\nfor _ in range(64): print('x' * 65536); sys.stderr.write('y' * 65536)"
    assert passes(code) == 1


def the_kernel_allows_namespaces() -> bool:
    """Asked of the kernel itself: network and processes, in a user namespace for whoever is not root."""
    flags = 0x40000000 | 0x20000000 | (0 if os.geteuid() == 0 else 0x10000000)
    code = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_network_where_namespaces_are_to_be_had() -> None:
    held = the_kernel_allows_namespaces()
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), timeout=2)"
        outcome = run_program(code, ["assert True"], LIMITS)
        assert outcome.isolation["network"] == outcome.isolation["processes"] == held
        assert outcome.passed == (0 if held else 1)
        # Without a namespace the very same program gets through: it is the namespace that holds it back.
        assert passes(code, limits=BARE) == 1


def test_an_unprivileged_user_gets_namespaces_too() -> None:
    if os.geteuid() != 0 or not run_program("", ["pass"], LIMITS).isolation["network"]:
        pytest.skip("has to be able to become one")
    # The supervisor itself as another account, as it is for people who are not root. What it imports is imported
    # before, as that account may not reach this interpreter.
    script = (
        "import contextlib, ctypes, json, os, random, resource, secrets, select, signal, sys, time, typing\n"
        "folder, source = sys.argv[2], open(sys.argv[1]).read()\n"
        "os.chown(folder, 61500, 61500); os.setgroups([])\n"
        "os.setresgid(61500, 61500, 61500); os.setresuid(61500, 61500, 61500)\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # as of a process that never was root: /proc/self is its own
        "sys.argv = ['sandbox', folder]\n"
        "exec(compile(source, 'sandbox.py', 'exec'))\n"
    )
    tests = ["assert os.geteuid() == 61500", "assert os.getpid() == 1"]
    request = json.dumps({"code": "import os", "tests": tests, "limits": asdict(LIMITS)})
    command = [sys.executable, "-I", "-S", "-c", script, str(running.SUPERVISOR)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, folder], input=request, capture_output=True, text=True)
    started, verdict = map(json.loads, done.stdout.splitlines())
    if not started["isolation"]["network"]:
        pytest.skip("this kernel keeps user namespaces from unprivileged users")
    assert started["isolation"] == {"network": True, "processes": True, "account": False}
    assert verdict == {"passed": 2}


@EITHER
def test_nothing_is_left_behind(limits: ProgramLimits, mark: str) -> None:
    code = (
        "import os, sys, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execv('/bin/sh', ['/bin/sh', '-c', 'sleep 60; : {mark}'])\n"
        "        os._exit(0)\n"
        "time.sleep(0.1)\n"
    )
    assert passes(code, limits=limits) == 1
    assert processes_with(mark) == []


@COUNTED
def test_a_fork_bomb_is_bounded_and_put_out(limits: ProgramLimits, mark: str) -> None:
    code = (
        "import os, time\n"
        "open('started', 'w').close()\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0: pass\n"
        "    except OSError: open('full', 'w').close(); time.sleep(0.01)\n"
    )
    began = time.monotonic()
    assert passes(code, limits=replace(limits, wall_seconds=0.8)) == 0
    assert time.monotonic() - began < 30
    few = "import os\nfor _ in range(40):\n if os.fork() == 0: import time; time.sleep(9); os._exit(0)"
    assert passes(few, limits=limits) == 0
    assert passes(few.replace("40", "3"), limits=limits) == 1


@EITHER
def test_who_waits_forever_is_ended(limits: ProgramLimits) -> None:
    began = time.monotonic()
    assert passes("import time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)",
                  limits=replace(limits, wall_seconds=0.3)) == 0  # fmt: skip
    assert time.monotonic() - began < 30


# --- when it is not the program's fault -------------------------------------------------------------------------------


def test_a_program_that_cannot_be_started_is_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = TestsReward("tests", 1.0, LIMITS)
    lines = [episode("x = 1", record={"tests": "assert x"}, line=6)]
    for broken in (tmp_path / "absent.py", tmp_path / "fails.py"):
        (tmp_path / "fails.py").write_text('print(\'{"error": "no processes left"}\')')
        monkeypatch.setattr(running, "SUPERVISOR", broken)
        with pytest.raises(TrainingError, match="reward tests, prompt line 6: its program could not be run"):
            score_all([source], lines)
        with pytest.raises(UsageError, match="programs cannot be run here"):
            TestsReward("tests", 1.0, LIMITS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(TrainingError, match="could not be run"):
        score_all([source], lines)


def test_a_supervisor_that_hangs_is_ended_and_no_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mark: str
) -> None:
    hanging = tmp_path / f"{mark}.py"
    hanging.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(running, "SUPERVISOR", hanging)
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.2)
    with pytest.raises(SandboxError, match="did not come to an end"):
        run_program("", ["pass"], replace(LIMITS, wall_seconds=0.1))
    assert processes_with(mark) == []


def test_where_an_account_of_its_own_does_not_work_ours_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(code: str, tests: list[str], limits: ProgramLimits) -> Outcome:
        tried.append(limits.own_account)
        if limits.own_account:
            raise SandboxError("no way in")
        return Outcome(1, {"network": False, "processes": True, "account": False})

    monkeypatch.setattr("training.core.reward_sources.programs.run_program", run)
    limits, words = settle_isolation(LIMITS)
    assert tried == [True, False]
    assert limits == replace(LIMITS, own_account=False)
    assert "THE NETWORK IS OPEN" in words
    assert "the account of this process" in words
