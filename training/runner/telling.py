"""What a try says while it is written, from the recipe's tokens.jsonl into Redis; and in the end its result."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.core.following import LineReader
from training.models import Run
from training.runner.lease import clock
from training.runner.values import clean
from training.token_lists import Piece, append_pieces, key_of

QUIET_SECONDS = 5.0  # after Redis did not answer: the lease must not wait for it


class Telling:
    """One attempt's pieces on their way. Nothing that goes wrong here may disturb the run."""

    def __init__(self, run: Run, *, attempt: int, output: Path) -> None:
        self._path = output / "tokens.jsonl"
        self._key = key_of(run.pk, attempt, run.created_at)
        self._reader = LineReader(self._path)
        self._told: dict[tuple[int, int], tuple[int, str]] = {}
        self._number = 0
        self._quiet_until = 0.0

    def forward(self) -> None:
        """Passes on what is new in the file."""
        if self._reader.is_beyond_the_end():
            # The trainer cut off a step that an earlier attempt did not finish; what it says again is known by place.
            self._reader.start_over()
        pieces = list(self._new(self._reader.read_new()))
        self._reader.accept()
        if pieces and clock() >= self._quiet_until and not append_pieces(self._key, pieces):
            self._quiet_until = clock() + QUIET_SECONDS

    def _new(self, lines: list[str]) -> Iterator[Piece]:
        for line in lines:
            try:
                row = json.loads(line)
                place, position, text = (row["model_index"], row["sample"]), row["position"], clean(row["text"])
            except (ValueError, KeyError, TypeError):
                continue
            last = self._told.get(place, (-1, ""))
            # What follows the last token of an unfinished character has that token's position.
            if position < last[0] or (position, text) == last:
                continue
            self._told[place] = (position, text)
            yield Piece(self._number, *place, text)
            self._number += 1


def result_of(output: Path) -> dict[str, Any] | None:
    """What is stored of a finished try: its responses without their token ids, and the seconds of each model."""
    try:
        rows = [json.loads(line) for line in (output / "responses.jsonl").read_text().splitlines()]
        steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    kept = ("model_index", "sample", "text", "thinking", "ended", "tokens", "score")
    return {
        "responses": [{name: clean(row.get(name)) for name in kept} for row in rows],
        "seconds": [step.get("time/sample_seconds") for step in steps],
    }
