"""Long lists in pages: a cursor says where the next one starts, so that nothing is missed or twice as rows arrive."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from django.db.models import BooleanField, DateTimeField, F, Field, Func, Model, QuerySet, Value
from django.db.models.expressions import CombinedExpression
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from annotate.api.queries import MAX_ID, one_of, read_instant, whole_number

M = TypeVar("M", bound=Model)
#: How lists may be ordered: the name in the address → the column. Only columns that never change are keys: a row that
#: moved between two pages would be missed, or come twice. Id comes second, so that equal keys have an order too.
Orders = Mapping[str, str]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR_CHARACTERS = 1000
BY_ID: Orders = {"id": "pk"}


def _choices(orders: Orders) -> list[str]:
    return [sign + name for name in orders for sign in ("", "-")]


def page_parameters(orders: Orders = BY_ID) -> list[OpenApiParameter]:
    """What every list takes."""
    return [
        OpenApiParameter("cursor", str, description="`next` of the page before; absent for the first page."),
        OpenApiParameter(
            "limit",
            int,
            description=f"Rows a page, 1 to {MAX_LIMIT}; {DEFAULT_LIMIT} unless told.",
            default=DEFAULT_LIMIT,
        ),
        OpenApiParameter(
            "ordering",
            str,
            enum=_choices(orders),
            default=next(iter(orders)),
            description="With `-` before it, descending. The same for all pages.",
        ),
    ]


PAGE_PARAMETERS = page_parameters()


def page_of(
    rows: QuerySet[M],
    request: Request,
    show: Callable[[list[M]], list[dict[str, Any]]],
    *,
    orders: Orders = BY_ID,
) -> dict[str, Any]:
    """One page of the rows in the order asked for: {"results": […], "next": a cursor, or null at the end}.

    Args:
        show: turns the page's rows into JSON objects.
        orders: what may be asked for; the first one, ascending, is the usual.

    Raises:
        ValidationError: a cursor that we did not make for this order, another order, or a limit out of range.
    """
    limit = whole_number(request, "limit", low=1, high=MAX_LIMIT) or DEFAULT_LIMIT
    ordering = one_of(request, "ordering", _choices(orders), default=next(iter(orders)))
    column, down = orders[ordering.lstrip("-")], ordering.startswith("-")
    sign = "-" if down else ""
    key = cast("Field[Any, Any]", rows.model._meta.pk if column == "pk" else rows.model._meta.get_field(column))
    if (cursor := request.query_params.get("cursor")) is not None:
        last, pk = _decode(cursor, ordering, key)
        rows = rows.filter(_beyond(column, last, pk, key=key, down=down))
    found = list(rows.order_by(f"{sign}{column}", *([] if column == "pk" else [f"{sign}pk"]))[: limit + 1])
    page = found[:limit]
    following = _encode(ordering, getattr(page[-1], column), page[-1].pk) if len(found) > limit else None
    return {"results": show(page), "next": following}


def _beyond(column: str, last: Any, pk: int, *, key: "Field[Any, Any]", down: bool) -> CombinedExpression:
    """(column, id) compared as one, which the database answers from an index on the two."""
    here = Func(F(column), F("pk"), function="ROW")
    there = Func(Value(last, output_field=key), Value(pk), function="ROW")
    return CombinedExpression(here, "<" if down else ">", there, output_field=BooleanField())


def _encode(ordering: str, last: Any, pk: int) -> str:
    said = last.isoformat() if isinstance(last, datetime) else last
    return base64.urlsafe_b64encode(json.dumps([ordering, said, pk]).encode()).decode().rstrip("=")


def _decode(cursor: str, ordering: str, key: "Field[Any, Any]") -> tuple[Any, int]:
    try:
        padded = cursor[:MAX_CURSOR_CHARACTERS] + "=" * (-len(cursor) % 4)
        made_for, said, pk = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
        last = _read(said, key) if made_for == ordering else None
    except (ValueError, TypeError, RecursionError):  # base64 raises a ValueError, too
        made_for, last, pk = None, None, None
    if isinstance(made_for, str) and made_for != ordering:
        raise ValidationError({"cursor": ["This cursor is of a list in another order; ask for the same `ordering`."]})
    if last is None or type(pk) is not int or not 0 <= pk <= MAX_ID:
        raise ValidationError({"cursor": ["This is no cursor of ours; begin again without one."]})
    return last, pk


def _read(said: Any, key: "Field[Any, Any]") -> Any:
    """The column's value as a cursor says it; None if it says nothing of the kind."""
    if isinstance(key, DateTimeField):
        return read_instant(said) if isinstance(said, str) else None
    if key.get_internal_type() in {"SlugField", "CharField"}:
        return said if isinstance(said, str) and "\0" not in said else None
    return said if type(said) is int and 0 <= said <= MAX_ID else None
