"""How bodies are read: strict JSON everywhere, and a stream of records for bulk imports."""

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from annotate.interchange.records import RecordError, parse_json


class StrictJSONParser(BaseParser):
    """JSON without what Postgres or other readers refuse later: NUL, lone surrogates, NaN, a key twice, deep nests."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise ParseError(f"The body is not UTF-8: {problem.reason} at byte {problem.start + 1}.") from None
        if not text.strip():
            return {}
        try:
            return parse_json(text)
        except RecordError as problem:
            raise ParseError(f"The body cannot be read: it is {problem}.") from None
