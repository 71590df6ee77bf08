"""Making a project in the browser."""

import html
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from annotate.models import Membership, Project, User
from annotate.selectors.projects import current_version
from tests.annotate.factories import make_user
from tests.annotate.pages.setup_form import alice, client, project, text_of
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db
__all__ = ["alice", "client", "project"]  # fixtures


def make(client: Client, **fields: Any) -> Any:
    return client.post("/projects/new/", {"name": "Fairy Tales", "overlap": "2", "preset": "harmlessness"} | fields)


@pytest.fixture
def maker(project: Project) -> Client:
    user = make_user("maker")
    user.user_permissions.add(Permission.objects.get(codename="add_project"))
    return browser(user)


def test_a_project_is_made_and_its_maker_lands_on_the_set_up(maker: Client) -> None:
    answer = make(maker)
    assert (answer.status_code, answer["Location"]) == (302, "/p/fairy-tales/setup/?new")
    made = Project.objects.get(slug="fairy-tales")
    assert (made.name, made.overlap, current_version(made).number) == ("Fairy Tales", 2, 1)
    assert current_version(made).criteria[0]["label"] == "It refuses" and current_version(made).guidelines
    membership = Membership.objects.get(project=made)
    assert (membership.user.username, membership.role, membership.engineer) == ("maker", "manager", True)
    words = text_of(maker.get(answer["Location"]))
    assert "Import prompts and responses" in words and "Invite people" in words


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "This field is required."),
        ({"slug": "tales"}, "Another project has this address."),
        ({"name": "Tales"}, "Another project has this address."),
        ({"name": "童話"}, "Choose an address"),
        ({"slug": "a b"}, "Enter a valid “slug”"),
        ({"overlap": "0"}, "greater than or equal to 1"),
        ({"preset": "none"}, "Select a valid choice."),
        ({"name": "a\0"}, "Null characters are not allowed."),
    ],
)
def test_a_project_that_cannot_be_is_said_and_not_made(maker: Client, fields: dict[str, str], message: str) -> None:
    answer = make(maker, **fields)
    assert answer.status_code == 422 and message in html.unescape(answer.content.decode())
    assert Project.objects.count() == 1


def test_the_way_to_a_new_project_is_shown_to_those_who_may(maker: Client, client: Client, alice: User) -> None:
    make(maker)
    assert "/projects/new/" in maker.get("/").content.decode()
    assert "/projects/new/" not in client.get("/").content.decode()


def test_whoever_may_not_make_projects_is_told_so(client: Client) -> None:
    assert client.get("/projects/new/").status_code == 403 and make(client).status_code == 403
    assert Project.objects.count() == 1
