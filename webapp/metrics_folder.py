"""Where the processes of one web server keep their counts of requests, so that any of them can tell the sum.

prometheus_client keeps a process's counts in files of a shared folder if an environment variable names one when it is
first imported. The processes of a server are children of one arbiter, whose number names the folder: under
PLACKETT_HOME/metrics, which web servers in several containers may share. A process that lives holds a lock in its
folder; a folder that nobody holds was left behind by a server that has ended, and goes.
"""

import fcntl
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK_NAME = "held"
# The files are written whole before they are mapped into memory: who writes to a mapped page for which a full disk has
# no room is killed. This is several times what all our views can fill.
FILES = {"counter": 2**18, "histogram": 2**20}

_held: list[IO[str]] = []  # open, and so locked, as long as this process lives


def share_counts(home: Path) -> Path | None:
    """Names the folder in the environment; call it in a web process before anything imports prometheus_client.

    Where the folder cannot be made or locked, each process counts for itself, and the log says so.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    try:
        folder = _join(home / "metrics", f"{socket.gethostname()}-{os.getppid()}")
    except OSError as error:
        logger.warning("/metrics tells the requests of one process alone: %s", error)
        return None
    os.environ[VARIABLE] = str(folder)
    return folder


def _join(root: Path, name: str) -> Path:
    """Clears away what nobody holds, and holds the folder of this name."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / "joining").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # one at a time: a folder just made is not yet held
        for folder in root.iterdir():
            if folder.is_dir() and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
        folder = root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / LOCK_NAME).open("a")
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _held.append(lock)
        for kind, size in FILES.items():
            _take_file(folder, kind, size)
    return folder


def _take_file(folder: Path, kind: str, size: int) -> None:
    """This process's file of counts: that of a sibling which has ended, so that they stay few, or a new one."""
    file = folder / f"{kind}_{os.getpid()}.db"
    for other in folder.glob(f"{kind}_*.db"):
        if other != file and not _lives(int(other.stem.rpartition("_")[2])):
            other.rename(file)
            return
    if not file.exists():
        draft = file.with_suffix(".draft")
        draft.write_bytes(bytes(size))
        draft.rename(file)


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, who got the number of a sibling that ended
        return True
    return True


def _is_held(folder: Path) -> bool:
    try:
        with (folder / LOCK_NAME).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
