"""Taking in answers. An answer is checked against the rules its lease pinned, and no work is ever thrown away."""

import hashlib
import json
import uuid
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Change, Draft, Entry, Lease, Project, Ranking, Slot, User
from annotate.preferences import Answer, validate_answer
from annotate.selectors.rules import answer_rules
from annotate.services.answer_faults import in_words
from annotate.services.counters import record_changes
from annotate.services.queue import one_call_at_a_time

# Whether the prompt was withdrawn, and the annotator's last revision of a ranking of the task.
_WITHDRAWN_OR_ANSWERED = """
    SELECT prompt.withdrawn_at IS NOT NULL, last.id, last.revision FROM annotate_prompt prompt
    LEFT JOIN LATERAL (
        SELECT id, revision FROM annotate_ranking WHERE task_id = %s AND annotator_id = %s
        ORDER BY revision DESC LIMIT 1) last ON true
    WHERE prompt.id = %s
"""

# The slot, if there is one, is done; the draft goes.
_CLOSE = """
    WITH closed AS (
        UPDATE annotate_slot SET state = 'done', expires_at = NULL, current_ranking_id = %(ranking)s
        WHERE id = %(slot)s)
    DELETE FROM annotate_draft WHERE task_id = %(task)s AND annotator_id = %(annotator)s
"""


@transaction.atomic
def submit_ranking(
    *,
    annotator: User,
    lease_id: uuid.UUID,
    answer: Answer,
    seconds: float | None = None,
    source: str = Ranking.Source.API,
    project: Project | None = None,
) -> Ranking:
    """Writes the ranking and closes the slot in one transaction.

    A lease that expired is still good while nobody else took the slot. After that, a free slot of the task is taken
    if there is one; else the ranking is kept as an extra that does not count. Deletes the draft; locks the slot and,
    last, the project's change counter.

    Args:
        answer: response ids are `str(Response.pk)`.
        seconds: time spent, as the page measured it.
        project: if given, the lease must be of this project.

    Raises:
        NotFound: the lease is not this annotator's, or not of the project.
        Invalid: the answer breaks a rule of the version that the lease pinned; `fields` says where.
        Conflict: this annotator has ranked the task already (code `already_submitted`): revise that ranking; or the
            prompt was withdrawn (`withdrawn`).
    """
    lease = Lease.objects.filter(pk=lease_id, annotator=annotator).select_related("task", "version").first()
    if lease is None or (project is not None and lease.task.project_id != project.pk):
        raise NotFound(_("There is no such lease."))
    lease.annotator = annotator  # known already; it would be read again
    lease.task.project = project or lease.task.project
    one_call_at_a_time(project=lease.task.project, annotator=annotator)
    slot = _slot_for(lease=lease)
    _refuse_withdrawn_or_answered(lease=lease)
    _check(answer, lease=lease)
    ranking = _write(
        lease=lease, slot=slot, answer=answer, seconds=seconds, source=source, counted=slot is not None, revision=1
    )
    with connection.cursor() as cursor:
        ours = {
            "ranking": ranking.pk,
            "slot": slot.pk if slot else None,
            "task": lease.task_id,
            "annotator": annotator.pk,
        }
        cursor.execute(_CLOSE, ours)
    _record(ranking, kind=Change.Kind.RANKING)
    return ranking


def _slot_for(*, lease: Lease) -> Slot | None:
    """The slot that the answer closes, locked and leased to the annotator; None makes the answer an extra."""
    locked = Slot.objects.select_for_update(of=("self",)).filter(task=lease.task)
    held = locked.filter(holder=lease.annotator).only("pk").first()
    if held is not None:
        return held
    free = Slot.objects.filter(task=lease.task, state=Slot.State.FREE, reserved_for=None).order_by("number")
    for pk in list(free.values_list("pk", flat=True)):
        # One at a time and waiting: whoever is taking this slot now may give up, and then it is ours.
        if slot := locked.filter(pk=pk, state=Slot.State.FREE).first():
            _hold(slot, lease=lease)
            return slot
    return None


def _hold(slot: Slot, *, lease: Lease) -> None:
    """Leases a locked free slot to the late annotator, under the terms of the lease they worked with."""
    Slot.objects.filter(pk=slot.pk).update(
        state=Slot.State.LEASED,
        holder=lease.annotator,
        lease=lease,
        version=lease.version,
        presented_order=lease.presented_order,
        expires_at=lease.leased_at,
    )


def _refuse_withdrawn_or_answered(*, lease: Lease) -> None:
    # Asked after the slot was locked: a withdrawal locks the slots before it blanks.
    with connection.cursor() as cursor:
        cursor.execute(_WITHDRAWN_OR_ANSWERED, [lease.task_id, lease.annotator_id, lease.task.prompt_id])
        withdrawn, last, revision = cursor.fetchone()
    if withdrawn:
        raise Conflict("The prompt was withdrawn meanwhile; nothing of it is kept.", code="withdrawn")
    if last is not None:
        raise Conflict(
            "You have ranked this task already; change that ranking instead.",
            code="already_submitted",
            extra={"ranking": last, "revision": revision},
        )


