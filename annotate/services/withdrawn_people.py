"""Withdrawing all that a person wrote in a project: in steps, so that it bears any number of rankings.

Each step is a transaction of STEP rankings that is whole by itself: blanked, recorded, told to snapshots, webhooks and
caches. What is left to do is what is not withdrawn yet, so nothing has to be remembered: whoever asks again goes on
where it broke off, and two at once do each ranking once. A row of the log stands open until the last step, which holds
back the person's own calls: what they submitted before it is withdrawn, and only what they write afterwards stays.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from celery import current_app
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from annotate.errors import Conflict
from annotate.models import Draft, Project, Ranking, Review, Skip, TaskFlag, User, Withdrawal
from annotate.selectors.withdrawals import written_by
from annotate.services.blanking import blank_rankings, forget_answers, locked_rankings, record
from annotate.services.locks import lock_withdrawals
from annotate.services.queue import one_call_at_a_time

logger = logging.getLogger(__name__)

TASK = "annotate.go_on_withdrawing"
#: Rankings in one transaction: few enough that nobody who submits has to wait.
STEP = 500
#: How long one call of the worker goes on before it rings for the next.
WORKER_SECONDS = 60.0

Progress = Callable[[int], object]


def withdraw_annotator(
    *,
    project: Project,
    annotator: User,
    by: User | None = None,
    reason: str = "",
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Withdrawal:
    """Withdraws every ranking of a person in this project (all revisions, extras too) and all they wrote in words.

    Drafts go; rationales, edited versions, notes of skips, flags and reviews are blanked. Places stay taken. Must not
    run inside a transaction: it commits every STEP rankings.

    Args:
        by: whoever asked for it.
        reason: for the log; what was begun before keeps the one it was begun with.
        seconds: after so long it stops between two steps, and a worker goes on with it; None: it goes on to the end.
        progress: called with the number of rankings withdrawn since the last call.

    Returns:
        The row of the log; its `finished_at` is None while some is left. If nothing was left: that of the last time.

    Raises:
        Conflict: the person has written nothing here (`nothing`).
    """
    row = _begin(project, annotator, by, reason)
    started = time.monotonic()
    while row.finished_at is None and (count := _step(row)) is not None:
        if progress is not None:
            progress(count)
        if seconds is not None and time.monotonic() - started > seconds:
            ring()
            break
    row.refresh_from_db()
    return row


def go_on_withdrawing(*, seconds: float = WORKER_SECONDS) -> int:
    """Goes on with what was begun and is not finished; how many are finished now. A worker and the clock call it."""
    begun = Withdrawal.objects.filter(kind=Withdrawal.Kind.ANNOTATOR, finished_at=None, annotator__isnull=False)
    finished = 0
    for row in begun.select_related("project", "annotator").order_by("pk"):
        assert row.annotator is not None
        done = withdraw_annotator(project=row.project, annotator=row.annotator, seconds=seconds)
        finished += done.finished_at is not None
    return finished


def ring() -> None:
    """Wakes a worker. Without a broker the clock finds what is left."""
    try:
        current_app.send_task(TASK, expires=600, retry=False, ignore_result=True)
    except OperationalError as error:
        logger.warning("the broker did not take the doorbell for a withdrawal: %s", error)


@transaction.atomic
def _begin(project: Project, annotator: User, by: User | None, reason: str) -> Withdrawal:
    lock_withdrawals(project)
    one_call_at_a_time(project=project, annotator=annotator)  # what is being submitted is not nothing
    rows = Withdrawal.objects.filter(project=project, annotator=annotator, kind=Withdrawal.Kind.ANNOTATOR)
    begun = rows.filter(finished_at=None).first()
    if begun is None and not any(written_by(project, annotator).values()):
        begun = rows.order_by("-pk").first()
        if begun is None:
            raise Conflict(_("%(name)s has written nothing here.") % {"name": annotator.username}, code="nothing")
    if begun is None:
        of = {"project": project, "annotator": annotator}
        begun = Withdrawal.objects.create(kind=Withdrawal.Kind.ANNOTATOR, by=by, reason=reason, **of)
    return begun


@transaction.atomic
def _step(row: Withdrawal) -> int | None:
    """Withdraws the next rankings and returns how many; None when nothing was left and the row is finished."""
    project, annotator = row.project, row.annotator
    assert annotator is not None
    lock_withdrawals(project)
    mine = Ranking.objects.filter(project=project, annotator=annotator, withdrawn_at=None)
    if not mine.exists():
        one_call_at_a_time(project=project, annotator=annotator)  # and what is asked next is of a moment after them
    rankings = list(mine.order_by("pk").values_list("pk", flat=True)[:STEP])
    if not rankings:
        _finish(row)
        return None
    tasks = Ranking.objects.filter(pk__in=rankings).values_list("task", flat=True)
    locked = locked_rankings(mine.filter(task__in=list(tasks)))
    drafts, _rows = Draft.objects.filter(task__rankings__in=locked, annotator=annotator).delete()
    written = Ranking.objects.filter(pk__in=locked)
    counts = {
        "rankings": len(locked),
        "answers": written.values("task").distinct().count(),
        "extras": written.filter(counted=False).count(),
        "rationales": written.filter(rationale__isnull=False).count(),
        "rewrites": written.filter(rewrite_text__isnull=False).count(),
        "drafts": drafts,
    }
    changes = blank_rankings(project, locked)
    _add(row, counts)
    record(project, changes)
    return len(locked)


def _finish(row: Withdrawal) -> None:
    """The last step: what is no ranking."""
    mine = {"annotator": row.annotator, "task__project": row.project}
    counts = {
        "drafts": Draft.objects.filter(**mine).delete()[0],
        "skip_notes": Skip.objects.filter(**mine).exclude(note="").update(note=""),
        "flag_notes": TaskFlag.objects.filter(**mine).exclude(note="").update(note=""),
        "review_notes": Review.objects.filter(reviewer=row.annotator, ranking__project=row.project, withdrawn_at=None)
        .exclude(note="")
        .update(note="", withdrawn_at=Now()),
    }
    assert row.annotator is not None
    forget_answers([row.annotator.pk])
    _add(row, counts)
    Withdrawal.objects.filter(pk=row.pk, finished_at=None).update(finished_at=Now())


def _add(row: Withdrawal, counts: dict[str, int]) -> None:
    locked = Withdrawal.objects.select_for_update(of=("self",)).get(pk=row.pk)
    total = Counter(locked.counts) + Counter(counts)
    Withdrawal.objects.filter(pk=row.pk).update(counts=dict(sorted(total.items())))
