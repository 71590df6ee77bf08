"""Where trackers show a run, as its page says."""

import json

from django.db import connection

from training.services.claims import Claim

NOTE = """
    UPDATE training_run SET trackers = trackers || jsonb_build_object(%(name)s::text, %(told)s::jsonb)
    WHERE id = %(run)s AND attempt = %(attempt)s
"""


def note_tracker(claim: Claim, *, name: str, url: str = "", fault: str = "") -> None:
    """Writes where a tracker shows the run, or why it is told no more of it. Nothing, once another attempt has the run.

    Unlike other writes of an attempt this may come shortly after its end: trackers catch up without holding it up.
    """
    told = json.dumps({"url": url, "fault": fault})
    with connection.cursor() as cursor:
        cursor.execute(NOTE, {"name": name, "told": told, "run": claim.run_id, "attempt": claim.attempt})
