"""Bodies of requests as they come over the line, held to the length that they were announced with.

Where a connection breaks in the middle of a body, the server that we run under only says that there is no more: half a
file would be taken for a whole one.
"""

import hashlib
import tempfile
from typing import Any

from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.request import Request

#: As much as gunicorn takes from a connection at once.
BLOCK_BYTES = 1 << 20


class WholeBody:
    """Something to read from that raises where it ends before `length` bytes were read."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._length = length
        self._seen = 0

    def read(self, size: int = -1) -> bytes:
        """As of any binary stream.

        Raises:
            UnreadablePostError: it ended too early.
        """
        wanted = size if size >= 0 else self._length - self._seen
        parts: list[bytes] = []
        while wanted > 0 and (data := self._stream.read(wanted)):
            parts.append(data)
            wanted -= len(data)
            self._seen += len(data)
        if wanted > 0 and self._seen < self._length:
            raise UnreadablePostError(f"the connection broke after {self._seen:,} of {self._length:,} bytes")
        return b"".join(parts)


def announced_length(request: Request) -> int:
    """Bytes, from Content-Length; 0 without one."""
    length = str(request.META.get("CONTENT_LENGTH") or "")
    return int(length) if length.isdecimal() else 0


def keep_body(request: Request) -> str:
    """Reads a body of any size into a temporary file, from which parsers read it then; returns its SHA-256.

    Raises:
        ParseError: it did not come to its end.
    """
    body = WholeBody(request._request, announced_length(request))
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - it is gone with the request
    sha256 = hashlib.sha256()
    try:
        while block := body.read(BLOCK_BYTES):
            sha256.update(block)
            kept.write(block)
    except UnreadablePostError as broken:
        raise ParseError(f"The body cannot be read, and nothing was changed: {broken}.") from None
    if kept.tell():
        kept.seek(0)
        request._stream = kept  # what `request.stream` has from then on; an empty body stays none
    return sha256.hexdigest()
