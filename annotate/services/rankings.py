"""Taking in answers. An answer is checked against the rules its lease pinned, and no work is ever thrown away."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Change, Membership, Project, ProjectVersion, Ranking, Slot, User
from annotate.preferences import Answer, validate_answer
from annotate.prepared import prepared_cursor
from annotate.selectors.rules import answer_rules, columns_of, version_of_row
from annotate.services.answer_faults import in_words
from annotate.services.counters import record_changes
from annotate.services.events import tell_of_ranking
from annotate.services.own_places import machine_of, place_for_late
from annotate.services.queue import one_call_at_a_time

# What the lease pinned; none of it ever changes. With it the annotator's other calls are held back, as
# services.queue.one_call_at_a_time does, so that what is asked next is of a snapshot taken after them.
_BEGUN = f"""
    SELECT lease.task_id, lease.presented_order, lease.leased_at, task.prompt_id, task.project_id,
        {columns_of("version")}, pg_advisory_xact_lock(task.project_id::integer, lease.annotator_id::integer)
    FROM annotate_lease lease
    JOIN annotate_rankingtask task ON task.id = lease.task_id
    JOIN annotate_projectversion version ON version.id = lease.version_id
    WHERE lease.id = %(lease)s AND lease.annotator_id = %(annotator)s
"""

_HELD_SLOT = """
    SELECT id FROM annotate_slot WHERE task_id = %(task)s AND holder_id = %(annotator)s
    ORDER BY id LIMIT 1 FOR UPDATE
"""

# Whether the prompt was withdrawn, and the annotator's last revision of a ranking of the task.
_WITHDRAWN_OR_ANSWERED = """
    SELECT prompt.withdrawn_at IS NOT NULL, last.id, last.revision FROM annotate_prompt prompt
    LEFT JOIN LATERAL (
        SELECT id, revision FROM annotate_ranking WHERE task_id = %(task)s AND annotator_id = %(annotator)s
        ORDER BY revision DESC LIMIT 1) last ON true
    WHERE prompt.id = %(prompt)s
"""

# All that an answer changes, but for the feed: the ranking with its entries comes; the slot, if there is one, is done;
# the draft goes.
_WRITE = """
    WITH written AS (
        INSERT INTO annotate_ranking (project_id, task_id, annotator_id, slot_id, lease_id, version_id, revision,
            supersedes_id, counted, source, strengths, all_bad, ratings, flags, rationale, rewrite_of_id, rewrite_text,
            content_sha256, presented_order, seconds, extra)
        VALUES (%(project_id)s, %(task_id)s, %(annotator_id)s, %(slot_id)s, %(lease_id)s, %(version_id)s, %(revision)s,
            %(supersedes_id)s, %(counted)s, %(source)s, %(strengths)s::smallint[], %(all_bad)s, %(ratings)s::jsonb,
            %(flags)s::jsonb, %(rationale)s, %(rewrite_of_id)s, %(rewrite_text)s, %(content_sha256)s,
            %(presented_order)s::bigint[], %(seconds)s, '{}')
        RETURNING id, submitted_at),
    placed AS (
        INSERT INTO annotate_entry (ranking_id, task_id, response_id, tier)
        SELECT written.id, %(task_id)s, entry.response, entry.tier
        FROM written, unnest(%(presented_order)s::bigint[], %(tiers)s::smallint[]) AS entry(response, tier)),
    closed AS (
        UPDATE annotate_slot SET state = 'done', expires_at = NULL, current_ranking_id = written.id
        FROM written WHERE annotate_slot.id = %(slot_id)s),
    forgotten AS (
        DELETE FROM annotate_draft WHERE task_id = %(task_id)s AND annotator_id = %(annotator_id)s)
    SELECT id, submitted_at FROM written
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a lease says about the answer it is for: never changed, whoever has the slot by now."""

    lease: uuid.UUID
    project: Project
    task: int
    prompt: int
    version: ProjectVersion
    presented_order: list[int]
    leased_at: datetime


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
    """As take_ranking, in a transaction of its own."""
    return take_ranking(
        annotator=annotator, lease_id=lease_id, answer=answer, seconds=seconds, source=source, project=project
    )


def take_ranking(
    *,
    annotator: User,
    lease_id: uuid.UUID,
    answer: Answer,
    seconds: float | None = None,
    source: str = Ranking.Source.API,
    project: Project | None = None,
) -> Ranking:
    """Writes the ranking and closes the slot, in the caller's transaction, which is undone if this raises.

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
    begun = _begun(lease_id, annotator=annotator, project=project)
    slot = _slot_for(begun, annotator=annotator)
    _refuse_withdrawn_or_answered(begun, annotator=annotator)
    _check(answer, begun=begun)
    ranking = _ranking(begun, annotator=annotator, answer=answer, seconds=seconds, source=source)
    ranking.slot_id, ranking.counted = slot, slot is not None
    _write(ranking, answer=answer)
    _record(ranking, kind=Change.Kind.RANKING)
    return ranking


