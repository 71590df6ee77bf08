"""Withdrawals: of a person with all they wrote, of a response, by a phrase; exact also beside other work."""

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from rest_framework.test import APIClient

from annotate.errors import Conflict
from annotate.interchange.native import record_from_object
from annotate.models import (
    Change,
    Draft,
    Project,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Slot,
    Snapshot,
    SplitGroup,
    User,
    Webhook,
    WebhookDelivery,
    Withdrawal,
)
from annotate.pages.rendering import render_texts
from annotate.rendered import cache_keys
from annotate.selectors.phrases import find_phrase
from annotate.selectors.withdrawals import annotator_named, pseudonym_of, written_by
from annotate.services import withdrawn_people
from annotate.services.exports import open_export
from annotate.services.held_tasks import reopen_task
from annotate.services.import_undo import undo_import
from annotate.services.imports import import_records
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from annotate.services.reviews import review_ranking
from annotate.services.skips import flag_task, skip_task
from annotate.services.snapshots import freeze_snapshot
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking, withdraw_response
from annotate.services.withdrawn_people import go_on_withdrawing, withdraw_annotator
from tests.annotate.api.conftest import token_client
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, submit

pytestmark = pytest.mark.django_db
PHRASE = "zanzibar-7"
TEXTS = "'text', 'character varying', 'json', 'jsonb', 'ARRAY'"


