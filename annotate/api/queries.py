"""Query parameters, checked."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

MAX_ID = 2**63 - 1


def refuse_unknown(request: Request, view: APIView) -> None:
    """Refuses what the OpenAPI document does not name, and a parameter given twice that is one: nobody should take a
    list for filtered because of a slip of the pen.

    Raises:
        ValidationError: naming each of them.
    """
    if not request.query_params:
        return
    method = "get" if request.method == "HEAD" else str(request.method).lower()
    known = _documented(type(view), method)  # type: ignore[arg-type]  # a class is hashable whatever its instances are
    faulty = {}
    for name, values in request.query_params.lists():
        if name not in known:
            faulty[name] = [f"Unknown. Known here: {', '.join(sorted(known)) or 'none'}."]
        elif len(values) > 1 and not known[name]:
            faulty[name] = ["Give it once."]
    if faulty:
        raise ValidationError(cast(Any, faulty))


@functools.cache
def _documented(view: type[APIView], method: str) -> Mapping[str, bool]:
    """The query parameters of a view's method by name, each with whether it may be repeated."""
    # Where extend_schema leaves what it was told; there is no public way to ask. A test sees that this one works.
    kind = getattr(getattr(view, method, None), "kwargs", {}).get("schema")
    if kind is None:
        return {}
    schema = kind()
    schema.view = view(request=None, kwargs={})
    found = [one for one in schema.get_override_parameters() if isinstance(one, OpenApiParameter)]
    return {one.name: bool(one.many) for one in found if one.location == OpenApiParameter.QUERY}


def whole_number(request: Request, name: str, *, low: int = 0, high: int = MAX_ID) -> int | None:
    """The parameter as a whole number; None if it was not sent.

    Raises:
        ValidationError: no number, or out of range.
    """
    given = request.query_params.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and low <= int(given) <= high):
        limits = f" from {low} to {high}" if high < MAX_ID else ""
        raise ValidationError({name: [f"A whole number{limits}."]})
    return int(given)


def yes_or_no(request: Request, name: str) -> bool:
    """The parameter as 1 or 0, true or false; no if it was not sent.

    Raises:
        ValidationError: anything else.
    """
    given = request.query_params.get(name, "0").lower()
    if given not in {"0", "1", "true", "false"}:
        raise ValidationError({name: ["1 or 0."]})
    return given in {"1", "true"}


def one_of(request: Request, name: str, known: list[str], *, default: str) -> str:
    """The parameter as one of the known words.

    Raises:
        ValidationError: another word.
    """
    given = request.query_params.get(name, default)
    if given not in known:
        raise ValidationError({name: [f"One of {', '.join(known)}."]})
    return given


def instant(request: Request, name: str) -> datetime | None:
    """The parameter as an instant; None if it was not sent.

    Raises:
        ValidationError: no ISO 8601 with an offset from UTC.
    """
    given = request.query_params.get(name)
    if given is None:
        return None
    # An unescaped + reaches us as a blank.
    if (found := read_instant(given.replace(" ", "+"))) is None:
        raise ValidationError({name: ["An instant with its offset from UTC, like 2026-01-31T12:00:00Z."]})
    return found


def read_instant(text: str) -> datetime | None:
    """ISO 8601 with an offset as an instant in UTC (Postgres knows fewer offsets than ISO); None if it is none."""
    try:
        found = parse_datetime(text)
        return None if found is None or is_naive(found) else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
