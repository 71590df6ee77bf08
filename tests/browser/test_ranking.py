"""Ranking in a real browser: what was typed, dragged or tapped is what Postgres holds."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Lease, Ranking, Skip, Slot, TaskFlag, User
from tests.browser.bench import Bench, project_with_tasks, tiers_by_letter

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]


def open_bench(page: Page, live_server: LiveServer, login: Login, tasks: int = 1, **options: object) -> Bench:
    project, annotator = project_with_tasks(tasks, **options)
    login(page.context, annotator)
    return Bench(page, live_server.url, project).open()


def test_three_tasks_with_the_keyboard_alone(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login, tasks=3)
    # Typed one by one: placing, a tie, leaving one out.
    bench.keys("b 1 a 2 d 2")
    bench.says("B > A = D, C unranked")
    bench.keys("Enter")
    bench.asks("Question number 2?")
    # Arrows: C comes up from the unranked, then A below it, and half a step makes them tie; undo and redo on the way.
    bench.keys("c 1 ArrowLeft ArrowLeft 2 ArrowUp u u Shift+U Shift+U ArrowRight 0 b 2")
    bench.says("A = C > B, D unranked")
    bench.keys("Enter")
    bench.asks("Question number 3?")
    bench.keys("a 1 b 2 c 3 d 4 d ArrowUp ArrowUp")
    bench.says("A > B > D > C")
    bench.keys("Enter")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    rankings = list(Ranking.objects.order_by("id"))
    assert [tiers_by_letter(ranking) for ranking in rankings] == [
        {"A": 2, "B": 1, "C": None, "D": 2},
        {"A": 1, "B": 2, "C": 1, "D": None},
        {"A": 1, "B": 2, "C": 4, "D": 3},
    ]
    assert all(ranking.counted and not ranking.all_bad and ranking.revision == 1 for ranking in rankings)
    assert all(ranking.seconds is not None and ranking.source == "page" for ranking in rankings)
    assert Slot.objects.filter(state="done").count() == 3


def test_looking_leases_nothing_and_untouched_is_never_submitted(
    page: Page, live_server: LiveServer, login: Login
) -> None:
    bench = open_bench(page, live_server, login, tasks=3)
    assert Lease.objects.count() == 2  # the one on the page and the next; none for the look itself
    assert page.request.get(bench.address).ok and Lease.objects.count() == 2
    bench.keys("Enter")
    bench.part("submit").click(force=True)  # aria-disabled: it answers with what is missing
    expect(bench.part("hint")).to_have_text("Place at least two responses, or say that all are bad.")
    bench.keys("a 1 Enter")
    bench.says("A, B, C, D unranked")
    bench.saved()
    assert Ranking.objects.count() == 0


def test_enter_belongs_to_the_control_that_has_the_focus(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login)
    bench.keys("a 1 b 2")
    bench.act("skip").focus()
    bench.keys("Enter")
    expect(page.locator("dialog#skip")).to_be_visible()
    bench.keys("Escape")
    bench.part("notes").locator("summary").click()
    bench.part("rationale").fill("b 1 u 0 ?\n")
    bench.saved()
    bench.says("A > B, C, D unranked")
    assert Ranking.objects.count() == 0


def test_dragging_into_tiers_gaps_and_back(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login)
    bench.drag("A", bench.tier(1))
    bench.drag("B", page.locator(".tier.to-gap"))
    bench.says("A > B, C, D unranked")
    bench.drag("C", bench.tier(2))
    bench.says("A > B = C, D unranked")
    bench.drag("D", page.locator('[data-drop="gap:1"]'))
    bench.says("A > D > B = C")
    bench.drag("B", bench.tier(1), share=0.05)
    bench.says("B > A > D > C")
    bench.drag("A", page.locator(".tier.to-pool"))
    bench.says("B > D > C, A unranked")
    bench.drag("C", page.locator("h1"), share=0.5)  # dropped nowhere: nothing happens
    bench.says("B > D > C, A unranked")
    page.locator(".tier.to-tier").first.drag_to(page.locator(".tier.to-pool"), source_position={"x": 3, "y": 3})
    bench.says("B > D > C, A unranked")  # only a chip begins a drag: what it passes on its way moves nothing
    bench.part("submit").click()
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert tiers_by_letter(Ranking.objects.get()) == {"A": None, "B": 1, "C": 3, "D": 2}


def test_clicks_alone(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login)
    bench.chip("C").click()
    bench.tier(1).click()
    page.locator(".response", has_text="the").first.click()  # a card picks its response as well
    page.get_by_role("button", name="Place A: 2nd").click()
    bench.says("C > A, B, D unranked")
    bench.chip("D").click()
    page.get_by_role("button", name="Place D in a new tier above 2nd").click()
    bench.says("C > D > A, B unranked")
    page.get_by_role("button", name="C much better than D").click()
    bench.chip("A").click()
    page.locator(".tier.to-pool").click()
    page.get_by_role("button", name="All are bad").click()
    bench.says("All bad, C > D, A, B unranked, C much better than D")
    bench.part("notes").locator("summary").click()
    bench.part("rationale").fill("None of them answers.")
    bench.part("submit").click()
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    ranking = Ranking.objects.get()
    assert tiers_by_letter(ranking) == {"A": None, "B": None, "C": 1, "D": 2}
    assert (ranking.strengths, ranking.all_bad, ranking.rationale) == ([3], True, "None of them answers.")


def test_taps_on_a_phone_and_scrolling_moves_nothing(browser: Browser, live_server: LiveServer, login: Login) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    texts = ["one " * 400, "two " * 400, "w" * 300 + " three" * 400]
    project, annotator = project_with_tasks(1, texts=texts)
    login(context, annotator)
    bench = Bench(context.new_page(), live_server.url, project).open()
    expect(bench.page.get_by_text("Pick a response, then its place.")).to_be_visible()
    assert bench.page.evaluate("innerWidth") == 390  # a word without an end widens nothing
    for letter, tier in (("B", "1st"), ("A", "2nd")):
        bench.chip(letter).tap()
        bench.page.get_by_role("button", name=f"Place {letter}: {tier}").tap()
    bench.says("B > A, C unranked")
    swipe(bench.page, start=(200, 600), end=(200, 100))
    bench.page.wait_for_function("scrollY > 200")
    bench.says("B > A, C unranked")
    bench.card("A").get_by_role("button", name="To response B").tap()
    expect(bench.card("B")).to_be_in_viewport()
    expect(bench.card("A")).not_to_be_in_viewport()
    bench.page.locator("label.more").tap()
    bench.page.get_by_role("button", name="B clearly better than A").tap()
    bench.part("submit").tap()
    expect(bench.page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    ranking = Ranking.objects.get()
    assert tiers_by_letter(ranking) == {"A": 2, "B": 1, "C": None} and ranking.strengths == [2]
    context.close()


def test_a_finger_drags_a_chip_and_the_page_stays(browser: Browser, live_server: LiveServer, login: Login) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    project, annotator = project_with_tasks(1, texts=[f"{text} " * 400 for text in ("one", "two", "three")])
    login(context, annotator)
    bench = Bench(context.new_page(), live_server.url, project).open()
    for letter in "CA":
        chip, tier = bench.chip(letter).bounding_box(), bench.page.locator(".tier.to-gap").bounding_box()
        assert chip and tier
        swipe(
            bench.page, start=(int(chip["x"]) + 20, int(chip["y"]) + 20), end=(int(tier["x"]) + 30, int(tier["y"]) + 20)
        )
    bench.says("C > A, B unranked")
    assert bench.page.evaluate("scrollY") == 0
    context.close()


def swipe(page: Page, *, start: tuple[int, int], end: tuple[int, int]) -> None:
    """A finger on the screen, moved in ten steps, and held at the end so that nothing keeps rolling."""
    touch = page.context.new_cdp_session(page)
    for step in range(12):
        kind = "touchStart" if step == 0 else "touchEnd" if step == 11 else "touchMove"
        x, y = (first + (last - first) * step / 10 for first, last in zip(start, end, strict=True))
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(16 if step < 10 else 300)


def test_the_rules_of_the_project_shape_the_page(page: Page, live_server: LiveServer, login: Login) -> None:
    rules = {"allow_ties": False, "allow_partial": False, "allow_all_bad": False, "strength": "off", "rationale": "off"}
    bench = open_bench(page, live_server, login, rules=rules)
    bench.keys("a 1 b 1 c 1")
    bench.says("C > B > A, D unranked")
    expect(bench.part("hint")).to_have_text("Place every response.")
    for name in ("all-bad", "notes"):
        expect(bench.part(name)).to_be_hidden()
    expect(page.locator(".strengths")).to_have_count(0)
    bench.keys("Enter d 9 Enter")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert tiers_by_letter(Ranking.objects.get()) == {"A": 3, "B": 2, "C": 1, "D": 4}


def test_skip_and_flag_with_a_reason(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login, tasks=2)
    bench.act("flag").click()
    page.locator("dialog#flag").get_by_label("It needs an expert").check()
    page.get_by_role("button", name="Flag it").click()
    page.get_by_role("button", name="Go on").click()
    bench.act("skip").click()
    page.get_by_role("button", name="Skip it").click()  # refused: no reason yet
    page.locator("dialog#skip").get_by_label("The prompt is unclear").check()
    page.locator("dialog#skip").get_by_label("Note, if you like").fill("Which question?")
    page.get_by_role("button", name="Skip it").click()
    bench.asks("Question number 2?")
    assert list(TaskFlag.objects.values_list("kind", flat=True)) == ["expert"]
    assert list(Skip.objects.values_list("reason", "note")) == [("unclear", "Which question?")]


def test_single_key_shortcuts_can_be_switched_off(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login)
    bench.keys("?")
    with page.expect_response("**/preferences/"):
        page.get_by_label("Single-key shortcuts").uncheck()
    bench.keys("Escape")
    bench.keys("a 1 b 2")
    bench.says("Nothing placed yet")
    bench.chip("B").focus()
    bench.chip("B").click()
    bench.keys("ArrowUp")  # on a chip that has the focus, arrows still work
    bench.says("B, A, C, D unranked")
    assert User.objects.get(username="ann").single_key_shortcuts is False
    bench.open().keys("a 1")
    bench.says("B, A, C, D unranked")
