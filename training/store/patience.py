"""Work with the store that may take long: tried again for a while, and done beside what has to go on meanwhile."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from training.store.errors import Damaged, Stopped, StoreAway

Check = Callable[[], object]
"""Called between pieces of work; raises when the work is wanted no more."""

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LOOK_SECONDS = 0.1
DAMAGED_TRIES = 3


def patiently(work: Callable[[], Result], *, seconds: float, check: Check) -> Result:
    """Does the work, again and again with growing pauses while the store is away; a damaged object three times.

    Args:
        seconds: how long at most, from the first failure.
        check: called many times a second while it waits; what it raises ends the waiting.

    Raises:
        StoreError: the last one, when time is up, or one that another try does not help.
    """
    deadline, pause, damaged = 0.0, FIRST_PAUSE_SECONDS, 0
    while True:
        try:
            return work()
        except (StoreAway, Damaged) as error:
            damaged += isinstance(error, Damaged)
            deadline = deadline or time.monotonic() + seconds
            if time.monotonic() + pause > deadline or damaged >= DAMAGED_TRIES:
                raise
        until = time.monotonic() + pause
        while time.monotonic() < until:
            check()
            time.sleep(LOOK_SECONDS)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def beside(work: Callable[[Check], Result], *, pulse: Check) -> Result:
    """Does the work in a thread of its own while this one calls `pulse` many times a second.

    A request to the store may hang for longer than a lease lasts. What `pulse` raises is raised here at once; the work
    then ends at its next piece.
    """
    stop, found, failed = threading.Event(), list[Result](), list[BaseException]()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def run() -> None:
        try:
            found.append(work(check))
        except BaseException as error:  # handed to the thread that asked
            failed.append(error)

    thread = threading.Thread(target=run, name="store", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            pulse()
            thread.join(LOOK_SECONDS)
    except BaseException:
        stop.set()
        raise
    if failed:
        raise failed[0]
    return found[0]
