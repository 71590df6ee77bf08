"""What managers decide about tasks: release, close, settle."""

import pytest

from annotate.errors import Conflict
from annotate.models import Project, Ranking, RankingTask, Role, Slot, TaskFlag, User
from annotate.services.held_tasks import close_task, release_task, reopen_task
from annotate.services.queue import next_leases
from annotate.services.skips import flag_task, skip_task
from annotate.services.tasks import create_repeat
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("tales", overlap=3)


@pytest.fixture
def mia(project: Project) -> User:
    return make_user("mia", project=project, role=Role.MANAGER)


def lease(project: Project, user: User) -> Slot:
    return next_leases(project=project, annotator=user)[0]


def flagged(project: Project) -> RankingTask:
    """A task that is held because somebody found it unsafe."""
    task = make_task(project, overlap=3)
    bob = make_user("bob", project=project)
    flag_task(lease_id=lease(project, bob).lease_id, annotator=bob, kind="unsafe")  # type: ignore[arg-type]
    task.refresh_from_db()
    assert task.state == "held"
    return task


def test_a_released_task_comes_back_and_its_flags_are_settled(project: Project, mia: User) -> None:
    task, ann = flagged(project), make_user("ann", project=project)
    assert next_leases(project=project, annotator=ann) == []
    release_task(task=task, by=mia)
    assert lease(project, ann).task_id == task.pk
    assert TaskFlag.objects.get().settled_by == mia
    with pytest.raises(Conflict):
        release_task(task=task, by=mia)


def test_a_closed_task_keeps_what_is_done_and_takes_a_late_answer_as_an_extra(project: Project, mia: User) -> None:
    task = make_task(project, overlap=3)
    ann, bob = make_user("ann", project=project), make_user("bob", project=project)
    submit(lease(project, ann), ann)
    held = lease(project, bob)
    flag_task(lease_id=held.lease_id, annotator=bob, kind="unclear")  # type: ignore[arg-type]
    close_task(task=task, by=mia)
    task.refresh_from_db()
    assert (task.state, task.overlap) == ("closed", 1)
    assert list(Slot.objects.values_list("state", "holder__username")) == [("done", "ann")]
    assert TaskFlag.objects.get().settled_by == mia
    assert submit(held, bob).counted is False
    assert Ranking.objects.filter(counted=True).count() == 1
    assert next_leases(project=project, annotator=make_user(project=project)) == []
    with pytest.raises(Conflict):
        close_task(task=task, by=mia)
    with pytest.raises(Conflict):
        release_task(task=task, by=mia)


def test_a_closed_task_is_opened_again_with_the_places_of_the_project(project: Project, mia: User) -> None:
    task = make_task(project, overlap=3)
    ann, bob = make_user("ann", project=project), make_user("bob", project=project)
    submit(lease(project, ann), ann)
    held = lease(project, bob)
    with pytest.raises(Conflict):
        reopen_task(task=task)
    close_task(task=task, by=mia)
    assert reopen_task(task=task) == 2
    task.refresh_from_db()
    assert (task.state, task.overlap) == ("open", 3)
    assert sorted(Slot.objects.values_list("state", "number")) == [("done", 1), ("free", 2), ("free", 3)]
    assert next_leases(project=project, annotator=ann) == []
    assert submit(held, bob).counted is True
    assert lease(project, make_user(project=project)).task_id == task.pk


def test_opening_again_takes_nothing_from_those_who_ranked(project: Project, mia: User) -> None:
    task = make_task(project, overlap=3)
    for _ in range(2):
        user = make_user(project=project)
        submit(lease(project, user), user)
    Project.objects.filter(pk=project.pk).update(overlap=1)
    close_task(task=task, by=mia)
    assert reopen_task(task=task) == 0
    task.refresh_from_db()
    assert (task.state, task.overlap) == ("open", 2)


def test_withdrawn_prompts_and_repeats_are_not_opened_again(project: Project, mia: User) -> None:
    task, ann = make_task(project, overlap=3), make_user("ann", project=project)
    for refused in (create_repeat(task=task, annotator=ann), task):
        close_task(task=refused, by=mia)
        if refused == task:
            withdraw_prompt(prompt=task.prompt)
            RankingTask.objects.filter(pk=task.pk).update(state="closed")
        with pytest.raises(Conflict):
            reopen_task(task=refused)
    assert not Slot.objects.filter(state="free").exists()


def test_a_withdrawn_prompt_is_not_released(project: Project, mia: User) -> None:
    task = make_task(project, overlap=3)
    withdraw_prompt(prompt=task.prompt)
    with pytest.raises(Conflict):
        release_task(task=task, by=mia)


@pytest.mark.django_db(transaction=True)
def test_closing_while_people_skip_and_take_ends_with_no_open_place(project: Project, mia: User) -> None:
    for round in range(12):
        task = make_task(project, overlap=3)
        people = [make_user(f"p{round}-{number}", project=project) for number in range(3)]
        leases = [lease(project, person) for person in people[:2]]

        def work(number: int, task: RankingTask = task, people: list[User] = people, held: list[Slot] = leases) -> None:
            if number == 0:
                close_task(task=task, by=mia)
            elif number == 3:
                next_leases(project=project, annotator=people[2])
            else:
                slot = held[number - 1]
                assert slot.lease_id is not None
                skip_task(lease_id=slot.lease_id, annotator=people[number - 1], reason="long")

        results = at_once(4, work)
        assert [result for result in results if isinstance(result, Exception) and not _ended(result)] == []
        assert not Slot.objects.filter(task=task).exclude(state="done").exists()
        task.refresh_from_db()
        assert (task.state, task.overlap) == ("closed", 0)


def _ended(problem: Exception) -> bool:
    return isinstance(problem, Conflict) and problem.code == "lease_ended"
