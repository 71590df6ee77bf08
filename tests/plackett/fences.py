"""The examples of a guide, to be run as a reader would: each fence with its language."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_FENCE = re.compile(r"^```(console|bash|python|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(page: str) -> list[tuple[str, str, str]]:
    """(language, text, where) of each, in the order of the page; `where` names its line for whoever reads a failure."""
    content = (DOCS / page).read_text()
    return [
        (found[1], found[2], f"docs/{page}:{content[: found.start()].count(chr(10)) + 1}")
        for found in _FENCE.finditer(content)
    ]
