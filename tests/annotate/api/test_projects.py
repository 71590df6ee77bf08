"""Projects over HTTP."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from rest_framework.test import APIClient

from annotate.models import Membership, Project, ProjectVersion, User
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from tests.annotate.factories import make_project

PROJECTS = "/api/v1/projects/"
TALES = "/api/v1/projects/tales/"


@pytest.fixture
def sue(cast: Cast, client_for: ClientFor) -> APIClient:
    return client_for(cast.sue)


@pytest.fixture
def alice(cast: Cast, client_for: ClientFor) -> APIClient:
    return client_for(cast.alice)


def test_a_new_project_has_rules_and_a_manager(sue: APIClient, cast: Cast) -> None:
    rules = {
        "guidelines": "# Be fair",
        "ties": False,
        "strength": "required",
        "criteria": [{"key": "helpful", "label": "Helpful"}],
        "flags": [{"key": "unsafe", "label": "Unsafe"}],
    }
    answer = sue.post(PROJECTS, {"slug": "poems", "name": "Poems", "overlap": 3, "rules": rules})
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["slug"], made["overlap"], made["version"]) == ("poems", 3, 1)
    assert made["rules"]["ties"] is False and made["rules"]["partial"] is True
    full = {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 5, "required": False}
    assert made["rules"]["criteria"] == [full] and made["rules"]["flags"] == rules["flags"]
    assert made["me"] == {"role": "manager", "engineer": True}
    assert Membership.objects.get(project__slug="poems").user == cast.sue
    assert sue.get("/api/v1/projects/poems/").json() == made


def test_the_permission_to_make_projects_can_be_given(cast: Cast, client_for: ClientFor) -> None:
    body = {"slug": "poems", "name": "Poems"}
    error_of(client_for(cast.alice).post(PROJECTS, body), 403, "forbidden")
    cast.bob.user_permissions.add(Permission.objects.get(codename="add_project"))
    assert client_for(User.objects.get(username="bob")).post(PROJECTS, body).status_code == 201


def test_a_key_makes_one_project(sue: APIClient) -> None:
    for _ in range(2):
        answer = sue.post(PROJECTS, {"slug": "poems", "name": "Poems"}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
    assert Project.objects.filter(slug="poems").count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Poems"}, "slug"),
        ({"slug": "poems"}, "name"),
        ({"slug": "po ems", "name": "P"}, "slug"),
        ({"slug": "tales", "name": "P"}, "slug"),
        ({"slug": "p", "name": "P", "overlap": 0}, "overlap"),
        ({"slug": "p", "name": "P", "overlap": 10**30}, "overlap"),
        ({"slug": "p", "name": "P", "lease_seconds": 5}, "lease_seconds"),
        ({"slug": "p", "name": "P", "rules": {"strength": "some"}}, "rules.strength"),
        ({"slug": "p", "name": "P", "rules": {"criteria": [{"key": "a b", "label": "x"}]}}, "rules.criteria.0.key"),
        ({"slug": "p", "name": "P", "rules": {"criteria": [{"key": "a"}]}}, "rules.criteria.0.label"),
        (
            {"slug": "p", "name": "P", "rules": {"criteria": [{"key": "a", "label": "x", "low": 5, "high": 5}]}},
            "rules.criteria.0.high",
        ),
        ({"slug": "p", "name": "P", "rules": {"flags": [{"key": "a", "label": "x"}] * 2}}, "rules.flags"),
        ({"slug": "p", "name": "P", "rules": {"flags": "a"}}, "rules.flags.body"),
        ({"slug": "p", "name": "P", "pseudonym_key": "0"}, "pseudonym_key"),
    ],
)
def test_what_makes_no_sense_is_named(sue: APIClient, body: dict[str, Any], field: str) -> None:
    found = error_of(sue.post(PROJECTS, body), 400)["fields"]
    assert any(path == field or path.startswith(field.removesuffix(".body")) for path in found), found
    assert not Project.objects.filter(slug="p").exists()


def test_the_list_holds_ones_own_projects(cast: Cast, client_for: ClientFor) -> None:
    def slugs(user: User) -> list[str]:
        return [row["slug"] for row in client_for(user).get(PROJECTS).json()["results"]]

    assert slugs(cast.bob) == ["tales"]
    assert slugs(cast.charlie) == ["elsewhere"]
    assert slugs(cast.sue) == ["tales", "elsewhere"]


def test_the_list_comes_in_pages(sue: APIClient) -> None:
    for number in range(5):
        make_project(f"p{number}")
    page = sue.get(PROJECTS, {"limit": 3}).json()
    rest = sue.get(PROJECTS, {"limit": 100, "cursor": page["next"]}).json()
    slugs = [row["slug"] for row in page["results"] + rest["results"]]
    assert slugs == list(Project.objects.order_by("pk").values_list("slug", flat=True))


def test_a_change_of_settings_makes_no_new_rules(alice: APIClient) -> None:
    changed = alice.patch(TALES, {"name": "Fairy tales", "overlap": 4}).json()
    assert (changed["name"], changed["overlap"], changed["version"]) == ("Fairy tales", 4, 1)
    assert Project.objects.get(slug="tales").overlap == 4


def test_a_change_of_rules_is_a_new_version(alice: APIClient, cast: Cast) -> None:
    assert alice.patch(TALES, {"rules": {"ties": False}}).json()["version"] == 2
    assert alice.patch(TALES, {"rules": {"ties": False}}).json()["version"] == 2
    changed = alice.patch(TALES, {"rules": {"guidelines": "New."}}).json()
    assert (changed["version"], changed["rules"]["ties"]) == (3, False)
    versions = ProjectVersion.objects.filter(project__slug="tales").order_by("number")
    assert [version.allow_ties for version in versions] == [True, False, False]
    assert versions[2].created_by == cast.alice


@pytest.mark.parametrize("body", [{"slug": "other"}, {"archived_at": None}, {"name": ""}, {"rules": {"ties": "maybe"}}])
def test_a_change_that_makes_no_sense_changes_nothing(alice: APIClient, body: dict[str, Any]) -> None:
    before = alice.get(TALES).json()
    error_of(alice.patch(TALES, body), 400)
    assert alice.get(TALES).json() == before
