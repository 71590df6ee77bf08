"""The set-up of a project as a manager uses it: live preview, rows by keyboard, review and save, without JavaScript."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Lease, Project, ProjectVersion, User
from annotate.selectors.projects import current_version
from annotate.services.projects import change_project
from tests.annotate.factories import make_project, make_task, make_user
from tests.browser.bench import Bench
from tests.browser.test_safe_and_open import GUIDELINES, RICH, violations

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
RULES = {
    "guidelines": GUIDELINES,
    "criteria": [{"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 5, "required": False}],
    "flags": [{"key": "wrong", "label": "Wrong"}],
}


@pytest.fixture
def project() -> Project:
    project = make_project("tales", rules=RULES)
    make_task(project, RICH, question="Why is the sky blue?")
    return project


@pytest.fixture
def setup(project: Project, page: Page, live_server: LiveServer, login: Login) -> "SetUp":
    login(page.context, make_user("mia", project=project, role="manager", engineer=True))
    return SetUp(page, live_server.url, project).open()


class SetUp:
    """Drives the set-up page."""

    def __init__(self, page: Page, url: str, project: Project) -> None:
        self.page, self.address = page, f"{url}/p/{project.slug}/setup/"
        self.preview = Bench(page, url, project)

    def open(self) -> "SetUp":
        self.page.goto(self.address)
        expect(self.page.locator(".preview .response").first).to_be_visible()
        return self

    def field(self, name: str) -> Locator:
        return self.page.locator(f"#id_{name}")

    def says(self, status: str) -> None:
        expect(self.page.locator('[data-part="status"]')).to_have_text(status)

    def review(self) -> None:
        self.page.get_by_role("button", name="Review and save").click()
        expect(self.page.get_by_role("heading", name="Review the changes")).to_be_visible()


def test_the_preview_follows_the_form_and_can_be_tried(setup: SetUp) -> None:
    page, preview = setup.page, setup.preview
    setup.says("No changes")
    expect(page.locator(".preview .prompt .text")).to_have_text("Why is the sky blue?")
    preview.chip("B").click()
    preview.keys("1 a 2")
    preview.says("B > A, C, D unranked")
    setup.field("criterion-0-label").fill("Kind")
    expect(page.locator(".preview .scale legend").first).to_have_text("Kind")
    preview.says("B > A, C, D unranked")  # what was tried stays
    setup.field("allow_ties").uncheck()
    setup.says("2 changes, not saved")
    preview.says("B > A, C, D unranked")
    preview.part("submit").click()
    expect(preview.part("hint")).to_have_text("This would be saved: B > A, C, D unranked. In the preview nothing is.")
    setup.field("allow_all_bad").uncheck()
    expect(preview.part("all-bad")).to_be_hidden()
    setup.field("guidelines").fill("Only **this**.")
    expect(page.locator(".preview strong")).to_have_text("this")
    setup.field("criterion-0-high").fill("0")
    setup.says("1 thing to put right")
    assert not Lease.objects.exists() and ProjectVersion.objects.count() == 1


def test_keys_in_the_form_are_the_forms_own(setup: SetUp) -> None:
    setup.preview.chip("B").click()
    setup.field("name").fill("a1b2")
    setup.field("allow_partial").press("1")
    setup.page.locator("h1").click()
    setup.page.keyboard.press("1")
    setup.preview.says("Nothing placed yet")
    setup.field("name").press("Enter")  # as in any form: its first button, which reviews
    expect(setup.page.get_by_role("heading", name="Review the changes")).to_be_visible()


def test_rows_by_keyboard_keep_the_focus(setup: SetUp) -> None:
    page = setup.page
    page.get_by_role("button", name="Add a flag").press("Enter")
    expect(setup.field("flag-1-label")).to_be_focused()
    page.keyboard.type("Too long")
    expect(page.locator("#response-A").get_by_text("Too long")).to_be_visible()
    page.locator("#flag-1-up").press("Enter")
    expect(page.locator("#flag-0-down")).to_be_focused()
    expect(setup.field("flag-0-label")).to_have_value("Too long")
    page.locator("#flag-1-remove").press("Enter")
    expect(page.locator("#flag-0-remove")).to_be_focused()
    page.locator("#criterion-0-remove").press("Enter")
    expect(page.locator("#criterion-add")).to_be_focused()
    setup.says("3 changes, not saved")
    setup.review()
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_role("status").filter(has_text="Saved as version 2")).to_be_visible()
    version = current_version(Project.objects.get())
    assert version.flags == [{"key": "too_long", "label": "Too long"}] and version.criteria == []


def test_saving_waits_for_rows_that_are_being_removed(setup: SetUp) -> None:
    page = setup.page
    held: list[Route] = []
    page.route(
        "**/setup/", lambda route: held.append(route) if "hx-request" in route.request.headers else route.continue_()
    )
    page.locator("#flag-0-remove").click()
    page.locator("#criterion-0-remove").click()
    page.get_by_role("button", name="Review and save").click()
    for _ in range(2):
        for _wait in range(100):
            if held:
                break
            page.wait_for_timeout(50)
        held.pop().continue_()
    expect(page.get_by_role("heading", name="Review the changes")).to_be_visible()
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_role("status").filter(has_text="Saved as version 2")).to_be_visible()
    version = current_version(Project.objects.get())
    assert (version.flags, version.criteria) == ([], [])


def test_leaving_with_changes_asks_first(setup: SetUp) -> None:
    asked: list[str] = []
    setup.page.on("dialog", lambda dialog: asked.append(dialog.type) or dialog.accept())
    setup.page.reload()
    setup.says("No changes")
    assert asked == []
    setup.field("name").fill("Other")
    setup.says("1 change, not saved")
    setup.page.reload()
    assert asked == ["beforeunload"]
    setup.field("name").fill("Other")
    setup.review()
    assert asked == ["beforeunload"]
    setup.page.get_by_role("button", name="Back to the form").click()
    setup.says("1 change, not saved")
    setup.page.reload()  # posted again, with the changes that are still not saved
    assert asked == ["beforeunload"] * 2


def test_somebody_else_saved_meanwhile(setup: SetUp, project: Project, quiet_console: list[str]) -> None:
    bob = make_user("bob", project=project, role="manager")
    setup.field("allow_ties").uncheck()
    change_project(project=project, changed_by=bob, rules={"guidelines": "Bob's."})
    setup.page.get_by_role("button", name="Review and save").click()
    expect(setup.page.get_by_role("heading", name="Somebody else has saved meanwhile")).to_be_visible()
    quiet_console.clear()  # Chromium notes the 409
    setup.page.get_by_role("button", name="Take both").click()
    expect(setup.field("guidelines")).to_have_value("Bob's.")
    expect(setup.field("allow_ties")).not_to_be_checked()


def test_without_javascript(browser: Browser, live_server: LiveServer, login: Login, project: Project) -> None:
    context = browser.new_context(java_script_enabled=False)
    login(context, make_user("mia", project=project, role="manager"))
    page = context.new_page()
    page.goto(f"{live_server.url}/p/tales/setup/")
    expect(page.locator(".rail")).to_be_hidden()
    page.get_by_role("button", name="Add a flag").click()
    page.locator("#id_flag-1-label").fill("Too long")
    page.locator("#id_allow_ties").uncheck()
    page.get_by_role("button", name="Show the preview").click()
    expect(page.locator("#response-A").get_by_text("Too long")).to_be_visible()
    expect(page.locator(".preview").get_by_text("Ties", exact=True)).to_be_visible()
    page.get_by_role("button", name="Review and save").click()
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("Saved as version 2")).to_be_visible()
    assert current_version(project).flags[1]["key"] == "too_long" and not current_version(project).allow_ties
    context.close()


def test_a_new_project_suggests_its_address(page: Page, live_server: LiveServer, login: Login) -> None:
    login(page.context, make_user("sue", is_superuser=True))
    page.goto(f"{live_server.url}/projects/new/")
    page.get_by_label("Name").fill("Märchen & Co.")
    expect(page.get_by_label("Address")).to_have_value("marchen-co")
    page.get_by_label("Address").fill("tales")
    page.get_by_label("Name").fill("Fairy tales")
    expect(page.get_by_label("Address")).to_have_value("tales")
    page.get_by_label("Harmlessness").check()
    page.get_by_role("button", name="Make the project").click()
    expect(page.get_by_role("heading", name="The project is made. What comes next")).to_be_visible()
    expect(page.locator(".preview .prompt .text")).to_contain_text("Why do leaves change colour")
    assert Project.objects.get().slug == "tales"


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing(
    browser: Browser, live_server: LiveServer, login: Login, project: Project, scheme: Any, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    mia = make_user("mia", project=project, role="manager", is_superuser=True)
    login(context, mia)
    setup = SetUp(context.new_page(), live_server.url, project).open()
    page = setup.page

    def clean(where: str) -> None:
        assert violations(page) == [], where
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{where} is too wide"

    page.evaluate("document.querySelectorAll('details.fold').forEach((one) => (one.open = true))")
    setup.preview.chip("B").click()
    setup.preview.keys("1 a 2")
    clean("set-up")
    setup.field("guidelines").fill("# What counts\n\nBe **kind**.")
    setup.field("criterion-0-high").fill("0")
    page.get_by_role("button", name="Review and save").click()
    expect(page.get_by_role("alert")).to_be_visible()
    setup.says("1 thing to put right")
    clean("set-up with a fault")
    setup.field("criterion-0-high").fill("7")
    setup.review()
    clean("review")
    change_project(project=project, changed_by=mia, rules={"guidelines": "Other."})
    page.get_by_role("button", name="Save as version 2").click()
    clean("changed meanwhile")
    for path in ("/p/tales/setup/versions/", "/p/tales/setup/versions/2/", "/projects/new/"):
        page.goto(live_server.url + path)
        clean(path)
    context.close()