def _begun(lease_id: uuid.UUID, *, annotator: User, project: Project | None) -> Begun:
    """What the lease pinned; holds back the annotator's other calls."""
    with prepared_cursor() as cursor:
        cursor.execute(_BEGUN, {"lease": lease_id, "annotator": annotator.pk})
        row = cursor.fetchone()
    if row is None:
        raise NotFound(_("There is no such lease."))
    task, order, leased_at, prompt, of_project, *version, _lock = row
    if project is None:
        project = Project.objects.get(pk=of_project)
    elif project.pk != of_project:
        raise NotFound(_("There is no such lease."))
    return Begun(lease_id, project, task, prompt, version_of_row(version), order, leased_at)


def _slot_for(begun: Begun, *, annotator: User) -> int | None:
    """The slot that the answer closes, locked and leased to the annotator; None makes the answer an extra."""
    with prepared_cursor() as cursor:
        cursor.execute(_HELD_SLOT, {"task": begun.task, "annotator": annotator.pk})
        if held := cursor.fetchone():
            return int(held[0])
    machine = machine_of(project=begun.project, user=annotator)
    if machine is not None and not machine.fills_places:
        return _own_place(begun, machine=machine)
    free = Slot.objects.filter(task=begun.task, state=Slot.State.FREE, reserved_for=None)
    locked = Slot.objects.select_for_update(of=("self",))
    for pk in list(free.order_by("number").values_list("pk", flat=True)):
        # One at a time and waiting: whoever is taking this slot now may give up, and then it is ours.
        if locked.filter(pk=pk, state=Slot.State.FREE).only("pk").first() is not None:
            _hold(pk, begun=begun, annotator=annotator)
            return pk
    return None


def _own_place(begun: Begun, *, machine: Membership) -> int | None:
    """A place of a machine's own, unless it has answered already, which is refused in a moment."""
    if Slot.objects.filter(task=begun.task, holder=machine.user_id).exists():
        return None
    return place_for_late(lease_id=begun.lease, task=begun.task, project=begun.project, machine=machine)


def _hold(slot: int, *, begun: Begun, annotator: User) -> None:
    """Leases a locked free slot to the late annotator, under the terms of the lease they worked with."""
    Slot.objects.filter(pk=slot).update(
        state=Slot.State.LEASED,
        holder=annotator,
        lease=begun.lease,
        version=begun.version,
        presented_order=begun.presented_order,
        expires_at=begun.leased_at,
    )


