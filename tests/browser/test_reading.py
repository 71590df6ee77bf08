"""Reading: word-level difference, raw text, folding, layouts, identical texts, scripts, guidelines, thinking."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from playwright.sync_api import Response as Response_
from pytest_django.live_server_helper import LiveServer

from annotate.models import Prompt, ReadingReceipt, Response, User
from annotate.services.projects import change_rules
from annotate.services.tasks import create_task
from tests.annotate.factories import make_project, make_task, make_user
from tests.browser.bench import Bench, project_with_tasks

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]


def open_bench(page: Page, live_server: LiveServer, login: Login, *texts: str, **options: object) -> Bench:
    project, annotator = project_with_tasks(1, texts=texts, **options)
    login(page.context, annotator)
    return Bench(page, live_server.url, project).open()


def test_the_difference_of_two_responses_word_by_word(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login, "The cat sat here.", "The dog sat here.", "The cat <b>sat</b> here.")
    letters = {card.locator(".raw").text_content(): index for index, card in enumerate(page.locator(".response").all())}
    cat, dog = "ABC"[letters["The cat sat here."]], "ABC"[letters["The dog sat here."]]
    bench.keys(f"{cat.lower()} Shift+D")
    dialog = page.locator("dialog#compare")
    dialog.get_by_label("with").select_option(label=dog)
    expect(dialog.locator("ins")).to_have_text(["dog"])
    expect(dialog.locator("del")).to_have_text(["cat"])
    html = "ABC"[letters["The cat <b>sat</b> here."]]
    dialog.get_by_label("with").select_option(label=html)
    expect(dialog.locator("ins").first).to_contain_text("<b>")
    bench.keys("Escape")
    expect(dialog).to_be_hidden()
    bench.says("Nothing placed yet")


def test_identical_responses_are_pointed_out(page: Page, live_server: LiveServer, login: Login) -> None:
    open_bench(page, live_server, login, "Twice the same.", "Something else.", "Twice the same.")
    expect(page.get_by_text("The same text as")).to_have_count(2)


def test_raw_text_collapse_and_fold(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login, "**bold** and more", "A long one. " * 900)
    short = page.locator(".response", has=page.locator("strong"))
    expect(short.locator(".raw")).to_be_hidden()
    short.get_by_text("Raw").click()
    expect(short.locator(".raw")).to_have_text("**bold** and more")
    expect(short.locator(".rendered")).to_be_hidden()
    short.get_by_role("checkbox", name="Collapse").check(force=True)
    expect(short.locator(".raw")).to_be_hidden()
    expect(short.locator("[data-place]")).to_be_visible()
    long = page.locator(".response", has=page.locator(".unfold"))
    folded = long.bounding_box()
    long.get_by_text("Show all 2,700 words").click()
    unfolded = long.bounding_box()
    assert folded and unfolded and unfolded["height"] > folded["height"] + 500
    bench.says("Nothing placed yet")


def test_the_layout_is_chosen_and_stays(page: Page, live_server: LiveServer, login: Login) -> None:
    bench = open_bench(page, live_server, login, "one", "two")

    def beside() -> bool:
        first, second = (page.locator(".response").nth(index).bounding_box() for index in (0, 1))
        assert first and second
        return first["y"] == second["y"] and first["height"] == second["height"]

    assert beside()
    with page.expect_response("**/preferences/"):
        page.get_by_text("Stacked").click()
    assert not beside()
    bench.open()
    assert not beside()


def test_a_hundred_kilobytes_stay_usable(page: Page, live_server: LiveServer, login: Login) -> None:
    huge = "\n\n".join(f"Paragraph {number} with `code` and **weight**. " + "Word " * 60 for number in range(300))
    assert len(huge) > 100_000
    bench = open_bench(page, live_server, login, huge, huge + " The end.", "short")
    bench.keys("a 1 b 2 c 1")
    bench.says("A = C > B")
    bench.keys("b Shift+D")
    expect(page.locator("dialog#compare").locator("ins, del, .label").first).to_be_visible()


def test_arabic_runs_from_the_right_and_chinese_is_counted_by_character(
    page: Page, live_server: LiveServer, login: Login
) -> None:
    project = make_project()
    make_task(project, ("مرحبا، هذه إجابة قصيرة.", "这是一个简短的回答。", "A short answer."), language="ar")
    annotator = make_user(project=project)
    login(page.context, annotator)
    Bench(page, live_server.url, project).open()

    def shown(text: str) -> dict[str, str]:
        found: dict[str, str] = page.locator(".rendered p", has_text=text).evaluate(
            """one => { const range = document.createRange(); range.selectNodeContents(one);
                        const [line] = range.getClientRects(), box = one.closest(".body").getBoundingClientRect();
                        return {side: box.right - line.right < line.left - box.left ? "right" : "left",
                                lang: one.closest("[lang]").lang}; }"""
        )
        return found

    assert shown("مرحبا")["side"] == "right" and shown("A short")["side"] == "left"
    assert shown("这是")["lang"] == "ar"
    expect(page.locator(".response", has_text="这是").locator(".words")).to_have_text("9 words")


def test_thinking_is_folded_or_said_to_be_hidden(page: Page, live_server: LiveServer, login: Login) -> None:
    for shown in (True, False):
        project = make_project(rules={"show_thinking": shown})
        task = make_task(project, ["one", "two"])
        Response.objects.bulk_create(
            Response(prompt=task.prompt, key=f"t{n}", text=f"thought {n}", thinking="Hm, hm.", text_sha256="0" * 64)
            for n in (1, 2)
        )
        thought = make_task_of(task.prompt)
        annotator = make_user(project=project)
        login(page.context, annotator)
        bench = Bench(page, live_server.url, project).open()
        if page.locator(".thinking").count() == 0:
            bench.keys("a 1 b 2 Enter")
        expect(page.locator(".thinking")).to_have_count(2)
        summary = page.locator("details.thinking > summary")
        assert summary.count() == (2 if shown else 0), thought
        if shown:
            expect(page.get_by_text("Hm, hm.").first).to_be_hidden()
            summary.first.click()
            expect(page.get_by_text("Hm, hm.").first).to_be_visible()
        else:
            expect(page.get_by_text("The thinking before this answer is hidden").first).to_be_visible()
            assert "Hm, hm." not in page.content()


def make_task_of(prompt: Prompt) -> int:
    """A task of the prompt's responses that think."""
    return create_task(prompt=prompt, responses=list(prompt.responses.exclude(thinking=None)), overlap=1).pk


