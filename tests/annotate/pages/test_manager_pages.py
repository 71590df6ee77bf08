"""The project page, the browser of tasks and imports over HTTP."""

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from annotate.models import (
    IdentityLeak,
    ImportBatch,
    ImportUpload,
    Prompt,
    Ranking,
    RankingTask,
    Role,
    Slot,
    TaskFlag,
    User,
)
from annotate.pages.imports import EXAMPLE
from annotate.pages.overview import dry_notice, forecast
from annotate.pages.told import long_time, short_time
from annotate.selectors import task_lists
from annotate.selectors.overview import Overview, annotator_rows, project_overview
from annotate.selectors.task_lists import TaskFilter, browse_tasks
from annotate.services.held_tasks import close_task
from annotate.services.imports import import_stream
from annotate.services.projects import add_member
from annotate.services.queue import next_leases
from tests.annotate.busy import Busy, busy_project
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import submit
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db


@pytest.fixture
def busy() -> Busy:
    return busy_project(prompts=False)


def text_of(user: User, address: str) -> str:
    answer = browser(user).get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


# --- the project page -------------------------------------------------------------------------------------------------


def test_the_figures_add_up(busy: Busy) -> None:
    last = RankingTask.objects.filter(project=busy.project).order_by("-pk")[0]
    RankingTask.objects.filter(pk=last.pk).update(state="held")
    overview = project_overview(busy.project)
    slots = Slot.objects.filter(project=busy.project)
    assert (overview.wanted, overview.done, overview.leased) == (18, 4, slots.filter(state="leased").count())
    assert overview.done + overview.leased + overview.left == overview.wanted
    can_be_taken = slots.filter(state="free", task__state="open").count()
    assert overview.free == can_be_taken < slots.filter(state="free").count()
    assert (overview.held, overview.recent, overview.active) == (2, 4, 2)


def test_a_manager_sees_who_is_stuck_and_what_waits(busy: Busy) -> None:
    page = text_of(busy.mia, busy.project.get_absolute_url())
    held = RankingTask.objects.get(state="held")
    assert f"Holds task {held.pk}, without a sign for 50 minutes." in page
    assert "Skipped 5 of the 5 tasks of the last 7 days." in page
    assert page.index("2 people may be stuck") < page.index("1 task is held") < page.index("Who ranks")
    assert page.count("stuck?") == 4
    assert "1 task is held" in page and "Somebody could get hurt by following this." in page
    assert "1 task is flagged" in page and "Which soup?" in page
    assert "1 response gives away its maker" in page and "As ChatGPT," in page
    assert "At the pace of the last 7 days: about 4 days." in page


def test_who_ranks_is_told_with_counts_and_times(busy: Busy) -> None:
    rows = {row.membership.user.username: row for row in annotator_rows(busy.project)}
    assert list(rows)[-1] == "ann" and set(rows) == {"ann", "bob", "cem"}
    ann, bob, cem = rows["ann"], rows["bob"], rows["cem"]
    assert (ann.done, ann.median_seconds, ann.skips, len(ann.leases)) == (3, 95.0, 0, 0)
    assert (bob.done, len(bob.leases), cem.skips, cem.skips_much) == (1, 1, 5, True)
    now = timezone.now()
    assert bob.quiet_lease(now) is not None and cem.quiet_lease(now) is None
    gone = cem.quiet_lease(now + timedelta(minutes=31))
    assert gone is not None and not gone.over
    Slot.objects.filter(holder=busy.cem, state="leased").update(expires_at=now - timedelta(minutes=5))
    (lease,) = next(row for row in annotator_rows(busy.project) if row.membership.user == busy.cem).leases
    assert lease.over


def test_an_archived_project_says_so_and_invites_nobody_to_rank(busy: Busy) -> None:
    assert "Start ranking" in text_of(busy.mia, busy.project.get_absolute_url())
    type(busy.project).objects.update(archived_at=timezone.now())
    page = text_of(busy.mia, busy.project.get_absolute_url())
    assert "This project is archived since" in page and "Start ranking" not in page


def test_someone_who_never_began_is_named_after_a_day(busy: Busy) -> None:
    idle = make_user("idle", project=busy.project)
    assert "has not begun" not in text_of(busy.mia, busy.project.get_absolute_url())
    idle.memberships.update(created_at=timezone.now() - timedelta(days=3))
    assert "Joined 3 days ago and has not begun." in text_of(busy.mia, busy.project.get_absolute_url())


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANNOTATOR, Role.REVIEWER])
def test_others_see_how_far_it_is_but_nobody_elses_matters(busy: Busy, role: str) -> None:
    page = text_of(make_user("vera", project=busy.project, role=role), busy.project.get_absolute_url())
    assert "4 of 18 rankings of 9 tasks" in page
    for secret in ("Somebody could get hurt", "Skipped 5", "As ChatGPT", "cem", "/people/", "/setup/"):
        assert secret not in page, secret
    assert ("/tasks/" in page) is (role == Role.REVIEWER)


