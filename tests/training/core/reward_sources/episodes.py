"""Episodes for tests of rewards; one stands for the line of its prompt, too."""

from collections.abc import Mapping
from typing import Any

from training.core.records import Message
from training.core.reward_sources.episodes import Episode


def episode(
    text: str, *, thinking: str | None = None, record: Mapping[str, Any] | None = None, line: int = 1, **changes: Any
) -> Episode:
    """An episode in which only the text, and what a line says, is of matter."""
    values: dict[str, Any] = {
        "prompt": (Message("user", "?"),), "prompt_ids": (1,), "response_ids": (2, 3), "ended": True,
    }  # fmt: skip
    return Episode(text=text, thinking=thinking, record=record or {}, line=line, **values | changes)
