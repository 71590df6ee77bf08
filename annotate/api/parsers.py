"""How bodies are read: strict JSON everywhere, and streams of records for bulk imports."""

import io
import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from annotate.api.bodies import WholeBody, announced_length
from annotate.interchange.records import RecordError, parse_json
from annotate.interchange.streams import GZIP_MAGIC

MAX_BODY_BYTES = 4_000_000
# {"records": [ … ]} with nothing else in it, so that what lies between can be read record by record.
_ENVELOPE = re.compile(rb'\s*\{\s*"records"\s*:\s*(?=\[)')


class StrictJSONParser(BaseParser):
    """JSON without what Postgres or other readers refuse later: NUL, lone surrogates, NaN, a key twice, deep nests."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            body = _read_whole(stream, parser_context, limit=MAX_BODY_BYTES)
            if body.startswith(GZIP_MAGIC):
                raise ParseError("The body is compressed, which only imports may be; send it as it is.")
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise ParseError(f"The body is not UTF-8: {problem.reason} at byte {problem.start + 1}.") from None
        if not text.strip():
            return {}
        try:
            return parse_json(text)
        except RecordError as problem:
            raise ParseError(f"The body cannot be read: {problem}.") from None


class RecordLinesParser(BaseParser):
    """Records as they come over the line, one JSON object a line: whoever reads them holds one at a time, and is told
    by an OSError if the line breaks."""

    media_type = "application/x-ndjson"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        return _announced(stream, parser_context)


class CsvParser(RecordLinesParser):
    """A table as it comes over the line."""

    media_type = "text/csv"


class ParquetParser(RecordLinesParser):
    """A table as it comes over the line; it is read when all of it is there."""

    media_type = "application/vnd.apache.parquet"


class RecordListParser(BaseParser):
    """{"records": […]} or the list alone, not parsed yet: a record that is no JSON spoils itself, no neighbour.
    Compressed, the list alone."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        body = _read_whole(stream, parser_context, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        if body.startswith(GZIP_MAGIC):
            return io.BytesIO(body)
        body = body.strip()
        envelope = _ENVELOPE.match(body)
        if envelope and body.endswith(b"}"):
            body = body[envelope.end() : -1]
        if not body.startswith(b"["):
            raise ParseError('Send {"records": […]}, a list of records, or one record a line as application/x-ndjson.')
        return io.BytesIO(body)


def _announced(stream: Any, parser_context: Mapping[str, Any] | None) -> Any:
    """The stream, held to the length that the request announced."""
    return WholeBody(stream, announced_length(parser_context["request"])) if parser_context else stream


def _read_whole(stream: Any, parser_context: Mapping[str, Any] | None, *, limit: int) -> bytes:
    if parser_context and announced_length(parser_context["request"]) > limit:
        raise RequestDataTooBig  # before anything of it is waited for
    try:
        body: bytes = _announced(stream, parser_context).read(limit + 1)
    except UnreadablePostError as broken:
        raise ParseError(f"The body cannot be read: {broken}.") from None
    if len(body) > limit:
        raise RequestDataTooBig
    return body
