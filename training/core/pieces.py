"""The text of a response while its tokens come: in pieces of whole characters, which together are the decoded response.

A character may take several tokens, and a token may be several characters. A tokenizer may also write a token otherwise
at the beginning of a text (without its space) than inside; so a piece is what the last tokens add to the text of the
few before them.
"""

from collections.abc import Callable, Sequence

# What a decoder writes for bytes that are no character, or not yet one.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[int]], str]


class Pieces:
    """One response on its way; ``told`` is what its pieces say so far, ``length`` how many tokens there were."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Tokens before ``_settled`` are told; those from ``_context`` on are decoded again with what comes.
        self._context = self._settled = 0
        self.told = ""

    @property
    def length(self) -> int:
        """Tokens seen."""
        return len(self._ids)

    def add(self, token: int) -> str:
        """What the next token adds; nothing while a character is unfinished."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._settled])
        now = self._decode(self._ids[self._context :])
        if now.endswith(UNFINISHED) or not now.startswith(before):
            return ""
        self._context, self._settled = self._settled, len(self._ids)
        return self._tell(now[len(before) :])

    def finish(self, text: str) -> str:
        """What is left to tell of the whole decoded response: a character that was never finished."""
        return self._tell(text[len(self.told) :] if text.startswith(self.told) else "")

    def _tell(self, piece: str) -> str:
        self.told += piece
        return piece
