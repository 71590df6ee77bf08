"""One HTTP POST to a server that a person named: to a checked address, to no other, in bounded time and memory.

The name is resolved here, every address it has is checked, and the connection goes to the address that was checked, so
that a name which says something else a moment later changes nothing. TLS names and certificates are still those of the
name. Redirects are answers like others, proxies of the environment are not asked.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext as _

from annotate.addresses import parse_url, why_refused
from annotate.errors import Invalid

SECONDS = 10.0
EXCERPT_BYTES = 2_000


class NotSent(Exception):
    """No answer came, or nothing was sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered: its status and the beginning of its body."""

    status: int
    excerpt: str
    milliseconds: int


def check_url(url: str) -> None:
    """Refuses an address that nothing may be sent to, as far as that is known now; it is checked again at each send.

    Raises:
        Invalid: the field `url` says why.
    """
    try:
        parts, host, port = parse_url(url, private=settings.WEBHOOK_PRIVATE)
        addresses_of(host, port)
    except ValueError as problem:
        raise Invalid(_("Nothing can be sent to this address."), fields={"url": str(problem)}) from None
    except NotSent as problem:
        raise Invalid(_("Nothing can be sent to this address."), fields={"url": str(problem)}) from None


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a host, all of which may be sent to.

    Raises:
        NotSent: it has none, or one that is refused.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotSent(f"There is no server named {host}.") from None
    addresses = list(dict.fromkeys(str(place[0]) for *_kind, place in found))
    for address in addresses:
        if reason := why_refused(address, private=settings.WEBHOOK_PRIVATE):
            raise NotSent(f"{reason} Nothing is sent there unless the operator sets PLACKETT_WEBHOOK_PRIVATE=1.")
    return addresses


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float = SECONDS) -> Reply:
    """Sends the body and returns the answer, whatever its status.

    Args:
        seconds: for everything together, from the connection to the excerpt.

    Raises:
        NotSent: the address is refused, or no answer came in time.
    """
    begun = time.monotonic()
    try:
        parts, host, port = parse_url(url, private=settings.WEBHOOK_PRIVATE)
    except ValueError as problem:
        raise NotSent(str(problem)) from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    link = _Pinned(host, port, addresses_of(host, port), secure=parts.scheme == "https", seconds=seconds)
    # A server that sends one byte a second would pass every timeout of a socket.
    watch = threading.Timer(seconds, link.abort)
    watch.daemon = True
    watch.start()
    try:
        link.request("POST", "".join(map(_percent, target)), body, dict(headers))
        answer = link.getresponse()
        if link.aborted:  # what came before counts as whole headers to http.client
            raise TimeoutError
        took = int(1000 * (time.monotonic() - begun))
        return Reply(answer.status, _excerpt_of(answer), took)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise NotSent(_why(problem, aborted=link.aborted, seconds=seconds)) from None
    finally:
        watch.cancel()
        link.close()


class _Pinned(http.client.HTTPConnection):
    """A connection to one of these addresses, whatever its host's name resolves to by now."""

    def __init__(self, host: str, port: int, addresses: list[str], *, secure: bool, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self.default_port = 443 if secure else 80  # the port stands in the Host header where it is another
        self._addresses = addresses
        self._secure = secure
        self._seconds = seconds
        self.aborted = False

    def connect(self) -> None:
        plain = self._first_that_answers()
        # Known from here on, so that the watch can also end a slow handshake.
        self.sock = plain
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def _first_that_answers(self) -> socket.socket:
        problem: OSError = TimeoutError()
        until = time.monotonic() + self._seconds
        for address in self._addresses:
            if (left := until - time.monotonic()) <= 0:
                break
            try:
                return socket.create_connection((address, self.port), timeout=left)
            except OSError as refused:
                problem = refused
        raise problem

    def abort(self) -> None:
        """Ends whatever the connection is doing."""
        self.aborted = True
        if (open_socket := self.sock) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)


def _percent(character: str) -> str:
    return character if character.isascii() else "".join(f"%{byte:02X}" for byte in character.encode())


def _excerpt_of(answer: http.client.HTTPResponse) -> str:
    """What came of the body at once; the status has said already what matters."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        return answer.read1(EXCERPT_BYTES).decode("utf-8", "replace").replace("\0", "\ufffd")
    return ""


def _why(problem: Exception, *, aborted: bool, seconds: float) -> str:
    if aborted or isinstance(problem, TimeoutError):
        return f"No whole answer within {seconds:.0f} seconds."
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"Its certificate is not trusted: {problem.verify_message}."
    if isinstance(problem, ConnectionRefusedError):
        return "Nothing listens there."
    return f"The connection failed: {str(problem)[:200] or type(problem).__name__}."
