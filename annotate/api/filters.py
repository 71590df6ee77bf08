"""Filters of lists: what each takes in the address, and what it leaves of the rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from annotate.api.queries import instant, one_of, whole_number, yes_or_no

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Filter:
    """One query parameter that narrows a list.

    Attributes:
        read: the parameter's value, checked; None if it was not sent.
        lookup: of the rows, for the value.
        same: what the lookup is given for a value; the value itself unless told.
    """

    parameter: OpenApiParameter
    read: Callable[[Request, str], Any]
    lookup: str
    same: Callable[[Any], Any] = lambda value: value


def filtered(rows: QuerySet[M], request: Request, filters: Iterable[Filter]) -> QuerySet[M]:
    """The rows that all filters in the address leave.

    Raises:
        ValidationError: a value that cannot be.
    """
    for one in filters:
        if (value := one.read(request, one.parameter.name)) is not None:
            rows = rows.filter(**{one.lookup: one.same(value)})
    return rows


def parameters(filters: Iterable[Filter]) -> list[OpenApiParameter]:
    """For the OpenAPI document."""
    return [one.parameter for one in filters]


def number(name: str, lookup: str, about: str) -> Filter:
    """Only rows with this whole number."""
    return Filter(OpenApiParameter(name, int, description=about), whole_number, lookup)


def text(name: str, lookup: str, about: str, *, same: Callable[[str], Any] = lambda value: value) -> Filter:
    """Only rows with this text."""
    read = lambda request, name: request.query_params.get(name)  # noqa: E731
    return Filter(OpenApiParameter(name, str, description=about), read, lookup, same)


def word(
    name: str, lookup: str, words: Sequence[str], about: str, *, same: Callable[[str], Any] = lambda value: value
) -> Filter:
    """Only rows with this one of the known words."""

    def read(request: Request, name: str) -> str | None:
        return one_of(request, name, list(words), default="") if name in request.query_params else None

    return Filter(OpenApiParameter(name, str, enum=list(words), description=about), read, lookup, same)


def yes(name: str, lookup: str, about: str, *, same: Callable[[bool], Any] = lambda value: value) -> Filter:
    """1: only rows of which it is true; 0: only the others."""

    def read(request: Request, name: str) -> bool | None:
        return yes_or_no(request, name) if name in request.query_params else None

    return Filter(OpenApiParameter(name, bool, description=about), read, lookup, same)


def span(name: str, column: str, about: str) -> list[Filter]:
    """`NAME_since` and `NAME_before`: rows of that instant and later, rows from before it."""

    def one(suffix: str, comparison: str, words: str) -> Filter:
        described = OpenApiParameter(f"{name}_{suffix}", OpenApiTypes.DATETIME, description=f"{about} {words}")
        return Filter(described, _read_instant, f"{column}__{comparison}")

    return [one("since", "gte", "at this instant or later."), one("before", "lt", "before this instant.")]


def _read_instant(request: Request, name: str) -> datetime | None:
    return instant(request, name)
