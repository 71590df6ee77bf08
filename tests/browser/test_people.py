"""A manager who was never told anything invites two people, sees who is stuck, and reads answers as sentences."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Membership, Ranking, RankingTask, Role, Slot, User
from annotate.sentences import sentence_of
from annotate.services.invitations import create_invitation
from annotate.services.members import make_password_link
from tests.annotate.busy import Busy, busy_project
from tests.annotate.factories import make_project, make_task, make_user
from tests.browser.bench import Bench
from tests.browser.test_safe_and_open import violations

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
PASSWORD = "quite-a-long-one-7"


@pytest.fixture
def manager(page: Page, live_server: LiveServer, login: Login) -> Page:
    """The project page of a manager who has tasks and nobody to rank them."""
    project = make_project("tales", overlap=2)
    for number in range(3):
        make_task(project, overlap=2, question=f"Question number {number + 1}?")
    login(page.context, make_user("mia", project=project, role=Role.MANAGER))
    page.goto(live_server.url)
    page.get_by_role("link", name="Tales").click()
    return page


def invite(manager: Page, whom: str, role: str) -> str:
    """Goes to the people from wherever the manager is, and returns the link that was shown."""
    manager.get_by_role("navigation", name="Project").get_by_role("link", name="People").click()
    manager.get_by_label("For whom").fill(whom)
    manager.get_by_label(role).check()
    manager.get_by_role("button", name="Make a link").click()
    return manager.get_by_role("textbox", name="Link of the invitation").input_value()


def join(browser: Browser, link: str, name: str) -> Page:
    """A person's own browser, from the link to the project page."""
    page = browser.new_context().new_page()
    page.goto(link)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Make an account and join").click()
    expect(page.get_by_text("Welcome to Tales.")).to_be_visible()
    return page


def test_a_manager_invites_two_people_who_rank(manager: Page, browser: Browser, live_server: LiveServer) -> None:
    first = invite(manager, "Ann", "Annotator: ranks")
    expect(manager.get_by_role("cell", name="Ann", exact=True)).to_be_visible()
    second = invite(manager, "Rita", "Reviewer: also reads what others said")
    assert first != second
    ann, rita = join(browser, first, "ann"), join(browser, second, "rita")
    ann.get_by_role("link", name="Start ranking").click()
    bench = Bench(ann, live_server.url, RankingTask.objects.all()[0].project)
    expect(ann.locator(".response").first).to_be_visible()
    if ann.locator("dialog[open]").count():
        ann.keyboard.press("Escape")
    bench.keys("b 1 a 2")
    bench.says("B > A, C unranked")
    bench.keys("Enter")
    expect(ann.locator(".prompt .text").first).to_have_text("Question number 2?")
    expect(bench.part("progress")).to_contain_text("1 today")
    ranking = Ranking.objects.get()
    letters = dict(zip(sorted(ranking.presented_order), "ABC", strict=True))
    said = [letters[ranking.presented_order[number]] for number in (1, 0, 2)]
    rita.get_by_role("link", name="Tasks").click()
    expect(rita.get_by_text(f"{said[0]} > {said[1]}, {said[2]} unranked")).to_be_visible()
    manager.get_by_role("link", name="Overview").click()
    row = manager.get_by_role("row", name="ann")
    expect(row.get_by_role("link", name="1 rankings by ann")).to_be_visible()
    assert set(Membership.objects.values_list("user__username", "role")) == {
        ("mia", "manager"),
        ("ann", "annotator"),
        ("rita", "reviewer"),
    }
    reused = browser.new_context().new_page()
    reused.goto(first)
    expect(reused.get_by_text("This link was used already; it works once.")).to_be_visible()
    for other in (ann, rita, reused):
        other.context.close()


def test_the_copy_button_copies_and_the_keyboard_is_enough(manager: Page, live_server: LiveServer) -> None:
    manager.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    manager.get_by_role("navigation", name="Project").get_by_role("link", name="People").click()
    manager.get_by_label("For whom").focus()
    manager.keyboard.type("Lena")
    manager.keyboard.press("Enter")
    link = manager.get_by_role("textbox", name="Link of the invitation").input_value()
    assert "/accounts/invitation/" in link
    manager.get_by_role("button", name="Copy").press("Enter")
    expect(manager.get_by_role("button", name="Copied")).to_be_visible()
    assert manager.evaluate("navigator.clipboard.readText()") == link


