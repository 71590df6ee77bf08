"""How bodies are read: strict JSON everywhere, and streams of records for bulk imports."""

import io
import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from annotate.interchange.records import RecordError, parse_json

MAX_BODY_BYTES = 4_000_000
# {"records": [ … ]} with nothing else in it, so that what lies between can be read record by record.
_ENVELOPE = re.compile(rb'\s*\{\s*"records"\s*:\s*(?=\[)')


class StrictJSONParser(BaseParser):
    """JSON without what Postgres or other readers refuse later: NUL, lone surrogates, NaN, a key twice, deep nests."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            text = _read_whole(stream, limit=MAX_BODY_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise ParseError(f"The body is not UTF-8: {problem.reason} at byte {problem.start + 1}.") from None
        if not text.strip():
            return {}
        try:
            return parse_json(text)
        except RecordError as problem:
            raise ParseError(f"The body cannot be read: it is {problem}.") from None


class RecordLinesParser(BaseParser):
    """Records as they come over the line, one JSON object a line: whoever reads them holds one at a time."""

    media_type = "application/x-ndjson"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        return stream


class CsvParser(RecordLinesParser):
    """A table as it comes over the line."""

    media_type = "text/csv"


class ParquetParser(RecordLinesParser):
    """A table as it comes over the line; it is read when all of it is there."""

    media_type = "application/vnd.apache.parquet"


class RecordListParser(BaseParser):
    """{"records": […]} or the list alone, not parsed yet: a record that is no JSON spoils itself, no neighbour."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        body = _read_whole(stream, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE).strip()
        envelope = _ENVELOPE.match(body)
        if envelope and body.endswith(b"}"):
            body = body[envelope.end() : -1]
        if not body.startswith(b"["):
            raise ParseError('Send {"records": […]}, a list of records, or one record a line as application/x-ndjson.')
        return io.BytesIO(body)


def _read_whole(stream: Any, *, limit: int) -> bytes:
    body: bytes = stream.read(limit + 1)
    if len(body) > limit:
        raise RequestDataTooBig
    return body