def places_of(phrase: str) -> list[str]:
    """Every column of every table that holds the phrase."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT table_name, column_name FROM information_schema.columns "
            f"WHERE table_schema = 'public' AND data_type IN ({TEXTS}) ORDER BY 1, 2"
        )
        columns = cursor.fetchall()
        assert len(columns) > 100
        found = []
        for table, column in columns:
            cursor.execute(f'SELECT 1 FROM "{table}" WHERE "{column}"::text LIKE %s LIMIT 1', [f"%{phrase}%"])
            found += [f"{table}.{column}"] if cursor.fetchone() else []
        return found


def exported(project: Project, since: str | None = None, **options: str) -> list[dict[str, Any]]:
    export = open_export(project, since=since, options=options)
    lines = [json.loads(line) for line in export.lines]
    assert len(lines) == export.count
    return lines


def revise(ranking: Ranking, annotator: User, **fields: Any) -> Ranking:
    answer = answer_of(Slot(presented_order=ranking.presented_order), **fields)
    return revise_ranking(ranking_id=ranking.pk, supersedes=ranking.pk, annotator=annotator, answer=answer)


def post_ranking(client: APIClient, project: Project, user: User, **fields: Any) -> Ranking:
    """Through REST with an Idempotency-Key, which keeps the first answer with all its texts."""
    (slot,) = next_leases(project=project, annotator=user)
    body = {"lease": str(slot.lease_id), "ranking": [[str(pk)] for pk in slot.presented_order or []]} | fields
    headers = {"Idempotency-Key": f"k{slot.pk}"}
    answer = client.post(f"/api/v1/projects/{project.slug}/rankings/", body, headers=headers)
    assert answer.status_code == 201, answer.content
    return Ranking.objects.get(pk=answer.json()["id"])


class World:
    """Bob ranked three tasks, one in two revisions and one beyond the overlap; skipped, flagged, drafted, reviewed."""

    def __init__(self) -> None:
        self.project = make_project("tales", overlap=2)
        self.bob, self.ann = (make_user(name, project=self.project) for name in ("bob", "ann"))
        self.rita = make_user("rita", project=self.project, role="reviewer")
        for number in range(5):
            make_task(self.project, overlap=2, question=f"Why {number}?")
        client = token_client(self.bob)
        first = post_ranking(client, self.project, self.bob, rationale=f"Because of {PHRASE}.")
        review_ranking(ranking=first, reviewer=self.rita, verdict="returned", note=f"What is {PHRASE}?")
        self.revised = revise(first, self.bob, rationale=f"Still {PHRASE}.")
        second = make_task(self.project, overlap=2, priority=RankingTask.Priority.URGENT)
        (slot,) = next_leases(project=self.project, annotator=self.bob)
        assert slot.task_id == second.pk
        rewrite = {"of": str((slot.presented_order or [0])[0]), "text": f"A better {PHRASE}"}
        post_ranking(client, self.project, self.bob, rewrite=rewrite)
        self.anns = submit(next_leases(project=self.project, annotator=self.ann)[0], self.ann, rationale="Mine.")
        review_ranking(ranking=self.anns, reviewer=self.bob, verdict="accepted", note=f"As {PHRASE} says.")
        self._rest()

    def _rest(self) -> None:
        (slot,) = next_leases(project=self.project, annotator=self.bob)
        assert slot.lease_id is not None
        flag_task(lease_id=slot.lease_id, annotator=self.bob, kind="unclear", note=f"{PHRASE}?")
        skip_task(lease_id=slot.lease_id, annotator=self.bob, reason="other", note=f"{PHRASE}!")
        (slot,) = next_leases(project=self.project, annotator=self.bob)
        Draft.objects.create(task=slot.task, annotator=self.bob, body={"rationale": f"Half of {PHRASE}"})


def test_what_a_person_wrote_is_left_in_no_table_and_every_line_of_it_is_taken_back(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawn_people, "STEP", 2)
    world = World()
    project = world.project
    extra = Ranking.objects.get(annotator=world.bob, rewrite_text__isnull=False)
    hook = Webhook.objects.create(project=project, url="https://93.184.215.14/", events=["ranking.withdrawn"])
    cursor = open_export(project).cursor
    snapshot = freeze_snapshot(project=project, name="all")
    render_texts([f"Still {PHRASE}."])
    assert len(places_of(PHRASE)) == 7 and cache.get_many(cache_keys([f"Still {PHRASE}."]))
    expected = {"rankings": 3, "answers": 2, "extras": 0, "rationales": 2, "rewrites": 1, "drafts": 1}
    expected |= {"skip_notes": 1, "flag_notes": 1, "review_notes": 1}
    assert written_by(project, world.bob) == expected
    bobs = list(Ranking.objects.filter(annotator=world.bob).order_by("pk").values_list("pk", flat=True))
    with django_capture_on_commit_callbacks(execute=True):
        done = withdraw_annotator(project=project, annotator=world.bob, by=world.rita, reason="R 17")
    assert done.finished_at is not None and (done.by, done.reason) == (world.rita, "R 17")
    assert done.counts == {name: count for name, count in expected.items() if count}
    assert places_of(PHRASE) == [] and not cache.get_many(cache_keys([f"Still {PHRASE}."]))
    assert not any(written_by(project, world.bob).values())
    assert not Ranking.objects.filter(annotator=world.bob, withdrawn_at=None).exists()
    world.anns.refresh_from_db()
    assert world.anns.rationale == "Mine." and world.anns.withdrawn_at is None
    assert [line["id"] for line in exported(project)] == [str(world.anns.pk)]
    markers = exported(project, since=cursor)
    assert sorted((line["type"], int(line["id"])) for line in markers) == [("withdrawn", pk) for pk in bobs]
    snapshot.refresh_from_db()
    assert snapshot.state == "withdrawn" and not default_storage.exists(snapshot.file)
    told = WebhookDelivery.objects.filter(webhook=hook).values_list("body", flat=True)
    assert sorted(json.loads(body)["data"]["ranking"] for body in told) == sorted(map(str, bobs))
    with pytest.raises(Conflict):
        revise(world.revised, world.bob, rationale=PHRASE)
    with pytest.raises(Conflict):
        revise(extra, world.bob)
    assert withdraw_annotator(project=project, annotator=world.bob).pk == done.pk  # nothing left: nothing new
    with pytest.raises(Conflict) as refused:
        withdraw_annotator(project=project, annotator=world.rita)
    assert refused.value.code == "nothing"


def test_an_extra_goes_too_and_what_is_written_afterwards_stays() -> None:
    project = make_project(overlap=1)
    ann, bob = make_user(project=project), make_user(project=project)
    task = make_task(project)
    (late,) = next_leases(project=project, annotator=bob)
    task.slots.update(expires_at="2026-01-01T00:00:00Z")
    submit(next_leases(project=project, annotator=ann)[0], ann)
    assert submit(late, bob, rationale="Late.").counted is False
    assert withdraw_annotator(project=project, annotator=bob).counts == {
        "answers": 1, "extras": 1, "rankings": 1, "rationales": 1,
    }  # fmt: skip
    make_task(project)
    later = submit(next_leases(project=project, annotator=bob)[0], bob)
    assert list(Ranking.objects.filter(withdrawn_at=None, annotator=bob)) == [later]


@pytest.mark.django_db(transaction=True)
def test_a_withdrawal_that_broke_off_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    bob = make_user(project=project)
    for _ in range(5):
        make_task(project)
        submit(next_leases(project=project, annotator=bob)[0], bob, rationale=PHRASE)
    monkeypatch.setattr(withdrawn_people, "STEP", 2)
    record, calls = withdrawn_people.record, iter((False, True))

    def breaks(*args: Any) -> None:
        if next(calls, False):
            raise OSError("the power went")
        record(*args)

    monkeypatch.setattr(withdrawn_people, "record", breaks)
    with pytest.raises(OSError, match="the power went"):
        withdraw_annotator(project=project, annotator=bob)
    begun = Withdrawal.objects.get()
    assert (begun.counts["rankings"], begun.finished_at) == (2, None)
    assert Ranking.objects.filter(withdrawn_at=None).count() == 3  # the step that failed changed nothing
    assert go_on_withdrawing() == 1 and go_on_withdrawing() == 0
    done = Withdrawal.objects.get()
    assert done.counts == {"answers": 5, "rankings": 5, "rationales": 5} and done.finished_at is not None
    assert Change.objects.filter(kind="withdrawal").count() == 5 and places_of(PHRASE) == []


def _beside(first: Callable[[], Any], then: Callable[[], Any]) -> None:
    """Runs `then` while the transaction of `first` is open: it must wait until that is committed."""
    begun, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():
            first()
            begun.set()
            may_commit.wait(timeout=30)
        connection.close()

    def other() -> None:
        then()
        connection.close()

    threads = [threading.Thread(target=slow), threading.Thread(target=other)]
    threads[0].start()
    assert begun.wait(timeout=30)
    threads[1].start()
    threads[1].join(timeout=0.5)
    assert threads[1].is_alive()
    may_commit.set()
    for thread in threads:
        thread.join(timeout=30)


@pytest.mark.django_db(transaction=True)
def test_what_is_being_submitted_or_revised_at_that_moment_goes_too() -> None:
    project = make_project()
    bob = make_user(project=project)
    for _ in range(2):
        make_task(project)
    slots = next_leases(project=project, annotator=bob, count=2)
    first = submit(slots[0], bob)
    _beside(lambda: revise(first, bob, rationale=PHRASE), lambda: withdraw_ranking(ranking=first))
    assert Ranking.objects.filter(withdrawn_at=None).count() == 0 and Ranking.objects.count() == 2
    _beside(lambda: submit(slots[1], bob, rationale=PHRASE), lambda: withdraw_annotator(project=project, annotator=bob))
    assert Ranking.objects.count() == 3 and not Ranking.objects.filter(withdrawn_at=None).exists()
    assert places_of(PHRASE) == []


def test_a_response_takes_the_rankings_with_it_that_say_where_it_stood() -> None:
    project = make_project(overlap=1)
    bob = make_user(project=project)
    line = {"prompt": "Tea?", "responses": [{"id": "a", "text": f"No {PHRASE}"}, {"id": "b", "text": "Yes"}]}
    records = [record_from_object(line | {"ranking": [["a"], ["b"]], "annotator": "Ann"})]
    import_records(project=project, records=records)
    other = make_task(project)
    submit(next_leases(project=project, annotator=bob)[0], bob)
    cursor = open_export(project).cursor
    snapshot = freeze_snapshot(project=project, name="all")
    response = Response.objects.get(text__contains=PHRASE)
    done = withdraw_response(response=response, by=bob)
    assert done.counts == {"rankings": 1, "responses": 1, "tasks": 1} and places_of(PHRASE) == []
    assert Prompt.objects.get(pk=response.prompt_id).messages and Response.objects.get(text="Yes")
    assert [line["task"] for line in exported(project)] == [str(other.pk)]
    assert [line["type"] for line in exported(project, since=cursor)] == ["withdrawn"]
    assert Snapshot.objects.get(pk=snapshot.pk).state == "withdrawn"
    with pytest.raises(Conflict) as refused:
        reopen_task(task=RankingTask.objects.get(prompt=response.prompt_id))
    assert refused.value.code == "withdrawn"
    again = import_records(project=project, records=[record_from_object(line | {"ranking": [["b"], ["a"]]})])
    assert (again.written, list(again.reasons)) == (0, ["a response to the prompt was withdrawn here"])
    with pytest.raises(Conflict):
        withdraw_response(response=response)


def test_the_name_of_a_split_group_goes_with_its_last_prompt() -> None:
    project = make_project()
    tea, milk = ({"prompt": one, "responses": ["1", "2"], "split_group": PHRASE, "split": "test"} for one in "TM")
    bare = {"type": "prompt", "prompt": "Bare?"}
    batch = import_records(project=project, records=[record_from_object(one) for one in (tea, milk, bare)]).batch_id
    first, second, third = Prompt.objects.order_by("pk")
    withdraw_prompt(prompt=first)
    assert SplitGroup.objects.filter(key=PHRASE).count() == 1  # the other prompt is still in it
    withdraw_prompt(prompt=second)
    group = SplitGroup.objects.get(pk=first.split_group_id)
    assert (group.key, group.split) == ("", "test") and places_of(PHRASE) == []
    for change in ({"key": "other"}, {"split": "train", "key": ""}):
        with pytest.raises(DatabaseError), transaction.atomic():
            SplitGroup.objects.update(**change)
    withdraw_prompt(prompt=third)
    undo_import(batch=project.import_batches.get(pk=batch))  # what was withdrawn stands in the feed and stays
    assert Prompt.objects.count() == 3


def test_a_row_of_the_log_stays_and_names_what_it_is_of() -> None:
    project, bob = make_project(), make_user()
    row = Withdrawal.objects.create(project=project, kind="annotator", annotator=bob)
    for broken in (
        lambda: row.delete(),
        lambda: Withdrawal.objects.create(project=project, kind="annotator", annotator=bob),
        lambda: Withdrawal.objects.create(project=project, kind="prompt"),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            broken()


def test_a_phrase_is_found_wherever_it_stands_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    awkward = 'He said "50 %_\\" – naïve\n☕'
    make_task(world.project, (f"x {awkward} y", "b"), question=f"Why {awkward}?")
    kinds = [one.kind for one in every(world.project, PHRASE)]
    assert sorted(kinds) == sorted(
        ["ranking"] * 3 + ["skip_note", "flag_note", "draft"] + ["review_note"] * 2
    )  # fmt: skip
    assert [one.kind for one in every(world.project, awkward)] == ["prompt", "response"]
    assert every(world.project, "ZANZIBAR-7") == [] and every(world.project, '", "') == []
    monkeypatch.setattr("annotate.selectors.phrases.PAGE", 1)
    monkeypatch.setattr("annotate.selectors.phrases.WINDOW", 2)
    assert [one.kind for one in every(world.project, PHRASE)] == kinds
    assert every(make_project(), PHRASE) == []


def every(project: Project, phrase: str) -> list[Any]:
    found, place = find_phrase(project, phrase)
    while place is not None:
        more, place = find_phrase(project, phrase, at=place)
        found += more
    return found


def test_the_command_counts_first_and_then_withdraws() -> None:
    world = World()
    make_task(world.project, (f"{PHRASE} again", "b"))
    out = io.StringIO()

    def say(**options: Any) -> str:
        out.truncate(0)
        out.seek(0)
        call_command("withdraw_data", stdout=out, verbosity=0, **options)
        return out.getvalue()

    freeze_snapshot(project=world.project, name="all")
    told = say(annotator="bob", dry_run=True)
    assert "tales: bob, would be withdrawn: 3 rankings" in told and "'all' holds some of it" in told
    assert "3 rankings" in say(project="tales", text=PHRASE, dry_run=True) and not Withdrawal.objects.exists()
    pseudonym = pseudonym_of(world.project, world.bob.pk)
    assert annotator_named(world.project, pseudonym) == world.bob
    for reason in (f"for {PHRASE}", "x" * 201):
        with pytest.raises(CommandError):
            say(project="tales", text=PHRASE, reason=reason)
    assert not Withdrawal.objects.exists()
    told = say(project="tales", text=PHRASE, reason="R 17")
    assert "withdrawn: 1 drafts, 1 flag notes" in told.replace("responses, ", "")
    assert places_of(PHRASE) == [] and Ranking.objects.filter(withdrawn_at=None).count() == 1
    assert set(Withdrawal.objects.values_list("reason", flat=True)) == {"R 17"}
    assert "nothing" in say(project="tales", annotator=pseudonym, dry_run=True)
