"""Figures and what is wanted of them: each part of ``benchmarks.data`` ends with its own, the front with all."""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value; `least` and `most` are what is wanted, neither where it is only told."""

    part: str
    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """In words, empty where nothing is."""
        if self.least is not None:
            return f"at least {self.least:g} {self.unit}".rstrip()
        return f"at most {self.most:g} {self.unit}".rstrip() if self.most is not None else ""

    @property
    def verdict(self) -> str:
        """`met`, `NOT MET`, or nothing where nothing is wanted."""
        if not self.wanted:
            return ""
        low = self.least is not None and self.value < self.least
        high = self.most is not None and self.value > self.most
        return "NOT MET" if low or high else "met"


def show(figures: Iterable[Figure]) -> None:
    """Prints a table."""
    rows = [("", "", "measured", "wanted", "")]
    rows += [(one.part, one.name, _value(one), one.wanted, one.verdict) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for part, name, value, wanted, verdict in rows:
        line = f"{part:{widths[0]}}  {name:{widths[1]}}  {value:>{widths[2]}}  {wanted:{widths[3]}}  {verdict}"
        print(line.rstrip(), flush=True)


def _value(figure: Figure) -> str:
    digits = 2 if abs(figure.value) < 10 else 1 if abs(figure.value) < 1000 else 0
    return f"{figure.value:,.{digits}f} {figure.unit}".rstrip()


def add_figures_flag(parser: argparse.ArgumentParser) -> None:
    """For `finish`: where the front wants this part's figures."""
    parser.add_argument("--figures", type=Path, help=argparse.SUPPRESS)


def finish(figures: Sequence[Figure], path: Path | None) -> None:
    """Ends a part: its figures with what is wanted of them and the machine's load, or the file for the front."""
    if path is not None:
        path.write_text(json.dumps([asdict(one) for one in figures]))
        return
    print()
    show(figures)
    print(f"load at the end: {load()}")


def read(path: Path) -> list[Figure]:
    """What `finish` wrote; nothing if it did not come to that."""
    return [Figure(**one) for one in json.loads(path.read_text())] if path.exists() else []


def load() -> str:
    """The machine's load of the last minute and of the last five."""
    return "{:.1f}, {:.1f}".format(*os.getloadavg()[:2])