def overview(**fields: Any) -> Overview:
    now = timezone.now()
    plain = {"wanted": 100, "done": 50, "leased": 0, "free": 50, "held": 0, "tasks": 100, "imported": 0, "recent": 50}
    return Overview(**(plain | {"active": 2, "since": now - timedelta(days=9)} | fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "At the pace of the last 7 days: about 7 days."),
        ({"since": timezone.now() - timedelta(days=2)}, "At the pace of the last 7 days: about 2 days."),
        ({"recent": 500}, "At the pace of the last 7 days: less than a day."),
        ({"recent": 10}, "At the pace of the last 7 days: about 5 weeks."),
        ({"recent": 0, "since": None}, ""),
        ({"done": 100, "free": 0}, ""),
    ],
)
def test_the_forecast_in_words(fields: dict[str, Any], expected: str) -> None:
    assert forecast(overview(**fields), now=timezone.now()) == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),  # 50 places at 50 rankings in 7 days: the rest lasts a week
        ({"free": 7}, "nearly dry: 7 rankings"),  # 7 a day and a bit
        ({"free": 8}, ""),
        ({"free": 8, "since": timezone.now() - timedelta(hours=3)}, "nearly dry: 8 rankings"),  # 50 on the first day
        ({"recent": 7, "free": 1}, "nearly dry: 1 ranking"),
        ({"recent": 7, "free": 2}, ""),
        ({"recent": 0, "since": None, "active": 0, "free": 1}, ""),
        ({"free": 0}, "nothing is left to hand out."),
        ({"free": 0, "leased": 2}, "2 tasks are being ranked"),
        ({"wanted": 0, "done": 0, "free": 0}, ""),
    ],
)
def test_a_queue_that_runs_dry_is_told(fields: dict[str, Any], said: str) -> None:
    notice = dry_notice(overview(**fields), now=timezone.now())
    assert said in notice and bool(said) == bool(notice)


def test_lengths_of_time() -> None:
    assert [short_time(value) for value in (None, 48, 59.6, 100)] == ["–", "48 s", "1 min 0 s", "1 min 40 s"]
    assert [long_time(days) for days in (1, 13, 20, 90)] == ["1 day", "13 days", "3 weeks", "3 months"]


def test_release_close_and_settle_from_the_page(busy: Busy) -> None:
    manager, slug = browser(busy.mia), busy.project.slug
    held = RankingTask.objects.get(state="held")
    back = {"next": busy.project.get_absolute_url()}
    assert manager.post(reverse("task_release", args=[slug, held.pk]), back)["Location"] == back["next"]
    held.refresh_from_db()
    assert held.state == "open" and held.flags.get().settled_by == busy.mia
    flagged = TaskFlag.objects.get(settled_at=None).task
    manager.post(reverse("task_settle", args=[slug, flagged.pk]))
    leaking = IdentityLeak.objects.get().response.prompt.tasks.get()
    manager.post(reverse("task_settle", args=[slug, leaking.pk]), {"next": "https://elsewhere.example/"})
    assert not TaskFlag.objects.filter(settled_at=None).exists()
    assert IdentityLeak.objects.get().settled_by == busy.mia
    page = text_of(busy.mia, back["next"])
    assert "is held" not in page and "is flagged" not in page and "gives away" not in page
    elsewhere = manager.post(reverse("task_close", args=[slug, flagged.pk]), {"next": "https://elsewhere.example/"})
    assert elsewhere["Location"] == reverse("task", args=[slug, flagged.pk])
    flagged.refresh_from_db()
    assert flagged.state == "closed"
    assert "Open again" in text_of(busy.mia, elsewhere["Location"])
    opened = manager.post(reverse("task_reopen", args=[slug, flagged.pk]), back)
    assert opened["Location"] == back["next"]
    flagged.refresh_from_db()
    assert flagged.state == "open"


