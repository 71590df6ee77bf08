"""What the readers of foreign formats share: responses in an order that tells nothing, and tiers out of scores.

Many published files list the better response first. Here responses stand in the order of the sha256 of their texts and
are named r1, r2 … in that order, so neither place nor name tells how they were judged, and the same texts always get
the same names, whoever judged them.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from annotate.interchange.records import RecordError


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def in_neutral_order(responses: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Name responses and put them in the neutral order.

    Args:
        responses: native responses without ids; `text` is required, `model` tells equal texts apart.

    Returns:
        The responses with their ids, and the ids in the order given.
    """
    places = sorted(range(len(responses)), key=lambda place: (*_sort_key(responses[place]), place))
    ids = {place: f"r{number}" for number, place in enumerate(places, 1)}
    return [{"id": ids[place]} | dict(responses[place]) for place in places], [ids[place] for place in range(len(ids))]


def _sort_key(response: Mapping[str, Any]) -> tuple[str, str]:
    return sha256_of(response["text"]), response.get("model") or ""


def tiers_of(ids: Sequence[str], scores: Sequence[float | None], *, best: str = "highest") -> list[list[str]]:
    """Tiers of the ids that have a score, equal scores together; best is the `highest` or the `lowest`."""
    known = sorted({score for score in scores if score is not None}, reverse=best == "highest")
    return [[name for name, score in zip(ids, scores, strict=True) if score == one] for one in known]


def number_from(value: Any, name: str) -> float | None:
    """A number, also one written as text; None for what is not given or says that there is none.

    Raises:
        RecordError: anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "n/a", "na", "none"}):
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(f"{name} is {str(value)[:40]!r}, not a number")
    return number


def text_from(value: Mapping[str, Any], key: str) -> str:
    """The text under a key.

    Raises:
        RecordError: there is none.
    """
    text = value.get(key)
    if not isinstance(text, str):
        raise RecordError(f"{key} must be a text")
    return text


def object_from(value: Any) -> dict[str, Any]:
    """The value, if it is a JSON object.

    Raises:
        RecordError: it is none.
    """
    if not isinstance(value, dict):
        raise RecordError("not a JSON object")
    return value


def short_text(value: Any, limit: int) -> str | None:
    """A name that fits into the limit, None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= limit else None
