"""A process that runs one program under limits and clears away all that it started. Standard library only.

Started by ``running.py`` as ``python -I -S -B sandbox.py FOLDER`` with the request on stdin; imports nothing of ours.
It says two lines on stdout: that the program was started and what of the isolation holds (or why it could not be
started), then how many tests passed. The program runs in a child of this process: session, limits, account and, where
the kernel allows, namespaces of its own, so that its end is the end of whatever it left behind.

That all tests have run is told by a random word, which the child holds until then, on a descriptor whose number is
random: neither ``sys.exit(0)`` nor ``os._exit(0)`` looks like success. Who searches the process finds both.
"""

import contextlib
import ctypes
import json
import os
import random
import resource
import secrets
import select
import signal
import sys
import time
from typing import Any

# From Linux' sched.h and prctl.h.
NEW_IPC, NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x08000000, 0x10000000, 0x20000000, 0x40000000
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SUBREAPER, SET_NO_NEW_PRIVILEGES = 1, 4, 36, 38
# Numbers that systemd gives to accounts that exist for a moment; nobody else's.
FIRST_ACCOUNT, LAST_ACCOUNT = 61184, 65519
START_SECONDS, CLEAR_SECONDS = 30.0, 20.0

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the request, run the program, say what came of it."""
    _prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    _prctl(SET_SUBREAPER, 1)
    request, folder = json.load(sys.stdin), sys.argv[1]
    limits = request["limits"]
    account = _account() if limits["own_account"] and os.geteuid() == 0 else None
    if account is not None:
        os.chown(folder, account, account)
    else:
        limits["processes"] += _threads_of(os.geteuid())
    held = _separate() if limits["namespaces"] else {"network": False, "processes": False}
    told, tell = os.pipe()
    found, find = os.pipe()
    word = secrets.token_hex(16)
    child = os.fork()
    if child == 0:
        _be_the_program(request, folder, account, tell=tell, find=find, word=word)
    os.close(tell)
    os.close(find)
    fault = _start_fault(told)
    if fault is None:
        _say({"isolation": held | {"account": account is not None}})
        _wait(child, limits["wall_seconds"])
    _clear_away(child, account, contained=held["processes"])
    _say({"error": fault} if fault is not None else {"passed": _passed(found, word)})


# --- the process that watches -----------------------------------------------------------------------------------------


def _prctl(option: int, value: int) -> None:
    """Where there is no such call (not Linux), nothing."""
    with contextlib.suppress(AttributeError):
        libc.prctl(option, value, 0, 0, 0)


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def _account() -> int:
    return random.SystemRandom().randint(FIRST_ACCOUNT, LAST_ACCOUNT)


def _separate() -> dict[str, bool]:
    """Namespaces for the child: network (without any interface), processes. Root makes them itself, others inside a
    user namespace, in which they are themselves and may do no more outside than before."""
    user, group = os.geteuid(), os.getegid()
    extra = NEW_USER if user else 0
    for flags in (NEW_NETWORK | NEW_PROCESSES | NEW_IPC, NEW_NETWORK | NEW_PROCESSES, NEW_NETWORK, NEW_PROCESSES):
        with contextlib.suppress(AttributeError):
            if libc.unshare(flags | extra) == 0:
                if extra:
                    _map_to_itself(user, group)
                return {"network": bool(flags & NEW_NETWORK), "processes": bool(flags & NEW_PROCESSES)}
    return {"network": False, "processes": False}


def _map_to_itself(user: int, group: int) -> None:
    for name, words in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(words)


def _start_fault(told: int) -> str | None:
    """Why the child could not put itself under its limits; None once it says that it has."""
    if not select.select([told], [], [], START_SECONDS)[0]:
        return f"it did not start within {START_SECONDS:g} s"
    words = os.read(told, 4096).decode(errors="replace")
    return None if words == "ready" else words or "it ended while it was being started"


def _wait(child: int, seconds: float) -> None:
    """Wait for the child's end, without taking note of it, or for the time to be up."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _clear_away(child: int, account: int | None, *, contained: bool) -> None:
    """End the child and all that came of it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    if contained:
        # The kernel ends a namespace with its first process, and lets nobody see that one's end before.
        os.waitpid(child, 0)
        return
    deadline = time.monotonic() + CLEAR_SECONDS
    while _reap() and time.monotonic() < deadline:
        if account is not None:
            _kill_all_of(account)
        for process in _descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def _reap() -> bool:
    """Take note of all ended children, adopted orphans among them; whether others are left."""
    while True:
        try:
            process, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if process == 0:
            return True


def _kill_all_of(account: int) -> None:
    """End every process of an account at once: one after another, those that fork would win."""
    killer = os.fork()
    if killer == 0:
        try:
            os.setresuid(account, account, account)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(killer, 0)


def _descendants() -> list[int]:
    """All processes below this one."""
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
            # The name in brackets may hold anything.
            parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    below, found = {os.getpid()}, []
    while fresh := [process for process, parent in parents.items() if parent in below and process not in below]:
        below.update(fresh)
        found += fresh
    return found


def _threads_of(user: int) -> int:
    """Threads of all processes of a user: what the kernel's limit counts."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _passed(found: int, word: str) -> int:
    """How many tests the child says have passed; 0 without the word."""
    os.set_blocking(found, False)
    try:
        said = os.read(found, 4096).decode(errors="replace").split()
    except BlockingIOError:
        return 0
    return int(said[1]) if len(said) >= 2 and said[0] == word and said[1].isdigit() else 0