def test_guidelines_come_first_and_again_after_a_change(page: Page, live_server: LiveServer, login: Login) -> None:
    project, annotator = project_with_tasks(3, rules={"guidelines": "Be **fair**."})
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()  # shown, and closed with Escape: not read yet
    assert not ReadingReceipt.objects.exists()
    page.goto(bench.address)
    dialog = page.locator("dialog#guidelines")
    expect(dialog).to_contain_text("Be fair.")
    with page.expect_response("**/rank/read/"):
        dialog.get_by_role("button", name="I have read them").click()
    bench.open()
    expect(dialog).to_be_hidden()
    bench.keys("Shift+G")
    expect(dialog).to_be_visible()
    bench.keys("Escape a 1 b 2")
    bench.saved()
    change_rules(project=project, changed_by=make_user("mia", project=project, role="manager"), guidelines="Be *kind*.")
    bench.keys("Enter")
    expect(dialog).to_contain_text("Be kind.")
    dialog.get_by_role("button", name="I have read them").click()
    bench.asks("Question number 2?")
    page.wait_for_timeout(200)
    assert sorted(ReadingReceipt.objects.values_list("version__number", flat=True)) == [1, 2]


def test_a_gentle_word_after_a_long_stretch(page: Page, live_server: LiveServer, login: Login) -> None:
    project, annotator = project_with_tasks(1)
    login(page.context, annotator)
    page.clock.install()
    Bench(page, live_server.url, project).open()
    for minute in range(52):
        page.mouse.move(5, 5 + minute)
        page.clock.run_for(59_000)
    pause = page.get_by_text("You have ranked for 50 minutes.")
    expect(pause).to_be_visible()
    page.get_by_role("button", name="All right").click()
    expect(pause).to_be_hidden()


def test_scripts_of_our_own_stay_under_40_kb(page: Page, live_server: LiveServer, login: Login) -> None:
    project, annotator = project_with_tasks(1)
    login(page.context, annotator)
    sizes: dict[str, int] = {}

    def weigh(response: Response_) -> None:
        name = response.url.removeprefix(f"{live_server.url}/static/")
        if name.endswith(".js") and not name.startswith("django_htmx/"):
            sizes[name] = len(response.body())

    page.on("response", weigh)
    Bench(page, live_server.url, project).open()
    assert {"annotate/workbench.js", "annotate/ranking_state.js", "webapp/http.js"} <= set(sizes)
    assert sum(sizes.values()) < 40_000, sizes
    assert "<script>" not in page.content() and "style=" not in page.content()
