"""Pairs of answers, a trained policy's and that of the policy it began as, for people to rank without knowing whose.

``blind_pairs.jsonl`` holds native records (``plackett/1``, to be ranked), ready for ``manage.py import_data``. Nothing
in it says who wrote an answer: no model is named, ids are the places in the line, and which answer comes first is drawn
for each pair. That stands in ``blind_pairs_key.json`` alone, by the ``external_id`` that rankings come back with.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.core.files import sync, write_json
from training.core.line_parts import Message
from training.core.randomness import derive_seed

PAIRS_NAME, KEY_NAME = "blind_pairs.jsonl", "blind_pairs_key.json"
# Ids of the two answers of a line, in the order in which they stand.
PLACES = ("r1", "r2")


@dataclass(frozen=True)
class BlindPair:
    """A prompt and the two answers to it.

    Attributes:
        split: of the prompt; rankings of the pair stay in it.
        split_group: of the prompt, as in the file that it came from.
        trained: what the trained policy said.
        start: what the policy at the start said.
    """

    prompt: tuple[Message, ...]
    split: str
    split_group: str
    trained: str
    start: str


def write_blind_pairs(
    folder: Path, pairs: Sequence[BlindPair], *, seed: int, makers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Write the pairs and their key into a run's folder.

    An ``external_id`` depends on the prompt and the two texts alone, so that writing and importing again changes
    nothing; the order depends on it and the seed.

    Args:
        makers: what the key tells of ``trained`` and ``start``: paths, steps, hashes.

    Returns:
        ``{"written", "dropped": {reason: count}}``: equal answers tell nothing, nor do pairs that stand there already;
        the import refuses texts with NUL or half a surrogate pair, and blank prompts.
    """
    lines: list[dict[str, Any]] = []
    key: dict[str, dict[str, str]] = {}
    dropped: dict[str, int] = {}
    for pair in pairs:
        name = external_id_of(pair)
        why = _reason_against(pair, seen=name in key)
        if why is not None:
            dropped[why] = dropped.get(why, 0) + 1
            continue
        swapped = derive_seed(seed, f"blind pair {name}") % 2 == 1
        key[name] = dict(zip(PLACES, ("start", "trained") if swapped else ("trained", "start"), strict=True))
        lines.append(_line(pair, name, [getattr(pair, key[name][place]) for place in PLACES]))
    # The key first: there are never pairs that it does not know.
    scratch = folder / (PAIRS_NAME + ".tmp")
    scratch.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    sync(scratch)
    write_json(folder / KEY_NAME, {"makers": makers or {}, "pairs": key})
    os.replace(scratch, folder / PAIRS_NAME)
    sync(folder)
    return {"written": len(lines), "dropped": dict(sorted(dropped.items()))}


def external_id_of(pair: BlindPair) -> str:
    """A name that says nothing of who wrote which: it stays the same when the two answers change places."""
    texts = [asdict(message) for message in pair.prompt], sorted([pair.trained, pair.start])
    # ASCII JSON: half a surrogate pair has no UTF-8.
    return "blind-" + hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()[:32]


def _line(pair: BlindPair, name: str, texts: Sequence[str]) -> dict[str, Any]:
    return {
        "format": "plackett/1",
        "type": "ranking",
        "external_id": name,
        "split_group": pair.split_group,
        "split": pair.split,
        "prompt": [asdict(message) for message in pair.prompt],
        "responses": [{"id": place, "text": text} for place, text in zip(PLACES, texts, strict=True)],
    }


def _reason_against(pair: BlindPair, *, seen: bool) -> str | None:
    if pair.trained == pair.start:
        return "equal answers"
    if seen:
        return "the same pair twice"
    if not any(message.content.strip() for message in pair.prompt if message.role == "user"):
        return "blank prompt"
    if not all(map(_storable, [pair.trained, pair.start, *(message.content for message in pair.prompt)])):
        return "text with NUL or half a surrogate pair"
    return None


def _storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text
