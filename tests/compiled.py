"""A fresh checkout's tests are compiled once, not by each of the parallel processes.

pytest rewrites the asserts of every test file and keeps the result beside it, which is most of what collecting them
costs the first time. Processes that start together would all do so.
"""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def compiled_once(folder: Path, lock: Path) -> Iterator[None]:
    """To collect in: while `folder`'s tests have never been compiled, one process at a time, and so only the first."""
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (sys.dont_write_bytecode or any(folder.glob("__pycache__/test_*.pyc"))):
            yield
            return
    yield
