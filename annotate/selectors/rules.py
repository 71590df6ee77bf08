"""A project version as the pure rules that an answer is checked against."""

import json
from collections.abc import Sequence
from typing import Any, cast

from annotate.models import ProjectVersion
from annotate.preferences import AnswerRules, Need, criteria_from

#: What of a version decides about tasks and answers, in the order of the model's fields, as from_db wants it.
_COLUMNS = (
    *("id", "number", "allow_ties", "allow_partial", "allow_all_bad", "strength", "rationale", "allow_rewrite"),
    *("criteria", "flags", "show_models", "show_thinking"),
)


def columns_of(version: str) -> str:
    """The columns that version_of_row reads, for a statement that names the table of versions so."""
    return ", ".join(f"{version}.{name}" for name in _COLUMNS)


def version_of_row(row: Sequence[Any]) -> ProjectVersion:
    """The version whose columns_of these are, read by a statement of our own; the guidelines are not among them."""
    *plain, criteria, flags, models, thinking = row
    return ProjectVersion.from_db(None, _COLUMNS, [*plain, json.loads(criteria), json.loads(flags), models, thinking])


def answer_rules(version: ProjectVersion) -> AnswerRules:
    """What this version lets an answer hold."""
    return AnswerRules(
        allow_ties=version.allow_ties,
        allow_partial=version.allow_partial,
        allow_all_bad=version.allow_all_bad,
        allow_rewrite=version.allow_rewrite,
        strength=cast(Need, version.strength),
        rationale=cast(Need, version.rationale),
        criteria=criteria_from(version.criteria),
        flags=tuple(item["key"] for item in version.flags),
    )
