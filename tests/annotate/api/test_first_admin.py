"""The one-time link, and the commands that make links and tokens."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from annotate.errors import NotFound
from annotate.models import ApiToken, OneTimeLink, User
from annotate.services.first_admin import make_first_admin
from tests.annotate.factories import make_user
from tests.annotate.helpers import at_once

CHOSEN = {"username": "root", "password1": "quite-a-long-one-7", "password2": "quite-a-long-one-7"}


def command(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue().strip()


@pytest.fixture
def link(db: None) -> str:
    return command("first_admin_link")


def test_the_link_makes_the_first_admin_and_logs_them_in(link: str) -> None:
    browser = Client(enforce_csrf_checks=True)
    page = browser.get(link)
    assert page.status_code == 200 and "csrfmiddlewaretoken" in page.content.decode()
    assert page["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    token = browser.cookies["csrftoken"].value
    answer = browser.post(link, CHOSEN | {"csrfmiddlewaretoken": token})
    assert (answer.status_code, answer["Location"]) == (302, "/")
    root = User.objects.get()
    assert root.is_superuser and root.is_staff and root.check_password(CHOSEN["password1"])
    assert browser.get("/api/v1/me/").json()["username"] == "root"


def test_looking_changes_nothing(link: str) -> None:
    for _ in range(3):
        assert Client().get(link).status_code == 200
        assert Client().head(link).status_code == 200
    assert not User.objects.exists()
    assert OneTimeLink.objects.get().used_at is None


def test_the_link_works_once(link: str) -> None:
    assert Client().post(link, CHOSEN).status_code == 302
    assert Client().post(link, CHOSEN | {"username": "second"}).status_code == 404
    User.objects.update(is_superuser=False)
    assert Client().get(link).status_code == 404
    assert Client().post(link, CHOSEN | {"username": "second"}).status_code == 404
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"password2": "another-long-one-7"},
        {"password1": "12345678", "password2": "12345678"},
        {"password1": "root", "password2": "root"},
        {"username": ""},
        {"username": "not allowed"},
    ],
)
def test_a_bad_choice_leaves_the_link_usable(link: str, changes: dict[str, str]) -> None:
    assert Client().post(link, CHOSEN | changes).status_code == 400
    assert not User.objects.exists()
    assert Client().post(link, CHOSEN).status_code == 302


def test_the_link_needs_the_csrf_token(link: str) -> None:
    assert Client(enforce_csrf_checks=True).post(link, CHOSEN).status_code == 403
    assert not User.objects.exists()


def test_the_link_expires_after_a_day(link: str) -> None:
    stored = OneTimeLink.objects.get()
    assert timedelta(hours=23, minutes=59) < stored.expires_at - timezone.now() <= timedelta(hours=24)
    OneTimeLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert Client().get(link).status_code == 404
    assert Client().post(link, CHOSEN).status_code == 404


def test_a_new_link_ends_the_old_one(link: str) -> None:
    newer = command("first_admin_link")
    assert Client().get(link).status_code == 404
    assert Client().get(newer).status_code == 200


def test_no_link_while_there_is_a_superuser(link: str) -> None:
    make_user("sue", is_superuser=True)
    assert Client().get(link).status_code == 404
    assert Client().post(link, CHOSEN).status_code == 404
    assert command("first_admin_link") == ""
    assert User.objects.count() == 1


def test_an_invented_link_is_404(db: None) -> None:
    for path in ("/accounts/first-admin/x/", "/accounts/first-admin/%00/", "/accounts/first-admin/é/"):
        assert Client().get(path).status_code == 404


def test_the_secret_of_a_link_is_not_stored(link: str) -> None:
    secret = link.rstrip("/").rsplit("/", 1)[1]
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(annotate_onetimelink)::text FROM annotate_onetimelink")
        assert secret not in cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
def test_of_eight_at_once_one_gets_in() -> None:
    secret = command("first_admin_link").rstrip("/").rsplit("/", 1)[1]
    results = at_once(
        8, lambda number: make_first_admin(secret=secret, username=f"root{number}", password="quite-a-long-one-7")
    )
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, NotFound) for result in results) == 7
    assert User.objects.count() == 1


def test_a_token_from_the_command_line_works(db: None) -> None:
    make_user("bob")
    secret = command("create_token", "bob", "--name", "loader", "--scopes", "read, write", "--days", "30")
    answer = APIClient().get("/api/v1/me/", headers={"Authorization": f"Token {secret}"})
    assert answer.json()["scopes"] == ["read", "write"]
    expires_at = ApiToken.objects.get().expires_at
    assert expires_at is not None and timedelta(days=29) < expires_at - timezone.now() <= timedelta(days=30)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nobody", "--name", "t", "--scopes", "read"),
        ("bob", "--name", "t", "--scopes", "everything"),
        ("bob", "--name", "t", "--scopes", ""),
        ("bob", "--name", "t", "--scopes", "read", "--days", "0"),
    ],
)
def test_a_token_that_makes_no_sense_is_a_clear_error(db: None, arguments: tuple[str, ...]) -> None:
    make_user("bob")
    with pytest.raises(CommandError):
        command("create_token", *arguments)
    assert not ApiToken.objects.exists()