def test_without_javascript_links_are_made_and_tasks_released(
    browser: Browser, live_server: LiveServer, login: Login
) -> None:
    busy = busy_project(prompts=False)
    context = browser.new_context(java_script_enabled=False)
    login(context, busy.mia)
    page = context.new_page()
    page.goto(f"{live_server.url}{busy.project.get_absolute_url()}")
    held = RankingTask.objects.get(state="held")
    page.get_by_role("button", name=f"Release task {held.pk}").click()
    expect(page.get_by_text(f"Task {held.pk} is back in the queue.")).to_be_visible()
    assert invite(page, "Lena", "Annotator: ranks").startswith(live_server.url)
    expect(page.get_by_role("button", name="Copy")).to_be_hidden()
    context.close()


def test_a_stuck_person_is_seen_and_taken_out(page: Page, live_server: LiveServer, login: Login) -> None:
    busy = busy_project(prompts=False)
    login(page.context, busy.mia)
    page.goto(f"{live_server.url}{busy.project.get_absolute_url()}")
    row = page.get_by_role("row", name="bob")
    expect(row).to_contain_text("without a sign for 50")
    row.get_by_role("link", name="bob").first.click()
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_text("bob is deactivated; 1 task went back to the queue.")).to_be_visible()
    assert not Slot.objects.filter(holder=busy.bob, state="leased").exists()
    assert Ranking.objects.filter(annotator=busy.bob).count() == 1


def test_the_workbench_and_the_tasks_say_the_same(page: Page, live_server: LiveServer, login: Login) -> None:
    """The sentence is made twice, in the page's script and in Python."""
    project = make_project("tales")
    make_task(project, ["one", "two", "three", "four"])
    login(page.context, make_user("ann", project=project))
    page.goto(f"{live_server.url}/p/tales/rank/")
    script = """async ([address, words, cases]) => {
        const {sentence} = await import(address);
        const start = {order: ["A", "B", "C", "D"], strengths: [], ratings: {}, flags: {}, rationale: ""};
        return cases.map((one) => sentence({...start, ...one}, words));
    }"""
    words = {
        "allBad": "All bad",
        "rest": "{letters} unranked",
        "edited": "with an edited version of {letter}",
        "nothing": "",
    }
    cases: list[dict[str, Any]] = list(_answers())
    address = page.evaluate("() => [...document.scripts].find(one => one.src.includes('workbench')).src")
    state = address.split("workbench")[0] + "ranking_state.js"
    theirs = page.evaluate(script, [state, words, cases])
    ours = [
        sentence_of(
            case["tiers"],
            unranked=[one for one in "ABCD" if not any(one in tier for tier in case["tiers"])],
            all_bad=case["allBad"],
            edited=case["rewrite"]["of"] if case["rewrite"] else None,
        )
        for case in cases
    ]
    assert theirs == ours and "B > A = D, C unranked" in ours


def _answers() -> Iterator[dict[str, Any]]:
    for tiers in ([], [["A", "B"]], [["B"], ["A", "D"]], [["D"], ["C"], ["B"], ["A"]], [["A", "B", "C", "D"]]):
        for all_bad in (False, True):
            for rewrite in (None, {"of": "B", "text": "better"}):
                if tiers or all_bad:
                    yield {"tiers": tiers, "allBad": all_bad, "rewrite": rewrite}


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(
    browser: Browser, live_server: LiveServer, login: Login, scheme: Any, width: int
) -> None:
    busy = busy_project(prompts=False)
    for page, path in _pages(browser, live_server, login, busy, scheme=scheme, width=width):
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def _pages(
    browser: Browser, live_server: LiveServer, login: Login, busy: Busy, *, scheme: Any, width: int
) -> Iterator[tuple[Page, str]]:
    """Every page of managers, and those behind links, one after the other."""
    soup = RankingTask.objects.get(prompt__external_id="soup-1")
    bob = Membership.objects.get(user=busy.bob)
    ranking = Ranking.objects.get(revision=2)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, home = context.new_page(), busy.project.get_absolute_url()
    _, secret = create_invitation(project=busy.project, by=busy.mia, role=Role.ANNOTATOR, note="Lena")
    new_password = make_password_link(membership=bob, by=busy.mia)
    outside = (f"/accounts/invitation/{secret}/", "/accounts/invitation/x/", f"/accounts/password-link/{new_password}/")
    inside = [home] + [
        home + part
        for part in (
            "tasks/",
            "tasks/?text=nothing",
            f"tasks/{soup.pk}/",
            f"tasks/{soup.pk}/close/",
            f"tasks/{soup.pk}/withdraw/",
            f"answers/{ranking.pk}/withdraw/",
            "people/",
            f"people/{bob.pk}/",
            "import/",
            "guidelines/",
        )
    ]
    for path in outside:
        page.goto(live_server.url + path)
        yield page, path
    login(context, busy.mia)
    for path in (*inside, outside[0]):
        page.goto(live_server.url + path)
        yield page, path
    page.goto(f"{live_server.url}{home}people/")
    page.get_by_role("button", name="Make a link").click()
    yield page, "a fresh link"
    context.close()
