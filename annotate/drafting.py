"""Drafts as the ranking page gets them back. Pure: no Django, no I/O.

A draft is whatever a page or program kept: it may be older than the rules of the present lease, or nonsense. The page's
script takes what it is given, so everything that does not fit is left out here, and nothing is made up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.preferences import STRENGTHS, criteria_from


def fitting_body(body: Any, *, order: Sequence[str], rules: Mapping[str, Any]) -> dict[str, Any]:
    """The draft's body with only what the task and its rules allow.

    Args:
        order: ids of the task's responses.
        rules: as selectors.leases.rules_content gives them.
    """
    given = body if isinstance(body, Mapping) else {}
    tiers = _tiers(given.get("ranking"), order=order, ties=rules["ties"])
    seconds = given.get("seconds")
    kept = {name: given[name] for name in ("stamp", "revises") if name in given}
    return kept | {
        "ranking": tiers,
        "strengths": _strengths(given.get("strengths"), gaps=max(len(tiers) - 1, 0), on=rules["strength"] != "off"),
        "all_bad": bool(rules["all_bad"]) and given.get("all_bad") is True,
        "ratings": _ratings(given.get("ratings"), order=order, rules=rules),
        "flags": _flags(given.get("flags"), order=order, allowed=[flag["key"] for flag in rules["flags"]]),
        "rationale": _text(given.get("rationale")) if rules["rationale"] != "off" else "",
        "rewrite": _rewrite(given.get("rewrite"), order=order) if rules["rewrite"] else None,
        "seconds": seconds if isinstance(seconds, int | float) and seconds >= 0 else 0,
    }


def _tiers(given: Any, *, order: Sequence[str], ties: bool) -> list[list[str]]:
    left = list(order)
    tiers: list[list[str]] = []
    for tier in _list(given):
        ids = [one for one in dict.fromkeys(map(str, _list(tier))) if one in left]
        if ids and (ties or len(ids) == 1):
            tiers.append(ids)
            left = [one for one in left if one not in ids]
    return tiers


def _strengths(given: Any, *, gaps: int, on: bool) -> list[int | None]:
    values = _list(given)
    if not on or len(values) != gaps:
        return [None] * gaps
    return [value if type(value) is int and value in STRENGTHS else None for value in values]


def _ratings(given: Any, *, order: Sequence[str], rules: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    scales = criteria_from(rules["criteria"])
    found = {}
    for response in order:
        said = _mapping(_mapping(given).get(response))
        fits = {scale.key: said[scale.key] for scale in scales if _on(said.get(scale.key), scale.low, scale.high)}
        if fits:
            found[response] = fits
    return found


def _on(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _flags(given: Any, *, order: Sequence[str], allowed: Sequence[str]) -> dict[str, list[str]]:
    said = {response: _list(_mapping(given).get(response)) for response in order}
    found = {response: [flag for flag in allowed if flag in flags] for response, flags in said.items()}
    return {response: flags for response, flags in found.items() if flags}


def _rewrite(given: Any, *, order: Sequence[str]) -> dict[str, str] | None:
    said = _mapping(given)
    of, text = str(said.get("of")), _text(said.get("text"))
    return {"of": of, "text": text} if of in order and text.strip() else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
