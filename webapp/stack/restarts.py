"""When to start a part again that ended by itself."""

from collections.abc import Sequence

PAUSES = (1, 2, 5, 10, 20)
STEADY_SECONDS = 60


class RestartPolicy:
    """Growing pauses for a part that keeps ending; a part that lived `steady` seconds starts with the shortest again.

    Args:
        pauses: seconds before the first, second, … start in a row; after the last one the part is given up.
        steady: seconds of life after which earlier ends are forgotten.
    """

    def __init__(self, pauses: Sequence[float] = PAUSES, steady: float = STEADY_SECONDS) -> None:
        self._pauses = pauses
        self._steady = steady
        self._started: dict[str, float] = {}
        self._ends: dict[str, int] = {}

    def started(self, name: str, *, at: float) -> None:
        """The part was started at this moment of the monotonic clock."""
        self._started[name] = at

    def pause(self, name: str, *, at: float) -> float | None:
        """The part ended (or could not be started) at this moment: seconds to wait, or None to give up."""
        if at - self._started.get(name, at) >= self._steady:
            self._ends[name] = 0
        self._started[name] = at  # a start that fails later is no end of the long life before
        ends = self._ends.get(name, 0)
        self._ends[name] = ends + 1
        return self._pauses[ends] if ends < len(self._pauses) else None
