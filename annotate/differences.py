"""The word-level difference of two texts. Pure: no Django, no I/O; rapidfuzz finds the longest common subsequence."""

import re
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from rapidfuzz.distance import LCSseq

#: More tokens than these in the middle are compared by lines first: time and memory grow with the product.
MAX_TOKENS = 20_000

Side = Literal["both", "first", "second"]
# A word with the mark that ends it apart; every Chinese or Japanese character by itself; white space and marks as such.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"\s+|[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])\w)+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text that both texts have, or only one of them."""

    side: Side
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Pieces in reading order, and how many words only one of the texts has. The pieces of `both` and `first` make up
    the first text, those of `both` and `second` the other one."""

    pieces: tuple[Piece, ...]
    only_first: int
    only_second: int

    @property
    def identical(self) -> bool:
        return all(piece.side == "both" for piece in self.pieces)


def difference(first: str, second: str) -> Difference:
    """What stands in one of the texts and not in the other, word by word.

    Of texts with more than 20,000 differing words, marks and spaces, lines are compared first, and words only within
    the lines that differ: coarser, in bounded time and memory. Where even the lines are too many, all that lies between
    the common beginning and the common end is given as differing.
    """
    ones, others = _TOKEN.findall(first), _TOKEN.findall(second)
    few = _unlike(ones, others) <= MAX_TOKENS
    pieces = _merged(_aligned(ones, others) if few else _by_lines(first, second))
    only = {side: sum(_words(piece.text) for piece in pieces if piece.side == side) for side in ("first", "second")}
    return Difference(tuple(pieces), only["first"], only["second"])


def _unlike(ones: list[str], others: list[str]) -> int:
    start, end = _common_ends(ones, others)
    return max(len(ones), len(others)) - start - end


def _by_lines(first: str, second: str) -> list[Piece]:
    ones, others = _LINE.findall(first), _LINE.findall(second)
    start, end = _common_ends(ones, others)
    middle = ones[start : len(ones) - end], others[start : len(others) - end]
    pieces = [Piece("both", "".join(ones[:start]))]
    pieces += _of_lines(*middle) if _comparable(*middle) else _whole("".join(middle[0]), "".join(middle[1]))
    pieces.append(Piece("both", "".join(ones[len(ones) - end :])))
    return [piece for piece in pieces if piece.text]


def _comparable(ones: list[str], others: list[str]) -> bool:
    return len(ones) * len(others) <= MAX_TOKENS**2


def _of_lines(ones: list[str], others: list[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for step in LCSseq.opcodes(ones, others):
        block = "".join(ones[step.src_start : step.src_end]), "".join(others[step.dest_start : step.dest_end])
        if step.tag == "equal":
            pieces.append(Piece("both", block[0]))
            continue
        tokens = _TOKEN.findall(block[0]), _TOKEN.findall(block[1])
        pieces += _aligned(*tokens) if _unlike(*tokens) <= MAX_TOKENS else _whole(*block)
    return pieces


def _whole(first: str, second: str) -> list[Piece]:
    return [Piece("first", first), Piece("second", second)]


def _common_ends(ones: list[str], others: list[str]) -> tuple[int, int]:
    """How many tokens or lines the two have in common at the start, and at the end of what follows."""
    shorter = min(len(ones), len(others))
    start = next((n for n in range(shorter) if ones[n] != others[n]), shorter)
    left = shorter - start
    end = next((n for n in range(left) if ones[-1 - n] != others[-1 - n]), left)
    return start, end


def _aligned(ones: list[str], others: list[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for step in LCSseq.opcodes(ones, others):
        kept, added = "".join(ones[step.src_start : step.src_end]), "".join(others[step.dest_start : step.dest_end])
        if step.tag == "equal":
            pieces.append(Piece("both", kept))
        else:
            pieces += [Piece("first", kept), Piece("second", added)]
    return [piece for piece in pieces if piece.text]


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one side as one piece, and between two changes what was left out before what was put in.

    White space alone between two changes is no common ground: “a b” → “c d” is one change, not two.
    """
    merged: list[Piece] = []
    gone, put = "", ""
    runs = [Piece(side, "".join(piece.text for piece in run)) for side, run in groupby(pieces, attrgetter("side"))]
    for number, piece in enumerate(runs):
        bridge = piece.side == "both" and piece.text.isspace() and (gone or put) and number + 1 < len(runs)
        if piece.side != "second" and (bridge or piece.side == "first"):
            gone += piece.text
        if piece.side != "first" and (bridge or piece.side == "second"):
            put += piece.text
        if piece.side == "both" and not bridge:
            merged += [Piece("first", gone)] * bool(gone) + [Piece("second", put)] * bool(put) + [piece]
            gone, put = "", ""
    return merged + [Piece("first", gone)] * bool(gone) + [Piece("second", put)] * bool(put)


def _words(text: str) -> int:
    return sum(1 for token in _TOKEN.findall(text) if token[0].isalnum() or token[0] == "_")
