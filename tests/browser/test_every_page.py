"""Every page of ours in docs/roles.md, with a project at work behind it: axe finds nothing, none is too wide."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page
from pytest_django.live_server_helper import LiveServer

from annotate.interchange.native import record_from_object
from annotate.models import Membership, Project, Ranking, RankingTask, User, Webhook, WebhookDelivery
from annotate.services.imports import import_records
from annotate.services.machines import create_machine
from annotate.services.uploads import keep_upload
from tests.annotate.api.test_roles import ROWS
from tests.annotate.busy import busy_project
from tests.browser.test_safe_and_open import violations
from tests.training.core.judged import random_split
from tests.training.django.helpers import make_snapshot, queue_run, queue_try
from training.core.evaluation import evaluate
from training.models import ModelVersion
from training.services.workers import Gpu, Identity, Machine, announce_worker

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
PAGES = [row.path for row in ROWS if row.method == "GET" and row.action.startswith("page:")]
AROUND = ["/accounts/password/change/", "/accounts/logout/", "/p/no-such/", "/p/{slug}/tasks/?state=held&flagged=on",
          "/runs/compare/?run={run}", "/runs/compare/?run={run}&run={done}"]  # fmt: skip


def made_report() -> dict[str, Any]:
    """A report with every plot and table, as a run leaves it."""
    data, scores = random_split(20)
    sections = {split: evaluate(data, scores, seed=0) for split in ("validation", "test")}
    return {**sections, "warnings": ["The interval is wide.", "Length does as well."]}


def waiting_file(project: Project, manager: User) -> str:
    """A table whose columns are asked about, with a good and a bad row."""
    file = io.BytesIO(b"question,answer_a,answer_b,better\nTea?,A drink.,A leaf.,b\nMilk?,White.,Wet.,neither\n")
    upload = keep_upload(project=project, by=manager, file=file, name="t.csv", size=99, format="csv")
    return str(upload.pk)


def came_with_data(project: Project) -> User:
    """Somebody whose ranking was imported."""
    two = [{"id": "a", "text": "Yes"}, {"id": "b", "text": "No"}]
    line = {"prompt": "Tea?", "responses": two, "ranking": [["a"], ["b"]], "annotator": "Ann", "rationale": "Warm."}
    import_records(project=project, records=[record_from_object(line)])
    return User.objects.get(username=f"imported:{project.slug}:Ann")


def addresses() -> list[str]:
    """The paths with the things of a busy project in them."""
    busy = busy_project(prompts=False)
    User.objects.filter(pk=busy.mia.pk).update(is_superuser=True, is_staff=True)
    snapshot = make_snapshot(busy.project)
    run, done = queue_run(snapshot), queue_run(snapshot)
    model = ModelVersion.objects.create(
        project=busy.project,
        name="m",
        kind="reward",
        run=done,
        folder="runs/1/model",
        size_bytes=1,
        report=made_report(),
    )
    gpu = Gpu("a GPU", memory_bytes=2**36, memory_used_bytes=2**35, busy=0.5)
    machine = Machine(processors=16, memory_bytes=2**37, memory_used_bytes=2**36, gpus=(gpu,))
    announce_worker(
        Identity("gpu.large@a-machine-with.a-long-name.example.org", "a", 1, ("gpu",), ""),
        machine=machine,
        up_seconds=1,
    )
    webhook = Webhook.objects.create(
        project=busy.project, url=f"https://a.example/{'x' * 190}", events=["run.finished"]
    )
    told = {"event": "ping", "body": "{}", "problem": "Nothing listens there."}
    done_at = {"finished_at": "2026-01-01T00:00:00Z"}
    WebhookDelivery.objects.create(webhook=webhook, state="given_up", excerpt="<html>" * 99, **told, **done_at)
    WebhookDelivery.objects.create(webhook=webhook, **told)
    judge, _token = create_machine(project=busy.project, by=busy.mia, name="judge-with-a-name-that-is-rather-long")
    imported = came_with_data(busy.project)
    task = RankingTask.objects.filter(rankings__isnull=False)[0]
    names = {
        "webhook": webhook.pk,
        "machine": judge.pk,
        "slug": busy.project.slug,
        "number": 1,
        "annotator": imported.pk,
        "member": Membership.objects.get(user=busy.bob).pk,
        "task": task.pk,
        "response": task.task_responses.order_by("pk")[0].response_id,
        "ranking": Ranking.objects.order_by("pk")[0].pk,
        "run": run.pk,
        "done": done.pk,
        "model": model.pk,
        "upload": waiting_file(busy.project, busy.mia),
        "try": queue_try(busy.project, messages=[{"role": "user", "content": "x" * 300}]).pk,
    }
    return [path.format(**names) for path in [*PAGES, *AROUND]]


WIDE, NARROW = {"color_scheme": "light", "width": 1280}, {"color_scheme": "dark", "width": 390}


def faults_of(page: Page, *, color_scheme: Any, width: int) -> list[str]:
    """What axe finds, and whether the page is wider than its window."""
    page.emulate_media(color_scheme=color_scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(100)
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return violations(page) + ([f"{wide} px too wide"] if wide > 0 else [])


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page_light_and_wide_or_dark_and_narrow(
    page: Page, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    """One load for both: loading takes as long as looking. Every other page is loaded narrow, and widened then."""
    assert len(PAGES) > 15
    page.goto(f"{live_server.url}/accounts/login/")
    assert faults_of(page, **WIDE) + faults_of(page, **NARROW) == []
    pages = addresses()
    login(page.context, User.objects.get(username="mia"))
    found = {}
    for number, address in enumerate(pages):
        page.goto(live_server.url + address)
        page.evaluate("document.querySelectorAll('main details').forEach((one) => (one.open = true))")
        looks = (NARROW, WIDE) if number % 2 else (WIDE, NARROW)
        found[address] = [f"{look['width']} px: {fault}" for look in looks for fault in faults_of(page, **look)]
    assert {address: faults for address, faults in found.items() if faults} == {}
    assert len(quiet_console) == 1 and "/p/no-such/" in quiet_console.pop()
