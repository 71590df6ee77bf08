"""What an annotator has arranged but not submitted."""

import json
import uuid
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Draft, Lease, Ranking, User
from annotate.services.queue import one_call_at_a_time

MAX_DRAFT_BYTES = 1_000_000


@transaction.atomic
def save_draft(*, lease_id: uuid.UUID, annotator: User, seen_version: int, body: dict[str, Any]) -> Draft:
    """Writes the draft as the version after the one that the page saw (0: none).

    Works also after the lease expired: unsubmitted work is kept until it is submitted. After that, a draft is one of
    the next revision and names the last one in `body["revises"]`. Holds back the annotator's other calls, so that no
    draft is left behind by a submit at the same moment.

    Raises:
        NotFound: the lease is not this annotator's.
        Conflict: another tab wrote a later draft (code `stale_draft`, `extra["draft"]` holds it), or the task has been
            submitted, or revised meanwhile (code `already_submitted`).
        Invalid: over 1 MB.
    """
    if len(json.dumps(body)) > MAX_DRAFT_BYTES:
        raise Invalid(_("A draft holds at most 1 MB."), fields={"body": "Too large."})
    lease = Lease.objects.select_related("task__project").filter(pk=lease_id, annotator=annotator).first()
    if lease is None:
        raise NotFound(_("There is no such lease."))
    one_call_at_a_time(project=lease.task.project, annotator=annotator)
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


def _refuse_submitted(*, lease: Lease, revises: object) -> None:
    last = Ranking.objects.filter(task=lease.task_id, annotator=lease.annotator_id).order_by("-revision").first()
    if last is not None and (str(revises) != str(last.pk) or last.withdrawn_at is not None):
        raise Conflict(_("This task has been submitted."), code="already_submitted")
