"""Answers: taken whole, checked against what was shown, revised and never lost."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotate.errors import Conflict, Invalid, NotFound
from annotate.models import Change, Draft, Entry, Lease, Project, Ranking, Slot, User
from annotate.preferences import Answer, Rewrite
from annotate.services import blanking
from annotate.services.counters import record_changes
from annotate.services.drafts import save_draft
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.projects import change_rules
from annotate.services.queue import next_leases, release_lease
from annotate.services.rankings import revise_ranking, submit_ranking
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, at_once, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture
def bob(project: Project) -> User:
    return make_user(project=project)


def lease(project: Project, annotator: User) -> Slot:
    return next_leases(project=project, annotator=annotator)[0]


def test_a_ranking_is_stored_as_given(project: Project, bob: User) -> None:
    make_task(project, ["a", "b", "c", "d"])
    slot = lease(project, bob)
    answer = answer_of(slot, tiers=[[2], [0, 3]], strengths=[2], rationale=" clear ")
    ranking = submit_ranking(annotator=bob, lease_id=slot.lease_id, answer=answer, seconds=12.5, source="page")
    tiers = dict(Entry.objects.filter(ranking=ranking).values_list("response_id", "tier"))
    shown = slot.presented_order or []
    assert tiers == {shown[2]: 1, shown[0]: 2, shown[3]: 2, shown[1]: None}
    ranking.refresh_from_db()
    assert (ranking.strengths, ranking.rationale, ranking.seconds, ranking.counted) == ([2], "clear", 12.5, True)
    slot.refresh_from_db()
    assert slot.state == Slot.State.DONE and slot.current_ranking == ranking
    assert Change.objects.get().ranking == ranking


def test_an_untouched_or_broken_answer_is_refused_and_nothing_is_written(project: Project, bob: User) -> None:
    make_task(project)
    slot = lease(project, bob)
    ids = [str(pk) for pk in slot.presented_order or []]
    broken = [
        Answer(ranking=[], unranked=ids),
        Answer(ranking=[[ids[0]]], unranked=ids[1:]),
        Answer(ranking=[[ids[0]], [ids[1]]]),
        Answer(ranking=[[ids[0]], [ids[1]], [ids[2], ids[0]]]),
        Answer(ranking=[[ids[0]], [ids[1]], ["999999"]], unranked=[ids[2]]),
        Answer(ranking=[[ids[0]], [], [ids[1], ids[2]]]),
        Answer(ranking=[[ids[0]], ids[1:]], strengths=[4]),
        Answer(ranking=[[ids[0]], ids[1:]], strengths=[1, 1]),
        Answer(ranking=[[ids[0]], ids[1:]], rewrite=Rewrite("999999", "x")),
        Answer(ranking=[[ids[0]], ids[1:]], flags={ids[0]: ["no such flag"]}),
    ]
    for answer in broken:
        with pytest.raises(Invalid) as caught:
            submit_ranking(annotator=bob, lease_id=slot.lease_id, answer=answer)
        assert caught.value.fields
    assert Ranking.objects.count() == 0 and Change.objects.count() == 0


def test_the_rules_are_those_the_lease_pinned(project: Project, bob: User) -> None:
    make_task(project)
    make_task(project)
    slot = lease(project, bob)
    change_rules(project=project, changed_by=bob, allow_ties=False)
    submit(slot, bob, tiers=[[0, 1], [2]])
    with pytest.raises(Invalid):
        submit(lease(project, bob), bob, tiers=[[0, 1], [2]])


def test_all_bad_alone_is_an_answer(project: Project, bob: User) -> None:
    make_task(project)
    assert submit(lease(project, bob), bob, tiers=[], all_bad=True).all_bad


def test_a_late_answer_takes_a_free_slot_else_is_kept_as_an_extra(project: Project, bob: User) -> None:
    make_task(project)
    carol = make_user(project=project)
    late = lease(project, bob)
    Slot.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    taken = lease(project, carol)
    submit(taken, carol)
    extra = submit(late, bob)
    assert extra.slot is None and not extra.counted
    assert next_leases(project=project, annotator=bob) == []


def test_after_release_a_late_answer_takes_the_free_slot(project: Project, bob: User) -> None:
    make_task(project)
    carol = make_user(project=project)
    slot = lease(project, bob)
    Slot.objects.filter(pk=slot.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    other = lease(project, carol)
    assert other.lease_id is not None
    release_lease(lease_id=other.lease_id, annotator=carol)
    ranking = submit(slot, bob)
    assert ranking.counted and ranking.slot_id == slot.pk


def test_someone_elses_lease_is_not_found(project: Project, bob: User) -> None:
    make_task(project)
    slot = lease(project, bob)
    with pytest.raises(NotFound):
        submit(slot, make_user(project=project))


def test_a_revision_keeps_the_old_one_and_names_it(project: Project, bob: User) -> None:
    make_task(project)
    slot = lease(project, bob)
    first = submit(slot, bob)
    second = revise_ranking(
        ranking_id=first.pk, supersedes=first.pk, annotator=bob, answer=answer_of(slot, tiers=[[1], [0], [2]])
    )
    assert (second.revision, second.supersedes, second.slot, second.counted) == (2, first, first.slot, True)
    slot.refresh_from_db()
    assert slot.current_ranking == second
    with pytest.raises(Conflict) as caught:
        revise_ranking(ranking_id=first.pk, supersedes=first.pk, annotator=bob, answer=answer_of(slot))
    assert caught.value.extra == {"ranking": second.pk}
    assert list(Change.objects.order_by("number").values_list("kind", flat=True)) == ["ranking", "revision"]


def test_an_extra_can_be_revised_and_stays_an_extra(project: Project, bob: User) -> None:
    make_task(project)
    carol = make_user(project=project)
    late = lease(project, bob)
    Slot.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    submit(lease(project, carol), carol)
    extra = submit(late, bob)
    again = revise_ranking(ranking_id=extra.pk, supersedes=extra.pk, annotator=bob, answer=answer_of(late))
    assert again.slot is None and not again.counted


def test_drafts_count_versions_and_refuse_a_stale_write(project: Project, bob: User) -> None:
    make_task(project)
    slot = lease(project, bob)
    assert slot.lease_id is not None
    one = save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=0, body={"n": 1})
    two = save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=one.version, body={"n": 2})
    assert (one.version, two.version) == (1, 2)
    for stale in (0, 1):
        with pytest.raises(Conflict) as caught:
            save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=stale, body={"n": 3})
        assert caught.value.extra == {"draft": {"version": 2, "body": {"n": 2}}}
    ranking = submit(slot, bob)
    assert Draft.objects.count() == 0
    with pytest.raises(Conflict) as caught:
        save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=0, body={})
    assert caught.value.code == "already_submitted"
    assert caught.value.extra == {"ranking": ranking.pk, "revision": 1}
    with pytest.raises(NotFound):
        save_draft(lease_id=slot.lease_id, annotator=make_user(project=project), seen_version=0, body={})


@pytest.mark.django_db(transaction=True)
def test_no_draft_is_written_by_whoever_types_while_the_prompt_is_withdrawn(
    project: Project, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = make_task(project).prompt
    slot = lease(project, bob)
    under_way, saved = threading.Event(), threading.Event()

    def recorded(**given: Any) -> Any:
        under_way.set()
        saved.wait(timeout=1)  # the one who types has this long to slip through
        return record_changes(**given)

    def work(number: int) -> Any:
        if number == 0:
            return withdraw_prompt(prompt=prompt)
        assert slot.lease_id is not None and under_way.wait(timeout=30)
        try:
            return save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=0, body={"rationale": "of the text"})
        finally:
            saved.set()

    monkeypatch.setattr(blanking, "record_changes", recorded)
    _withdrawn, refused = at_once(2, work)
    assert isinstance(refused, Conflict) and refused.code == "withdrawn"
    assert not Draft.objects.exists()


def test_a_draft_of_a_withdrawn_ranking_is_refused(project: Project, bob: User) -> None:
    make_task(project)
    slot = lease(project, bob)
    ranking = submit(slot, bob)
    withdraw_ranking(ranking=ranking)
    assert slot.lease_id is not None
    with pytest.raises(Conflict) as caught:
        save_draft(lease_id=slot.lease_id, annotator=bob, seen_version=0, body={"revises": str(ranking.pk)})
    assert caught.value.code == "withdrawn"


def test_a_lease_row_outlives_its_end(project: Project, bob: User) -> None:
    make_task(project)
    submit(lease(project, bob), bob)
    assert Lease.objects.filter(annotator=bob).count() == 1


@pytest.mark.django_db(transaction=True)
def test_whoever_wrote_an_extra_is_not_offered_the_task_again(project: Project, bob: User) -> None:
    task = make_task(project)
    carol, dan = make_user(project=project), make_user(project=project)
    late = lease(project, bob)
    Slot.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    submit(lease(project, carol), carol)
    submit(late, bob)
    set_overlap_of_all(project=project, overlap=2)
    assert next_leases(project=project, annotator=bob) == []
    assert lease(project, dan).task_id == task.pk
