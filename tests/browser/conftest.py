"""A real Chromium on a live server. A missing browser fails these tests; it never skips them."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import User

# Playwright's own loop runs in this thread, so Django takes every query for one made in a coroutine.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

# A busy machine may take its time; what is right needs none of it.
expect.set_options(timeout=15_000)

DEBIAN_CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# What htmx says when a newer request takes the place of one on its way (hx-sync="replace"), or the page closes.
# A request that fails says htmx:sendError or htmx:responseError besides.
SUPERSEDED = ("htmx:sendAbort", "htmx:afterRequest")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """PLACKETT_CHROMIUM, else Debian's Chromium, else the one that Playwright installed for itself."""
    chosen = os.environ.get("PLACKETT_CHROMIUM") or (DEBIAN_CHROMIUM if Path(DEBIAN_CHROMIUM).exists() else None)
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return browser_type_launch_args | {"args": [*QUIET, *no_sandbox], **({"executable_path": chosen} if chosen else {})}


@pytest.fixture
def login(live_server: LiveServer) -> Callable[[BrowserContext, User], None]:
    """Logs a user in by cookie; test_log_in.py goes through the form."""

    def log_in(context: BrowserContext, user: User) -> None:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        cookie = client.cookies["sessionid"]
        context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": live_server.url, "httpOnly": True}])

    return log_in


@pytest.fixture(autouse=True)
def quiet_console(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Collects what pages complain of; anything unexpected fails the test. Use `.clear()` for what a test provokes."""
    complaints: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: _note(message, complaints))

    request.getfixturevalue("context").on("page", watch)
    yield complaints
    assert complaints == []


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Closes the pages and lets the server finish what they asked for, before the tables are emptied."""
    if request.node.get_closest_marker("django_db") is None:
        yield
        return
    request.getfixturevalue("transactional_db")
    browser: Browser = request.getfixturevalue("browser")
    yield
    for page in [page for context in browser.contexts for page in context.pages]:
        page.close()
    quiet, deadline = 0, time.monotonic() + 10
    while quiet < 3 and time.monotonic() < deadline:
        quiet = 0 if _others_at_work() else quiet + 1
        time.sleep(0.03)


def _others_at_work() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state <> 'idle'"
        )
        found: tuple[int] = cursor.fetchone()
    return found[0]


def _note(message: ConsoleMessage, complaints: list[str]) -> None:
    if message.type == "error" and not message.text.startswith(SUPERSEDED):
        complaints.append(f"{message.text} ({message.location.get('url')})")
