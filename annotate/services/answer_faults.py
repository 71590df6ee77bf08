"""What is wrong with an answer, in the visitor's language. The rules themselves are pure and speak English."""

from collections.abc import Mapping

from django.utils.translation import gettext, gettext_noop

#: The messages of annotate.preferences.validate_answer that a person can meet and that fill nothing in.
MESSAGES = (
    gettext_noop("Place at least two responses, or say that all are bad."),
    gettext_noop("Ties are off in this project."),
    gettext_noop("Saying that all are bad is off in this project."),
    gettext_noop("Every response must be placed in this project."),
    gettext_noop("Strengths are off."),
    gettext_noop("Say how much better."),
    gettext_noop("Not a criterion of this project."),
    gettext_noop("This rating is required."),
    gettext_noop("Say why."),
    gettext_noop("A rationale is off in this project."),
    gettext_noop("A rewrite is off in this project."),
    gettext_noop("An empty rewrite."),
    gettext_noop("Holds a NUL character."),
    gettext_noop("Holds a lone surrogate (half of a character)."),
)


def in_words(faults: Mapping[str, str]) -> dict[str, str]:
    """The faults by field path, each message translated if it is one of MESSAGES."""
    return {path: gettext(message) if message in MESSAGES else message for path, message in faults.items()}
