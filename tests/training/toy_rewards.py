"""Rewards for tests, as ``--reward python:tests.training.toy_rewards.NAME`` names them."""

import os
from collections.abc import Sequence
from typing import Any


def lowercase(prompts: Sequence[Any], responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """Eighths of lower-case letters: countable, and an untrained model of bytes has some."""
    return [sum(letter.isascii() and letter.islower() for letter in response) / 8 for response in responses]


def length(prompts: Sequence[Any], responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """Nothing but how long a response is, in eighths of characters."""
    return [len(response) / 8 for response in responses]


def broken(prompts: Sequence[Any], responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """Not a number, from the second rollout on."""
    broken.calls += 1  # type: ignore[attr-defined]
    return [float("nan") if broken.calls > 1 else 0.0 for _ in responses]  # type: ignore[attr-defined]


broken.calls = 0  # type: ignore[attr-defined]


def unspeakable(prompts: Sequence[Any], responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """Fails."""
    raise ValueError("no words for this")


def fails_in_second_process(prompts: Sequence[Any], responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """As ``lowercase`` in the first process; in the second it fails."""
    if os.environ.get("RANK") == "1":
        raise ValueError("no words for this")
    return lowercase(prompts, responses, records)
