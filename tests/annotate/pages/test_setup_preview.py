"""The preview of the set-up, and the versions of the rules."""

import re
from typing import Any

import pytest
from django.test import Client

from annotate.models import Lease, Project, ProjectVersion, User
from annotate.services.guidelines import record_reading
from annotate.services.projects import change_project
from annotate.services.queue import next_leases
from tests.annotate.factories import make_task, make_user
from tests.annotate.helpers import submit
from tests.annotate.pages.setup_form import alice, client, loaded, post, project, text_of, whole_form
from tests.annotate.pages.test_pages import add_thinking_response

pytestmark = pytest.mark.django_db
__all__ = ["alice", "client", "project"]  # fixtures


# --- preview ----------------------------------------------------------------------------------------------------------


def preview(client: Client, **changed: Any) -> dict[str, Any]:
    answer = client.post("/p/tales/setup/preview/", whole_form(client, **changed))
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_the_preview_shows_the_first_task_under_the_rules_in_the_form(client: Client, project: Project) -> None:
    task = make_task(project, question="Why is the sky blue?")
    add_thinking_response(task)
    make_task(project, question="Something else?")
    shown = preview(client, flag__2__label="Too long", guidelines="# New", allow_ties=None)
    assert "Why is the sky blue?" in shown["task"]["html"] and "Too long" in shown["task"]["html"]
    assert shown["task"]["rules"]["ties"] is False and len(shown["task"]["order"]) == 4
    assert "<h3>New</h3>" in shown["guidelines"] and shown["status"] == "3 changes, not saved"
    assert "gpt-secret" not in shown["task"]["html"] and "Hmm, let me see." in shown["task"]["html"]
    other = preview(client, show_models="on", show_thinking=None)["task"]["html"]
    assert "gpt-secret" in other and "Hmm, let me see." not in other
    assert not Lease.objects.exists() and ProjectVersion.objects.count() == 1


def test_the_preview_has_a_sample_where_there_is_no_task(client: Client) -> None:
    shown = preview(client)
    assert "Why do leaves change colour" in shown["task"]["html"] and len(shown["task"]["order"]) == 3
    assert shown["status"] == "No changes" and shown["sound"]


def test_the_preview_leaves_out_what_is_wrong_and_counts_it(client: Client) -> None:
    shown = preview(client, criterion__0__low="9", flag__1__key="wrong", strength="some")
    assert shown["status"] == "3 things to put right" and not shown["sound"]
    rules = shown["task"]["rules"]
    assert rules["criteria"] == [] and [flag["key"] for flag in rules["flags"]] == ["wrong"]
    assert rules["strength"] == "optional"


def test_without_javascript_a_button_shows_the_preview(client: Client, project: Project) -> None:
    make_task(project, question="Why is the sky blue?")
    answer = post(client, whole_form(client, allow_ties=None), "preview")
    words = text_of(answer)
    assert "Why is the sky blue?" in words and "Ties off" in words and "And quick." in words
    assert "allow_ties" not in loaded(answer)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_versions_say_who_when_what_and_how_many(client: Client, project: Project, alice: User) -> None:
    ann = make_user("ann", project=project, first_name="Ann", last_name="Lee")
    make_user("bob", project=project)
    make_task(project)
    submit(next_leases(project=project, annotator=ann)[0], ann)
    change_project(project=project, changed_by=alice, rules={"allow_ties": False, "guidelines": "Be kind."})
    record_reading(project=project, user=ann, number=2)
    words = text_of(client.get("/p/tales/setup/versions/"))
    assert re.search(r"Version 2 in force .* alice Guidelines, Ties 0 Version 1 .* – the first rules 1", words)
    assert "1 of 3 has read them." in words and "bob not yet" in words and "Ann Lee not yet" not in words
    one = text_of(client.get("/p/tales/setup/versions/1/"))
    assert "1 ranking under it" in one and "Be fair" in one and "Helpful (1 to 5)" in one and "Ties allowed" in one
    two = text_of(client.get("/p/tales/setup/versions/2/"))
    assert "What changed" in two and "Ties allowed off" in two and "Made by alice" in two
    assert client.get("/p/tales/setup/versions/3/").status_code == 404
    assert client.get(f"/p/tales/setup/versions/{10**30}/").status_code == 404
