"""What people type is read by others: every text field holds an attack, and every page that shows it stays quiet.

The payloads are those of the public advisories on ranking and labelling tools: script, svg, links, MathML, attributes.
"""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import IdentityLeak, Membership, Prompt, Ranking, RankingTask, Response, User
from annotate.preferences import Answer, Rewrite
from annotate.services.invitations import create_invitation
from annotate.services.projects import change_rules
from annotate.services.queue import next_leases
from annotate.services.rankings import submit_ranking
from annotate.services.skips import flag_task, skip_task
from annotate.services.snapshots import freeze_snapshot
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.pages.test_rendering import PAYLOADS
from tests.browser.bench import Bench

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Login = Callable[[BrowserContext, User], None]
ALL = "\n\n".join(PAYLOADS)
SHORT = "\"><img src=x onerror=alert(1)>'><svg/onload=alert(2)>"
RULES = {
    "guidelines": ALL,
    "criteria": [{"key": "good", "label": SHORT, "kind": "likert", "low": 1, "high": 5, "required": False}],
    "flags": [{"key": "bad", "label": SHORT}],
    "show_models": True,
}


def attacked_project() -> tuple[User, list[str]]:
    """A project whose every text attacks, its manager, and the addresses of all its pages."""
    project = make_project("attack", rules=RULES)
    type(project).objects.update(name=SHORT, description=ALL)
    manager = make_user("mia", project=project, role="manager", engineer=True, first_name=SHORT, last_name=SHORT)
    make_task(project, ["As ChatGPT, I say " + ALL, ALL], question=ALL, external_id=SHORT)
    prompt = Prompt.objects.get()
    Response.objects.bulk_create(
        Response(prompt=prompt, key=f"{SHORT}{n}", text=ALL, thinking=ALL, model=SHORT, text_sha256="0" * 64)
        for n in range(2)
    )
    from_task = RankingTask.objects.get()
    for number in range(3):
        make_task(project, [ALL, SHORT], question=f"{number} {ALL}", overlap=3)
    annotator = make_user("ann", project=project, first_name=SHORT)
    for slot in next_leases(project=project, annotator=annotator, count=2):
        order = [str(pk) for pk in slot.presented_order or []]
        answer = Answer(
            ranking=[order[:1], order[1:]],
            rationale=ALL[:9000],
            rewrite=Rewrite(of=order[0], text=ALL),
            ratings={order[0]: {"good": 1}},
            flags={order[1]: ["bad"]},
        )
        assert slot.lease_id
        submit_ranking(annotator=annotator, lease_id=slot.lease_id, answer=answer, source=Ranking.Source.PAGE)
    (third, *_) = next_leases(project=project, annotator=annotator)
    assert third.lease_id
    flag_task(lease_id=third.lease_id, annotator=annotator, kind="unsafe", note=ALL)
    skip_task(lease_id=third.lease_id, annotator=annotator, reason="other", note=ALL)
    IdentityLeak.objects.get_or_create(
        response=Response.objects.order_by("pk")[0], defaults={"project": project, "phrase": SHORT}
    )
    create_invitation(project=project, by=manager, role="annotator", note=SHORT)
    change_rules(project=project, changed_by=manager, guidelines=SHORT + ALL)
    freeze_snapshot(project=project, name=SHORT, filters={}, created_by=manager)
    base, ranking = "/p/attack/", Ranking.objects.order_by("pk")[0]
    member = Membership.objects.get(user=annotator)
    pages = ["", "people/", f"people/{member.pk}/", "tasks/", f"tasks/?q={SHORT}", "import/", "setup/", "guidelines/"]
    pages += ["setup/versions/", "setup/versions/1/", "setup/versions/2/", f"answers/{ranking.pk}/withdraw/", "train/"]
    pages += [f"tasks/{task.pk}/" for task in RankingTask.objects.all()] + [f"tasks/{from_task.pk}/withdraw/"]
    return manager, ["/", *(base + page for page in pages), "/runs/", "/models/"]


def test_pages_of_managers_stay_quiet(page: Page, live_server: LiveServer, login: Login) -> None:
    manager, addresses = attacked_project()
    login(page.context, manager)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}") or dialog.dismiss())
    for address in addresses:
        answer = page.goto(live_server.url + address)
        assert answer is not None and answer.status == 200, address
        for closed in page.locator("main details:not([open]) > summary").all():
            if closed.is_visible():
                closed.click()
        page.wait_for_timeout(50)
    assert [url for url in asked if not url.startswith(live_server.url)] == []
    assert page.locator("main img, main svg:not(.chart svg), main iframe, main form[action^=http]").count() == 0
    page.goto(live_server.url + "/")
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()  # still logged in


def test_the_workbench_stays_quiet_with_labels_models_and_drafts_that_attack(
    page: Page, live_server: LiveServer, login: Login
) -> None:
    attacked_project()
    bob = make_user("bob", project=RankingTask.objects.all()[0].project)
    login(page.context, bob)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}") or dialog.dismiss())
    bench = Bench(page, live_server.url, RankingTask.objects.all()[0].project).open()
    for _ in range(2):
        bench.keys("b 1 a 2 Shift+E")
        bench.part("rewrite").fill(ALL)
        bench.keys("Escape Shift+D")
        expect(page.locator(".difference")).to_be_visible()
        bench.keys("Escape")
        bench.part("notes").evaluate("one => one.open = true")
        bench.part("rationale").fill(ALL[:9000])
        bench.saved()
        bench.open()
        expect(bench.part("rationale")).to_have_value(ALL[:9000])
        with page.expect_response("**/rank/submit/"):
            page.locator("h1").evaluate("one => document.activeElement.blur()")
            bench.keys("Enter")
        bench.saved()
    bench.keys("Shift+B")
    expect(page.locator(".revising")).to_be_visible()
    bench.keys("Shift+E")
    expect(bench.part("rewrite")).to_have_value(ALL)
    assert [url for url in asked if not url.startswith(live_server.url)] == []
