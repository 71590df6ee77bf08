"""Lines of samples.jsonl as rows for the database: within bounds, whatever a recipe wrote."""

import json
from typing import Any

from training.runner.values import clean, number, whole
from training.services.samples import Sample

TEXT_CHARACTERS = 4_000
PROMPT_MESSAGES = 8  # the last ones
ROWS_A_STEP = 32
MOST_STEPS = 2**31 - 1


class SampleLines:
    """Numbers the lines of each step in their order; what was read last counts only when it is accepted."""

    def __init__(self) -> None:
        self._accepted = self._seen = (-1, -1)

    def parse(self, lines: list[str]) -> list[Sample]:
        """The rows that these lines hold; what is no row, and what is too much of a step, is passed over."""
        step, place = self._accepted
        rows = []
        for line in lines:
            found = _object(line)
            of = whole(found.get("step"))
            if of is None or not 0 <= of <= MOST_STEPS:
                continue
            place = place + 1 if of == step else 0
            step = of
            if place < ROWS_A_STEP:
                rows.append(_sample(step, place, found))
        self._seen = step, place
        return rows

    def accept(self) -> None:
        """The lines parsed last need not come again."""
        self._accepted = self._seen


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sample(step: int, place: int, found: dict[str, Any]) -> Sample:
    cut = _Cut()
    scores = found.get("rewards")
    return Sample(
        step=step,
        place=place,
        prompt=cut.messages(found.get("prompt")),
        before=cut.text(found.get("before")),
        before_score=number(found.get("before_score")),
        response=cut.text(found.get("response")) or "",
        thinking=cut.text(found.get("thinking")),
        score=number(found.get("score")),
        scores=_numbers(scores) if isinstance(scores, dict) else {},
        ended=found["ended"] if isinstance(found.get("ended"), bool) else None,
        shortened=cut.anything,
    )


def _numbers(given: dict[str, Any]) -> dict[str, float]:
    told = {str(clean(name)): number(value) for name, value in given.items()}
    return {name: value for name, value in told.items() if value is not None}


class _Cut:
    """Cuts texts, and remembers whether it did."""

    def __init__(self) -> None:
        self.anything = False

    def text(self, value: object) -> str | None:
        if not isinstance(value, str):
            return None
        self.anything |= len(value) > TEXT_CHARACTERS
        return str(clean(value[:TEXT_CHARACTERS]))

    def messages(self, value: object) -> list[dict[str, str]]:
        told = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
        self.anything |= len(told) > PROMPT_MESSAGES
        return [
            {"role": str(clean(str(one.get("role", ""))[:40])), "content": self.text(one.get("content")) or ""}
            for one in told[-PROMPT_MESSAGES:]
        ]
