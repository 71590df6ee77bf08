r"""Answers that can be checked: the same text, or the same number.

What is looked at is the answer alone, never the thinking. A response scores 1 if it is right and 0 if it is not. A
prompt line says what is right as ``"answer"``: one text or number, or a list of them of which any is right.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from training.core.errors import UsageError
from training.core.reward_sources.episodes import Episode, PromptLine

RELATIVE_TOLERANCE = Fraction(1, 1_000_000)
# Nobody means longer ones, and exact arithmetic on them is a way to hang.
LONGEST_NUMBER, LARGEST_EXPONENT = 64, 99

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_PLAIN = rf"(?:{_DIGITS}(?:\.\d+)?|(?<!\d)\.\d+)"
# A minus right behind a word, a number or a bracket takes away: 5-3 ends with 3.
_SIGN = r"(?:(?<![\w.)\]}])[-+\u2212]\s?)?"
_POWER = r"(?:[eE][-+\u2212]?\d+|\s?(?:\\times|\\cdot|×|·)\s?10\s?\^\s?\{?[-+\u2212]?\d+\}?)?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?:\\[dt]?frac\s?\{{\s?(?P<above>-?{_PLAIN})\s?\}}\s?\{{\s?(?P<below>{_PLAIN})\s?\}}"
    rf"|(?P<value>{_PLAIN}{_POWER})(?:\s?/\s?(?P<divisor>{_PLAIN})(?![\w/]))?)"
)
_BOX = "\\boxed{"


class ExactReward:
    """1 if the answer is the text that was asked for, else 0.

    Texts are compared without white space at their ends, with each run of white space as one space, and in small
    letters unless ``case_matters``.
    """

    def __init__(self, name: str, weight: float, *, case_matters: bool = False) -> None:
        self.name, self.weight, self._case_matters = name, weight, case_matters

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt without an answer."""
        answers_of(line.record)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """1.0 or 0.0 for each."""
        return [float(self._plain(episode.text) in map(self._plain, answers_of(episode.record)))
                for episode in episodes]  # fmt: skip

    def _plain(self, text: str) -> str:
        words = " ".join(text.split())
        return words if self._case_matters else words.casefold()


class NumericReward:
    """1 if the answer's number is the one that was asked for, else 0.

    Without a tolerance whole numbers have to be equal, others within a millionth of the right one's size; a tolerance
    is a distance, for all. The numbers are those of ``last_number``, of the response and of the line's answer alike.
    """

    def __init__(self, name: str, weight: float, *, tolerance: float | None = None) -> None:
        self.name, self.weight = name, weight
        self._tolerance = None if tolerance is None else Fraction(tolerance)

    def check(self, line: PromptLine) -> None:
        """Refuse a prompt without an answer, or with one that holds no number."""
        for answer in answers_of(line.record):
            if last_number(answer) is None:
                raise UsageError(f'there is no number in its "answer" {answer[:80]!r}')

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """1.0 or 0.0 for each; an answer without a number is wrong."""
        return [float(self._is_right(episode)) for episode in episodes]

    def _is_right(self, episode: Episode) -> bool:
        given = last_number(episode.text)
        if given is None:
            return False
        wanted = (last_number(answer) for answer in answers_of(episode.record))
        return any(right is not None and self._near(given, right) for right in wanted)

    def _near(self, given: Fraction, right: Fraction) -> bool:
        if self._tolerance is not None:
            return abs(given - right) <= self._tolerance
        if given.denominator == right.denominator == 1:
            return given == right
        return abs(given - right) <= RELATIVE_TOLERANCE * abs(right)


def answers_of(record: Mapping[str, Any]) -> list[str]:
    """The right answers of a prompt line, as texts.

    Raises:
        UsageError: there is none, or it is neither text nor number nor a list of them.
    """
    value = record.get("answer")
    values = value if isinstance(value, list) else [value]
    if value is None or not values:
        raise UsageError('it has no "answer"')
    if any(isinstance(each, bool) or not isinstance(each, str | int | float) for each in values):
        raise UsageError('its "answer" must be a text or a number, or a list of them')
    return [each if isinstance(each, str) else repr(each) for each in values]


def last_number(text: str) -> Fraction | None:
    r"""The number that a text ends up with, exactly; None if it has none.

    Looked for in the last ``\boxed{…}`` if there is one, else behind the last ``####``, else anywhere; the last one
    counts. Numbers have digits with or without commas between thousands, a sign, decimals, a power of ten (``1e-3``,
    ``2 \times 10^{5}``), or are fractions (``3/4``, ``\frac{3}{4}``). Units, currency and per cent signs are not read.
    """
    for narrower in (_boxed(text), text.rpartition("####")[2] if "####" in text else None, text):
        if narrower is not None:
            found = [value for match in _NUMBER.finditer(narrower) if (value := _value(match)) is not None]
            if found:
                return found[-1]
    return None


def _boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{…}``, whose braces may hold others; None without one that is closed."""
    start = text.rfind(_BOX)
    depth = 1
    for place in range(start + len(_BOX), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + len(_BOX) : place]
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    above, below = match["above"] or match["value"], match["below"] or match["divisor"] or "1"
    top, bottom = _plain_value(above), _plain_value(below)
    if top is None or not bottom:
        return None
    return -top / bottom if match["sign"].strip() in ("-", "\u2212") else top / bottom


def _plain_value(words: str) -> Fraction | None:
    """A number without a fraction stroke; None for one that is absurdly long or large."""
    words = re.sub(r"\s?(?:\\times|\\cdot|×|·)\s?10\s?\^\s?\{?", "e", words).rstrip("}")
    words = words.replace(",", "").replace("\u2212", "-")
    mantissa, _, exponent = words.replace("E", "e").partition("e")
    if len(mantissa) > LONGEST_NUMBER or len(exponent) > 4 or abs(int(exponent or 0)) > LARGEST_EXPONENT:
        return None
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
