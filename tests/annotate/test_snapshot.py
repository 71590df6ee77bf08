"""Snapshots: frozen bytes, counted and hashed; and withdrawal, the one thing that ends them."""

import hashlib
import json
import threading
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection, transaction

from annotate.errors import Conflict, Invalid
from annotate.interchange.native import record_from_object
from annotate.models import (
    Change,
    Demonstration,
    Draft,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Slot,
    Snapshot,
    SplitGroup,
)
from annotate.services import snapshots
from annotate.services.imports import import_records
from annotate.services.queue import next_leases, release_lease
from annotate.services.snapshots import freeze_snapshot, manifest_of, open_snapshot, preview_snapshot
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit

pytestmark = pytest.mark.django_db


def put(project: Project, *lines: dict[str, Any]) -> None:
    report = import_records(project=project, records=[record_from_object(line) for line in lines])
    assert report.fault_count == 0


def said(question: str = "Tea?", **fields: Any) -> dict[str, Any]:
    responses = [{"id": name, "text": f"{question} {name}"} for name in ("a", "b", "c")]
    line = {"prompt": question, "responses": responses, "ranking": [["b"], ["a", "c"]], "annotator": "Ann"}
    return line | fields


def content(snapshot: Snapshot) -> bytes:
    with open_snapshot(snapshot) as file:
        return bytes(file.read())


def lines(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content(snapshot).splitlines()]


DEMONSTRATION = {"type": "demonstration", "prompt": "Sing.", "response": "La la.", "split": "train"}
BARE = {"type": "prompt", "prompt": "2 + 2?", "answer": "4", "split": "test"}


def test_equal_filters_and_data_give_equal_bytes() -> None:
    project = make_project()
    put(project, said(split="train"), said("Milk?", split="test", annotator="Bob"), DEMONSTRATION)
    one, two = (freeze_snapshot(project=project, name=name) for name in ("one", "two"))
    assert content(one) == content(one) == content(two)
    assert one.sha256 == two.sha256 == hashlib.sha256(content(one)).hexdigest()
    assert one.size_bytes == len(content(one)) and one.sha256 in one.file and one.file != two.file
    assert one.counts["rankings"] == 2 and one.counts["demonstrations"] == 1 and one.counts["pairs"] == 4
    assert one.counts["lines_by_split"] == {"train": 2, "validation": 0, "test": 1}
    assert one.counts["pairs_by_split"] == {"train": 2, "validation": 0, "test": 2}
    assert one.counts["rankings_by_kind"] == {"normal": 2}
    assert one.snapshot_rankings.count() == 2 and one.change == 2
    manifest = manifest_of(one)
    assert manifest["sha256"] == one.sha256 and manifest["filters"]["counted"] is True
    assert json.loads(json.dumps(manifest)) == manifest
    assert preview_snapshot(project=project)["sha256"] == one.sha256
    put(project, said("Water?"))
    assert content(one) == content(two) and freeze_snapshot(project=project, name="three").sha256 != one.sha256


def test_what_goes_in_by_default() -> None:
    project = make_project()
    put(
        project,
        said(),
        said("Milk?", counted=False),
        said("Water?", annotator_kind="machine"),
        said("Mate?", kind="gold"),
        said("Cocoa?", annotator="Bob", revision=1),
        said("Cocoa?", annotator="Bob", revision=2, ranking=[["c"], ["a"]]),
        DEMONSTRATION,
        BARE,
    )
    withdraw_ranking(ranking=Ranking.objects.get(task__kind="gold"))
    snapshot = freeze_snapshot(project=project, name="default")
    found = [(line.get("type"), line["prompt"][0]["content"], line.get("ranking")) for line in lines(snapshot)]
    assert found == [
        (None, "Tea?", [["b"], ["a", "c"]]),
        (None, "Cocoa?", [["c"], ["a"]]),
        ("demonstration", "Sing.", None),
    ]


def test_filters_choose_what_goes_in() -> None:
    project = make_project()
    put(project, said(split="train"), said("Water?", annotator_kind="machine", split="test"), DEMONSTRATION, BARE)

    def count(**filters: Any) -> int:
        return int(freeze_snapshot(project=project, name="x", filters=filters).counts["lines"])

    assert count() == 2 and count(demonstrations=False) == 1 and count(prompts=True) == 3
    assert count(annotator_kinds=["machine", "imported"]) == 3
    assert count(splits=["test"], annotator_kinds=["machine"]) == 1
    assert count(splits=["test"], prompts=True) == 1
    for bad in ({"kinds": []}, {"kinds": ["odd"]}, {"counted": 1}, {"colour": "red"}, {"splits": "train"}):
        with pytest.raises(Invalid):
            freeze_snapshot(project=project, name="x", filters=bad)


