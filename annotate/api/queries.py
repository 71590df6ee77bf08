"""Query parameters, checked."""

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

MAX_ID = 2**63 - 1


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
