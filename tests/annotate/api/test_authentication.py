"""Tokens, sessions and scopes."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.errors import Invalid
from annotate.models import ApiToken, Project, User
from annotate.services.tokens import create_token, revoke_token
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of
from tests.annotate.factories import make_user

ME = "/api/v1/me/"


def ask(secret: str) -> int:
    return APIClient().get(ME, HTTP_AUTHORIZATION=f"Token {secret}").status_code


@pytest.fixture
def bob(db: None) -> User:
    return make_user("bob")


def test_without_a_token_the_answer_is_401_and_says_what_to_send(db: None) -> None:
    answer = APIClient().get(ME)
    error_of(answer, 401, "not_authenticated")
    assert answer["WWW-Authenticate"] == "Token"


@pytest.mark.parametrize("header", ["Token", "Token nonsense", "token é", "Token a b c", "Token \x00"])
def test_a_token_that_is_none_is_401(db: None, header: str) -> None:
    answer = APIClient().get(ME, HTTP_AUTHORIZATION=header)
    error_of(answer, 401, "authentication_failed")
    assert answer["WWW-Authenticate"] == "Token"


def test_other_schemes_are_401(db: None) -> None:
    error_of(APIClient().get(ME, HTTP_AUTHORIZATION="Bearer abc"), 401, "not_authenticated")


def test_a_token_works_until_it_is_revoked(bob: User) -> None:
    token, secret = create_token(user=bob, name="loader", scopes=["read"])
    assert ask(secret) == 200
    revoke_token(token=token)
    assert ask(secret) == 401


def test_an_expired_token_is_refused(bob: User) -> None:
    token, secret = create_token(user=bob, name="t", scopes=["read"], expires_at=timezone.now() + timedelta(hours=1))
    assert ask(secret) == 200
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert ask(secret) == 401


def test_the_token_of_someone_deactivated_is_refused(bob: User) -> None:
    _, secret = create_token(user=bob, name="t", scopes=["read"])
    bob.is_active = False
    bob.save()
    assert ask(secret) == 401


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "admin"]])
def test_a_token_needs_known_scopes(bob: User, scopes: list[str]) -> None:
    with pytest.raises(Invalid):
        create_token(user=bob, name="t", scopes=scopes)


def test_a_token_cannot_be_born_expired(bob: User) -> None:
    with pytest.raises(Invalid):
        create_token(user=bob, name="t", scopes=["read"], expires_at=timezone.now())


def test_the_secret_stands_nowhere_in_the_database(bob: User) -> None:
    _, secret = create_token(user=bob, name="t", scopes=["read"])
    ask(secret)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), max(row_to_json(annotate_apitoken)::text) FROM annotate_apitoken")
        count, row = cursor.fetchone()
    assert count == 1 and secret not in row
    assert secret[8:] not in row and secret[:8] in row


def test_last_use_is_written_at_most_once_a_minute(bob: User) -> None:
    token, secret = create_token(user=bob, name="t", scopes=["read"])
    ask(secret)
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    ask(secret)
    token.refresh_from_db()
    assert token.last_used_at == first
    ApiToken.objects.filter(pk=token.pk).update(last_used_at=first - timedelta(seconds=61))
    ask(secret)
    token.refresh_from_db()
    assert token.last_used_at is not None and token.last_used_at >= first


SCOPE_OF = [
    ("get", "/api/v1/me/", "read"),
    ("get", "/api/v1/projects/", "read"),
    ("head", "/api/v1/projects/", "read"),
    ("post", "/api/v1/projects/", "write"),
    ("patch", "/api/v1/projects/tales/", "write"),
    ("post", "/api/v1/projects/tales/next/", "annotate"),
    ("get", "/api/v1/projects/tales/rankings/", "read"),
    ("post", "/api/v1/projects/tales/rankings/", "annotate"),
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPE_OF)
def test_a_token_does_only_what_its_scope_says(
    cast: Cast, project: Project, client_for: ClientFor, method: str, path: str, scope: str
) -> None:
    others = tuple(one for one in ApiToken.Scope.values if one != scope)
    refused = getattr(client_for(cast.sue, others), method)(path, {})
    assert refused.status_code == 403
    if method != "head":
        error_of(refused, 403, "scope")
    assert getattr(client_for(cast.sue, (scope,)), method)(path, {}).status_code in {200, 400}


def test_a_session_needs_the_csrf_token_to_change_anything(cast: Cast, project: Project) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(cast.alice)
    assert browser.get(ME).status_code == 200
    body = {"name": "Fairy tales"}
    refused = browser.patch("/api/v1/projects/tales/", body, content_type="application/json")
    error_of(refused, 403, "permission_denied")
    browser.get("/accounts/password/change/")
    token = browser.cookies["csrftoken"].value
    headers = {"X-CSRFToken": token}
    assert browser.patch("/api/v1/projects/tales/", body, content_type="application/json", headers=headers).json()[
        "name"
    ] == ("Fairy tales")


@pytest.mark.parametrize(("language", "words"), [("en", "CSRF token is missing"), ("de", "CSRF")])
def test_an_old_page_hears_of_csrf_in_the_shape_it_reads(
    cast: Cast, project: Project, language: str, words: str
) -> None:
    browser = Client(enforce_csrf_checks=True, headers={"Accept-Language": language})
    browser.force_login(cast.bob)
    address = reverse("rank_next", args=[project.slug])
    script = browser.post(address, {}, content_type="application/json", headers={"Accept": "application/json"})
    assert words in error_of(script, 403, "csrf_failed")["message"]
    form = browser.post(address, headers={"Accept": "text/html,*/*;q=0.8"})
    assert form.status_code == 403 and form["Content-Type"].startswith("text/html")
    assert "<h1>" in form.content.decode()


def test_a_token_never_falls_back_to_the_session(cast: Cast) -> None:
    browser = Client()
    browser.force_login(cast.alice)
    assert browser.get(ME, headers={"Authorization": "Token wrong"}).status_code == 401


def test_me_says_what_the_token_may(cast: Cast, client_for: ClientFor) -> None:
    assert client_for(cast.eve, ("read", "train")).get(ME).json() == {
        "username": "eve",
        "kind": "human",
        "superuser": False,
        "scopes": ["read", "train"],
        "expires_at": None,
        "memberships": [{"project": "tales", "role": "viewer", "engineer": True}],
    }
