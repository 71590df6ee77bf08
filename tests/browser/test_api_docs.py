"""The API in the browser: everything from this server, nothing that the strict policy blocks."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import User
from tests.annotate.factories import make_user

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_call_can_be_tried(
    live_server: LiveServer, context: BrowserContext, page: Page, login: Callable[[BrowserContext, User], None]
) -> None:
    login(context, make_user("bob"))
    page.goto(f"{live_server.url}/api/docs/")
    me = page.locator("#operations-me-me")
    me.click()
    me.get_by_role("button", name="Try it out").click()
    me.get_by_role("button", name="Execute").click()
    expect(me.locator(".live-responses-table")).to_contain_text('"username": "bob"')
