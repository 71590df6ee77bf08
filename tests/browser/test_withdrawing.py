"""Withdrawing a text by keys alone, and what stands where on a telephone."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Prompt, Response, Role, User, Withdrawal
from annotate.services.tokens import create_token
from tests.annotate.factories import make_project, make_task, make_user

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
PHONE = {"width": 390, "height": 800}


def test_a_text_is_found_looked_at_and_withdrawn_by_keys(
    browser: Browser, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    project = make_project("tales")
    mia = make_user("mia", project=project, role=Role.MANAGER)
    make_task(project, ("Ask Maria Beispiel.", "No idea."), question="Who knows Maria Beispiel?")
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    login(context, mia)
    page.goto(f"{live_server.url}/p/tales/tasks/")
    page.get_by_role("link", name="Withdraw a text…").press("Enter")
    page.get_by_label("Text that has to go").press_sequentially("Maria Beispiel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="2 things hold “Maria Beispiel”")).to_be_focused()
    expect(page.locator("mark")).to_have_text(["Maria Beispiel"] * 2)
    for key in ("Tab", "Tab", "Tab", "Space", "Enter"):  # past the prompt and its task, to the response
        page.keyboard.press(key)
    expect(page.get_by_role("heading", name="Withdraw this?")).to_be_visible()
    expect(page.get_by_text("1 response")).to_be_visible()
    page.get_by_label("Reason").press_sequentially("Request 17")
    page.keyboard.press("Enter")  # a new line, not the button
    assert not Withdrawal.objects.exists()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Withdraw", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 thing is withdrawn.")).to_be_visible()
    expect(page.get_by_role("heading", name="1 thing holds “Maria Beispiel”")).to_be_focused()
    assert "Maria" not in page.url
    row = Withdrawal.objects.get()
    assert (row.kind, row.by, row.reason) == ("response", mia, "Request 17")
    assert Response.objects.exclude(withdrawn_at=None).count() == 1 and Prompt.objects.get().withdrawn_at is None
    context.close()


def test_on_a_telephone_the_form_of_the_export_stands_first_and_every_token_can_be_revoked_in_sight(
    browser: Browser, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    project = make_project("tales")
    eve = make_user("eve", project=project, engineer=True)
    for name in ("a machine with a rather long name in the cellar", "x" * 90):
        create_token(user=eve, name=name, scopes=["read", "annotate", "write", "train"])
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    login(context, eve)
    page.goto(f"{live_server.url}/accounts/tokens/")
    expect(page.get_by_role("row")).to_have_count(3)  # the head is there for whoever hears the page
    for button in page.get_by_role("button", name="Revoke").all():
        box = button.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    page.goto(f"{live_server.url}/p/tales/export/")
    form, lines = page.get_by_label("Format"), page.get_by_role("heading", name="The first lines")
    tops = [one.bounding_box() for one in (form, lines)]
    assert tops[0] is not None and tops[1] is not None and tops[0]["y"] < tops[1]["y"]
    page.set_viewport_size({"width": 1280, "height": 800})
    beside = [one.bounding_box() for one in (form, lines)]
    assert beside[0] is not None and beside[1] is not None and beside[0]["x"] > beside[1]["x"] + 400
    context.close()
