"""What became of a run at those who show it elsewhere: where they do, why no more, and as what they know it."""

import json
from typing import Any

from django.db import connection

from training.models import Run
from training.services.claims import Claim, StaleAttempt

NOTE = """
    UPDATE training_run SET trackers = trackers || jsonb_build_object(
        %(name)s::text, coalesce(trackers -> %(name)s::text, '{}') || %(told)s::jsonb)
    WHERE id = %(run)s AND attempt = %(attempt)s
"""


def note_tracker(claim: Claim, *, name: str, url: str = "", fault: str = "") -> None:
    """Writes where a tracker shows the run, or why it is told no more of it. Nothing, once another attempt has the run.

    Unlike other writes of an attempt this may come shortly after its end: trackers catch up without holding it up.
    """
    _note(claim, name, {"url": url, "fault": fault})


def remember_at_tracker(claim: Claim, *, name: str, known_as: dict[str, Any]) -> None:
    """Writes as what a tracker knows the run, for the next attempt, on whichever machine that is.

    Raises:
        StaleAttempt: another attempt has the run.
    """
    if not _note(claim, name, {"known_as": known_as}):
        raise StaleAttempt(claim)


def known_at_tracker(claim: Claim, *, name: str) -> dict[str, Any]:
    """As what a tracker knows the run by the attempts so far; empty if none was told to it."""
    trackers = Run.objects.values_list("trackers", flat=True).get(pk=claim.run_id)
    found = trackers.get(name, {}).get("known_as")
    return found if isinstance(found, dict) else {}


def _note(claim: Claim, name: str, told: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        values: dict[str, Any] = {"name": name, "told": json.dumps(told), "run": claim.run_id, "attempt": claim.attempt}
        cursor.execute(NOTE, values)
        return int(cursor.rowcount)
