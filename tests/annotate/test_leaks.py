"""Which responses give away their maker: kept when they are written, shown to managers, never to annotators."""

import json
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from annotate.errors import Conflict, NotFound
from annotate.models import IdentityLeak, ImportBatch, Project, Prompt, RankingTask, Role
from annotate.selectors.leaks import leaking_tasks
from annotate.selectors.leases import lease_content
from annotate.services.import_undo import undo_import
from annotate.services.imports import import_files
from annotate.services.leaks import LeakCounts, find_leaks, settle_leak
from annotate.services.queue import next_leases
from annotate.services.withdrawals import withdraw_prompt
from tests.annotate.api.conftest import token_client
from tests.annotate.factories import make_project, make_task, make_user

pytestmark = pytest.mark.django_db

LEAK = "As ChatGPT, I say four."
PHRASE = "As ChatGPT, I"


@pytest.fixture
def project() -> Project:
    return make_project("tales")


def bring_in(project: Project, folder: Path, *, name: str = "one", leak: str = LEAK) -> ImportBatch:
    file = folder / f"{name}.jsonl"
    responses = [{"id": "a", "text": "Four."}, {"id": "b", "text": leak}]
    file.write_text(json.dumps({"external_id": name, "prompt": f"{name}?", "responses": responses}) + "\n")
    (report,) = import_files(project=project, files=[file], format="plackett")
    assert report.rows["identity_leaks"] == (1 if leak == LEAK else 0)
    return ImportBatch.objects.latest("pk")


def test_an_import_marks_what_gives_its_maker_away(project: Project, tmp_path: Path) -> None:
    bring_in(project, tmp_path)
    bring_in(project, tmp_path, name="two", leak="ChatGPT says four.")
    (found,) = leaking_tasks(project)
    task = RankingTask.objects.get(prompt__external_id="one")
    leak = IdentityLeak.objects.get()
    assert (found.leak, found.task, found.response, found.phrase) == (leak.pk, task.pk, "b", PHRASE)
    assert leak.project == project and leak.response.text == LEAK
    assert leaking_tasks(make_project()) == []


def test_what_is_settled_or_closed_is_listed_no_more(project: Project, tmp_path: Path) -> None:
    manager = make_user("mona", project=project, role=Role.MANAGER)
    for name in ("one", "two", "three"):
        bring_in(project, tmp_path, name=name)
    first, second, third = leaking_tasks(project)
    assert leaking_tasks(project, limit=2) == [first, second]
    settle_leak(project=project, leak_id=second.leak, by=manager)
    RankingTask.objects.filter(pk=third.task).update(state=RankingTask.State.CLOSED)
    assert leaking_tasks(project) == [first]
    settled = IdentityLeak.objects.get(pk=second.leak)
    assert settled.settled_by == manager and settled.settled_at is not None
    with pytest.raises(Conflict):
        settle_leak(project=project, leak_id=second.leak, by=manager)
    with pytest.raises(NotFound):
        settle_leak(project=make_project(), leak_id=first.leak, by=manager)


def test_a_leak_goes_with_its_response(project: Project, tmp_path: Path) -> None:
    batch = bring_in(project, tmp_path)
    bring_in(project, tmp_path, name="two")
    undo_import(batch=batch)
    assert IdentityLeak.objects.get().response.prompt.external_id == "two"
    withdraw_prompt(prompt=Prompt.objects.get(external_id="two"))
    assert not IdentityLeak.objects.exists()
    assert find_leaks(project=project) == LeakCounts()


def test_a_rescan_adds_and_removes_and_leaves_what_is_settled(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_task(project, [LEAK, "I am ChatGPT.", "Four."])
    first, second, third = task.prompt.responses.order_by("pk")
    IdentityLeak.objects.create(project=project, response=third, phrase="no longer found")
    call_command("find_leaks", project="tales", dry_run=True)
    said = capsys.readouterr().out
    assert said == "3 responses read: 2 leaks would be added, 0 known before, 1 would be removed\n"
    assert IdentityLeak.objects.get().response == third
    call_command("find_leaks", project="tales")
    assert "2 leaks added, 0 known before, 1 removed" in capsys.readouterr().out
    assert dict(IdentityLeak.objects.values_list("response", "phrase")) == {first.pk: PHRASE, second.pk: "I am ChatGPT"}
    manager = make_user("mona", project=project, role=Role.MANAGER)
    IdentityLeak.objects.create(project=project, response=third, phrase="settled")
    settle_leak(project=project, leak_id=IdentityLeak.objects.get(response=third).pk, by=manager)
    assert find_leaks(project=project) == LeakCounts(read=3, known=3)
    assert IdentityLeak.objects.count() == 3


def test_annotators_never_hear_of_it(project: Project, tmp_path: Path) -> None:
    bob = make_user("bob", project=project)
    bring_in(project, tmp_path)
    IdentityLeak.objects.update(phrase="unicornphrase")
    (slot,) = next_leases(project=project, annotator=bob)
    page = Client()
    page.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    answers = [
        json.dumps(lease_content(slot)),
        page.post(reverse("rank_next", args=["tales"]), {}, content_type="application/json").content.decode(),
        page.get(reverse("rank", args=["tales"])).content.decode(),
        page.get(reverse("project", args=["tales"])).content.decode(),
        token_client(bob).post("/api/v1/projects/tales/next/", {"count": 2}).content.decode(),
        token_client(bob).get("/api/v1/projects/tales/").content.decode(),
    ]
    for answer in answers:
        assert "unicornphrase" not in answer and "leak" not in answer.lower()
