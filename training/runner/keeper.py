"""A thread that puts pictures of a run's output folder into the bucket while its trainer works.

Nothing waits for it, and a bucket that is away only makes it late.
"""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError

from training.models import Run
from training.runner.lease import forget_connection
from training.runner.reaching import Pulse
from training.store.bundles import Bundle, RunStore, local_checkpoints
from training.store.errors import Stopped, StoreError
from training.store.patience import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
PICTURES_KEPT = 2  # the newest, and the one before it in case that is damaged


class Keeper:
    """Puts pictures of one attempt's output folder into the bucket, from `start` to `close`."""

    def __init__(self, run: Run, store: RunStore, *, attempt: int, kept: list[Bundle]) -> None:
        """Args: `kept` are the pictures that are there, the newest first."""
        self._run, self._store, self._attempt = run, store, attempt
        self._output = run.folder / "out"
        self._kept = kept[:PICTURES_KEPT]
        self._step = kept[0].step if kept else None
        self._closing = threading.Event()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._keep_up, name="checkpoints", daemon=True)
        self.newest: Bundle | None = kept[0] if kept else None

    def start(self) -> None:
        """Begins to look for checkpoints."""
        self._thread.start()

    def hand_over(self, *, seconds: float, pulse: Pulse) -> None:
        """Waits so long at most until the newest checkpoint is there."""
        until = time.monotonic() + seconds
        while self._thread.is_alive() and not self._is_kept() and time.monotonic() < until:
            pulse()
            self._thread.join(0.1)

    def close(self, *, seconds: float, pulse: Pulse) -> bool:
        """Ends it, after at most so many seconds in which it may still send what is new; whether all of it is there."""
        self._until = time.monotonic() + seconds
        self._closing.set()
        try:
            while self._thread.is_alive() and time.monotonic() < self._until:
                pulse()
                self._thread.join(0.1)
        finally:
            self._until = 0.0
        return not self._thread.ident or self._is_kept()

    def wait(self, *, pulse: Pulse) -> None:
        """Until its thread has ended, after `close`: what it tidies away must not be what somebody else puts there."""
        while self._thread.is_alive():
            pulse()
            self._thread.join(0.1)

    def _is_kept(self) -> bool:
        local = local_checkpoints(self._output)
        return not local or local[0] == self._step

    def _check(self) -> None:
        if time.monotonic() > self._until:
            raise Stopped

    def _keep_up(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while time.monotonic() <= self._until:
            try:
                self._send_new()
                pause = FIRST_PAUSE_SECONDS
                if self._closing.wait(LOOK_SECONDS) and self._is_kept():
                    break
            except Stopped:
                break
            except FileNotFoundError:  # the trainer removed it: there is a newer one
                time.sleep(LOOK_SECONDS)
            except (StoreError, OSError, ValueError) as error:
                logger.warning("run %s: checkpoints are not in the store yet: %s", self._run.pk, error)
                self._wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        forget_connection()

    def _wait(self, seconds: float) -> None:
        """Until it is time for another try: at once when this is being ended, and then every second."""
        if self._closing.is_set():
            time.sleep(max(min(1.0, self._until - time.monotonic()), 0))
        else:
            self._closing.wait(seconds)

    def _send_new(self) -> None:
        local = local_checkpoints(self._output)
        if not local or local[0] == self._step:
            return
        bundle = self._store.publish(
            self._output, attempt=self._attempt, step=local[0], check=self._check, is_ours=self._is_ours
        )
        if bundle is None:
            raise Stopped
        self._kept = [bundle, *self._kept][:PICTURES_KEPT]
        self._step, self.newest = bundle.step, bundle
        self._store.keep(self._kept)

    def _is_ours(self) -> bool:
        """Whether no other attempt has begun; a database that is away says nothing against it."""
        try:
            return Run.objects.filter(pk=self._run.pk, attempt=self._attempt).exists()
        except (DatabaseError, InterfaceError):
            forget_connection()
            return True
