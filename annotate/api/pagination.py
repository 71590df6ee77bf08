"""Long lists in pages: a cursor says where the next one starts, so nothing is missed or twice as rows arrive."""

import base64
import binascii
from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from annotate.api.queries import MAX_ID, whole_number

M = TypeVar("M", bound=Model)

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

PAGE_PARAMETERS = [
    OpenApiParameter("cursor", str, description="`next` of the page before; absent for the first page."),
    OpenApiParameter(
        "limit", int, description=f"Rows a page, 1 to {MAX_LIMIT}; {DEFAULT_LIMIT} unless told.", default=DEFAULT_LIMIT
    ),
]


def page_of(rows: QuerySet[M], request: Request, show: Callable[[list[M]], list[dict[str, Any]]]) -> dict[str, Any]:
    """One page of the rows in the order of their ids: {"results": […], "next": a cursor, or null at the end}.

    Args:
        show: turns the page's rows into JSON objects.

    Raises:
        ValidationError: a cursor that we did not make, or a limit out of range.
    """
    limit = whole_number(request, "limit", low=1, high=MAX_LIMIT) or DEFAULT_LIMIT
    found = list(rows.filter(pk__gt=_decode(request.query_params.get("cursor"))).order_by("pk")[: limit + 1])
    page = found[:limit]
    return {"results": show(page), "next": _encode(page[-1].pk) if len(found) > limit else None}


def _encode(last: int) -> str:
    return base64.urlsafe_b64encode(f"after:{last}".encode()).decode().rstrip("=")


def _decode(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        word, _, last = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True).decode().partition(":")
        number = int(last) if last.isascii() and last.isdecimal() and len(last) < 20 else -1
    except (UnicodeError, binascii.Error):
        word, number = "", -1
    if word != "after" or not 0 <= number <= MAX_ID:
        raise ValidationError({"cursor": ["This is no cursor of ours; begin again without one."]})
    return number
