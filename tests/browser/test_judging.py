"""More than an order: ratings, flags, an edited version, undo over all of it; revisions of earlier answers."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Draft, Ranking, Response, User
from tests.browser.bench import Bench, project_with_tasks, tiers_by_letter

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]
JUDGED = {
    "criteria": [
        {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 7, "required": True},
        {"key": "harmful", "label": "Harmful", "kind": "yesno", "required": False},
    ],
    "flags": [{"key": "rude", "label": "Rude"}, {"key": "wrong", "label": "Factually wrong"}],
}


@pytest.fixture
def bench(page: Page, live_server: LiveServer, login: Login) -> Bench:
    project, annotator = project_with_tasks(2, texts=("the first text", "the second text"), rules=JUDGED)
    login(page.context, annotator)
    return Bench(page, live_server.url, project).open()


def rate(bench: Bench, letter: str, criterion: str, value: str) -> None:
    bench.card(letter).get_by_role("group", name=criterion).get_by_text(value, exact=True).click()


def by_letter(ranking: Ranking, values: dict[str, object]) -> dict[str, object]:
    letters = {str(pk): chr(65 + index) for index, pk in enumerate(ranking.presented_order)}
    return {letters[name]: value for name, value in values.items()}


def test_ratings_and_flags_are_saved_with_the_order(bench: Bench) -> None:
    bench.keys("a 1 b 2")
    expect(bench.part("hint")).to_have_text("Rate A: Helpful.")
    rate(bench, "A", "Helpful", "7")
    rate(bench, "B", "Helpful", "2")
    rate(bench, "B", "Harmful", "yes")
    bench.card("B").get_by_text("Rude").click()
    bench.card("B").get_by_text("Factually wrong").click()
    rate(bench, "A", "Harmful", "no")
    rate(bench, "A", "Harmful", "no")  # again: taken back
    bench.saved()
    bench.page.evaluate("localStorage.clear()")
    bench.open()  # the draft brings all of it back
    expect(bench.card("B").get_by_role("checkbox", name="Rude")).to_be_checked()
    bench.keys("Enter")
    bench.asks("Question number 2?")
    bench.saved()
    ranking = Ranking.objects.get()
    assert by_letter(ranking, ranking.ratings) == {"A": {"helpful": 7}, "B": {"helpful": 2, "harmful": 1}}
    assert by_letter(ranking, ranking.flags) == {"B": ["rude", "wrong"]}


def test_ratings_by_the_keyboard_leave_the_order_alone(bench: Bench) -> None:
    bench.keys("r")  # nothing is chosen: nothing happens
    bench.keys("a 1 r Space ArrowRight ArrowRight")
    expect(bench.card("A").get_by_role("radio", name="3")).to_be_checked()
    bench.says("A, B unranked")
    bench.keys("r ArrowRight r")
    expect(bench.card("A").get_by_role("radio", name="yes")).to_be_checked()
    bench.keys("Space r")
    expect(bench.card("A").get_by_role("checkbox", name="Rude")).to_be_checked()
    expect(bench.card("A").get_by_role("radio", name="3")).to_be_focused()  # round, and to what was chosen
    bench.keys("b 1")  # letters and digits still mean responses and tiers
    bench.says("A = B")
    bench.saved()
    assert list(Draft.objects.get().body["flags"].values()) == [["rude"]]


def test_undo_and_redo_go_over_the_whole_draft(bench: Bench) -> None:
    bench.keys("b 1")
    rate(bench, "B", "Helpful", "5")
    bench.card("B").get_by_text("Rude").click()
    bench.part("notes").locator("summary").click()
    bench.part("rationale").press_sequentially("kind")
    bench.page.locator("h1").click(force=True)
    bench.part("undo").click()
    expect(bench.part("rationale")).to_have_value("")
    bench.part("undo").click()
    expect(bench.card("B").get_by_role("checkbox", name="Rude")).not_to_be_checked()
    bench.part("undo").click()
    expect(bench.card("B").get_by_role("radio", name="5")).not_to_be_checked()
    bench.part("undo").click()
    bench.says("Nothing placed yet")
    expect(bench.part("undo")).to_be_disabled()
    for _ in range(4):
        bench.part("redo").click()
    bench.says("B, A unranked")
    expect(bench.card("B").get_by_role("radio", name="5")).to_be_checked()
    expect(bench.part("rationale")).to_have_value("kind")


def test_an_edited_version_of_the_best_response(bench: Bench) -> None:
    bench.keys("Shift+E")
    expect(bench.page.locator("dialog[open]")).to_have_count(0)  # nothing is best yet
    bench.keys("b 1 a 2 Shift+E")
    text = bench.part("rewrite")
    original = Response.objects.get(pk=bench.card("B").get_attribute("data-id")).text
    expect(text).to_have_value(original)
    expect(bench.page.get_by_role("heading", name="Your edited version of B")).to_be_visible()
    text.fill(f"{original}, only better")
    bench.keys("Escape")
    bench.says("B > A, with an edited version of B")
    for letter in "AB":
        rate(bench, letter, "Helpful", "4")
    bench.keys("Enter")
    bench.asks("Question number 2?")
    bench.saved()
    ranking = Ranking.objects.get()
    assert ranking.rewrite_of is not None and ranking.rewrite_of.text == original
    assert ranking.rewrite_text == f"{original}, only better"


def test_an_unchanged_or_discarded_edit_is_none(bench: Bench) -> None:
    bench.keys("a 1 b 2 Shift+E")
    bench.part("rewrite").press_sequentially("x")
    bench.part("rewrite").press("Backspace")
    bench.keys("Escape")
    bench.says("A > B")
    bench.keys("Shift+E")
    bench.part("rewrite").fill("Something else.")
    bench.page.get_by_role("button", name="Throw it away").click()
    bench.says("A > B")
    bench.saved()
    assert Draft.objects.get().body["rewrite"] is None


def test_back_makes_a_new_revision_and_returns(bench: Bench) -> None:
    bench.keys("b 1 a 2")
    for letter in "AB":
        rate(bench, letter, "Helpful", "4")
    bench.keys("Enter")
    bench.asks("Question number 2?")
    bench.keys("a 1")
    bench.keys("Shift+B")
    bench.asks("Question number 1?")
    bench.says("B > A")
    expect(bench.page.get_by_text("You are looking at an earlier answer of yours.")).to_be_visible()
    expect(bench.page.get_by_role("button", name="Skip…")).to_be_hidden()
    bench.act("flag").click()  # what one sees only now can still be told
    bench.page.locator("dialog#flag").get_by_label("It needs an expert").check()
    bench.page.get_by_role("button", name="Flag it").click()
    bench.page.get_by_role("button", name="Go on").click()
    bench.act("flag").blur()  # it has the focus again, and Enter would press it
    bench.keys("Enter")
    expect(bench.part("hint")).to_have_text("Nothing is changed yet.")
    bench.keys("a 1")
    bench.saved()
    bench.open()  # a reload in the middle: the task at hand, and the revision is kept as a draft
    bench.asks("Question number 2?")
    bench.says("A, B unranked")
    bench.keys("Shift+B")
    bench.says("A = B")
    bench.keys("Enter")
    bench.asks("Question number 2?")
    bench.says("A, B unranked")
    bench.saved()
    first, second = Ranking.objects.order_by("revision")
    assert (tiers_by_letter(first), tiers_by_letter(second)) == ({"A": 2, "B": 1}, {"A": 1, "B": 1})
    assert second.supersedes == first and second.counted and second.slot == first.slot
    bench.keys("Shift+B")
    bench.act("leave").click()
    bench.asks("Question number 2?")
    assert Ranking.objects.count() == 2
