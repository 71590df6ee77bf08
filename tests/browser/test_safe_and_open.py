"""Texts that attack, and pages that anyone can use: axe finds nothing, in light and in dark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import User
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.pages.test_rendering import PAYLOADS
from tests.browser.bench import Bench, project_with_tasks

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text()
GUIDELINES = "# What counts\n\nBe **fair**.\n\n| a | b |\n|---|---|\n| 1 | $x^2$ |"
RICH = [
    "A list:\n\n1. one\n2. two\n\n```python\ndef f(x: int) -> str:  # why\n    return 'x' * 3\n```",
    "## Heading\n\n| left | right |\n|:--|--:|\n| 1 | $\\frac{1}{2}$ |\n\n$$\\sum_{i=1}^n i$$",
    "A [link](https://example.com) and `code`. " + "Many more words. " * 600,
    "مرحبا، هذه إجابة.",
]


def violations(page: Page) -> list[str]:
    """What axe finds, WCAG and best practices alike, with the places."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE)  # by the debugger, so that the page's policy stays as strict as it is
    found: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['target']} {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(browser: Browser, live_server: LiveServer, login: Login, scheme: Any, width: int) -> None:
    project, annotator = project_with_tasks(2, texts=RICH, rules={"guidelines": GUIDELINES})
    manager = make_user("mia", project=project, role="manager", engineer=True)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{live_server.url}/accounts/login/")
    assert violations(page) == []
    login(context, manager)
    for path in (
        "/",
        f"/p/{project.slug}/",
        f"/p/{project.slug}/guidelines/",
        "/accounts/password/change/",
        "/p/none/",
    ):
        page.goto(live_server.url + path)
        assert violations(page) == [], path
    login(context, annotator)
    bench = Bench(page, live_server.url, project).open()
    assert violations(page) == []
    bench.keys("b 1 a 2 d 2 c")
    bench.part("notes").evaluate("one => one.open = true")
    bench.saved()
    if width < 900:
        page.locator("label.more").click()
    page.wait_for_timeout(200)
    assert violations(page) == []
    for dialog in ("help", "guidelines", "compare", "rewrite", "skip", "flag", "conflict", "logged-out", "notice"):
        page.evaluate("id => document.getElementById(id).showModal()", dialog)
        assert violations(page) == [], dialog
        page.keyboard.press("Escape")
    context.close()


def test_texts_that_attack_do_nothing(page: Page, live_server: LiveServer, login: Login) -> None:
    every = "\n\n".join(PAYLOADS)
    project = make_project(rules={"guidelines": every}, slug="attack")
    type(project).objects.filter(pk=project.pk).update(name="<img src=x onerror=alert(1)>", description=every)
    starts = range(0, len(PAYLOADS), 8)
    tasks = len(starts)
    for number in starts:
        make_task(project, [*PAYLOADS[number : number + 8], every], question=PAYLOADS[number] + every)
    annotator = make_user("ann", project=project, first_name="<svg onload=alert(1)>")
    login(page.context, annotator)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}") or dialog.dismiss())
    bench = Bench(page, live_server.url, project)
    for path in ("/", f"/p/{project.slug}/", f"/p/{project.slug}/guidelines/"):
        page.goto(live_server.url + path)
    bench.open()
    for task in range(tasks):
        first = page.locator(".response").first.get_attribute("data-id")
        for raw in page.get_by_text("Raw", exact=True).all():
            raw.click()
        bench.keys("a 1 b 2 Enter")
        if task < tasks - 1:
            expect(page.locator(".response").first).not_to_have_attribute("data-id", str(first))
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert [url for url in asked if not url.startswith(live_server.url)] == []
    assert page.context.cookies()[0]["name"]  # still logged in: no link to /accounts/logout/ was followed


def test_the_tree_that_a_screen_reader_reads(page: Page, live_server: LiveServer, login: Login) -> None:
    project, annotator = project_with_tasks(1)
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()
    bench.keys("b 1 a 2 d 2")
    expect(bench.part("live")).to_have_text("1st: B; 2nd, tied: A, D; unranked: C.")
    expect(page.get_by_role("article", name="Response D, 2nd, tied")).to_be_focused()
    expect(page.get_by_role("group", name="2nd, tied: A, D")).to_be_visible()
    expect(page.get_by_role("button", name="Response C, unranked")).to_be_visible()
    expect(page.get_by_role("group", name="How much better?")).to_be_visible()
    expect(page.get_by_role("complementary", name="Your ranking")).to_be_visible()


def test_focus_stays_on_what_was_pressed(page: Page, live_server: LiveServer, login: Login) -> None:
    project, annotator = project_with_tasks(1)
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()
    bench.keys("b 1 a 2")
    strength = page.get_by_role("button", name="B clearly better than A")
    strength.press("Enter")
    expect(strength).to_have_attribute("aria-pressed", "true")
    expect(strength).to_be_focused()
    bench.chip("A").focus()
    bench.keys("Space ArrowUp")
    expect(bench.chip("A")).to_be_focused()