def test_nothing_to_freeze_is_refused() -> None:
    project = make_project()
    with pytest.raises(Invalid, match="nothing to freeze yet"):
        freeze_snapshot(project=project, name="x")
    put(project, said(counted=False))
    with pytest.raises(Invalid, match="Nothing fits these filters"):
        freeze_snapshot(project=project, name="x")
    with pytest.raises(Invalid, match="name"):
        freeze_snapshot(project=project, name="  ")
    assert not Snapshot.objects.exists()


def test_a_snapshot_never_changes() -> None:
    project = make_project()
    put(project, said())
    snapshot = freeze_snapshot(project=project, name="x")
    for change in ({"name": "y"}, {"sha256": "0" * 64}, {"counts": {}}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Snapshot.objects.filter(pk=snapshot.pk).update(**change)
    with pytest.raises(DatabaseError), transaction.atomic():
        Snapshot.objects.filter(pk=snapshot.pk).delete()


def test_a_lost_or_shortened_file_is_said() -> None:
    project = make_project()
    put(project, said())
    snapshot = freeze_snapshot(project=project, name="x")
    with open(default_storage.path(snapshot.file), "r+b") as file:
        file.truncate(10)
    with pytest.raises(Conflict) as refused:
        open_snapshot(snapshot)
    assert refused.value.code == "damaged"


# --- withdrawal -------------------------------------------------------------------------------------------------------


def test_withdrawing_a_ranking_blanks_it_and_ends_its_snapshots(
    django_capture_on_commit_callbacks: Any,
) -> None:
    project = make_project()
    put(
        project,
        said(rationale="Private.", rewrite={"of": "a", "text": "Mine."}, mood="x", revision=1),
        said(ranking=[["a"], ["c"]], rationale="Private too.", revision=2),
        said("Milk?"),
    )
    before = freeze_snapshot(project=project, name="before")
    other = freeze_snapshot(project=project, name="other", filters={"kinds": ["normal"]})
    last = Ranking.objects.get(revision=2)
    with django_capture_on_commit_callbacks(execute=True):
        withdraw_ranking(ranking=last)
    for ranking in Ranking.objects.filter(task=last.task_id):
        assert (ranking.rationale, ranking.rewrite_text, ranking.rewrite_of, ranking.extra) == (None, None, None, {})
        assert ranking.withdrawn_at is not None and len(ranking.content_sha256) == 64
    for snapshot in (before, other):
        with pytest.raises(Conflict) as refused:
            open_snapshot(snapshot)
        assert refused.value.code == "withdrawn"
        assert not default_storage.exists(snapshot.file)
        assert manifest_of(snapshot)["state"] == "withdrawn" and snapshot.sha256
    assert list(Change.objects.order_by("number").values_list("kind", flat=True))[-2:] == ["withdrawal"] * 2
    after = freeze_snapshot(project=project, name="after")
    assert [line["prompt"][0]["content"] for line in lines(after)] == ["Milk?"]
    with pytest.raises(Conflict):
        withdraw_ranking(ranking=last)


def test_a_snapshot_without_the_ranking_stays() -> None:
    project = make_project()
    put(project, said(split="train"), said("Milk?", split="test", annotator="Bob"))
    train = freeze_snapshot(project=project, name="train", filters={"splits": ["train"]})
    withdraw_ranking(ranking=Ranking.objects.get(annotator__first_name="Bob"))
    assert lines(train)


def test_withdrawing_a_prompt_blanks_all_that_hangs_on_it(django_capture_on_commit_callbacks: Any) -> None:
    project = make_project(overlap=2)
    ann, bob = make_user(project=project), make_user(project=project)
    task = make_task(project, overlap=2, question="Something private?")
    (slot,) = next_leases(project=project, annotator=ann)
    ranking = submit(slot, ann, rationale="Private.")
    (bobs,) = next_leases(project=project, annotator=bob)
    Draft.objects.create(task=task, annotator=bob, body={"note": "private"})
    Demonstration.objects.create(project=project, prompt=task.prompt, text="Private.", text_sha256="0" * 64)
    snapshot = freeze_snapshot(project=project, name="x")
    with django_capture_on_commit_callbacks(execute=True):
        withdraw_prompt(prompt=task.prompt)
    prompt = Prompt.objects.get()
    assert prompt.messages == [] and prompt.withdrawn_at is not None
    assert {response.text for response in Response.objects.all()} == {""}
    assert Demonstration.objects.get().text == ""
    ranking.refresh_from_db()
    assert ranking.rationale is None and ranking.withdrawn_at is not None
    assert not Draft.objects.exists()
    assert list(Slot.objects.values_list("state", flat=True)) == ["done"]
    held = RankingTask.objects.get()
    assert (held.state, held.overlap) == ("held", 1)
    assert next_leases(project=project, annotator=bob) == []
    assert bobs.lease_id is not None
    with pytest.raises(Conflict):
        release_lease(lease_id=bobs.lease_id, annotator=bob)
    with pytest.raises(Conflict) as refused:
        submit(bobs, bob)
    assert refused.value.code == "withdrawn"
    assert Snapshot.objects.get(pk=snapshot.pk).state == "withdrawn"
    kinds = Change.objects.order_by("number").values_list("kind", "prompt")
    assert list(kinds)[-2:] == [("withdrawal", None), ("withdrawal", prompt.pk)]


def test_the_first_message_of_an_imported_prompt_is_stored_once() -> None:
    """Else a withdrawal would leave it behind as the name of the split group, which never changes."""
    project = make_project()
    put(project, said("Something private?"))
    assert SplitGroup.objects.get().key == ""
    record = lines(freeze_snapshot(project=project, name="x"))[0]
    assert record["split_group"] == "something private?"


@pytest.mark.parametrize(("line", "filters"), [(DEMONSTRATION, {}), (BARE, {"prompts": True})])
def test_withdrawing_a_prompt_finds_snapshots_that_hold_it_without_a_ranking(
    line: dict[str, Any], filters: dict[str, Any]
) -> None:
    project = make_project()
    put(project, said(split="train"), line)
    without = freeze_snapshot(project=project, name="without", filters={"demonstrations": False})
    holding = freeze_snapshot(project=project, name="holding", filters=filters)
    withdraw_prompt(prompt=Prompt.objects.get(responses=None))
    states = dict(Snapshot.objects.values_list("pk", "state"))
    assert states == {without.pk: "frozen", holding.pk: "withdrawn"}


@pytest.mark.django_db(transaction=True)
def test_a_withdrawal_during_the_freeze_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written, then something in it is withdrawn, then the row would be: the freeze starts again."""
    project = make_project()
    put(project, said(), said("Milk?", annotator="Bob"))
    published: list[str] = []
    publish = snapshots._publish

    def publish_and_withdraw(*args: Any) -> str:
        published.append(publish(*args))
        if len(published) == 1:
            thread = threading.Thread(target=withdraw_bob)
            thread.start()
            thread.join(timeout=30)
        return published[-1]

    def withdraw_bob() -> None:
        withdraw_ranking(ranking=Ranking.objects.get(annotator__first_name="Bob"))
        connection.close()

    monkeypatch.setattr(snapshots, "_publish", publish_and_withdraw)
    snapshot = freeze_snapshot(project=project, name="x")
    assert len(published) == 2 and not default_storage.exists(published[0])
    assert [line["prompt"][0]["content"] for line in lines(snapshot)] == ["Tea?"]


@pytest.mark.django_db(transaction=True)
def test_a_freeze_waits_for_a_withdrawal_that_is_under_way() -> None:
    project = make_project()
    put(project, said(), said("Milk?", annotator="Bob"))
    begun, may_commit = threading.Event(), threading.Event()
    frozen: list[Snapshot] = []

    def slow_withdrawal() -> None:
        with transaction.atomic():
            withdraw_ranking(ranking=Ranking.objects.get(annotator__first_name="Bob"))
            begun.set()
            may_commit.wait(timeout=30)
        connection.close()

    def freeze() -> None:
        frozen.append(freeze_snapshot(project=project, name="x"))
        connection.close()

    withdrawing, freezing = threading.Thread(target=slow_withdrawal), threading.Thread(target=freeze)
    withdrawing.start()
    assert begun.wait(timeout=30)
    freezing.start()
    freezing.join(timeout=0.5)
    assert freezing.is_alive()
    may_commit.set()
    withdrawing.join(timeout=30)
    freezing.join(timeout=30)
    assert [line["prompt"][0]["content"] for line in lines(frozen[0])] == ["Tea?"]
