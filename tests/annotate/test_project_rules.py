"""What a project's rules may be, whoever asks; what a change writes; another overlap for the tasks that exist."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from annotate.errors import Conflict, Invalid
from annotate.models import Project, ProjectVersion, RankingTask, Role, Slot
from annotate.preferences import Answer
from annotate.selectors.projects import current_version
from annotate.selectors.setup import (
    OverlapEffect,
    open_leases,
    overlap_effect,
    rankings_by_version,
    readers,
    versions_of,
)
from annotate.services import overlaps
from annotate.services.counters import draw
from annotate.services.guidelines import record_reading
from annotate.services.overlaps import set_overlap_of_all
from annotate.services.project_rules import key_from, normal_rules, rule_faults, rules_of
from annotate.services.projects import change_project, change_rules, create_project, set_archived, state_of
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from tests.annotate.api.conftest import token_client
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import at_once, submit

pytestmark = pytest.mark.django_db


def scale(**changed: Any) -> dict[str, Any]:
    whole = {"key": "help", "label": "Helpful", "kind": "likert", "low": 1, "high": 5, "required": False}
    return whole | changed


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({"guidelines": "a\0b"}, "guidelines"),
        ({"guidelines": "\ud800"}, "guidelines"),
        ({"guidelines": "x" * 200_001}, "guidelines"),
        ({"strength": "some"}, "strength"),
        ({"rationale": "maybe"}, "rationale"),
        ({"criteria": [scale(label=" ")]}, "criteria.0.label"),
        ({"criteria": [scale(label="x" * 201)]}, "criteria.0.label"),
        ({"criteria": [scale(key="a b")]}, "criteria.0.key"),
        ({"criteria": [scale(key="")]}, "criteria.0.key"),
        ({"criteria": [scale(), scale(label="Other")]}, "criteria.1.key"),
        ({"criteria": [scale(), scale(key="b", label="HELPFUL")]}, "criteria.1.label"),
        ({"criteria": [scale(low=5)]}, "criteria.0.high"),
        ({"criteria": [scale(low=-1)]}, "criteria.0.low"),
        ({"criteria": [scale(high=101)]}, "criteria.0.high"),
        ({"criteria": [scale(high="5")]}, "criteria.0.high"),
        ({"criteria": [scale(kind="stars")]}, "criteria.0.kind"),
        ({"criteria": [scale(key=f"k{n}", label=f"l{n}") for n in range(13)]}, "criteria"),
        ({"flags": [{"key": "a", "label": "A\0"}]}, "flags.0.label"),
        ({"flags": [{"key": "a", "label": "A"}, {"key": "a", "label": "B"}]}, "flags.1.key"),
        ({"flags": [{"key": f"k{n}", "label": f"l{n}"} for n in range(21)]}, "flags"),
    ],
)
def test_rules_that_cannot_be_are_named_and_refused(rules: dict[str, Any], path: str) -> None:
    assert list(rule_faults(rules)) == [path]
    project = make_project()
    alice = make_user("alice", project=project, role=Role.MANAGER)
    with pytest.raises(Invalid) as refused:
        change_project(project=project, changed_by=alice, rules=rules)
    assert list(refused.value.fields) == [f"rules.{path}"]
    with pytest.raises(Invalid):
        create_project(slug="other", name="Other", rules=rules)
    assert ProjectVersion.objects.count() == 1 and Project.objects.count() == 1


def test_good_rules_have_no_faults() -> None:
    criteria = [scale(), scale(key="ok", label="Is it fine?", kind="yesno")]
    assert rule_faults({"guidelines": "# ä 中", "criteria": criteria, "flags": [{"key": "bad", "label": "Bad"}]}) == {}
    assert rule_faults(rules_of(current_version(make_project()))) == {}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": " "}, "name"),
        ({"name": "\0"}, "name"),
        ({"overlap": 0}, "overlap"),
        ({"overlap": 51}, "overlap"),
        ({"lease_seconds": 29}, "lease_seconds"),
        ({"skip_limit": 1001}, "skip_limit"),
        ({"description": "\0"}, "description"),
    ],
)
def test_settings_that_cannot_be_are_named_and_refused(fields: dict[str, Any], name: str) -> None:
    project = make_project()
    alice = make_user("alice", project=project, role=Role.MANAGER)
    with pytest.raises(Invalid) as refused:
        change_project(project=project, changed_by=alice, **fields)
    assert list(refused.value.fields) == [name]


def test_the_same_rules_in_another_spelling_are_no_change() -> None:
    stored = [{"key": "a", "label": "A"}, {"key": "b", "label": "B", "kind": "yesno", "low": 1, "high": 5}]
    project = make_project(rules={"guidelines": "one\ntwo", "criteria": stored})
    alice = make_user("alice", project=project, role=Role.MANAGER)
    same = rules_of(current_version(project)) | {"guidelines": "one\r\ntwo"}
    change_project(project=project, changed_by=alice, rules=same)
    assert current_version(project).number == 1
    assert [one["high"] for one in normal_rules({"criteria": stored})["criteria"]] == [5, 1]


def test_the_api_refuses_the_same_with_the_same_words() -> None:
    project = make_project("tales")
    client = token_client(make_user("alice", project=project, role=Role.MANAGER))
    criteria = [{"key": f"k{n}", "label": f"l{n}"} for n in range(13)]
    answer = client.patch("/api/v1/projects/tales/", {"rules": {"criteria": criteria}})
    assert answer.status_code == 422
    assert answer.json()["error"]["fields"] == {"rules.criteria": "At most 12 ratings for each response."}
    two = [{"key": "a", "label": "Same"}, {"key": "b", "label": "same"}]
    answer = client.patch("/api/v1/projects/tales/", {"rules": {"flags": two}})
    assert list(answer.json()["error"]["fields"]) == ["rules.flags.1.label"]
    yes_no = [{"key": "ok", "label": "Fine?", "kind": "yesno"}]
    assert client.patch("/api/v1/projects/tales/", {"rules": {"criteria": yes_no}}).json()["version"] == 2
    assert (current_version(project).criteria[0]["low"], current_version(project).criteria[0]["high"]) == (0, 1)


def test_the_administration_refuses_the_same(client: Client) -> None:
    project = make_project("tales")
    client.force_login(make_user("sue", is_superuser=True, is_staff=True), "django.contrib.auth.backends.ModelBackend")
    fields = {"name": "Tales", "overlap": 1, "lease_seconds": 60, "open_lease_limit": 2, "skip_limit": 5000}
    inline = {"versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0}
    address = f"/admin/annotate/project/{project.pk}/change/"
    assert "A whole number from 1 to 1000." in client.post(address, fields | inline).content.decode()
    assert client.post(address, fields | inline | {"skip_limit": 5}).status_code == 302
    assert Project.objects.get().skip_limit == 5


def test_keys_are_made_from_labels() -> None:
    assert key_from("Off topic!", taken=[], otherwise="flag") == "off_topic"
    assert key_from("Off topic", taken=["off_topic", "off_topic_2"], otherwise="flag") == "off_topic_3"
    assert key_from("有用", taken=[], otherwise="flag") == "flag"
    assert key_from("有害", taken=["flag"], otherwise="flag") == "flag_2"
    assert rule_faults({"flags": [{"key": key_from("long " * 40, taken=[], otherwise="f"), "label": "x"}]}) == {}


def test_a_change_from_an_old_state_is_refused_and_writes_nothing() -> None:
    project = make_project()
    alice = make_user("alice", project=project, role=Role.MANAGER)
    seen = state_of(project, current_version(project))
    change_project(project=project, changed_by=alice, rules={"allow_ties": False})
    for fields in ({"rules": {"allow_partial": False}}, {"name": "Mine"}):
        with pytest.raises(Conflict) as refused:
            change_project(project=project, changed_by=alice, seen=seen, **fields)
        assert refused.value.code == "changed_meanwhile"
    project.refresh_from_db()
    seen = state_of(project, current_version(project))
    change_project(project=project, changed_by=alice, name="Theirs")
    with pytest.raises(Conflict):
        change_project(project=project, changed_by=alice, seen=seen, name="Mine")
    assert Project.objects.get().name == "Theirs" and current_version(project).allow_partial


def test_archiving_keeps_its_date_and_can_be_taken_back() -> None:
    project = make_project()
    first = set_archived(project=project, archived=True).archived_at
    assert first is not None and set_archived(project=project, archived=True).archived_at == first
    assert set_archived(project=project, archived=False).archived_at is None


# --- what managers see ------------------------------------------------------------------------------------------------


def test_open_leases_are_counted_by_version_and_not_after_they_ran_out() -> None:
    project = make_project()
    alice = make_user("alice", project=project, role=Role.MANAGER)
    ann, bob = make_user("ann", project=project), make_user("bob", project=project)
    for _ in range(4):
        make_task(project, overlap=2)
    next_leases(project=project, annotator=ann, count=2)
    next_leases(project=project, annotator=bob, count=1)
    change_rules(project=project, changed_by=alice, allow_ties=False)
    next_leases(project=project, annotator=bob, count=2)
    found = [(one.version, one.people, one.tasks) for one in open_leases(project)]
    assert found == [(2, 1, 1), (1, 2, 3)]
    Slot.objects.filter(holder=ann).update(expires_at="2020-01-01T00:00:00Z")
    assert [(one.version, one.people, one.tasks) for one in open_leases(project)] == [(2, 1, 1), (1, 1, 1)]


def test_rankings_are_counted_by_version() -> None:
    project = make_project()
    alice = make_user("alice", project=project, role=Role.MANAGER)
    for _ in range(3):
        make_task(project)
    first = submit(next_leases(project=project, annotator=alice)[0], alice)
    (held,) = next_leases(project=project, annotator=alice)
    change_rules(project=project, changed_by=alice, allow_ties=False)
    submit(held, alice)
    submit(next_leases(project=project, annotator=alice)[0], alice)
    revise_ranking(
        ranking_id=first.pk,
        annotator=alice,
        supersedes=first.pk,
        answer=Answer(ranking=[[str(pk)] for pk in first.presented_order]),
    )
    counts = rankings_by_version(project)
    assert [(one.number, counts[one.pk]) for one in versions_of(project)] == [(2, 1), (1, 2)]


def test_readers_are_those_who_may_rank_and_the_same_text_counts() -> None:
    project = make_project(rules={"guidelines": "Be fair."})
    alice = make_user("alice", project=project, role=Role.MANAGER)
    ann = make_user("ann", project=project, first_name="Ann", last_name="Lee")
    make_user("vera", project=project, role=Role.VIEWER)
    record_reading(project=project, user=ann, number=1)
    change_rules(project=project, changed_by=alice, allow_ties=False)
    found = readers(project, current_version(project))
    assert [(one.name, one.read_at is not None) for one in found] == [("alice", False), ("Ann Lee", True)]
    change_rules(project=project, changed_by=alice, guidelines="Be kind.")
    assert [one.read_at for one in readers(project, current_version(project))] == [None, None]


# --- overlap for all --------------------------------------------------------------------------------------------------


def places(task: RankingTask) -> tuple[int, list[int]]:
    task.refresh_from_db()
    return task.overlap, list(task.slots.order_by("number").values_list("number", flat=True))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overlap", [1, 2, 4])
def test_an_overlap_for_all_is_the_overlap_of_each(overlap: int) -> None:
    project = make_project()
    people = [make_user(project=project) for _ in range(3)]
    tasks = [make_task(project, overlap=number) for number in (1, 2, 3, 3)]
    imported, gold = make_task(project, overlap=0), make_task(project, overlap=3)
    RankingTask.objects.filter(pk=gold.pk).update(kind="gold")
    for person in people[:2]:
        (slot,) = next_leases(project=project, annotator=person)
        submit(slot, person)  # the first task has one ranking; the second one
    expected = overlap_effect(project, overlap)
    taken = {task.pk: task.slots.exclude(state="free").count() for task in tasks}
    assert set_overlap_of_all(project=project, overlap=overlap) == expected
    for task in tasks:
        wanted = max(overlap, taken[task.pk])
        assert places(task) == (wanted, list(range(1, wanted + 1)))
        assert task.slots.exclude(state="free").count() == taken[task.pk]
    assert places(imported) == (0, []) and places(gold) == (3, [1, 2, 3])
    assert set_overlap_of_all(project=project, overlap=overlap).nothing


@pytest.mark.django_db(transaction=True)
def test_a_task_that_more_people_have_ranked_keeps_what_it_has() -> None:
    project = make_project()
    task = make_task(project, overlap=3)
    for _ in range(2):
        person = make_user(project=project)
        submit(next_leases(project=project, annotator=person)[0], person)
    assert set_overlap_of_all(project=project, overlap=1) == OverlapEffect(fewer=1, removed=1, kept=1)
    assert places(task) == (2, [1, 2])
    assert task.slots.filter(state="done").count() == 2


@pytest.mark.django_db(transaction=True)
def test_added_places_reach_an_annotator_who_had_come_further() -> None:
    project = make_project(open_lease_limit=60)
    ann, bob = make_user("ann", project=project), make_user("bob", project=project)
    for _ in range(40):
        make_task(project)
    for slot in next_leases(project=project, annotator=ann, count=40):
        submit(slot, ann)
    set_overlap_of_all(project=project, overlap=2)
    assert next_leases(project=project, annotator=ann, count=60) == []  # moves her cursor past all the places added
    late = make_task(project)
    assert len(next_leases(project=project, annotator=bob, count=60)) == 41
    set_overlap_of_all(project=project, overlap=3)
    assert [slot.task for slot in next_leases(project=project, annotator=ann, count=60)] == [late]
    assert places(late) == (3, [1, 2, 3])


def hasty_overlap(project: Project) -> OverlapEffect:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '3s'")
    return set_overlap_of_all(project=project, overlap=1)


@pytest.mark.django_db(transaction=True)
def test_a_place_that_is_being_taken_is_not_waited_for() -> None:
    project = make_project()
    make_task(project, overlap=2)
    with transaction.atomic():
        assert len(Slot.objects.select_for_update().filter(number=2)) == 1
        (done,) = at_once(1, lambda _: hasty_overlap(project))
    assert done == OverlapEffect(fewer=1, removed=1)
    assert Slot.objects.get().number == 2


@pytest.mark.django_db(transaction=True)
def test_adding_places_and_leasing_after_a_lease_ran_out_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One has the tasks and wants the next offers; the other has offered again and leases one of those tasks."""
    project = make_project()
    task = make_task(project)
    ann, bob = make_user(project=project), make_user(project=project)
    (slot,) = next_leases(project=project, annotator=bob)
    Slot.objects.filter(pk=slot.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    tasks_locked, offered = threading.Event(), threading.Event()

    def late(**given: Any) -> int:
        tasks_locked.set()
        assert offered.wait(timeout=30)
        return draw(**given)

    def work(number: int) -> Any:
        if number == 0:
            return set_overlap_of_all(project=project, overlap=3)
        assert tasks_locked.wait(timeout=30)
        with transaction.atomic():
            leased = next_leases(project=project, annotator=ann)
            offered.set()
        return [one.task_id for one in leased]

    monkeypatch.setattr(overlaps, "draw", late)
    assert at_once(2, work) == [OverlapEffect(more=1, added=2), [task.pk]]
    assert places(task) == (3, [1, 2, 3])
