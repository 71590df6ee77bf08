"""What people set for themselves: by script, by form, in which language and colours pages come then."""

from typing import Any

import pytest
from django.test import Client

from annotate.models import User
from tests.annotate.factories import make_project, make_user
from tests.annotate.pages.test_pages import browser

pytestmark = pytest.mark.django_db
ADDRESS = "/preferences/"


def post(client: Client, body: Any) -> Any:
    return client.post(ADDRESS, body, content_type="application/json")


def test_a_script_sets_what_it_names_and_hears_all() -> None:
    bob = make_user("bob")
    client = browser(bob)
    assert post(client, {"theme": "dark", "shortcuts": False}).json() == {
        "shortcuts": False, "theme": "dark", "layout": "columns", "pause_reminder": True, "language": ""
    }  # fmt: skip
    everything = post(client, {"layout": "stacked", "pause_reminder": False, "language": "de"}).json()
    assert everything == {
        "shortcuts": False, "theme": "dark", "layout": "stacked", "pause_reminder": False, "language": "de"
    }  # fmt: skip
    bob.refresh_from_db()
    kept = (bob.single_key_shortcuts, bob.theme, bob.layout, bob.pause_reminder, bob.language)
    assert kept == (False, "dark", "stacked", False, "de")


@pytest.mark.parametrize(
    "body",
    [
        {"theme": "pink"},
        {"layout": 1},
        {"shortcuts": "yes"},
        {"pause_reminder": 1},
        {"language": "tlh"},
        {"is_staff": True},
    ],
    ids=str,
)
def test_what_cannot_be_set_is_named_and_nothing_is_kept(body: dict[str, Any]) -> None:
    bob = make_user("bob")
    answer = post(browser(bob), {"language": "de", "theme": "dark"} | body)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == list(body)
    bob.refresh_from_db()
    assert (bob.language, bob.theme, bob.is_staff) == ("", "system", False)


@pytest.mark.parametrize("body", ["[]", "{", '"dark"'])
def test_a_body_that_is_no_object_is_refused(body: str) -> None:
    assert post(browser(make_user("bob")), body).status_code == 422


def test_nobody_sets_anything_without_a_log_in_or_a_token_of_the_page() -> None:
    assert post(Client(), {"theme": "dark"}).status_code == 401
    assert Client().post(ADDRESS, {"theme": "dark"})["Location"] == f"/accounts/login/?next={ADDRESS}"
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_user("bob"), backend="django.contrib.auth.backends.ModelBackend")
    assert post(strict, {"theme": "dark"}).status_code == 403
    assert User.objects.get(username="bob").theme == "system"


def test_the_menu_sets_one_thing_and_comes_back() -> None:
    bob = make_user("bob", pause_reminder=True)
    answer = browser(bob).post(ADDRESS, {"theme": "light", "next": "/p/tales/"})
    assert (answer.status_code, answer["Location"]) == (302, "/p/tales/")
    bob.refresh_from_db()
    assert (bob.theme, bob.pause_reminder, bob.single_key_shortcuts) == ("light", True, True)


def test_a_fragment_of_a_page_sets_things_in_silence() -> None:
    bob = make_user("bob", pause_reminder=True)
    client = browser(bob)
    answer = client.post(ADDRESS, {"pause_reminder": ["false"], "layout": "stacked"}, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.content) == (204, b"")
    bob.refresh_from_db()
    assert (bob.pause_reminder, bob.layout) == (False, "stacked")
    client.post(ADDRESS, {"pause_reminder": ["false", "true"]}, headers={"HX-Request": "true"})
    bob.refresh_from_db()
    assert bob.pause_reminder is True
    assert "Saved." not in client.get("/").content.decode()


@pytest.mark.parametrize("elsewhere", ["https://example.org/", "//example.org", "javascript:alert(1)", ""])
def test_the_way_back_never_leads_elsewhere(elsewhere: str) -> None:
    answer = browser(make_user("bob")).post(ADDRESS, {"theme": "light", "next": elsewhere})
    assert answer["Location"] == ADDRESS


def test_the_page_shows_what_is_set_and_takes_it_back_whole() -> None:
    bob = make_user("bob", theme="dark", pause_reminder=True, single_key_shortcuts=True)
    client = browser(bob)
    page = client.get(ADDRESS).content.decode()
    assert '<input type="radio" name="theme" value="dark" id="id_theme_2" checked>' in page
    whole = {"whole": "1", "theme": "system", "language": "de", "layout": "columns", "pause_reminder": "on"}
    answer = client.post(ADDRESS, whole, follow=True)
    bob.refresh_from_db()
    kept = (bob.theme, bob.language, bob.pause_reminder, bob.single_key_shortcuts)
    assert kept == ("system", "de", True, False)
    assert "Gespeichert." in answer.content.decode()


