"""The pages for people over HTTP: who sees what, and that looking changes nothing."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotate.models import Lease, Project, RankingTask, Response, Role, Slot, Snapshot, TaskResponse, User
from annotate.preferences import Answer
from annotate.services.projects import add_member, change_rules
from annotate.services.queue import next_leases
from annotate.services.rankings import submit_ranking
from tests.annotate.factories import make_project, make_task, make_user, sha256

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project(rules={"guidelines": "Rank by **helpfulness**."})


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def next_tasks(user: User, project: Project) -> Any:
    return browser(user).post(reverse("rank_next", args=[project.slug]), {}, content_type="application/json").json()


def rank_one(project: Project, annotator: User) -> None:
    (slot,) = next_leases(project=project, annotator=annotator)
    assert slot.lease is not None
    order = [str(pk) for pk in slot.lease.presented_order]
    answer = Answer(ranking=[[one] for one in order])
    submit_ranking(annotator=annotator, lease_id=slot.lease.pk, answer=answer, source="page")


def add_thinking_response(task: RankingTask) -> None:
    text = "The answer is four."
    response = Response.objects.create(
        prompt=task.prompt,
        key="r9",
        text=text,
        text_sha256=sha256(text),
        thinking="Hmm, let me see.",
        model="gpt-secret",
    )
    TaskResponse.objects.create(task=task, prompt=task.prompt, response=response)


PAGES = ("project", "guidelines", "rank")


@pytest.mark.parametrize("name", PAGES)
def test_outsider_gets_404_and_anonymous_the_log_in(project: Project, name: str) -> None:
    address = reverse(name, args=[project.slug])
    assert browser(make_user("charlie")).get(address).status_code == 404
    answer = Client().get(address)
    assert (answer.status_code, answer["Location"]) == (302, f"/accounts/login/?next={address}")
    assert browser(make_user("bob", project=project)).get(address).status_code == 200


def test_no_browser_keeps_what_stands_behind_the_log_in(project: Project) -> None:
    make_task(project)
    bob = browser(make_user("bob", project=project, engineer=True))
    lease = next_tasks(make_user("ann", project=project), project)["tasks"][0]["lease"]
    own = ["/", "/preferences/", reverse("runs")]
    pages = own + [reverse(name, args=[project.slug]) for name in PAGES]
    difference = f"{reverse('rank_difference', args=[project.slug])}?lease={lease}"
    for client, address in [(bob, page) for page in pages] + [(bob, difference), (Client(), "/")]:
        assert "no-store" in client.get(address)["Cache-Control"], address


def test_a_viewer_may_look_but_not_rank(project: Project) -> None:
    viewer = browser(make_user("vera", project=project, role=Role.VIEWER))
    assert viewer.get(reverse("project", args=[project.slug])).status_code == 200
    answer = viewer.get(reverse("rank", args=[project.slug]))
    assert answer.status_code == 403 and "needs the role annotator" in answer.content.decode()
    assert viewer.post(reverse("rank_next", args=[project.slug])).status_code == 403


def test_home_shows_my_projects_alone_with_what_is_left(project: Project) -> None:
    make_project("hidden")
    bob = make_user("bob", project=project)
    make_task(project, overlap=2)
    rank_one(project, bob)
    page = browser(bob).get("/").content.decode()
    assert project.name in page and "Hidden" not in page
    assert "1 of 2 rankings" in page and "1 by you today, 1 in all" in page
    assert reverse("rank", args=[project.slug]) in page


def test_home_asks_as_often_for_many_projects_as_for_one(project: Project) -> None:
    def asked(client: Client) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/").status_code == 200
        return len(queries)

    people = make_user("bob", project=project), User.objects.create_superuser("root")
    before = [asked(browser(person)) for person in people]
    for _ in range(3):
        add_member(project=make_project(), user=people[0], role=Role.MANAGER)
    assert [asked(browser(person)) for person in people] == before


def test_home_says_what_to_do_without_a_project(db: None) -> None:
    assert "Ask a manager to add dora" in browser(make_user("dora")).get("/").content.decode()


def test_the_project_page_follows_the_role(project: Project) -> None:
    make_task(project)
    make_user("bob", project=project)
    address = reverse("project", args=[project.slug])
    annotator = browser(make_user("ann", project=project)).get(address).content.decode()
    manager = browser(make_user("mia", project=project, role=Role.MANAGER)).get(address).content.decode()
    engineer = browser(make_user("eve", project=project, engineer=True)).get(address).content.decode()
    superuser = browser(User.objects.create_superuser("root")).get(address).content.decode()
    seen = {
        who: [word for word in (">People<", ">Snapshots<", ">Export<", "/export/?format=plackett") if word in page]
        for who, page in {"ann": annotator, "mia": manager, "eve": engineer, "root": superuser}.items()
    }
    assert seen["ann"] == []
    assert seen["mia"] == [">People<"]
    assert seen["eve"] == [">Snapshots<", ">Export<", "/export/?format=plackett"]
    assert seen["root"] == [">People<", ">Snapshots<", ">Export<", "/export/?format=plackett"]


def test_guidelines_are_rendered_and_versioned(project: Project) -> None:
    bob = make_user("bob", project=project)
    change_rules(project=project, changed_by=bob, guidelines="Rank by *honesty*. <script>alert(1)</script>")
    page = browser(bob).get(reverse("guidelines", args=[project.slug])).content.decode()
    assert "<em>honesty</em>" in page and "Version 2" in page and "<script>alert" not in page


def test_freezing_needs_an_engineer_and_says_what_is_wrong(project: Project) -> None:
    address = reverse("freeze", args=[project.slug])
    form = {"name": "First", "annotator_kinds": ["human"], "kinds": ["normal"]}
    manager = browser(make_user("mia", project=project, role=Role.MANAGER))
    engineer = browser(make_user("eve", project=project, engineer=True))
    assert manager.post(address, form).status_code == 403
    assert engineer.get(address).status_code == 405
    empty = engineer.post(address, form)
    assert empty.status_code == 422 and "nothing to freeze" in empty.content.decode()
    make_task(project)
    rank_one(project, make_user("bob", project=project))
    nameless = engineer.post(address, form | {"name": " "})
    assert nameless.status_code == 422 and "This field is required." in nameless.content.decode()
    answer = engineer.post(address, form, follow=True)
    snapshot = Snapshot.objects.get()
    assert (snapshot.name, snapshot.counts["rankings"], snapshot.filters["demonstrations"]) == ("First", 1, False)
    page = answer.content.decode()
    assert "Frozen: First, 1 ranking." in page and snapshot.sha256[:12] in page
    assert reverse("api-snapshot-download", args=[snapshot.pk]) in page
    assert engineer.get(reverse("api-snapshot-download", args=[snapshot.pk])).status_code == 200


def test_the_shell_of_the_workbench_leases_nothing(project: Project) -> None:
    make_task(project)
    bob = browser(make_user("bob", project=project))
    page = bob.get(reverse("rank", args=[project.slug]))
    assert "csrftoken" in page.cookies
    assert Lease.objects.count() == 0 and Slot.objects.get().state == "free"
    assert bob.get(reverse("rank_next", args=[project.slug])).status_code == 405


def test_next_gives_two_tasks_in_the_stored_order_and_is_harmless_to_repeat(project: Project) -> None:
    for number in range(3):
        make_task(project, [f"text {number}.{part}" for part in range(4)], question=f"Question {number}?")
    bob = make_user("bob", project=project)
    first = next_tasks(bob, project)
    again = next_tasks(bob, project)
    assert [task["lease"] for task in first["tasks"]] == [task["lease"] for task in again["tasks"]]
    assert Lease.objects.count() == len(first["tasks"]) == 2
    for task in first["tasks"]:
        lease = Lease.objects.get(pk=task["lease"])
        assert task["order"] == [str(pk) for pk in lease.presented_order]
        positions = [task["html"].index(f'data-id="{pk}"') for pk in lease.presented_order]
        assert positions == sorted(positions)
        assert [task["html"].count(f"</span>{letter}</h2>") for letter in "ABCDE"] == [1, 1, 1, 1, 0]


def test_who_is_not_logged_in_gets_401_where_a_script_asks(project: Project) -> None:
    answer = Client().post(reverse("rank_next", args=[project.slug]))
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "not_authenticated"


def test_model_names_and_thinking_show_only_when_the_rules_say_so(project: Project) -> None:
    add_thinking_response(make_task(project, ["first", "second"], overlap=2))
    bob = make_user("bob", project=project)
    (shown,) = next_tasks(bob, project)["tasks"]
    assert "gpt-secret" not in json.dumps(shown) and "Thinking, 4 words" in shown["html"]
    change_rules(project=project, changed_by=bob, show_models=True, show_thinking=False)
    other = make_user("other", project=project)
    (shown,) = next_tasks(other, project)["tasks"]
    assert "Hmm, let me see" not in json.dumps(shown) and "thinking before this answer is hidden" in shown["html"]
    assert "gpt-secret" in shown["html"]


def test_no_page_brings_inline_script_or_style(project: Project) -> None:
    root = browser(User.objects.create_superuser("root"))
    addresses = [
        "/",
        "/preferences/",
        *(reverse(name, args=[project.slug]) for name in PAGES),
        reverse("account_change_password"),
    ]
    for address in addresses:
        page = root.get(address)
        text, policy = page.content.decode(), page["Content-Security-Policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy
        assert " style=" not in text and "<style" not in text and " onclick=" not in text
        assert text.count("<script") == text.count("<script src=") + text.count('<script type="module" src=')