# --- the process that is the program ----------------------------------------------------------------------------------


def _be_the_program(
    request: dict[str, Any], folder: str, account: int | None, *, tell: int, find: int, word: str
) -> None:
    """Go under the limits, say so, run program and tests, say how many passed. Never returns."""
    try:
        tell, find, library = _keep_only(tell, find)
        _go_under(request["limits"], folder, account)
        _reach_the_library(library)
        os.write(tell, b"ready")
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    os.close(tell)
    passed = _run(request["code"], request["tests"])
    os.write(find, f"{word} {passed}\n".encode())
    os._exit(0)


def _keep_only(tell: int, find: int) -> tuple[int, int, list[tuple[str, int]]]:
    """Close all descriptors but the two, and folders of the standard library; stdin is empty, output goes nowhere."""
    library = [(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY)) for path in sys.path if os.path.isdir(path)]
    places = random.SystemRandom().sample(range(200, 1000), 2 + len(library))
    for place, source in zip(places, [tell, find, *(number for _, number in library)], strict=True):
        os.dup2(source, place, inheritable=False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    start = 3
    for place in sorted(places):
        os.closerange(start, place)
        start = place + 1
    os.closerange(start, 4096)
    return places[0], places[1], [(path, place) for (path, _), place in zip(library, places[2:], strict=True)]


def _go_under(limits: dict[str, Any], folder: str, account: int | None) -> None:
    """Session, folder, environment, limits and account."""
    os.setsid()
    os.chdir(folder)
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, let it be this one that goes
    for kind, most in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    if account is not None:
        os.setgroups([])
        os.setresgid(account, account, account)
        os.setresuid(account, account, account)
        # Or the kernel hides /proc/self, through which the standard library may have to be read.
        _prctl(SET_DUMPABLE, 1)
    # Changing the account forgets it, so it comes last.
    _prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    _prctl(SET_NO_NEW_PRIVILEGES, 1)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {folder} cannot be reached without rights")


def _reach_the_library(library: list[tuple[str, int]]) -> None:
    """Where the account cannot reach the standard library by name (an interpreter under /root, say), go through
    folders that were opened before."""
    if all(os.access(path, os.R_OK | os.X_OK) for path, _ in library):
        for _, place in library:
            os.close(place)
        return
    routes = {path: f"/proc/self/fd/{place}" for path, place in library}
    sys.path[:] = list(routes.values())
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        for path, route in routes.items():
            for part in getattr(module, "__path__", ()):
                if part.startswith(path + os.sep):
                    module.__path__ = [part.replace(path, route, 1)]
    __import__("bisect")  # has not been imported yet: shows that the route holds


def _run(code: str, tests: list[str]) -> int:
    """The number of tests that pass after the program has run, in its namespace; 0 if it fails itself."""
    module = type(sys)("answer")
    # Some of the standard library looks a class's module up by name.
    sys.modules["answer"] = module
    try:
        exec(compile(code, "answer.py", "exec"), module.__dict__)
    except BaseException:  # also SystemExit: a program that ends has not come to its tests
        return 0
    passed = 0
    for test in tests:
        with contextlib.suppress(BaseException):
            exec(compile(test, "tests.py", "exec"), module.__dict__)
            passed += 1
    return passed


if __name__ == "__main__":
    main()