# --- colours ---------------------------------------------------------------------------------------------------------


def test_the_theme_is_said_where_one_was_chosen_and_left_to_the_system_where_not() -> None:
    client = browser(make_user("bob"))
    assert "data-theme" not in client.get("/").content.decode()
    post(client, {"theme": "dark"})
    page = client.get("/").content.decode()
    assert '<html lang="en" data-theme="dark">' in page
    assert '<meta name="color-scheme" content="dark">' in page


def test_the_browser_keeps_the_theme_after_the_log_out_and_forgets_it_on_choice() -> None:
    client = browser(make_user("bob"))
    post(client, {"theme": "dark"})
    cookie = client.cookies["plackett_theme"]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == ("dark", True, "Lax")
    client.logout()
    client.cookies["plackett_theme"] = "dark"
    assert 'data-theme="dark"' in client.get("/accounts/login/").content.decode()
    client.force_login(User.objects.get(username="bob"), backend="django.contrib.auth.backends.ModelBackend")
    post(client, {"theme": "system"})
    assert client.cookies["plackett_theme"].value == ""


def test_a_forged_cookie_is_no_theme() -> None:
    client = Client()
    client.cookies["plackett_theme"] = 'x"><script>'
    assert "data-theme" not in client.get("/accounts/login/").content.decode()


# --- language --------------------------------------------------------------------------------------------------------


def log_in_page(client: Client, **headers: str) -> Any:
    return client.get("/accounts/login/", headers=headers)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("de", "de"), ("de-AT,en;q=0.5", "de"), ("fr, de;q=0.4, en;q=0.3", "de"), ("fr", "en"), ("*", "en"), ("", "en")],
)
def test_the_browser_decides_until_somebody_chooses(accepted: str, language: str) -> None:
    answer = log_in_page(Client(), **{"Accept-Language": accepted} if accepted else {})
    assert (answer["Content-Language"], f'<html lang="{language}">' in answer.content.decode()) == (language, True)
    assert "Accept-Language" in answer["Vary"]
    assert ("Anmelden" in answer.content.decode()) is (language == "de")


def test_the_users_choice_holds_in_every_browser() -> None:
    bob = make_user("bob", language="de")
    assert browser(bob).get("/", headers={"Accept-Language": "en"})["Content-Language"] == "de"
    eve = make_user("eve", language="en")
    assert browser(eve).get("/", headers={"Accept-Language": "de"})["Content-Language"] == "en"


def test_the_cookie_speaks_for_whoever_is_not_logged_in_alone() -> None:
    client = browser(make_user("bob"))
    post(client, {"language": "de"})
    client.logout()
    client.cookies["plackett_language"] = "de"
    assert log_in_page(client, **{"Accept-Language": "en"})["Content-Language"] == "de"
    client.force_login(make_user("eve"), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/", headers={"Accept-Language": "en"})["Content-Language"] == "en"
    client.logout()
    client.cookies["plackett_language"] = "../../x"
    assert log_in_page(client)["Content-Language"] == "en"


def test_pages_come_in_german() -> None:
    project = make_project("tales")
    client = browser(make_user("bob", project=project, language="de"))
    for path, words in {
        "/": "Projekte",
        "/p/tales/": "Richtlinien",
        "/p/tales/guidelines/": "Richtlinien",
        "/p/tales/rank/": "Abschicken",
        "/preferences/": "Einstellungen",
        "/accounts/password/change/": "Passwort ändern",
        "/nowhere/": "Hier ist nichts",
    }.items():
        page = client.get(path).content.decode()
        assert '<html lang="de"' in page and words in page, path


def test_refusals_are_said_in_german_and_a_program_hears_english() -> None:
    client = browser(make_user("bob", language="de"))
    refused = post(client, {"theme": "pink"}).json()["error"]
    assert refused["message"] == "Das lässt sich nicht einstellen."
    assert "Say one of" not in str(refused)
    assert Client().get("/api/v1/me/").json()["error"]["message"].startswith("Authentication")


def test_the_log_in_speaks_as_the_rest_does() -> None:
    make_user("bob", project=make_project())
    client = Client(headers={"accept-language": "de"})
    page = client.get("/accounts/login/").content.decode()
    assert "Benutzername" in page and "Anmeldename" not in page
    wrong = client.post("/accounts/login/", {"login": "bob", "password": "x"}).content.decode()
    assert "Benutzername oder Passwort sind nicht richtig." in wrong
    answer = client.post("/accounts/login/", {"login": "bob", "password": "bob"}, follow=True)
    assert answer.request["PATH_INFO"] == "/" and list(answer.context["messages"]) == []
    answer = client.post("/accounts/logout/", follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["Sie sind abgemeldet."]
