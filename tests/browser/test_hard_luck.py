"""Several things going wrong at once: refusals, dialogs, tabs and lost replies in each other's way. No work is lost."""

import itertools
from collections.abc import Callable

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import BrowserContext, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Draft, Ranking, Skip, User
from tests.annotate.factories import make_task
from tests.browser.bench import Bench, project_with_tasks, tiers_by_letter
from tests.browser.test_nothing_lost import second_tab

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
REFUSAL = {"error": {"code": "invalid_answer", "message": "It breaks a rule.", "fields": {}}}


@pytest.fixture
def bench(page: Page, live_server: LiveServer, login: Login) -> Bench:
    project, annotator = project_with_tasks(4)
    login(page.context, annotator)
    return Bench(page, live_server.url, project).open()


def refuse_later(bench: Bench, path: str) -> list[Route]:
    """Holds the next request of this path back; the test answers it."""
    held: list[Route] = []
    bench.page.route(path, lambda route: route.continue_() if held else held.append(route))
    return held


def held(bench: Bench, routes: list[Route]) -> Route:
    for _ in range(100):
        if routes:
            return routes[0]
        bench.page.wait_for_timeout(50)
    raise AssertionError("nothing was sent")


def test_what_was_begun_is_there_after_back_and_leave(bench: Bench) -> None:
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 2?")
    bench.keys("c 1 d 2")
    bench.saved()
    bench.keys("Shift+B")
    bench.asks("Question number 1?")
    bench.act("leave").click()
    bench.asks("Question number 2?")
    bench.says("C > D, A, B unranked")
    bench.keys("a 3")
    bench.saved()
    expect(bench.page.locator("dialog[open]")).to_have_count(0)
    assert [len(tier) for tier in Draft.objects.get().body["ranking"]] == [1, 1, 1]


def test_a_revision_that_another_tab_overtook_becomes_the_next_one(bench: Bench, quiet_console: list[str]) -> None:
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 2?")
    bench.saved()
    other = second_tab(bench)
    for tab in (bench, other):
        tab.keys("Shift+B")
        tab.asks("Question number 1?")
    other.keys("c 3 Enter")
    other.asks("Question number 2?")
    other.saved()
    bench.page.bring_to_front()
    bench.part("notes").evaluate("one => one.open = true")
    bench.part("rationale").fill("Words that took a while.")
    bench.part("submit").click()
    bench.page.locator("dialog#notice").get_by_role("button", name="Go on").click()
    expect(bench.part("rationale")).to_have_value("Words that took a while.")
    bench.part("submit").click()
    bench.asks("Question number 2?")
    bench.saved()
    assert list(Ranking.objects.order_by("revision").values_list("revision", "rationale")) == [
        (1, None),
        (2, None),
        (3, "Words that took a while."),
    ]
    quiet_console.clear()


def test_what_was_typed_after_another_tab_submitted_is_kept(bench: Bench, quiet_console: list[str]) -> None:
    other = second_tab(bench)
    other.keys("a 1 b 2 Enter")
    other.asks("Question number 2?")
    other.saved()
    bench.page.bring_to_front()
    bench.part("notes").evaluate("one => one.open = true")
    bench.part("rationale").fill("Typed into the first tab.")
    bench.page.locator("dialog#notice").get_by_role("button", name="Go on").click()
    expect(bench.page.locator(".revising")).to_be_visible()
    expect(bench.part("rationale")).to_have_value("Typed into the first tab.")
    bench.saved()
    assert Draft.objects.get().body["rationale"] == "Typed into the first tab."
    quiet_console.clear()


def test_an_answer_that_met_a_log_out_goes_with_the_next_one(
    bench: Bench, login: Login, quiet_console: list[str]
) -> None:
    Session.objects.all().delete()
    bench.keys("b 1 a 2 Enter")
    dialog = bench.page.locator("dialog#logged-out")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Stay here").click()
    expect(bench.part("save-state")).not_to_have_text("Saved")
    login(bench.page.context, User.objects.get(username="ann"))  # in another tab
    bench.asks("Question number 2?")
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 3?")
    bench.saved()
    assert [tiers_by_letter(one)["B"] for one in Ranking.objects.order_by("task")] == [1, 2]
    quiet_console.clear()


