"""What the two sides of a policy's report are called: the policy at the start and the trained one, or two policies.

Standard library only: pages import this without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.core.wording import Wording


@dataclass(frozen=True)
class Sides:
    """Words of a report; those with a place for a figure are filled with ``%``.

    Attributes:
        wins: how often the second side is preferred.
        best: choosing among n answers of the first side, ``%(n)s``.
        first_value: ``%(value)s`` of the first side.
        about_wins: with ``%(prompts)s``.
        about_equal: with ``%(longer)s``.
        about_best: with ``%(n)s`` and ``%(kl)s``.
        heads: of the columns.
        table: the title of the table.
    """

    wins: str
    best: str
    first_value: str
    about_wins: str
    about_equal: str
    about_best: str
    heads: tuple[str, str]
    table: str


def sides_of(report: Mapping[str, Any], words: Wording) -> Sides:
    """The words of a report, by its kind."""
    return _two_policies(words) if report.get("kind") == "comparison" else _before_and_after(words)


def _before_and_after(words: Wording) -> Sides:
    gettext = words.gettext
    return Sides(
        wins=gettext("wins against the start"),
        best=gettext("best of %(n)s of the start"),
        first_value=gettext("%(value)s at the start"),
        about_wins=gettext(
            "How often the judge prefers the trained policy's answer to that of the policy at the start, ties one "
            "half; over %(prompts)s held-out prompts."
        ),
        about_equal=gettext(
            "The same, had both answers been equally long, by a logistic model of wins and lengths. The trained "
            "policy's answer is the longer one in %(longer)s of the pairs."
        ),
        about_best=gettext(
            "What choosing the best-scored of %(n)s answers of the policy at the start gets without any training. Its "
            "KL is at most %(kl)s nats."
        ),
        heads=(gettext("at the start"), gettext("trained")),
        table=gettext("Before and after"),
    )


def _two_policies(words: Wording) -> Sides:
    gettext = words.gettext
    return Sides(
        wins=gettext("wins against the baseline"),
        best=gettext("best of %(n)s of the baseline"),
        first_value=gettext("%(value)s for the baseline"),
        about_wins=gettext(
            "How often the judge prefers the policy's answer to that of the baseline, ties one half; over %(prompts)s "
            "held-out prompts."
        ),
        about_equal=gettext(
            "The same, had both answers been equally long, by a logistic model of wins and lengths. The policy's "
            "answer is the longer one in %(longer)s of the pairs."
        ),
        about_best=gettext(
            "What choosing the best-scored of %(n)s answers of the baseline gets without any training. Its KL is at "
            "most %(kl)s nats."
        ),
        heads=(gettext("baseline"), gettext("policy")),
        table=gettext("Side by side"),
    )
