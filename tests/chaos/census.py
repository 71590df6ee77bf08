"""Who is at work in a run's folder: the trainers that live, counted all the time."""

import threading
from pathlib import Path

import psutil


def trainers_in(folder: Path) -> list[psutil.Process]:
    """The living processes that train into the run's folder. (A zombie has no command line any more.)"""
    found = []
    for process in psutil.process_iter():
        try:
            if f"--output={folder / 'out'}" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


class Census:
    """Counts the trainers of a run's folder while the block lasts: `most` is the largest number seen at once.

    A look goes through every process of the machine. A trainer needs seconds to start, so ten looks a second miss none.
    """

    def __init__(self, folder: Path, *, every_seconds: float = 0.1) -> None:
        self.most = 0
        self._folder, self._every = folder, every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, name="census")

    def __enter__(self) -> "Census":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._over.wait(self._every):
            self.most = max(self.most, len(trainers_in(self._folder)))
