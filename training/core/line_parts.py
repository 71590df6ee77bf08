"""What the parts of a line in the native format ``plackett/1`` mean; a part that breaks the format is a LineError."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Message:
    """One turn of a prompt."""

    role: str
    content: str


@dataclass(frozen=True)
class Response:
    """One candidate continuation; two with equal text and thinking are the same response.

    Read from a file, ``thinking`` is never empty: None stands for that too.
    """

    text: str
    thinking: str | None = None


class LineError(ValueError):
    """What is wrong with one line, without its place."""


def split_of(value: Mapping[str, Any]) -> str:
    """The split of a line, which has to stand in it."""
    if value.get("split") is None:
        raise LineError("no split (train, validation or test)")
    return one_of(value["split"], SPLITS, "split")


def group_of(value: Mapping[str, Any], prompt: tuple[Message, ...]) -> str:
    """The split group of a line: the one that is given, else the first thing the user says, normalised."""
    group = value.get("split_group")
    if group is not None:
        return text(group, "split_group")
    first = next((message.content for message in prompt if message.role == "user"), prompt[0].content)
    return " ".join(first.casefold().split())


def prompt_of(value: Any) -> tuple[Message, ...]:
    """The messages of a prompt; a text alone is the user's."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise LineError("prompt must be a list of messages, {role, content}")
    messages = []
    for message in value:
        if not isinstance(message, dict):
            raise LineError("prompt must be a list of messages, {role, content}")
        messages.append(Message(text(message.get("role"), "role"), text(message.get("content"), "content")))
    return tuple(messages)


def response_of(value: Any) -> Response:
    """The text and thinking of a response's object."""
    if not isinstance(value, dict):
        raise LineError("a response must be an object with a text")
    thinking = value.get("thinking")
    # An empty thinking is none: templates write the same for both.
    thought = None if thinking is None or thinking == "" else text(thinking, "thinking")
    return Response(text(value.get("text"), "response text"), thought)


def responses_of(value: Any) -> tuple[dict[str, int], tuple[Response, ...]]:
    """The responses of a ranking line, and the place of each by its id."""
    if not isinstance(value, list) or len(value) < 2:
        raise LineError("responses must be a list of at least two objects with id and text")
    ids: dict[str, int] = {}
    responses = []
    for position, response in enumerate(value):
        if not isinstance(response, dict):
            raise LineError("responses must be objects with id and text")
        name = text(response.get("id"), "response id")
        if name in ids:
            raise LineError(f"two responses have the id {name!r}")
        ids[name] = position
        responses.append(response_of(response))
    return ids, tuple(responses)


def tiers_of(value: Any, ids: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """The tiers of a ranking as places of its responses, empty ones left out."""
    if not isinstance(value, list) or not all(isinstance(tier, list) for tier in value):
        raise LineError("ranking must be a list of tiers, each a list of response ids")
    named = [name for tier in value for name in tier]
    for name in named:
        if not isinstance(name, str) or name not in ids:
            raise LineError(f"ranking names {name!r}, which is no response of this line")
        if named.count(name) > 1:
            raise LineError(f"ranking names {name!r} twice")
    return tuple(tuple(ids[name] for name in tier) for tier in value if tier)


def weight_of(value: Any) -> float:
    """The weight of a line; 1 where none is given."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise LineError(f"weight must be a number from 0, not {value!r}")
    return float(value)


def text(value: Any, name: str) -> str:
    """A text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise LineError(f"{name} must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LineError(f"{name} holds half a surrogate pair") from None
    return value


def one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    """One of the words that are allowed."""
    if value not in allowed:
        raise LineError(f"{name} must be {' / '.join(allowed)}, not {value!r}")
    return str(value)
