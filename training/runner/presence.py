"""A worker's sign of life: every ten seconds it says that it is there and how its machine is, and so does its run."""

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

from training.runner.lease import clock, forget_connection
from training.runner.machine import look_at_machine
from training.services.use import record_use
from training.services.workers import Identity, announce_worker, dismiss_worker

logger = logging.getLogger(__name__)

TELL_EVERY_SECONDS = 10.0


class Presence:
    """Speaks for one worker from `open` to `close`, in a thread of its own, so that no run and no lock delays it."""

    def __init__(self, who: Identity) -> None:
        self._who = who
        self._over = threading.Event()
        self._opened_at = clock()
        self._thread = threading.Thread(target=self._tell, name="presence", daemon=True)

    def open(self) -> None:
        """Starts speaking, at once."""
        self._thread.start()

    def leave(self) -> None:
        """Says goodbye: nobody counts on this worker from then on. Returns at once; safe in a signal handler."""
        self._over.set()

    def close(self, seconds: float) -> None:
        """Says goodbye, and waits up to so many seconds until that is written."""
        self.leave()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _tell(self) -> None:
        while not self._over.is_set():
            self._try(self._announce)
            self._over.wait(TELL_EVERY_SECONDS)
        self._try(lambda: dismiss_worker(self._who))

    def _announce(self) -> None:
        machine = look_at_machine()
        announce_worker(self._who, machine=machine, up_seconds=clock() - self._opened_at)
        record_use(self._who.name, machine=machine)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("cannot say that this worker lives: %s", error)
        except Exception:
            # Nobody may take a worker for dead because its machine has an odd GPU.
            logger.exception("cannot say that this worker lives")
        forget_connection()
