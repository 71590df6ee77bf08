"""A project version as the pure rules that an answer is checked against."""

from typing import cast

from annotate.models import ProjectVersion
from annotate.preferences import AnswerRules, Need, criteria_from


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
