"""Reviewing from one ranking to the next by keys, and the annotator who looks again at what came back."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Ranking, Review, User
from annotate.services.queue import next_leases
from tests.annotate.factories import make_user
from tests.annotate.helpers import submit
from tests.browser.bench import project_with_tasks

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]


def test_keys_lead_through_the_reviews_and_the_annotator_revises_what_came_back(
    browser: Browser, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    project, annotator = project_with_tasks(3)
    rita = make_user("rita", project=project, role="reviewer")
    first, second, third = (
        submit(next_leases(project=project, annotator=annotator)[0], annotator) for _ in range(3)
    )  # fmt: skip
    context = browser.new_context()
    page = context.new_page()
    login(context, rita)
    page.goto(f"{live_server.url}/p/{project.slug}/review/")
    for key, ranking in (("n", first), ("a", second), ("r", third)):
        expect(page.locator(f'form#review[action$="/{ranking.pk}/review/"]')).to_be_visible()
        page.keyboard.press(key)
    expect(page.get_by_label("Note for")).to_be_focused()
    page.keyboard.type("a and n are letters here")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f'form#review[action$="/{first.pk}/review/"]')).to_be_visible()
    page.keyboard.press("a")
    expect(page.get_by_text("Nothing waits for a review by you.")).to_be_visible()
    verdicts = dict(Review.objects.values_list("ranking", "verdict"))
    assert verdicts == {first.pk: "accepted", second.pk: "accepted", third.pk: "returned"}
    context.close()

    context = browser.new_context()
    page = context.new_page()
    login(context, annotator)
    page.goto(f"{live_server.url}/p/{project.slug}/")
    page.get_by_role("link", name="Look again").click()
    expect(page.get_by_text("a and n are letters here")).to_be_visible()
    expect(page.get_by_text("What you submit becomes its new revision.")).to_be_visible()
    page.keyboard.press("b")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator('[data-part="done"]')).to_be_visible()
    revised = Ranking.objects.get(revision=2)
    assert revised.supersedes == third and not revised.reviews.exists()
    page.goto(f"{live_server.url}/p/{project.slug}/")
    expect(page.get_by_text("Given back to you")).to_have_count(0)
    context.close()
