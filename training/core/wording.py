"""How the report's numbers and sentences are written: in English, or in the language that a page hands in.

Standard library only: pages import this without loading torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = "–"
NARROW = "\N{NO-BREAK SPACE}"


def _as_it_is(message: str) -> str:
    return message


@dataclass(frozen=True)
class Wording:
    """A language.

    Attributes:
        gettext: the translation of an English message. Called by this name, so that the messages can be extracted.
        decimal: its decimal sign.
        thousands: what parts the thousands of whole numbers.
    """

    gettext: Callable[[str], str] = _as_it_is
    decimal: str = "."
    thousands: str = ","

    def count(self, number: int) -> str:
        """12345 → `12,345`."""
        return f"{number:,}".replace(",", self.thousands)

    def few_digits(self, number: int) -> str:
        """At most four signs: 987, 1.2k, 54k, 3M."""
        for size, letter in ((1_000_000, "M"), (1000, "k")):
            if number >= size:
                return self._local(f"{number / size:.1f}" if number < 10 * size else f"{number // size}") + letter
        return str(number)

    def percent(self, share: float | None, digits: int = 1) -> str:
        """0.714 → `71.4 %`."""
        return NOTHING if share is None else self._local(f"{share * 100:.{digits}f}{NARROW}%")

    def points(self, difference: float | None) -> str:
        """A difference of shares, in percentage points: 0.031 → `+3.1`."""
        return NOTHING if difference is None else self._local(f"{difference * 100:+.1f}".replace("-", "−"))

    def number(self, value: float | None) -> str:
        """Three decimals."""
        return NOTHING if value is None else self._local(f"{value:.3f}".replace("-", "−"))

    def figure(self, value: float | None) -> str:
        """Three significant digits, whole from a hundred on: `0.0213`, `41.2`, `128`."""
        if not value:
            return NOTHING if value is None else "0"
        digits = f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
        return self._local(digits.replace("-", "−"))

    def tick(self, value: float) -> str:
        """A round value at an axis, without idle zeros."""
        return self._local(f"{value:.10g}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")

    def change(self, value: float | None) -> str:
        """A difference, as ``figure`` writes it, always with its sign."""
        return NOTHING if value is None else ("+" if value > 0 else "") + self.figure(value)

    def interval(self, found: Mapping[str, Any] | None, write: Callable[[float | None], str] | None = None) -> str:
        """A figure with its interval: `71.4 % (69.0 % to 73.9 %)`; by ``percent`` if nothing else is said."""
        write = write or self.percent
        if not found or found.get("value") is None:
            return NOTHING
        # Where all groups are alike every draw is: an interval without width would look like certainty.
        if found.get("low") is None or found["low"] == found["high"]:
            return write(found["value"])
        ends = {"value": write(found["value"]), "low": write(found["low"]), "high": write(found["high"])}
        return self.gettext("%(value)s (%(low)s to %(high)s)") % ends

    def _local(self, number: str) -> str:
        return number.replace(".", self.decimal)


ENGLISH = Wording()


def part_name(family: str, part: Mapping[str, Any], words: Wording = ENGLISH) -> str:
    """What a part of the pairs (``slices.accuracy_by``) is called in tables and plots."""
    gettext = words.gettext
    if family == "placed":
        return gettext("1 response") if part["of"] == 1 else gettext("%(number)s responses") % {"number": part["of"]}
    if family == "strength":
        names = {
            1: gettext("slightly better"),
            2: gettext("clearly better"),
            3: gettext("much better"),
            "not_said": gettext("not said"),
            "not_adjacent": gettext("tiers apart"),
        }
        return names[part["of"]]
    if family == "length_difference":
        return gettext("%(from)s to %(to)s") % {name: words.count(part[name]) for name in ("from", "to")}
    who = gettext("people") if part["kind"] == "human" else gettext("machines")
    if family == "annotator":
        return str(part["name"])
    if part["seen"] is None:
        return who
    return (gettext("%(who)s, known") if part["seen"] else gettext("%(who)s, new")) % {"who": who}
