"""Colours by system and by choice, languages, and the page where they are set; axe finds nothing there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import User
from tests.annotate.factories import make_project, make_user

pytestmark = pytest.mark.django_db(transaction=True)

AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text()
Login = Callable[[BrowserContext, User], None]
PAPER = {"light": "rgb(251, 250, 248)", "dark": "rgb(22, 21, 19)"}


def paper(page: Page) -> str:
    return str(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))


def choose(page: Page, name: str) -> None:
    """Two presses: the menu, the choice."""
    page.locator(".menu-button").click()
    page.locator(".menu").get_by_text(name, exact=True).click()


@pytest.mark.parametrize(("system", "choice"), [("light", "Dark"), ("dark", "Light")])
def test_a_choice_wins_over_the_system_and_can_be_given_back(
    browser: Browser, live_server: LiveServer, login: Login, system: Any, choice: str
) -> None:
    context = browser.new_context(color_scheme=system)
    login(context, make_user("ann"))
    page = context.new_page()
    page.goto(live_server.url)
    assert paper(page) == PAPER[system]
    with page.expect_response("**/preferences/") as answered:
        choose(page, choice)
    assert answered.value.status == 204
    assert paper(page) == PAPER[choice.lower()]
    expect(page.locator(".menu").get_by_role("radio", name=choice)).to_be_checked()
    page.reload()
    assert paper(page) == PAPER[choice.lower()]
    # The first paint has it: the attribute comes with the page, no script sets it.
    assert f'data-theme="{choice.lower()}"' in page.request.get(live_server.url).text()
    context.clear_cookies(name="sessionid")
    page.goto(f"{live_server.url}/accounts/login/")
    assert paper(page) == PAPER[choice.lower()]
    login(context, User.objects.get(username="ann"))
    page.goto(live_server.url)
    with page.expect_response("**/preferences/"):
        choose(page, "System")
    assert paper(page) == PAPER[system]
    context.close()


def test_the_language_is_two_presses_away_and_the_page_stays(page: Page, live_server: LiveServer, login: Login) -> None:
    project = make_project("tales", rules={"guidelines": "Rank."})
    login(page.context, make_user("ann", project=project))
    page.goto(f"{live_server.url}/p/tales/guidelines/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Guidelines")
    choose(page, "Deutsch")
    page.wait_for_url("**/p/tales/guidelines/")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    page.locator(".menu-button").click()
    expect(page.get_by_role("button", name="English", exact=True)).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", level=1)).to_have_text("Richtlinien")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_and_the_open_menu(
    browser: Browser, live_server: LiveServer, login: Login, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    login(context, make_user("ann", theme=scheme, language="de"))
    page = context.new_page()
    page.goto(f"{live_server.url}/preferences/")
    page.locator(".menu-button").click()
    page.evaluate(AXE)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.locator(".menu-button").click()
    page.locator("main").get_by_label("Dunkel" if scheme == "light" else "Hell").check()
    page.get_by_role("button", name="Speichern").click()
    expect(page.get_by_role("status")).to_have_text("Gespeichert.")
    assert User.objects.get(username="ann").theme != scheme
    context.close()
