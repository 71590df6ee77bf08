"""A project at work, for the pages of managers: people who rank, revise, skip and flag, and things to settle."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.db.models import F
from django.utils import timezone

import annotate
from annotate.models import IdentityLeak, Lease, Membership, Project, Ranking, RankingTask, Response, Role, Slot, User
from annotate.services.demo import RULES
from annotate.services.imports import import_files
from annotate.services.projects import add_member
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking, submit_ranking
from annotate.services.skips import flag_task, skip_task
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of

PROMPTS = Path(annotate.__file__).parent / "demo" / "demo.jsonl"
LEAKING = ("As ChatGPT, I would start with the garlic.", "Start with the garlic, then add the onions.", "No idea.")


@dataclass(frozen=True)
class Busy:
    """Mia manages; Ann and Bob rank, Bob holds a task for long; Cem skips all the time; Rita reviews; Dora has left."""

    project: Project
    mia: User
    ann: User
    bob: User
    cem: User
    rita: User


def busy_project(*, prompts: bool = True) -> Busy:
    """Makes the project; without the demo's prompts it has eight small tasks."""
    project = make_project("kitchen", overlap=2, rules=RULES, description="Short answers to everyday questions.")
    make_task(project, LEAKING, overlap=2, question="How do I start a soup?", external_id="soup-1")
    if prompts:
        import_files(project=project, files=[PROMPTS], format="plackett", overlap=2)
    else:
        for number in range(8):
            make_task(project, overlap=2, question=f"What is {number} + {number}?")
    mia = make_user("mia", project=project, role=Role.MANAGER, engineer=True)
    people = [make_user(name, project=project) for name in ("ann", "bob", "cem")]
    ann, bob, cem = people
    rita = make_user("rita", project=project, role=Role.REVIEWER)
    dora = make_user("dora")
    add_member(project=project, user=dora)
    _work(project, ann=ann, bob=bob, cem=cem)
    Membership.objects.filter(user=dora).update(deactivated_at=F("created_at"))
    return Busy(project, mia, ann, bob, cem, rita)


def _work(project: Project, *, ann: User, bob: User, cem: User) -> None:
    first = _rank(project, ann, [[1], [0, 2]], strengths=[2], rationale="The second one is right and short.")
    _rank(project, ann, [[0], [2], [1]], seconds=48)
    _rank(project, ann, [[2], [0]], seconds=150.0)
    _rank(project, bob, [[0, 1]], seconds=31, all_bad=True)
    revise_ranking(
        ranking_id=first.pk,
        supersedes=first.pk,
        annotator=ann,
        answer=answer_of(first.slot, tiers=[[1], [2], [0]], strengths=[3, 1], rationale="On a second look."),  # type: ignore[arg-type]
        seconds=20,
        source="page",
    )
    for _ in range(5):
        _skip(project, cem)
    _flag(project, cem, "unclear", "Which soup?")
    _flag(project, bob, "unsafe", "Somebody could get hurt by following this.")
    _went_quiet(next_leases(project=project, annotator=bob)[0], minutes=50)
    response = Response.objects.filter(prompt__external_id="soup-1").order_by("key")[0]
    IdentityLeak.objects.create(project=project, response=response, phrase="As ChatGPT,")


def _went_quiet(slot: Slot, *, minutes: int) -> None:
    """As if the task had been leased then, without a sign of life since."""
    assert slot.holder is not None and slot.version is not None and slot.presented_order is not None
    then = timezone.now() - timedelta(minutes=minutes)
    earlier = Lease.objects.create(
        task=slot.task,
        annotator=slot.holder,
        version=slot.version,
        presented_order=slot.presented_order,
        leased_at=then,
    )
    expires_at = then + timedelta(seconds=slot.project.lease_seconds)
    Slot.objects.filter(pk=slot.pk).update(lease=earlier, expires_at=expires_at)


def _rank(
    project: Project, person: User, tiers: list[list[int]], *, seconds: float = 95.0, **answer: object
) -> Ranking:
    (slot,) = next_leases(project=project, annotator=person)
    assert slot.lease_id is not None
    said = answer_of(slot, tiers=tiers, **answer)
    return submit_ranking(annotator=person, lease_id=slot.lease_id, answer=said, seconds=seconds, source="page")


def _skip(project: Project, person: User) -> None:
    (slot,) = next_leases(project=project, annotator=person)
    assert slot.lease_id is not None
    skip_task(lease_id=slot.lease_id, annotator=person, reason="expert")


def _flag(project: Project, person: User, kind: str, note: str) -> RankingTask:
    (slot,) = next_leases(project=project, annotator=person)
    assert slot.lease_id is not None
    flag_task(lease_id=slot.lease_id, annotator=person, kind=kind, note=note)
    return slot.task
