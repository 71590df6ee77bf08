"""What an annotator has arranged but not submitted."""

import json
import uuid
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Draft, Lease, User
from annotate.services.queue import one_call_at_a_time

MAX_DRAFT_BYTES = 1_000_000

# Locked, because a withdrawal of the ranking deletes the draft of its revision.
_LAST_RANKING = """
    SELECT id, revision, withdrawn_at FROM annotate_ranking WHERE task_id = %s AND annotator_id = %s
    ORDER BY revision DESC LIMIT 1 FOR SHARE
"""


@transaction.atomic
def save_draft(*, lease_id: uuid.UUID, annotator: User, seen_version: int, body: dict[str, Any]) -> Draft:
    """Writes the draft as the version after the one that the page saw (0: none).

    Works also after the lease expired: unsubmitted work is kept until it is submitted. After that, a draft is one of
    the next revision and names the last one in `body["revises"]`. Holds back the annotator's other calls, so that no
    draft is left behind by a submit at the same moment; locks prompt and ranking against a withdrawal, for the same.

    Raises:
        NotFound: the lease is not this annotator's.
        Conflict: another tab wrote a later draft (code `stale_draft`, `extra["draft"]` holds it); the task has been
            submitted, or revised meanwhile (`already_submitted`, `extra` names ranking and revision); or the prompt or
            the ranking was withdrawn (`withdrawn`).
        Invalid: over 1 MB.
    """
    if len(json.dumps(body)) > MAX_DRAFT_BYTES:
        raise Invalid(_("A draft holds at most 1 MB."), fields={"body": "Too large."})
    lease = Lease.objects.select_related("task__project").filter(pk=lease_id, annotator=annotator).first()
    if lease is None:
        raise NotFound(_("There is no such lease."))
    one_call_at_a_time(project=lease.task.project, annotator=annotator)
    _refuse_withdrawn(lease)
    _refuse_submitted(lease=lease, revises=body.get("revises"))
    if seen_version == 0:
        draft, created = Draft.objects.get_or_create(
            task_id=lease.task_id, annotator=annotator, defaults={"body": body}
        )
        if created:
            return draft
    current = Draft.objects.select_for_update().filter(task=lease.task_id, annotator=annotator).first()
    if current is None or current.version != seen_version:
        raise Conflict(
            _("Another tab has changed this draft."),
            code="stale_draft",
            extra={"draft": {"version": current.version, "body": current.body} if current else None},
        )
    current.version += 1
    current.body = body
    Draft.objects.filter(pk=current.pk).update(version=current.version, body=body, updated_at=Now())
    return current


def _refuse_withdrawn(lease: Lease) -> None:
    """Waits for a withdrawal that is under way, and keeps others waiting until the draft is there to be deleted."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT withdrawn_at FROM annotate_prompt WHERE id = %s FOR SHARE", [lease.task.prompt_id])
        found = cursor.fetchone()
    if found is None:  # its import was undone
        raise NotFound(_("There is no such lease."))
    if found[0] is not None:
        raise Conflict(_("The prompt was withdrawn meanwhile; nothing of it is kept."), code="withdrawn")


def _refuse_submitted(*, lease: Lease, revises: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_LAST_RANKING, [lease.task_id, lease.annotator_id])
        last = cursor.fetchone()
    if last is None:
        return
    pk, revision, withdrawn_at = last
    if withdrawn_at is not None:
        raise Conflict(_("This ranking was withdrawn."), code="withdrawn")
    if str(revises) != str(pk):
        extra = {"ranking": pk, "revision": revision}
        raise Conflict(_("This task has been submitted."), code="already_submitted", extra=extra)
