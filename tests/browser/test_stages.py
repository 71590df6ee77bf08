"""From one form to tasks for annotators: three stages on a real worker, one of them cancelled and resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import RankingTask, Role, User
from tests.annotate.factories import make_project, make_user
from tests.training.django.helpers import make_snapshot
from tests.training.django.test_run_worker import Worker, home, same_folders, start_worker
from training.models import ModelVersion, Run, RunMetric, Try

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Login = Callable[[BrowserContext, User], None]
__all__ = ["home", "same_folders", "start_worker"]  # fixtures
PATIENCE_MS = 240_000
STEPS = 16


@pytest.fixture(scope="session")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder: the worker makes the tiny model itself."""
    return tmp_path_factory.mktemp("models")


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#run-live")).to_have_attribute("data-state", state, timeout=PATIENCE_MS)


def start_the_stages(page: Page, url: str) -> None:
    """SFT, a reward model and PPO from the built-in tiny model, with the one form."""
    page.goto(url)
    page.get_by_label("Base model").select_option("tiny")
    page.get_by_role("checkbox", name="Evaluation").uncheck()
    page.get_by_label("LoRA rank").fill("0")
    page.get_by_label("Max steps").fill(str(STEPS))
    page.get_by_role("button", name="Start the stages").click()
    stages = page.get_by_role("list", name="The stages of this chain")
    expect(stages.get_by_role("listitem")).to_have_count(3)
    expect_state(page, "queued")  # the first; on to the last
    stages.get_by_role("link", name="PPO").click()
    expect_state(page, "waiting")


def watch_a_curve_grow(page: Page) -> None:
    """The line of the score gets longer by itself."""
    line = page.locator("[data-chart='ppo/score_mean'] svg path[d*='L']").first
    expect(line).to_be_attached(timeout=PATIENCE_MS)
    drawn = line.get_attribute("d")
    expect(line).not_to_have_attribute("d", drawn or "", timeout=PATIENCE_MS)


def cancel_and_resume(page: Page) -> None:
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect_state(page, "cancelled")
    page.get_by_role("button", name="Resume").click()
    expect_state(page, "succeeded")


def compare_with_sft(page: Page, url: str) -> None:
    page.goto(url)
    for kind in ("sft", "ppo"):
        page.get_by_role("checkbox", name=f"Compare {Run.objects.get(kind=kind).name},").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("[data-charts] svg path[d*='L']").first).to_be_attached()
    expect(page.get_by_role("cell", name="max_steps")).to_have_count(0)  # in which they do not differ


def ask_both_and_send(page: Page, url: str, policy: ModelVersion) -> None:
    """The policy beside the model that it began with; what they say becomes a task.

    Two responses each: sixteen small steps later one draw may well still say the same.
    """
    page.goto(url)
    page.get_by_role("textbox", name="Message 2").fill("What is tea?")
    model = page.get_by_label("Model", exact=True)
    model.select_option(model.locator("option", has_text=policy.name).get_attribute("value"))
    page.get_by_label("Beside it").select_option("tiny")
    page.get_by_label("Responses of each").select_option("2")
    page.get_by_label("Longest response, tokens").fill("16")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#try-live")).to_have_attribute("data-state", "succeeded", timeout=PATIENCE_MS)
    expect(page.get_by_role("article")).to_have_count(4)
    page.get_by_role("button", name="Send to annotators").click()
    expect(page.get_by_text("1 ranking task was made.")).to_be_visible()


def test_from_one_form_to_a_task_for_annotators(
    page: Page, live_server: LiveServer, login: Login, start_worker: Callable[[str], Worker]
) -> None:
    project = make_project()
    make_snapshot(project)
    login(page.context, make_user("eve", project=project, role=Role.MANAGER, engineer=True))
    start_the_stages(page, f"{live_server.url}/p/{project.slug}/pipeline/")
    start_worker("gpu")
    expect_state(page, "running")
    watch_a_curve_grow(page)
    cancel_and_resume(page)
    ppo = Run.objects.get(kind="ppo")
    assert ppo.step == STEPS and ppo.attempt == 2
    assert [run.state for run in Run.objects.exclude(pk=ppo.pk)] == ["succeeded", "succeeded"]
    taught, scorer, policy = (ModelVersion.objects.get(run__kind=kind) for kind in ("sft", "reward", "ppo"))
    assert (taught.kind, scorer.kind, policy.kind) == ("policy", "reward", "policy")
    assert scorer.parent == policy.parent == taught
    rows = list(RunMetric.objects.filter(run=ppo).order_by("step"))
    assert [row.step for row in rows] == list(range(1, STEPS + 1)) and "ppo/reward/model" in rows[0].values
    compare_with_sft(page, f"{live_server.url}/runs/")
    ask_both_and_send(page, f"{live_server.url}/p/{project.slug}/try/", policy)
    said = {row["text"] for row in Try.objects.get().result["responses"]}  # type: ignore[index]
    assert {one.text for one in RankingTask.objects.get().prompt.responses.all()} == said
