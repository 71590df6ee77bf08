"""From a prompt to a task for annotators, with a real worker behind the page."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import RankingTask, Role, User
from tests.annotate.factories import make_project, make_user
from tests.training.django.test_run_worker import Worker, home, same_folders, start_worker
from training.models import Run, Try

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Login = Callable[[BrowserContext, User], None]
__all__ = ["home", "same_folders", "start_worker"]  # fixtures
PATIENCE_MS = 240_000
PROMPT = "<script>document.title = 'taken'</script> What is tea?"


@pytest.fixture(scope="session")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder: the worker makes the tiny model itself."""
    return tmp_path_factory.mktemp("models")


def test_from_a_prompt_to_a_task_for_annotators(
    page: Page, live_server: LiveServer, login: Login, start_worker: Callable[[str], Worker]
) -> None:
    project = make_project()
    login(page.context, make_user("eve", project=project, role=Role.MANAGER, engineer=True))
    page.goto(f"{live_server.url}/p/{project.slug}/train/")
    page.get_by_role("link", name="Try it…").click()
    page.get_by_role("textbox", name="Message 2").fill(PROMPT)
    page.get_by_label("Model", exact=True).select_option("tiny")
    page.get_by_label("Responses of each").select_option("2")
    page.get_by_label("Longest response, tokens").fill("40")
    page.get_by_role("button", name="Ask", exact=True).click()
    waits = page.get_by_role("region", name="The place in line")
    expect(waits).to_contain_text("It is next in line for a worker of the queue gpu.")
    expect(waits).to_contain_text("No worker of the queue gpu is alive now")
    start_worker("gpu")
    answers = page.get_by_role("article")
    expect(answers).to_have_count(2, timeout=PATIENCE_MS)
    expect(page.locator("#try-live")).to_have_attribute("data-state", "succeeded", timeout=PATIENCE_MS)
    expect(page.locator("[data-try-said]")).to_have_text("All responses are there.")
    said = [row["text"] for row in Try.objects.get().result["responses"]]  # type: ignore[index]
    shown = [answers.nth(place).locator("[data-text]").text_content() for place in (0, 1)]
    assert shown == [text.replace("\r\n", "\n").replace("\r", "\n") for text in said]  # as HTML is read
    assert page.title() != "taken" and Run.objects.get().reason == ""
    page.get_by_role("button", name="Send to annotators").click()
    expect(page.get_by_text("1 ranking task was made.")).to_be_visible()
    assert {one.text for one in RankingTask.objects.get().prompt.responses.all()} == set(said)
    expect(page.get_by_role("button", name="Send to annotators")).to_have_count(0)
