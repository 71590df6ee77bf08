"""What the ranking page's script says: one catalogue, translated on the server, so that the script holds no language.

Placeholders in braces are filled in by the script.
"""

import json
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import pgettext


def workbench_words() -> str:
    """All texts of the workbench's script in the language of the request, as JSON."""
    return json.dumps(_saying() | _labels() | _events(), ensure_ascii=False)


def _saying() -> dict[str, Any]:
    ordinals = [
        pgettext("rank", "1st"),
        pgettext("rank", "2nd"),
        pgettext("rank", "3rd"),
        pgettext("rank", "4th"),
        pgettext("rank", "5th"),
        pgettext("rank", "6th"),
        pgettext("rank", "7th"),
        pgettext("rank", "8th"),
        pgettext("rank", "9th"),
    ]
    tied = _("{place}, tied")
    return {
        "ordinals": ordinals,
        "tied": [tied.format(place=ordinal) for ordinal in ordinals],
        "unranked": pgettext("place of a response", "unranked"),
        "tie": _("tie"),
        "nothing": _("Nothing placed yet"),
        "allBad": _("All bad"),
        "rest": _("{letters} unranked"),
        "edited": _("with an edited version of {letter}"),
        "tier": _("{place}: {letters}"),
        "none": pgettext("responses in a tier", "none"),
        "better": _("{tier}, {strength} than the next"),
        "strengths": [_("slightly better"), _("clearly better"), _("much better")],
        "shortStrengths": [
            pgettext("strength of a preference", "slightly"),
            pgettext("strength of a preference", "clearly"),
            pgettext("strength of a preference", "much better"),
        ],
        "problems": {
            "two": _("Place at least two responses, or say that all are bad."),
            "twoOnly": _("Place at least two responses."),
            "partial": _("Place every response."),
            "strength": _("Say how much better, for each step."),
            "rating": _("Rate {letter}: {label}."),
            "rationale": _("Say why, in the notes."),
            "unchanged": _("Nothing is changed yet."),
        },
    }


def _labels() -> dict[str, Any]:
    return {
        "strength": _("{upper} {strength} than {lower}"),
        "strengthGroup": _("How much better?"),
        "placeHere": _("Place {letter}: {place}"),
        "gap": _("New tier above {place}"),
        "placeGap": _("Place {letter} in a new tier above {place}"),
        "response": _("Response {letter}, {place}"),
        "press": _("Press {key} to place {letter} {place}."),
        "rewriteOf": _("Your edited version of {letter}"),
    }


def _events() -> dict[str, Any]:
    return {
        "states": {
            "saved": _("Saved"),
            "saving": _("Saving…"),
            "offline": _("Offline – kept in this browser"),
            "waiting": _("The server is busy – trying again"),
            "sending": _("Submitting…"),
            "lost": _("Not saved"),
        },
        "submitted": _("Submitted."),
        "kept": _("{message} Your work is kept in this browser."),
        "refused": _("The server did not accept this"),
        "backToIt": _("{message} Your answer is kept, and the task comes back so that you can correct it."),
        "already": [
            _("You have ranked this task already"),
            _(
                "Another tab or an earlier visit sent an answer. What you have here is kept: submit it as a new "
                "revision, or leave that answer as it is."
            ),
        ],
        "flagged": {
            "title": _("Flagged"),
            "text": _("The manager will look at this task. You can still rank or skip it."),
        },
        "noEarlier": {
            "title": _("Back"),
            "text": _("There is no earlier answer of yours in this project."),
        },
        "leaseEnded": _(
            "Your hold on this task has run out and someone else may have it. You can still submit: nothing is lost."
        ),
    }
