"""Who gets which task, alone and in crowds."""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Count, Q
from django.utils import timezone

from annotate.errors import Conflict, Invalid, NotFound
from annotate.interchange.native import record_from_object
from annotate.models import Change, Lease, QueueCursor, Ranking, RankingTask, Skip, Slot
from annotate.services import queue
from annotate.services.import_undo import undo_import
from annotate.services.imports import import_records
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.queue import extend_lease, next_leases, release_hold, release_lease, reoffer
from annotate.services.rankings import submit_ranking
from annotate.services.skips import flag_task, skip_task
from annotate.services.tasks import create_repeat
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, at_once, submit

pytestmark = pytest.mark.django_db


def expire(slot: Slot) -> None:
    Slot.objects.filter(pk=slot.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def test_tasks_come_in_order_and_never_twice_to_one_person() -> None:
    project = make_project(overlap=3)
    tasks = [make_task(project, overlap=3) for _ in range(4)]
    bob = make_user(project=project)
    seen = []
    while leased := next_leases(project=project, annotator=bob):
        seen.append(leased[0].task_id)
        submit(leased[0], bob)
    assert seen == [task.pk for task in tasks]
    assert next_leases(project=project, annotator=bob) == []


def test_open_leases_come_first_and_a_lost_reply_leaks_none() -> None:
    project = make_project()
    for _ in range(5):
        make_task(project)
    bob = make_user(project=project)
    lost = next_leases(project=project, annotator=bob, count=2)
    again = next_leases(project=project, annotator=bob, count=2)
    assert [slot.lease_id for slot in again] == [slot.lease_id for slot in lost]
    assert [slot.lease_id for slot in next_leases(project=project, annotator=bob)] == [lost[0].lease_id]
    assert Slot.objects.filter(state="leased").count() == 2
    assert Lease.objects.count() == 2


def test_a_closed_project_hands_out_what_is_held_with_its_full_time_and_nothing_else() -> None:
    project = make_project()
    for _ in range(3):
        make_task(project)
    bob, ann = make_user(project=project), make_user(project=project)
    (held,) = next_leases(project=project, annotator=bob)
    expire(held)
    project.archived_at = timezone.now()
    project.save()
    (again,) = next_leases(project=project, annotator=bob, count=2)
    assert again.lease_id == held.lease_id and again.expires_at > timezone.now()
    with pytest.raises(Conflict) as caught:
        next_leases(project=project, annotator=ann)
    assert caught.value.code == "project_closed"


def test_the_limit_of_open_leases_is_the_projects() -> None:
    project = make_project(open_lease_limit=2)
    make_task(project)
    bob = make_user(project=project)
    for count in (0, 3):
        with pytest.raises(Invalid):
            next_leases(project=project, annotator=bob, count=count)


def test_higher_priority_comes_first_even_when_it_arrives_later() -> None:
    project = make_project()
    make_task(project)
    bob = make_user(project=project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    make_task(project)
    urgent = make_task(project, priority=RankingTask.Priority.URGENT)
    assert next_leases(project=project, annotator=bob)[0].task_id == urgent.pk


def test_an_expired_lease_goes_to_another_and_comes_before_untouched_tasks() -> None:
    project = make_project()
    first = make_task(project)
    make_task(project)
    bob, carol = make_user(project=project), make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    expire(slot)
    assert next_leases(project=project, annotator=carol)[0].task_id == first.pk


def test_an_expired_lease_that_nobody_took_is_renewed_for_its_holder() -> None:
    project = make_project()
    make_task(project)
    bob = make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    expire(slot)
    again = next_leases(project=project, annotator=bob)[0]
    assert again.lease_id == slot.lease_id
    assert again.expires_at is not None and again.expires_at > timezone.now()


def test_extend_and_release() -> None:
    project = make_project(lease_seconds=600)
    make_task(project)
    bob, carol = make_user(project=project), make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    assert slot.lease_id is not None
    expire(slot)
    extended = extend_lease(lease_id=slot.lease_id, annotator=bob)
    assert extended.expires_at is not None and extended.expires_at > timezone.now() + timedelta(seconds=500)
    with pytest.raises(NotFound):
        extend_lease(lease_id=slot.lease_id, annotator=carol)
    release_lease(lease_id=slot.lease_id, annotator=bob)
    with pytest.raises(Conflict):
        extend_lease(lease_id=slot.lease_id, annotator=bob)
    assert next_leases(project=project, annotator=carol)[0].task_id == slot.task_id


def test_a_skipped_task_is_for_others_and_is_held_at_the_limit() -> None:
    project = make_project(skip_limit=2)
    task = make_task(project)
    bob, carol, dan = (make_user(project=project) for _ in range(3))
    for person in (bob, carol):
        slot = next_leases(project=project, annotator=person)[0]
        assert slot.lease_id is not None
        skip_task(lease_id=slot.lease_id, annotator=person, reason="unclear")
        assert next_leases(project=project, annotator=person) == []
    task.refresh_from_db()
    assert task.state == RankingTask.State.HELD
    assert next_leases(project=project, annotator=dan) == []
    release_hold(task=task)
    assert next_leases(project=project, annotator=bob) == []
    assert next_leases(project=project, annotator=dan)[0].task_id == task.pk
    assert list(Change.objects.order_by("number").values_list("number", "kind")) == [(1, "skip"), (2, "skip")]


def test_an_unsafe_flag_holds_the_task_at_once_but_the_answer_is_still_taken() -> None:
    project = make_project(overlap=2)
    task = make_task(project, overlap=2)
    bob, carol = make_user(project=project), make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    assert slot.lease_id is not None
    flag_task(lease_id=slot.lease_id, annotator=bob, kind="unsafe")
    assert next_leases(project=project, annotator=carol) == []
    submit(slot, bob)
    task.refresh_from_db()
    assert task.state == RankingTask.State.HELD and Ranking.objects.count() == 1


def test_what_was_lost_can_be_skipped_and_flagged_but_what_was_answered_only_flagged() -> None:
    project = make_project(skip_limit=1)
    task = make_task(project)
    bob, carol = make_user(project=project), make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    assert slot.lease_id is not None
    expire(slot)
    taken = next_leases(project=project, annotator=carol)[0]
    assert taken.lease_id is not None
    flag_task(lease_id=slot.lease_id, annotator=bob, kind="expert")
    skip_task(lease_id=slot.lease_id, annotator=bob, reason="long")
    for again in (skip_task, flag_task):
        with pytest.raises(Conflict) as refused:
            again(lease_id=slot.lease_id, annotator=bob, **{"reason" if again is skip_task else "kind": "unsafe"})
        assert refused.value.code == "lease_ended"
    task.refresh_from_db()
    assert task.state == RankingTask.State.HELD  # the skip counts towards the limit
    assert Slot.objects.get().lease_id == taken.lease_id  # and takes nothing from whoever has the task now
    submit(taken, carol)
    flag_task(lease_id=taken.lease_id, annotator=carol, kind="unclear")
    with pytest.raises(Conflict):
        skip_task(lease_id=taken.lease_id, annotator=carol, reason="long")
    assert set(task.flags.values_list("annotator", "kind")) == {(bob.pk, "expert"), (carol.pk, "unclear")}
    assert Skip.objects.count() == 1


def test_a_task_held_under_a_newer_lease_is_skipped_under_that_one() -> None:
    project = make_project()
    make_task(project)
    bob = make_user(project=project)
    old = next_leases(project=project, annotator=bob)[0].lease_id
    assert old is not None
    release_lease(lease_id=old, annotator=bob)
    (slot,) = next_leases(project=project, annotator=bob)
    assert slot.lease_id not in {None, old}
    with pytest.raises(Conflict):
        skip_task(lease_id=old, annotator=bob, reason="long")
    assert not Skip.objects.exists() and Slot.objects.get().lease_id == slot.lease_id


def test_a_repeat_is_offered_to_its_person_alone() -> None:
    project = make_project()
    task = make_task(project)
    bob, carol = make_user(project=project), make_user(project=project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    repeat = create_repeat(task=task, annotator=bob)
    assert next_leases(project=project, annotator=carol) == []
    assert next_leases(project=project, annotator=bob)[0].task_id == repeat.pk


def test_a_sibling_slot_behind_every_cursor_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's cursor passes the task's second slot while he holds the first; then he loses the first to Carol."""
    monkeypatch.setattr(queue, "CURSOR_STEP", 1)
    project = make_project(overlap=2)
    task = make_task(project, overlap=2)
    bob, carol = make_user(project=project), make_user(project=project)
    slot = next_leases(project=project, annotator=bob)[0]
    assert len(next_leases(project=project, annotator=bob, count=2)) == 1
    assert QueueCursor.objects.filter(annotator=bob).exists()
    expire(slot)
    submit(next_leases(project=project, annotator=carol)[0], carol)
    offered = next_leases(project=project, annotator=bob)
    assert [one.task_id for one in offered] == [task.pk]


@pytest.mark.django_db(transaction=True)
def test_raising_overlap_adds_slots_and_lowering_removes_only_free_ones() -> None:
    project = make_project()
    task = make_task(project)
    people = [make_user(project=project) for _ in range(3)]
    submit(next_leases(project=project, annotator=people[0])[0], people[0])
    set_overlap_of_all(project=project, overlap=3)
    assert next_leases(project=project, annotator=people[0]) == []
    submit(next_leases(project=project, annotator=people[1])[0], people[1])
    assert set_overlap_of_all(project=project, overlap=1).kept == 1
    assert next_leases(project=project, annotator=people[2]) == []
    assert task.slots.count() == 2


def test_the_order_shown_is_stored_and_counterbalanced_over_the_slots() -> None:
    project = make_project(overlap=4)
    task = make_task(project, ["a", "b", "c", "d"], overlap=4)
    orders = []
    for _ in range(4):
        person = make_user(project=project)
        slot = next_leases(project=project, annotator=person)[0]
        assert slot.task_id == task.pk and slot.lease is not None
        assert slot.lease.presented_order == slot.presented_order
        orders.append(slot.presented_order)
        ranking = submit(slot, person)
        assert ranking.presented_order == slot.presented_order
    for position in range(4):
        assert len({order[position] for order in orders if order}) == 4


# --- crowds ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_64_parallel_clients_never_overshoot_overlap_3() -> None:
    project = make_project(overlap=3)
    for _ in range(20):
        make_task(project, overlap=3)
    people = [make_user(project=project) for _ in range(64)]

    def work(index: int) -> int:
        done = 0
        while slots := next_leases(project=project, annotator=people[index], count=2):
            for slot in slots:
                submit(slot, people[index])
                done += 1
        return done

    results = at_once(64, work)
    assert [one for one in results if isinstance(one, Exception)] == []
    assert sum(results) == 60
    counted = (
        Ranking.objects.filter(counted=True)
        .values("task")
        .annotate(n=Count("id"), people=Count("annotator", distinct=True))
    )
    assert {(row["n"], row["people"]) for row in counted} == {(3, 3)}
    assert Ranking.objects.filter(counted=False).count() == 0
    assert list(Change.objects.order_by("number").values_list("number", flat=True)) == list(range(1, 61))


@pytest.mark.django_db(transaction=True)
def test_late_answers_of_a_crowd_are_all_kept_and_only_overlap_count() -> None:
    """Ten people held the one slot in turn and all answer at the same moment."""
    project = make_project()
    task = make_task(project)
    people = [make_user(project=project) for _ in range(10)]
    slots = []
    for person in people:
        Slot.objects.filter(state="leased").update(expires_at=timezone.now() - timedelta(seconds=1))
        slots.append(next_leases(project=project, annotator=person)[0])
    results = at_once(10, lambda index: submit(slots[index], people[index]))
    assert all(isinstance(one, Ranking) for one in results), results
    assert Ranking.objects.filter(task=task).count() == 10
    assert Ranking.objects.filter(task=task, counted=True).count() == 1
    assert Slot.objects.get(task=task).state == Slot.State.DONE


@pytest.mark.django_db(transaction=True)
def test_two_tabs_share_leases_and_one_answer_wins() -> None:
    project = make_project()
    for _ in range(3):
        make_task(project)
    bob = make_user(project=project)
    tabs = at_once(2, lambda _: [slot.lease_id for slot in next_leases(project=project, annotator=bob, count=2)])
    assert tabs[0] == tabs[1]
    assert Slot.objects.filter(state="leased").count() == 2
    slot = next_leases(project=project, annotator=bob)[0]
    first, second = at_once(2, lambda _: submit(slot, bob))
    won, lost = (first, second) if isinstance(first, Ranking) else (second, first)
    assert isinstance(won, Ranking)
    assert isinstance(lost, Conflict) and lost.code == "already_submitted" and lost.extra["ranking"] == won.pk


@pytest.mark.django_db(transaction=True)
def test_a_crowd_on_one_task_with_leases_that_expire_at_once_neither_deadlocks_nor_overshoots() -> None:
    project = make_project(overlap=2)
    for _ in range(6):
        make_task(project, overlap=2)
    people = [make_user(project=project) for _ in range(12)]
    stop = time.monotonic() + 4

    def work(index: int) -> None:
        person = people[index]
        while time.monotonic() < stop:
            for slot in next_leases(project=project, annotator=person, count=2):
                assert slot.lease_id is not None
                if (slot.pk + index) % 3 == 0:
                    expire(slot)
                elif (slot.pk + index) % 3 == 1 and index % 2:
                    with contextlib.suppress(Conflict):
                        release_lease(lease_id=slot.lease_id, annotator=person)
                else:
                    try:
                        submit_ranking(annotator=person, lease_id=slot.lease_id, answer=answer_of(slot))
                    except Conflict as error:
                        assert error.code == "already_submitted"

    results = at_once(12, work)
    assert [one for one in results if isinstance(one, Exception)] == []
    counted = RankingTask.objects.annotate(n=Count("rankings", filter=Q(rankings__counted=True)))
    assert all(task.n <= 2 for task in counted)


@pytest.mark.django_db(transaction=True)
def test_a_claim_in_flight_does_not_push_another_cursor_past_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carol looks while Bob's claim is open; he gives up; the task must still come to her."""
    monkeypatch.setattr(queue, "CURSOR_STEP", 1)
    project = make_project()
    first = make_task(project)
    make_task(project)
    bob, carol = make_user(project=project), make_user(project=project)
    with transaction.atomic():
        taken = next_leases(project=project, annotator=bob)[0]
        assert taken.task_id == first.pk
        seen = at_once(1, lambda _: next_leases(project=project, annotator=carol)[0].task_id)
        assert seen != [first.pk]
        transaction.set_rollback(True)
    got = next_leases(project=project, annotator=carol, count=2)
    assert first.pk in {slot.task_id for slot in got}


def test_the_claim_reads_a_handful_of_rows_for_someone_who_ranked_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor makes the queue's length not matter; counted in index rows, not in time."""
    monkeypatch.setattr(queue, "CURSOR_STEP", 4)
    project = make_project(overlap=3)
    for _ in range(40):
        make_task(project, overlap=3)
    bob = make_user(project=project)
    for _ in range(30):
        submit(next_leases(project=project, annotator=bob)[0], bob)
    next_leases(project=project, annotator=bob)
    with connection.cursor() as cursor:
        # Of tables as small as these the planner may read all, whatever the indexes, once it has counted them; and what
        # it has counted must be this project, not what stood there when another test was under way.
        cursor.execute("ANALYZE annotate_slot")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + queue._LOOK,
            {"project": project.pk, "annotator": bob.pk, "lanes": [5]},
        )
        plan = cursor.fetchone()[0][0]["Plan"]
    assert _slots_read(plan) <= 3 * 4 + 6
    assert Skip.objects.count() == 0


def _slots_read(node: dict) -> float:
    """Rows of the slots that a plan looked at, thrown away or not, over all its loops."""
    looked = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    own = looked * node["Actual Loops"] if node.get("Relation Name") == "annotate_slot" else 0
    return own + sum(_slots_read(child) for child in node.get("Plans", []))


def test_leases_taken_in_one_call_come_again_in_the_same_order() -> None:
    project = make_project()
    make_task(project)
    urgent = make_task(project, priority=RankingTask.Priority.URGENT)
    bob = make_user(project=project)
    first = next_leases(project=project, annotator=bob, count=2)
    assert first[0].task_id == urgent.pk
    assert next_leases(project=project, annotator=bob, count=2) == first


# --- taking tasks away while somebody hands one back ------------------------------------------------------------------


def _skip(slot: Slot) -> None:
    assert slot.lease_id is not None and slot.holder is not None
    skip_task(lease_id=slot.lease_id, annotator=slot.holder, reason="long")


def _release(slot: Slot) -> None:
    assert slot.lease_id is not None and slot.holder is not None
    release_lease(lease_id=slot.lease_id, annotator=slot.holder)


def _sweep(slot: Slot) -> None:
    expire(slot)
    next_leases(project=slot.project, annotator=make_user("dan", project=slot.project))


def _undo(task: RankingTask) -> None:
    assert task.prompt.batch is not None
    undo_import(batch=task.prompt.batch)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hand_back", [_skip, _release, _sweep])
@pytest.mark.parametrize("take_away", [lambda task: withdraw_prompt(prompt=task.prompt), _undo])
def test_taking_a_task_away_while_a_place_comes_back_deadlocks_with_nobody(
    monkeypatch: pytest.MonkeyPatch, hand_back: Callable[[Slot], None], take_away: Callable[[RankingTask], None]
) -> None:
    """The one who hands back holds the second place and wants the first, which is free, to offer it anew."""
    project = make_project()
    texts = [{"text": "a good answer"}, {"text": "a bad answer"}]
    import_records(project=project, records=[record_from_object({"prompt": "Why?", "responses": texts})], overlap=2)
    task = RankingTask.objects.get()
    bob, cem = make_user(project=project), make_user(project=project)
    first, second = (next_leases(project=project, annotator=person)[0] for person in (bob, cem))
    _release(first)
    holding = threading.Event()

    def slowly(**given: Any) -> None:
        holding.set()
        time.sleep(0.4)  # time enough to lock the first place and to wait for the second
        reoffer(**given)

    def work(number: int) -> None:
        if number == 0:
            hand_back(second)
        elif holding.wait(timeout=30):
            take_away(task)

    monkeypatch.setattr(queue, "reoffer", slowly)
    problems: list[Exception] = [problem for problem in at_once(2, work) if problem is not None]
    assert [problem for problem in problems if not _in_use(problem)] == []
    assert problems or not Slot.objects.filter(task=task.pk).exists()


def _in_use(problem: Exception) -> bool:
    return isinstance(problem, Conflict) and problem.code == "in_use"