def test_two_refusals_at_once_are_told_one_after_the_other(bench: Bench, quiet_console: list[str]) -> None:
    answer = refuse_later(bench, "**/rank/submit/")
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 2?")
    draft = refuse_later(bench, "**/draft/")
    bench.keys("c 1")
    waiting = held(bench, draft)
    held(bench, answer).fulfill(status=422, json=REFUSAL)
    notice = bench.page.locator("dialog#notice")
    expect(notice).to_contain_text("Your answer is kept")
    waiting.fulfill(status=422, json=REFUSAL)
    bench.page.wait_for_timeout(300)
    for _ in range(2):
        if notice.is_visible():
            notice.get_by_role("button", name="Go on").click()
            bench.page.wait_for_timeout(200)
    bench.asks("Question number 1?")
    bench.says("A > B, C, D unranked")
    bench.keys("c 3 Enter")
    bench.asks("Question number 2?")
    bench.saved()
    assert tiers_by_letter(Ranking.objects.get())["C"] == 3
    quiet_console.clear()


def test_an_open_dialog_does_not_act_on_another_task(bench: Bench, quiet_console: list[str]) -> None:
    answer = refuse_later(bench, "**/rank/submit/")
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 2?")
    bench.act("skip").click()
    expect(bench.page.locator("dialog#skip")).to_be_visible()
    held(bench, answer).fulfill(status=422, json=REFUSAL)
    bench.page.locator("dialog#notice").get_by_role("button", name="Go on").click()
    bench.asks("Question number 1?")
    expect(bench.page.locator("dialog#skip")).to_be_hidden()
    bench.says("A > B, C, D unranked")
    assert not Skip.objects.exists()
    quiet_console.clear()


def test_an_own_draft_whose_reply_was_lost_is_no_stranger(bench: Bench, quiet_console: list[str]) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    bench.page.route("**/draft/", lose, times=1)
    bench.keys("b 1")
    expect(bench.part("save-state")).to_contain_text("Offline")
    bench.keys("a 2")
    bench.saved()
    expect(bench.page.locator("dialog[open]")).to_have_count(0)
    assert [len(tier) for tier in Draft.objects.get().body["ranking"]] == [1, 1]
    quiet_console.clear()


def test_a_draft_is_saved_while_changes_keep_coming(bench: Bench) -> None:
    puts: list[str] = []
    bench.page.on("request", lambda one: puts.append(one.url) if one.method == "PUT" else None)
    bench.keys("b 1 a 1")
    for key in itertools.islice(itertools.cycle(["ArrowUp", "ArrowDown"]), 16):
        bench.keys(key)
        bench.page.wait_for_timeout(200)
    assert len(puts) >= 3
    bench.saved()


def test_a_long_edited_version_in_another_script_reaches_the_server(
    page: Page, live_server: LiveServer, login: Login
) -> None:
    project, annotator = project_with_tasks(0)
    make_task(project, ["д" * 40_000, "ж"])
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()
    long = "AB"[page.locator(".raw").first.text_content() == "ж"]
    bench.keys(f"{long.lower()} 1 Shift+E")
    bench.part("rewrite").press("End")
    bench.part("rewrite").press_sequentially("!")
    bench.keys("Escape")
    bench.saved()
    assert len(Draft.objects.get().body["rewrite"]["text"]) == 40_001


def test_arrows_scroll_a_wide_table_that_has_the_focus(page: Page, live_server: LiveServer, login: Login) -> None:
    wide = "|" + "a wide heading|" * 30 + "\n|" + "---|" * 30 + "\n|" + "cell|" * 30
    project, annotator = project_with_tasks(1, texts=(wide, "short"))
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()
    table = page.locator(".scroll").first
    table.focus()
    bench.keys("ArrowRight ArrowRight ArrowRight")
    page.wait_for_timeout(300)
    assert table.evaluate("one => one.scrollLeft") > 0
    expect(table).to_be_focused()
