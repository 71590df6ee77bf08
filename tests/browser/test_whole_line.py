"""The whole line in one browser: an annotator ranks with the keyboard, an engineer freezes, trains and downloads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Project, Ranking, Role, User
from annotate.preferences import Answer, split_for_group
from annotate.services.queue import next_leases
from annotate.services.rankings import submit_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.browser.bench import Bench, tiers_by_letter
from tests.training.django.test_run_worker import Worker
from training.models import ModelVersion, Run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
PATIENCE = 180_000
TEXTS = ("yes, and here is why", "yes", "perhaps, who can say", "no")


@pytest.fixture
def home(tmp_path: Path, settings: Any) -> Path:
    """A folder that the server under test and the worker both take for theirs."""
    Path(settings.MEDIA_ROOT).mkdir(parents=True, exist_ok=True)
    (tmp_path / "artifacts").symlink_to(settings.MEDIA_ROOT)
    settings.RUNS_ROOT, settings.MODELS_ROOT = tmp_path / "runs", tmp_path / "models"
    return tmp_path


@pytest.fixture
def worker(home: Path, transactional_db: None) -> Iterator[Worker]:
    worker = Worker(home, "whole-line")
    yield worker
    worker.stop()


@pytest.fixture
def project() -> Project:
    """Three tasks to rank, after 24 that someone else has ranked: something to learn from and to hold out."""
    project = make_project("line")
    questions = [f"Is {number} a good number?" for number in range(24)]
    assert {split_for_group(question) for question in questions} >= {"train", "validation"}
    other = make_user("other", project=project)
    for question in questions:
        make_task(project, TEXTS, question=question)
        (slot,) = next_leases(project=project, annotator=other)
        assert slot.lease is not None
        best, *rest = sorted(slot.lease.presented_order)
        answer = Answer(ranking=[[str(best)], [str(one) for one in rest]])
        submit_ranking(annotator=other, lease_id=slot.lease.pk, answer=answer, source="page")
    for number in range(3):
        make_task(project, TEXTS, question=f"Question number {number + 1}?")
    make_user("ann", project=project, role=Role.ANNOTATOR)
    User.objects.create_superuser("root", password="root")
    return project


def log_in(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()


def rank_three(page: Page, url: str, project: Project) -> None:
    """Log-in, the way to the page, and three rankings, all typed."""
    log_in(page, url, "ann")
    start = page.get_by_role("link", name="Start ranking")
    start.focus()
    page.keyboard.press("Enter")
    bench = Bench(page, url, project)
    for number, typed in enumerate(("b 1 a 2 d 2", "a 1 b 2 c 3 d 4", "c 1 d 1 a 2 b 2"), start=1):
        bench.asks(f"Question number {number}?")
        bench.keys(f"{typed} Enter")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()


def test_from_the_keyboard_to_a_trained_model_and_the_export(
    browser: Browser, live_server: LiveServer, project: Project, worker: Worker
) -> None:
    annotator = browser.new_context().new_page()
    rank_three(annotator, live_server.url, project)
    mine = Ranking.objects.filter(annotator__username="ann").order_by("id")
    assert [tiers_by_letter(ranking) for ranking in mine] == [
        {"A": 2, "B": 1, "C": None, "D": 2},
        {"A": 1, "B": 2, "C": 3, "D": 4},
        {"A": 2, "B": 2, "C": 1, "D": 1},
    ]

    page = browser.new_context(accept_downloads=True).new_page()
    log_in(page, live_server.url, "root")
    page.get_by_role("link", name=project.name, exact=True).click()
    page.get_by_role("button", name="Freeze").click()
    expect(page.get_by_text("Frozen: No. 1, 27 rankings")).to_be_visible()
    page.get_by_role("link", name="Train reward model").click()
    page.get_by_label("Base model").select_option("tiny")
    page.get_by_label("Name of the run").fill("From the browser")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", name="From the browser")).to_be_visible()
    expect(page.locator("#run-live")).to_have_attribute("data-state", "succeeded", timeout=PATIENCE)
    expect(page.get_by_text("longer response wins")).to_be_visible()

    model = ModelVersion.objects.get()
    run = Run.objects.get()
    assert (run.state, model.run_id) == ("succeeded", run.pk)
    assert 0 <= run.report["validation"]["accuracy"]["value"] <= 1
    assert (settings.RUNS_ROOT / str(run.pk) / "out" / "model" / "config.json").is_file()
    page.get_by_role("link", name=f"model {model.pk}").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(model.name)

    page.goto(f"{live_server.url}/p/{project.slug}/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download rankings").click()
    records = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert len(records) == 27
    typed = [record for record in records if record["prompt"][0]["content"].startswith("Question number")]
    assert sorted(len(record["ranking"]) for record in typed) == [2, 2, 4]
    assert all(record["annotator"] != "ann" and record["counted"] for record in typed)