def test_closing_asks_first_and_says_who_has_the_task_open(busy: Busy) -> None:
    held = Slot.objects.select_related("holder").get(state="leased", task__state="open")
    assert held.holder == busy.cem
    address = reverse("task_close", args=[busy.project.slug, held.task_id])
    back = busy.project.get_absolute_url()
    page = text_of(busy.mia, f"{address}?next={back}")
    assert f"Close task {held.task_id}?" in page and "cem has it open and can still submit" in page
    assert f'name="next" value="{back}"' in page
    assert 'value="https://elsewhere' not in text_of(busy.mia, f"{address}?next=https://elsewhere.example/")
    assert RankingTask.objects.get(pk=held.task_id).state == "open"
    waiting = RankingTask.objects.get(state="held")
    assert f"/tasks/{waiting.pk}/close/?next={back}" in text_of(busy.mia, back)


def test_an_empty_project_offers_no_snapshot_and_one_without_rankings_folds_it(busy: Busy) -> None:
    empty = make_project("empty")
    add_member(project=empty, user=busy.mia, role=Role.MANAGER, engineer=True)
    page = text_of(busy.mia, empty.get_absolute_url())
    assert "Freeze a snapshot" not in page and "exports appear here once prompts have been imported" in page
    make_task(empty)
    page = text_of(busy.mia, empty.get_absolute_url())
    assert '<details class="card fold" > <summary>Freeze a snapshot' in page
    assert '<details class="card fold" open> <summary>Freeze a snapshot' in text_of(busy.mia, "/p/kitchen/")


def test_runs_and_models_are_named_to_engineers_alone(busy: Busy) -> None:
    root = make_user("root")
    User.objects.filter(pk=root.pk).update(is_superuser=True)
    seen = {user.username: 'href="/runs/"' in text_of(user, "/") for user in (busy.mia, busy.ann, busy.rita, root)}
    assert seen == {"mia": True, "ann": False, "rita": False, "root": True}


def test_long_responses_are_folded_and_the_same_text_is_pointed_out(busy: Busy) -> None:
    task = make_task(busy.project, ("word " * 1300, "short", "short"), overlap=2)
    page = text_of(busy.mia, reverse("task", args=["kitchen", task.pk]))
    assert page.count("Show all 1,300 words") == page.count("Show all") == 1
    assert page.count("The same text as C.") == page.count("The same text as B.") == 1


def test_the_page_takes_the_same_number_of_queries_however_many_people_and_tasks(busy: Busy) -> None:
    def queries() -> int:
        client = browser(busy.mia)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            client.get(busy.project.get_absolute_url())
            client.get(reverse("tasks", args=[busy.project.slug]))
        return len(captured)

    before = queries()
    for number in range(6):
        person = make_user(f"more{number}", project=busy.project)
        make_task(busy.project, overlap=2)
        submit(next_leases(project=busy.project, annotator=person)[0], person)
        next_leases(project=busy.project, annotator=person)
    assert queries() == before


# --- the browser of tasks ---------------------------------------------------------------------------------------------


def found(busy: Busy, **wanted: Any) -> set[int]:
    return {row.task.pk for row in browse_tasks(busy.project, TaskFilter(**wanted)).rows}


def test_every_ranking_is_a_sentence(busy: Busy) -> None:
    page = text_of(busy.rita, reverse("tasks", args=[busy.project.slug]))
    last = Ranking.objects.get(revision=2)
    letters = task_lists.letters_of([last.task_id])[last.task_id]
    by_tier = {entry.tier: letters[entry.response_id] for entry in last.entries.all()}
    assert f"{by_tier[1]} &gt; {by_tier[2]} &gt; {by_tier[3]}" in page
    assert f"{by_tier[1]} much better than {by_tier[2]}; {by_tier[2]} slightly better than {by_tier[3]}" in page
    assert "revision 2" in page and "All bad, " in page
    first = RankingTask.objects.get(prompt__external_id="soup-1")
    assert list(task_lists.letters_of([first.pk])[first.pk].values()) == ["A", "B", "C"]


def test_letters_follow_the_keys_of_the_responses() -> None:
    project = make_project()
    said = [{"id": key, "text": f"the text of {key}"} for key in ("c", "a", "b")]
    record = {"prompt": "Which?", "responses": said}
    import_stream(
        project=project, stream=io.BytesIO(json.dumps(record).encode()), format="plackett", source="test", overlap=1
    )
    task = RankingTask.objects.get(project=project)
    letters = task_lists.letters_of([task.pk])[task.pk]
    assert {response.key: letters[response.pk] for response in task.prompt.responses.all()} == {
        "a": "A",
        "b": "B",
        "c": "C",
    }


