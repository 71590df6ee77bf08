"""The grammar of ``--reward``: ``KIND[:ARG][*WEIGHT]``. Standard library only: configs check their flags with it."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from training.core.errors import UsageError

KINDS = ("model", "ensemble", "exact", "numeric", "regex", "format", "tests", "python")
_NEEDS_ARGUMENT = {
    "model": "a folder or hub id", "ensemble": "the folder of a run", "regex": "a pattern", "python": "module.function",
}  # fmt: skip
_CHOICES = {"exact": ("", "case"), "format": ("", "think"), "tests": ("", "share")}

# The star of a weight has no backslash of its own before it, and its number starts with a digit or a sign: the stars
# of \*2 and of \d*.5 belong to a pattern.
_WEIGHT = re.compile(r"(?<!\\)(?P<even>(?:\\\\)*)\*(?P<number>[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\Z")
_TRAILING_NUMBER = re.compile(r"(?P<rest>.+),(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)", re.DOTALL)
_FUNCTION = re.compile(r"(?!\d)\w+(?:\.(?!\d)\w+)+")

DEFAULT_SPREAD = 1.0


@dataclass(frozen=True)
class RewardSpec:
    """One ``--reward``, taken apart.

    ``argument`` is what stands behind the first colon, without weight and λ; "" where nothing does. ``spread`` is the λ
    of an ensemble, ``tolerance`` that of ``numeric`` (None: as near as numbers are written); ``text`` is the flag.
    """

    kind: str
    argument: str
    weight: float
    text: str
    spread: float = 0.0
    tolerance: float | None = None


def parse_reward(text: str) -> RewardSpec:
    r"""Take one ``KIND[:ARG][*WEIGHT]`` apart.

    A ``*NUMBER`` at the very end is a weight, whatever stands before it, where NUMBER starts with a digit or a sign:
    ``regex:a*2`` is the pattern ``a`` with weight 2. Who means a pattern that ends so writes the weight, too
    (``regex:a*2*1``); ``\*2``, an escaped star, is no weight. The first colon ends KIND; later ones belong to ARG.

    ARG: ``ensemble:DIR,λ`` has its λ behind the last comma, 1 where it is left out; ``exact:case``, ``tests:share`` and
    ``format:think`` are words; ``numeric:TOLERANCE`` is a number.

    Raises:
        UsageError: not of this grammar; the message holds the text.
    """
    body, weight = _split_weight(text)
    kind, _, argument = body.partition(":")
    if kind not in KINDS:
        raise UsageError(f"--reward {text}: {kind!r} is none of {', '.join(KINDS)}")
    if not argument and kind in _NEEDS_ARGUMENT:
        raise UsageError(f"--reward {text}: {kind} needs {_NEEDS_ARGUMENT[kind]} behind a colon")
    if kind in _CHOICES and argument not in _CHOICES[kind]:
        raise UsageError(f"--reward {text}: {kind} takes nothing behind a colon, or {_CHOICES[kind][1]}")
    if kind == "python" and not _FUNCTION.fullmatch(argument):
        raise UsageError(f"--reward {text}: {argument!r} is no module.function")
    if kind == "ensemble":
        found = _TRAILING_NUMBER.fullmatch(argument)
        folder, spread = (found["rest"], _number(found["number"], text)) if found else (argument, DEFAULT_SPREAD)
        return RewardSpec(kind, folder, weight, text, spread=spread)
    if kind == "numeric" and argument:
        tolerance = _number(argument, text)
        if tolerance < 0:
            raise UsageError(f"--reward {text}: a tolerance is not negative")
        return RewardSpec(kind, argument, weight, text, tolerance=tolerance)
    return RewardSpec(kind, argument, weight, text)


def names_of(specs: Sequence[RewardSpec]) -> list[str]:
    """A name for each, for ``ppo/reward/NAME``: letters, digits, ``-``, ``_`` and ``.``, no two alike.

    The kind alone where it stands once, else with what tells it from the others, else with a number; the names follow
    from the flags and their order alone.
    """
    kinds = Counter(spec.kind for spec in specs)
    names: list[str] = []
    for spec in specs:
        told = f"{spec.kind}-{_slug(spec)}" if spec.kind == "python" or kinds[spec.kind] > 1 else spec.kind
        name, number = told.rstrip("-"), 2
        while name in names:
            name, number = f"{told.rstrip('-')}-{number}", number + 1
        names.append(name)
    return names


def _slug(spec: RewardSpec) -> str:
    """What is readable of an argument: of a folder its last name that says something, of a function its own."""
    argument = spec.argument
    if spec.kind in ("model", "ensemble"):
        parts = [part for part in argument.split("/") if part not in ("", ".", "..", "model")]
        argument = parts[-1] if parts else ""
    if spec.kind == "python":
        argument = argument.rpartition(".")[2]
    return re.sub(r"[^A-Za-z0-9_.]+", "-", argument).strip("-.")[:32]


def _split_weight(text: str) -> tuple[str, float]:
    found = _WEIGHT.search(text)
    if found is None:
        return text, 1.0
    return text[: found.end("even")], _number(found["number"], text)


def _number(words: str, text: str) -> float:
    try:
        value = float(words)
    except ValueError:
        raise UsageError(f"--reward {text}: {words!r} is no number") from None
    if not math.isfinite(value):
        raise UsageError(f"--reward {text}: {words} is not a finite number")
    return value
