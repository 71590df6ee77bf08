"""Prompts, responses and rankings for ``benchmarks.data_*``: generated, equal each time, plain ASCII without quotes."""

import random
from collections.abc import Iterator
from typing import Any

RESPONSES = 4
ANNOTATORS = 4
PROMPT_BYTES, RESPONSE_BYTES = 300, 600
WORDS = "the a of and to in tea water leaf cup hot cold green black white sugar milk time slow pour wait drink".split()  # noqa: SIM905
NAMES = [f"r{number}" for number in range(1, RESPONSES + 1)]


def text(draw: random.Random, size: int, start: str) -> str:
    """Words after `start`, `size` bytes (one less where they would end in a blank)."""
    return f"{start} {' '.join(draw.choices(WORDS, k=size // 4))}"[:size].rstrip()


def tasks(count: int, draw: random.Random | None = None) -> Iterator[dict[str, Any]]:
    """Native records of tasks with four responses that nobody has ranked."""
    draw = draw or random.Random(count)
    for number in range(count):
        yield {
            "external_id": f"generated-{number}",
            "prompt": [{"role": "user", "content": text(draw, PROMPT_BYTES, f"Question {number}:")}],
            "responses": [{"id": name, "text": text(draw, RESPONSE_BYTES, f"Answer {name}."), "model": name}
                          for name in NAMES],
        }  # fmt: skip


def ranked_tasks(count: int) -> Iterator[tuple[dict[str, Any], list[list[str]]]]:
    """Such tasks, each with what its annotators say: the names of the responses, best first."""
    draw = random.Random(count)
    for task in tasks(count, draw):
        yield task, [draw.sample(NAMES, RESPONSES) for _ in range(ANNOTATORS)]


def annotator(number: int) -> str:
    return f"annotator {number}"