def _refuse_withdrawn_or_answered(begun: Begun, *, annotator: User) -> None:
    # Asked after the slot was locked: a withdrawal locks the slots before it blanks.
    with prepared_cursor() as cursor:
        asked = {"task": begun.task, "annotator": annotator.pk, "prompt": begun.prompt}
        cursor.execute(_WITHDRAWN_OR_ANSWERED, asked)
        withdrawn, last, revision = cursor.fetchone()
    if withdrawn:
        raise Conflict(_("The prompt was withdrawn meanwhile; nothing of it is kept."), code="withdrawn")
    if last is not None:
        raise Conflict(
            _("You have ranked this task already; change that ranking instead."),
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
    """As take_revision, in a transaction of its own."""
    return take_revision(
        ranking_id=ranking_id,
        supersedes=supersedes,
        annotator=annotator,
        answer=answer,
        seconds=seconds,
        source=source,
        project=project,
    )


def take_revision(
    *,
    ranking_id: int,
    supersedes: int,
    annotator: User,
    answer: Answer,
    seconds: float | None = None,
    source: str = Ranking.Source.API,
    project: Project | None = None,
) -> Ranking:
    """Writes a new revision of the annotator's own ranking, in the caller's transaction; the old one stays.

    Deletes the draft of it; locks the annotator's other calls, the revisions and, last, the project's change counter.

    Args:
        ranking_id: any revision of the ranking.
        supersedes: the revision's id that the annotator saw. It must be the last.
        project: if given, the ranking must be of this project.

    Raises:
        NotFound: not this annotator's ranking, not of the project, or one that was imported.
        Conflict: a later revision exists (code `superseded`), or it was withdrawn (`withdrawn`).
        Invalid: as take_ranking.
    """
    mine = Ranking.objects.filter(pk=ranking_id, annotator=annotator).exclude(source=Ranking.Source.IMPORT)
    known = mine.select_related("project").first()
    if known is None or known.lease_id is None or project not in {None, known.project}:
        raise NotFound(_("There is no such ranking."))
    one_call_at_a_time(project=known.project, annotator=annotator)
    chain = Ranking.objects.select_for_update(of=("self",)).filter(task=known.task_id, annotator=annotator)
    last = chain.select_related("lease__task__project", "lease__version").order_by("-revision")[:1].get()
    if last.pk != supersedes:
        raise Conflict(_("A later revision exists; look at it first."), code="superseded", extra={"ranking": last.pk})
    if last.withdrawn_at is not None:
        raise Conflict(_("This ranking was withdrawn."), code="withdrawn")
    begun = _begun_with(last)
    _check(answer, begun=begun)
    ranking = _ranking(begun, annotator=annotator, answer=answer, seconds=seconds, source=source)
    ranking.revision, ranking.supersedes = last.revision + 1, last
    ranking.slot_id, ranking.counted = last.slot_id, last.counted
    _write(ranking, answer=answer)
    _record(ranking, kind=Change.Kind.REVISION)
    return ranking


def _begun_with(ranking: Ranking) -> Begun:
    lease = ranking.lease
    assert lease is not None
    task = lease.task
    return Begun(lease.pk, task.project, task.pk, task.prompt_id, lease.version, lease.presented_order, lease.leased_at)


def _check(answer: Answer, *, begun: Begun) -> None:
    responses = [str(pk) for pk in begun.presented_order]
    faults = validate_answer(answer, responses=responses, rules=answer_rules(begun.version))
    if faults:
        raise Invalid(_("The answer breaks a rule of the project."), code="invalid_answer", fields=in_words(faults))


def _ranking(begun: Begun, *, annotator: User, answer: Answer, seconds: float | None, source: str) -> Ranking:
    """The answer as a first revision, not yet written and without a slot."""
    gaps = max(len(answer.ranking) - 1, 0)
    return Ranking(
        project=begun.project,
        task_id=begun.task,
        annotator=annotator,
        lease_id=begun.lease,
        version=begun.version,
        source=source,
        strengths=list(answer.strengths) if answer.strengths is not None else [None] * gaps,
        all_bad=answer.all_bad,
        ratings=dict(answer.ratings),
        flags={name: list(flags) for name, flags in answer.flags.items() if flags},
        rationale=(answer.rationale or "").strip() or None,
        rewrite_of_id=int(answer.rewrite.of) if answer.rewrite else None,
        rewrite_text=answer.rewrite.text if answer.rewrite else None,
        content_sha256=answer_sha256(answer),
        presented_order=begun.presented_order,
        seconds=seconds,
    )


def _write(ranking: Ranking, *, answer: Answer) -> None:
    """Inserts the ranking with an entry for each response shown, closes its slot and deletes the draft."""
    tiers = {int(name): number for number, tier in enumerate(answer.ranking, start=1) for name in tier}
    values = {name: value for name, value in vars(ranking).items() if not name.startswith("_")}
    values |= {"ratings": json.dumps(ranking.ratings), "flags": json.dumps(ranking.flags)}
    values["tiers"] = [tiers.get(pk) for pk in ranking.presented_order]
    with prepared_cursor() as cursor:
        cursor.execute(_WRITE, values)
        ranking.pk, ranking.submitted_at = cursor.fetchone()
    ranking._state.adding, ranking._state.db = False, connection.alias


def _record(ranking: Ranking, *, kind: str) -> None:
    recorded = record_changes(project=ranking.project, changes=[{"kind": kind, "ranking_id": ranking.pk}])
    if recorded.has_webhooks:
        tell_of_ranking(ranking, kind=kind, change=recorded.last)


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
