"""When each step of a run was logged, seen from outside, and a moment drawn uniformly between the first and last."""

import json
import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """So many seconds after the row of a step showed; `share` of the time between first and last row."""

    share: float
    step: int
    seconds: float


class Timeline:
    """The steps of a growing metrics.jsonl and when each was first seen, by this process's monotonic clock."""

    def __init__(self, file: Path) -> None:
        self.steps: list[int] = []
        self.times: list[float] = []
        self._file, self._offset = file, 0

    def look(self) -> None:
        """Notes the steps whose rows are new. A file that is cut back is not followed further."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        seen_at = time.monotonic()
        whole, end, _ = content.rpartition(b"\n")
        self._offset += len(whole) + len(end)
        for line in whole.splitlines():
            self.steps.append(int(json.loads(line)["step"]))
            self.times.append(seen_at)

    @property
    def step(self) -> int:
        """The last step seen; 0 before the first."""
        return self.steps[-1] if self.steps else 0

    @property
    def seconds(self) -> float:
        """From the first row to the last."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    def moment(self, share: float) -> Moment:
        """Where this share of the time from the first row to the last falls."""
        at = self.times[0] + share * self.seconds
        place = bisect_right(self.times, at) - 1
        return Moment(share=share, step=self.steps[place], seconds=at - self.times[place])

    def pace(self, other: "Timeline", *, step: int) -> float:
        """How many times as long this one took up to a step as another did; 1 where nothing can be told."""
        mine, theirs = (one.times[one.steps.index(step)] - one.times[0] for one in (self, other))
        return mine / theirs if theirs > 0 else 1.0
