"""Whole dialogues in one text, as Anthropic wrote them: `\\n\\nHuman: …\\n\\nAssistant: …`.

Such a text has no system turn: a system message is written at the start of the first Human turn, two line breaks before
it. Blanks around a turn are lost in reading, and a message that holds `\\n\\nHuman:` itself reads as two.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from annotate.interchange.records import RecordError

ROLES = {"Human": "user", "Assistant": "assistant"}
NAMES = {role: name for name, role in ROLES.items()}

_TURN = re.compile(r"\n\n(Human|Assistant):")


def messages_from(dialogue: str) -> list[dict[str, str]]:
    """Return the messages of a dialogue, at least one.

    Raises:
        RecordError: it does not start with a turn.
    """
    before, *parts = _TURN.split(dialogue)
    if before.strip() or not parts:
        raise RecordError("a text does not start with a Human or Assistant turn")
    return [{"role": ROLES[name], "content": text.strip()} for name, text in zip(parts[::2], parts[1::2], strict=True)]


def dialogue_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return messages as one text."""
    system = ""
    parts = []
    for message in messages:
        if message["role"] == "system":
            system = f"{message['content']}\n\n"
            continue
        opening, system = (system, "") if message["role"] == "user" else ("", system)
        parts.append(f"\n\n{NAMES[message['role']]}: {opening}{message['content']}")
    return "".join(parts)