def test_the_filters(busy: Busy) -> None:
    tasks = RankingTask.objects.filter(project=busy.project)
    soup = tasks.get(prompt__external_id="soup-1")
    held = tasks.get(state="held")
    closed = tasks.order_by("-pk")[0]
    close_task(task=closed, by=busy.mia)
    flagged = set(TaskFlag.objects.values_list("task", flat=True))
    assert found(busy) == set(tasks.values_list("pk", flat=True))
    assert found(busy, state="held") == {held.pk} and found(busy, state="closed") == {closed.pk}
    assert found(busy, state="done") == {soup.pk}
    assert found(busy, state="open") == found(busy) - {soup.pk, held.pk, closed.pk}
    assert found(busy, flagged=True) == flagged and found(busy, leaking=True) == {soup.pk}
    assert found(busy, annotator=busy.bob.pk) == {soup.pk} and len(found(busy, annotator=busy.ann.pk)) == 3
    assert found(busy, annotator=busy.mia.pk) == set()
    assert found(busy, text="soup-1") == found(busy, text="START A soup") == {soup.pk}
    assert found(busy, text="user") == found(busy, text="100%") == set()
    assert found(busy, text="soup", annotator=busy.ann.pk, state="done") == {soup.pk}


def test_words_are_found_as_they_were_written() -> None:
    project = make_project()
    odd = 'Say "a\\b" %_ é\nand then\tstop'
    task = make_task(project, question=odd)
    make_task(project, question="Say something else")
    for text in ('"a\\b"', "%_", "É", "\nand", "then\tstop"):
        (row,) = browse_tasks(project, TaskFilter(text=text)).rows
        assert row.task == task, text


def test_pages_follow_each_other_without_gap(monkeypatch: pytest.MonkeyPatch, busy: Busy) -> None:
    monkeypatch.setattr(task_lists, "PAGE", 4)
    monkeypatch.setattr(task_lists, "WINDOW", 3)

    def walk(**wanted: Any) -> Iterator[int]:
        after: int | None = 0
        while after is not None:
            page = browse_tasks(busy.project, TaskFilter(**wanted), after=after)
            assert len(page.rows) <= 4
            yield from (row.task.pk for row in page.rows)
            after = page.after

    everything = list(RankingTask.objects.filter(project=busy.project).order_by("pk").values_list("pk", flat=True))
    assert list(walk()) == everything
    said = [pk for pk in everything if "What is" in task_text(pk)]
    assert list(walk(text="what is")) == said and len(said) == 8
    assert list(walk(text="7 + 7")) == said[-1:]


def task_text(pk: int) -> str:
    return str(Prompt.objects.get(tasks=pk).messages[0]["content"])


def test_a_task_shows_texts_answers_and_what_happened_to_it(busy: Busy) -> None:
    soup = RankingTask.objects.get(prompt__external_id="soup-1")
    page = text_of(busy.rita, reverse("task", args=["kitchen", soup.pk]))
    assert "As ChatGPT, I would start with the garlic." in page and "<code>r1</code>" in page
    assert "The second one is right and short." in page and "On a second look." in page
    assert "a later revision took its place" in page and "1 min 35 s" in page and "Order shown" in page
    assert "Withdraw" not in page and "/close/" not in page
    assert "Withdraw this answer" in text_of(busy.mia, reverse("task", args=["kitchen", soup.pk]))
    held = RankingTask.objects.get(state="held")
    page = text_of(busy.rita, reverse("task", args=["kitchen", held.pk]))
    assert "Somebody could get hurt by following this." in page and "It needs an expert" in page


def test_ratings_and_flags_are_read_with_their_labels(busy: Busy) -> None:
    (slot,) = next_leases(project=busy.project, annotator=busy.ann)
    assert slot.presented_order is not None
    name = str(slot.presented_order[0])
    submit(slot, busy.ann, ratings={name: {"helpful": 4}}, flags={name: ["wrong"]})
    page = text_of(busy.rita, reverse("task", args=["kitchen", slot.task_id]))
    assert "Helpful 4/5, flag: Factually wrong" in page


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANNOTATOR])
def test_annotators_never_see_what_others_said(busy: Busy, role: str) -> None:
    someone = browser(make_user("someone", project=busy.project, role=role, engineer=True))
    soup = RankingTask.objects.get(prompt__external_id="soup-1")
    for address in ("/p/kitchen/tasks/", f"/p/kitchen/tasks/{soup.pk}/"):
        assert someone.get(address).status_code == 403


def test_tasks_of_other_projects_are_not_found(busy: Busy) -> None:
    other = make_task(make_project("other"))
    add_member(project=other.project, user=busy.mia, role=Role.VIEWER)
    assert browser(busy.mia).get(f"/p/kitchen/tasks/{other.pk}/").status_code == 404
    for name in ("task_close", "task_release", "task_settle", "task_withdraw"):
        assert browser(busy.mia).post(reverse(name, args=["kitchen", other.pk])).status_code == 404
    other.refresh_from_db()
    assert other.state == "open"


