"""A person's own API tokens."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.models import ApiToken, Project, Role, User
from annotate.services import tokens as service
from annotate.services.machines import create_machine
from annotate.services.tokens import create_token, digest_of
from tests.annotate.factories import make_project, make_user

TOKENS = "/accounts/tokens/"


@pytest.fixture
def project(db: None) -> Project:
    return make_project("tales")


def logged_in(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def make(browser: Client, **changes: Any) -> Any:
    return browser.post(TOKENS, {"name": "loader", "scopes": ["read"], "days": "7"} | changes)


def me(secret: str) -> int:
    return APIClient().get("/api/v1/me/", HTTP_AUTHORIZATION=f"Token {secret}").status_code


def test_a_token_is_shown_once_and_works_until_it_is_revoked(project: Project) -> None:
    bob = make_user("bob", project=project)
    browser = logged_in(bob)
    answer = make(browser)
    secret = answer.context["secret"]
    token = ApiToken.objects.get(user=bob)
    assert answer.content.decode().count(secret) == 1 and "no-store" in answer["Cache-Control"]
    assert (token.name, token.scopes, token.digest) == ("loader", ["read"], digest_of(secret))
    assert token.expires_at and abs(token.expires_at - timezone.now() - timedelta(days=7)) < timedelta(hours=1)
    assert me(secret) == 200
    again = browser.get(TOKENS).content.decode()
    assert "loader" in again and secret not in again and token.prefix in again
    assert browser.post(f"{TOKENS}{token.pk}/revoke/", follow=True).status_code == 200
    assert me(secret) == 401 and "revoked" in browser.get(TOKENS).content.decode()


@pytest.mark.parametrize(
    ("role", "engineer", "open_to"),
    [
        (Role.VIEWER, False, {"read"}),
        (Role.ANNOTATOR, False, {"read", "annotate"}),
        (Role.REVIEWER, False, {"read", "annotate"}),
        (Role.MANAGER, False, {"read", "annotate", "write"}),
        (Role.VIEWER, True, {"read", "write", "train"}),
    ],
)
def test_a_token_is_given_no_more_than_its_person_may_do(
    project: Project, role: Role, engineer: bool, open_to: set[str]
) -> None:
    browser = logged_in(make_user("kim", project=project, role=role, engineer=engineer))
    offered = {value for value, _ in browser.get(TOKENS).context["form"].fields["scopes"].choices}
    assert offered == open_to
    for scope in ApiToken.Scope.values:
        assert make(browser, scopes=[scope]).status_code == (200 if scope in open_to else 422), scope
    assert {one for token in ApiToken.objects.all() for one in token.scopes} == open_to


def test_the_service_refuses_what_the_form_does_not_offer(project: Project) -> None:
    bob = make_user("bob", project=project)
    with pytest.raises(service.Invalid, match="train"):
        service.create_own_token(user=bob, name="t", scopes=["read", "train"], expires_at=None)


def test_whoever_lost_a_right_is_offered_less(project: Project) -> None:
    alice = make_user("alice", project=project, role=Role.MANAGER, engineer=True)
    alice.memberships.update(deactivated_at=timezone.now())
    assert make(logged_in(alice), scopes=["write"]).status_code == 422


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "x" * 101}, {"scopes": []}, {"scopes": ["all"]}, {"days": "8"}]
)
def test_what_cannot_be_is_said_beside_the_field(project: Project, wrong: dict[str, Any]) -> None:
    answer = make(logged_in(make_user("bob", project=project)), **wrong)
    assert answer.status_code == 422 and list(answer.context["form"].errors) == list(wrong)
    assert not ApiToken.objects.exists()


def test_nobody_collects_tokens_without_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_OWN", 2)
    bob = make_user("bob", project=project)
    browser = logged_in(bob)
    ended, _ = create_token(user=bob, name="old", scopes=["read"])
    service.revoke_token(token=ended)
    assert [make(browser).status_code for _ in range(3)] == [200, 200, 422]


def test_nobody_sees_the_tokens_of_others_or_of_machines(project: Project) -> None:
    alice = make_user("alice", project=project, role=Role.MANAGER)
    create_machine(project=project, by=alice, name="judge")
    assert browser_tokens(alice) == []


def browser_tokens(user: User) -> list[ApiToken]:
    found: list[ApiToken] = logged_in(user).get(TOKENS).context["tokens"]
    return found
