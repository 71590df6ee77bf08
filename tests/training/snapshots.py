"""Small snapshots with a rule behind them: the better response is the one with more exclamation marks."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WORDS = [
    "sun",
    "moon",
    "river",
    "stone",
    "bread",
    "glass",
    "paper",
    "cloud",
    "green",
    "quiet",
    "seven",
    "under",
    "apple",
    "chair",
    "north",
    "winter",
]


def record(number: int, *, split: str, k: int = 3, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """One native record with ``k`` responses of unlike lengths, ranked by their exclamation marks."""
    draw = random.Random(f"{seed}/{number}")
    marks = draw.sample(range(k + 2), k)
    responses = [
        {"id": f"r{place}", "text": " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) + "!" * mark}
        for place, mark in enumerate(marks)
    ]
    order = sorted(range(k), key=lambda place: -marks[place])
    value = {
        "format": "plackett/1",
        "id": f"k{number}",
        "task": f"t{number}",
        "annotator": "anna",
        "split_group": f"group {number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"{draw.choice(WORDS)} {number}?"}],
        "responses": responses,
        "ranking": [[f"r{place}"] for place in order],
    }
    return value | changes


def records(train: int = 12, validation: int = 4, test: int = 0, **options: Any) -> list[dict[str, Any]]:
    """Records of each split, with K going round 2, 3, 4."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    return [record(number, split=split, k=2 + number % 3, **options) for number, split in enumerate(splits)]


def write_jsonl(path: Path, values: Iterable[dict[str, Any]]) -> Path:
    """The records as a file."""
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def prompts(train: int = 24, validation: int = 8, **changes: Any) -> list[dict[str, Any]]:
    """Bare prompts, each with its number as the answer."""
    splits = ["train"] * train + ["validation"] * validation
    return [
        {
            "type": "prompt",
            "prompt": [{"role": "user", "content": f"{WORDS[number % len(WORDS)]} {number}"}],
            "split": split,
            "split_group": f"prompt {number}",
            "answer": str(number),
        }
        | changes
        for number, split in enumerate(splits)
    ]