@transaction.atomic
def revise_ranking(
    *,
    ranking_id: int,
    supersedes: int,
    annotator: User,
    answer: Answer,
    seconds: float | None = None,
    source: str = Ranking.Source.API,
    project: Project | None = None,
) -> Ranking:
    """Writes a new revision of the annotator's own ranking; the old one stays.

    Deletes the draft of it; locks the annotator's other calls, the revisions and, last, the project's change counter.

    Args:
        ranking_id: any revision of the ranking.
        supersedes: the revision's id that the annotator saw. It must be the last.
        project: if given, the ranking must be of this project.

    Raises:
        NotFound: not this annotator's ranking, not of the project, or one that was imported.
        Conflict: a later revision exists (code `superseded`), or it was withdrawn (`withdrawn`).
        Invalid: as submit_ranking.
    """
    mine = Ranking.objects.filter(pk=ranking_id, annotator=annotator).exclude(source=Ranking.Source.IMPORT)
    known = mine.select_related("project").first()
    if known is None or known.lease_id is None or project not in {None, known.project}:
        raise NotFound(_("There is no such ranking."))
    one_call_at_a_time(project=known.project, annotator=annotator)
    chain = Ranking.objects.select_for_update(of=("self",)).filter(task=known.task_id, annotator=annotator)
    last = chain.select_related("lease__task__project", "lease__version", "slot").order_by("-revision")[:1].get()
    if last.pk != supersedes:
        raise Conflict(_("A later revision exists; look at it first."), code="superseded", extra={"ranking": last.pk})
    if last.withdrawn_at is not None:
        raise Conflict(_("This ranking was withdrawn."), code="withdrawn")
    assert last.lease is not None
    _check(answer, lease=last.lease)
    ranking = _write(
        lease=last.lease,
        slot=last.slot,
        answer=answer,
        seconds=seconds,
        source=source,
        counted=last.counted,
        revision=last.revision + 1,
        supersedes=last,
    )
    if last.slot_id is not None:
        Slot.objects.filter(pk=last.slot_id).update(current_ranking=ranking)
    Draft.objects.filter(task=last.task_id, annotator=annotator).delete()
    _record(ranking, kind=Change.Kind.REVISION)
    return ranking


def _check(answer: Answer, *, lease: Lease) -> None:
    responses = [str(pk) for pk in lease.presented_order]
    faults = validate_answer(answer, responses=responses, rules=answer_rules(lease.version))
    if faults:
        raise Invalid(_("The answer breaks a rule of the project."), code="invalid_answer", fields=in_words(faults))


def _write(
    *,
    lease: Lease,
    slot: Slot | None,
    answer: Answer,
    seconds: float | None,
    source: str,
    counted: bool,
    revision: int,
    supersedes: Ranking | None = None,
) -> Ranking:
    gaps = max(len(answer.ranking) - 1, 0)
    ranking = Ranking.objects.create(
        project=lease.task.project,
        task=lease.task,
        annotator=lease.annotator,
        slot=slot,
        lease=lease,
        version=lease.version,
        revision=revision,
        supersedes=supersedes,
        counted=counted,
        source=source,
        strengths=list(answer.strengths) if answer.strengths is not None else [None] * gaps,
        all_bad=answer.all_bad,
        ratings=dict(answer.ratings),
        flags={name: list(flags) for name, flags in answer.flags.items() if flags},
        rationale=(answer.rationale or "").strip() or None,
        rewrite_of_id=int(answer.rewrite.of) if answer.rewrite else None,
        rewrite_text=answer.rewrite.text if answer.rewrite else None,
        content_sha256=answer_sha256(answer),
        presented_order=lease.presented_order,
        seconds=seconds,
    )
    tiers = {int(name): number for number, tier in enumerate(answer.ranking, start=1) for name in tier}
    Entry.objects.bulk_create(
        [
            Entry(ranking=ranking, task=lease.task, response_id=pk, tier=tiers.get(pk))
            for pk in lease.presented_order  # all of the task's responses, as the lease took them
        ]
    )
    return ranking


def _record(ranking: Ranking, *, kind: str) -> None:
    record_changes(project=ranking.project, changes=[{"kind": kind, "ranking_id": ranking.pk}])


def answer_sha256(answer: Answer) -> str:
    """The hash that outlives a withdrawal: of the whole answer in one canonical form."""
    content: dict[str, Any] = {
        "ranking": [sorted(tier) for tier in answer.ranking],
        "unranked": sorted(answer.unranked),
        "strengths": list(answer.strengths or [None] * max(len(answer.ranking) - 1, 0)),
        "all_bad": answer.all_bad,
        "ratings": {name: dict(values) for name, values in answer.ratings.items()},
        "flags": {name: sorted(flags) for name, flags in answer.flags.items() if flags},
        "rationale": (answer.rationale or "").strip() or None,
        "rewrite": [answer.rewrite.of, answer.rewrite.text] if answer.rewrite else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