def test_withdrawing_asks_first(busy: Busy) -> None:
    manager, ranking = browser(busy.mia), Ranking.objects.get(revision=2)
    answer, prompt = (
        reverse("ranking_withdraw", args=["kitchen", ranking.pk]),
        reverse("task_withdraw", args=["kitchen", ranking.task_id]),
    )
    assert "cannot be undone" in text_of(busy.mia, answer) and "cannot be undone" in text_of(busy.mia, prompt)
    assert not Ranking.objects.exclude(withdrawn_at=None).exists()
    manager.post(answer)
    assert Ranking.objects.exclude(withdrawn_at=None).count() == 2
    manager.post(prompt)
    assert Prompt.objects.get(pk=ranking.task.prompt_id).messages == []
    page = text_of(busy.mia, reverse("task", args=["kitchen", ranking.task_id]))
    assert "This prompt was withdrawn; its texts are gone." in page and "garlic" not in page
    assert "On a second look." not in page


# --- imports ----------------------------------------------------------------------------------------------------------


def upload(*records: dict[str, Any]) -> dict[str, Any]:
    lines = "\n".join(json.dumps(record) for record in records).encode()
    return {"format": "plackett", "file": SimpleUploadedFile("new.jsonl", lines)}


def imported(person: User, given: dict[str, Any], **asked: Any) -> str:
    """The report's page, after a file was uploaded and imported."""
    uploaded = browser(person).post(reverse("import_data", args=["kitchen"]), given)
    assert uploaded.status_code == 302, uploaded.content.decode()
    return browser(person).post(uploaded["Location"], {"do": "import"} | asked).content.decode()


GOOD = {"prompt": "What is new?", "responses": [{"id": "a", "text": "this"}, {"id": "b", "text": "that"}]}


def test_an_import_is_reported_and_can_be_undone_until_it_is_used(busy: Busy) -> None:
    manager = browser(busy.mia)
    page = " ".join(imported(busy.mia, upload(GOOD, {"prompt": "no responses?", "responses": [1]})).split())
    assert "1 record was taken in" in page and '<td class="n">2</td><td>skipped</td>' in page
    assert "Nothing new was taken in" in imported(busy.mia, upload(GOOD))
    batch = ImportBatch.objects.order_by("-pk")[0]
    assert (batch.source, batch.created_by) == ("new.jsonl", busy.mia)
    assert (
        "The import was undone."
        in manager.post(reverse("import_undo", args=["kitchen", batch.pk]), follow=True).content.decode()
    )
    assert not Prompt.objects.filter(messages__0__content="What is new?").exists()
    imported(busy.mia, upload(GOOD))
    used = ImportBatch.objects.order_by("-pk")[0]
    slot = Slot.objects.get(task__prompt__batch=used, number=1)
    other = make_user("late", project=busy.project)
    while (leased := next_leases(project=busy.project, annotator=other)) and leased[0].pk != slot.pk:
        submit(leased[0], other)
    refused = manager.post(reverse("import_undo", args=["kitchen", used.pk]), follow=True).content.decode()
    assert "Nothing was undone." in refused and Prompt.objects.filter(batch=used).exists()


def test_the_example_on_the_page_can_be_imported_as_it_is(busy: Busy) -> None:
    page = text_of(busy.mia, reverse("import_data", args=["kitchen"]))
    assert escape(EXAMPLE) in page
    assert "1 record was taken in" in " ".join(imported(busy.mia, upload(json.loads(EXAMPLE))).split())
    task = RankingTask.objects.order_by("-pk")[0]
    assert [one.key for one in task.prompt.responses.order_by("key")] == ["r1", "r2"]


def test_a_file_that_cannot_be_read_changes_nothing_and_is_not_kept(busy: Busy) -> None:
    broken = {"format": "plackett", "file": SimpleUploadedFile("x.jsonl.gz", b"\x1f\x8bbroken")}
    answer = browser(busy.mia).post(reverse("import_data", args=["kitchen"]), broken)
    assert answer.status_code == 422 and "nothing was changed" in answer.content.decode()
    assert browser(busy.mia).post(reverse("import_data", args=["kitchen"])).status_code == 422
    assert not ImportBatch.objects.exists() and not ImportUpload.objects.exists()


def test_the_import_of_another_project_is_not_undone(busy: Busy) -> None:
    batch = ImportBatch.objects.create(project=make_project("other"), format="plackett")
    assert browser(busy.mia).post(reverse("import_undo", args=["kitchen", batch.pk])).status_code == 404
