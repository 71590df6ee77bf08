"""The answer that the ranking page sends: its shape is checked here, what it may hold by the services."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from annotate.errors import Invalid
from annotate.preferences import Answer, Rewrite

MAX_SECONDS = 7 * 24 * 3600
_SAYS = {"ranking", "unranked", "strengths", "all_bad", "ratings", "flags", "rationale", "rewrite", "seconds"}
_ABOUT = {"lease", "revises", "have", "guidelines"}


@dataclass(frozen=True, slots=True)
class Submission:
    """An answer to a lease, or a revision of the ranking `revises`: exactly one of the two is set."""

    answer: Answer
    seconds: float | None
    lease: uuid.UUID | None = None
    revises: int | None = None


def submission_from(body: Mapping[str, Any]) -> Submission:
    """Reads a submission.

    Raises:
        Invalid: the body has not the shape of one; `fields` says where.
    """
    faults = {name: "There is no such field." for name in body if name not in _SAYS | _ABOUT}
    faults |= {name: message for name, (fits, message) in _SHAPES.items() if name in body and not fits(body[name])}
    if "ranking" not in body:
        faults["ranking"] = "Missing."
    if ("lease" in body) == ("revises" in body):
        faults["lease"] = "Name the lease that is answered, or the ranking that is revised."
    if faults:
        raise Invalid(_("The answer cannot be read."), fields=faults)
    return Submission(
        answer=_answer(body),
        seconds=body.get("seconds"),
        lease=uuid.UUID(body["lease"]) if "lease" in body else None,
        revises=id_from(body["revises"]) if "revises" in body else None,
    )


def _answer(body: Mapping[str, Any]) -> Answer:
    rewrite = body.get("rewrite")
    return Answer(
        ranking=body["ranking"],
        unranked=body.get("unranked") or [],
        strengths=body.get("strengths"),
        all_bad=body.get("all_bad", False),
        ratings=body.get("ratings") or {},
        flags=body.get("flags") or {},
        rationale=body.get("rationale"),
        rewrite=Rewrite(of=rewrite["of"], text=rewrite["text"]) if rewrite else None,
    )


def id_from(value: Any) -> int | None:
    """A ranking's id, which comes as a number or, as the API gives it, as a string of digits; None if it is neither."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)
    return value if type(value) is int and 0 < value < 2**63 else None


def lease_ids(value: Any) -> list[uuid.UUID]:
    """The leases that a page says it has; whatever is no lease's id is passed over, for it is none of ours."""
    return [uuid.UUID(one) for one in value if _is_uuid(one)] if isinstance(value, list) else []


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_ratings(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(given, dict) and all(type(number) is int for number in given.values()) for given in value.values()
    )


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lease": (_is_uuid, "The id of a lease."),
    "revises": (lambda value: id_from(value) is not None, "The id of a ranking."),
    "ranking": (lambda value: isinstance(value, list) and all(map(_is_names, value)), "A list of lists of ids."),
    "unranked": (lambda value: value is None or _is_names(value), "A list of ids."),
    "strengths": (
        lambda value: value is None or isinstance(value, list) and all(n is None or type(n) is int for n in value),
        "A list of 1, 2, 3 or null.",
    ),
    "all_bad": (lambda value: isinstance(value, bool), "true or false."),
    "ratings": (lambda value: value is None or _is_ratings(value), "Response → criterion → whole number."),
    "flags": (
        lambda value: value is None or isinstance(value, dict) and all(map(_is_names, value.values())),
        "Response → list of flags.",
    ),
    "rationale": (lambda value: value is None or isinstance(value, str), "A text."),
    "rewrite": (
        lambda value: (
            value is None
            or isinstance(value, dict)
            and value.keys() == {"of", "text"}
            and all(isinstance(one, str) for one in value.values())
        ),
        "The response it is of, and a text.",
    ),
    "seconds": (
        lambda value: value is None or type(value) in {int, float} and 0 <= value <= MAX_SECONDS,
        "A number of seconds.",
    ),
}
