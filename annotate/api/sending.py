"""How answers travel: not at all if the caller has them already, packed if that is what it asked for.

Compressed is only what was asked for with a token. Where a browser sends its session by itself, a page elsewhere could
have it ask, and learn from lengths what an answer holds beside text of the attacker's (BREACH); for the same reason
nothing that tells a secret is compressed, and no page is.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from django.http import HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.http import parse_etags
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import ApiToken

Answer = TypeVar("Answer", bound=HttpResponseBase)

LEAST_BYTES = 1024  # below it a packet is a packet
LEVEL = 1  # a third of the work of zlib's own choice, for a tenth more bytes
GZIP = 16 + zlib.MAX_WBITS
#: What a 304 says of the answer that it stands for.
KEPT = ("ETag", "Cache-Control", "Vary", "RateLimit", "RateLimit-Policy")


def send(answer: Answer, request: Request, *, secret: bool) -> Answer:
    """Has a JSON answer, once it is rendered, replaced by 304 or by its compressed form where the request allows it.

    Args:
        secret: the answer may tell a secret, and is sent as it is.
    """
    if isinstance(answer, Response) and not secret:
        answer.add_post_render_callback(lambda whole: in_full_or_not(whole, request))
    return answer


def in_full_or_not(answer: HttpResponse, request: Request) -> HttpResponse:
    """The rendered answer: 304 if the caller has it already, compressed if that is asked for."""
    if request.method in {"GET", "HEAD"} and answer.status_code == 200:
        etag = f'W/"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
        answer.headers["ETag"] = etag
        answer.headers.setdefault("Cache-Control", "private, no-cache")
        if has_already(request, etag):
            patch_vary_headers(answer, ("Accept-Encoding",))
            return HttpResponseNotModified(headers={name: answer[name] for name in KEPT if name in answer})
    if may_pack(answer, request) and len(answer.content) >= LEAST_BYTES:
        answer.content = b"".join(packed([answer.content]))
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def has_already(request: Request, etag: str) -> bool:
    """Whether If-None-Match names what the answer would be (or, as `*`, anything)."""
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return known == ["*"] or etag.removeprefix("W/") in {one.removeprefix("W/") for one in known}


def may_pack(answer: HttpResponseBase, request: Request) -> bool:
    """Whether the answer may be compressed, for a caller who understands it; says so to caches."""
    patch_vary_headers(answer, ("Accept-Encoding",))
    return isinstance(request.auth, ApiToken) and accepts_gzip(request.headers.get("Accept-Encoding", ""))


def accepts_gzip(header: str) -> bool:
    """Whether Accept-Encoding names gzip, or anything, with a weight above 0."""
    weights = {}
    for part in header.lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def packed_stream(answer: StreamingHttpResponse, request: Request) -> StreamingHttpResponse:
    """The stream compressed, where the caller asked for it."""
    if may_pack(answer, request):
        answer.streaming_content = packed(cast(Iterator[bytes], answer.streaming_content))
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def packed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks as gzip, each sent as far as it is.

    What the blocks raise is raised here too. The trailer comes after the last of them alone, so that a stream that
    broke is no whole gzip file either, whoever reads it.
    """
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    for block in blocks:
        if sent := packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH):
            yield sent
    yield packer.flush()
