"""Reloads, second tabs, dead networks, lost replies, log-outs: the work is kept, and counted once."""

from collections.abc import Callable

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import Draft, Project, Ranking, Skip, Slot, User
from annotate.services.queue import next_leases
from tests.annotate.factories import make_user
from tests.browser.bench import Bench, project_with_tasks, tiers_by_letter

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[[BrowserContext, User], None]


@pytest.fixture
def bench(page: Page, live_server: LiveServer, login: Login) -> Bench:
    project, annotator = project_with_tasks(2)
    login(page.context, annotator)
    return Bench(page, live_server.url, project).open()


def second_tab(bench: Bench) -> Bench:
    other = Bench(bench.page.context.new_page(), "", bench.project)
    other.address = bench.address
    return other.open()


def test_a_draft_survives_a_reload(bench: Bench) -> None:
    bench.keys("c 1 a 2")
    bench.part("notes").locator("summary").click()
    bench.part("rationale").fill("C says more.")
    bench.saved()
    assert Draft.objects.get().body["rationale"] == "C says more."
    bench.page.evaluate("localStorage.clear()")
    bench.open()
    bench.says("C > A, B, D unranked")
    expect(bench.part("rationale")).to_have_value("C says more.")


def test_a_draft_that_never_reached_the_server_survives_a_reload(bench: Bench, quiet_console: list[str]) -> None:
    broken = [True]
    # One handler throughout: a request that meets the removal of its handler may stay without an answer.
    bench.page.route("**/draft/", lambda route: route.abort() if broken else route.continue_())
    bench.keys("c 1 a 2")
    expect(bench.part("save-state")).to_contain_text("Offline")
    bench.open()
    bench.says("C > A, B, D unranked")
    assert not Draft.objects.exists()
    broken.clear()
    bench.saved()
    assert len(Draft.objects.get().body["ranking"]) == 2
    quiet_console.clear()


def test_saving_goes_on_by_itself_when_the_network_is_back(bench: Bench, quiet_console: list[str]) -> None:
    bench.page.context.set_offline(True)
    bench.keys("a 1 b 2")
    expect(bench.part("save-state")).to_contain_text("Offline")
    assert not Draft.objects.exists()
    bench.page.context.set_offline(False)
    bench.saved()
    assert Draft.objects.get().version >= 1
    quiet_console.clear()


def test_a_second_tab_asks_which_draft_to_go_on_with(bench: Bench, quiet_console: list[str]) -> None:
    other = second_tab(bench)
    bench.keys("a 1 b 2")
    bench.saved()
    other.keys("d 1 c 1")
    dialog = other.page.locator("dialog#conflict")
    expect(dialog).to_be_visible()
    expect(dialog.locator('[data-text="mine"]')).to_have_text("C = D, A, B unranked")
    expect(dialog.locator('[data-text="theirs"]')).to_have_text("A > B, C, D unranked")
    dialog.get_by_role("button", name="The one here").click()
    other.saved()
    assert [len(tier) for tier in Draft.objects.get().body["ranking"]] == [2]
    bench.keys("c 3")
    bench.page.locator("dialog#conflict").get_by_role("button", name="The other one").click()
    bench.says("C = D, A, B unranked")
    bench.saved()
    assert [len(tier) for tier in Draft.objects.get().body["ranking"]] == [2]
    quiet_console.clear()  # the two 409s


def test_the_second_tab_is_told_that_the_first_one_submitted_and_keeps_its_work(
    bench: Bench, quiet_console: list[str]
) -> None:
    other = second_tab(bench)
    bench.keys("a 1 b 2 Enter")
    bench.asks("Question number 2?")
    bench.saved()
    other.keys("b 1 a 2 Enter")
    expect(other.page.get_by_role("heading", name="You have ranked this task already")).to_be_visible()
    other.page.get_by_role("button", name="Go on").click()
    other.asks("Question number 1?")
    expect(other.page.locator(".revising")).to_be_visible()
    other.says("B > A, C, D unranked")
    other.keys("Enter")
    other.asks("Question number 2?")
    other.saved()
    first, second = Ranking.objects.order_by("revision")
    assert tiers_by_letter(first) == {"A": 1, "B": 2, "C": None, "D": None}
    assert tiers_by_letter(second) == {"A": 2, "B": 1, "C": None, "D": None} and second.supersedes == first
    quiet_console.clear()


def test_offline_during_submit_loses_nothing_and_makes_one_ranking_each(bench: Bench, quiet_console: list[str]) -> None:
    bench.keys("b 1 a 2")
    bench.saved()
    bench.page.context.set_offline(True)
    bench.keys("Enter")
    bench.asks("Question number 2?")  # the prefetched one, at once
    expect(bench.part("save-state")).to_contain_text("Offline")
    bench.keys("c 1 d 2 Enter")
    bench.keys("Enter a 1 u")  # nothing more is in hand: impatience changes nothing
    bench.says("C > D, A, B unranked")
    assert not Ranking.objects.exists()
    bench.page.context.set_offline(False)
    expect(bench.page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    bench.saved()
    assert [tiers_by_letter(one) for one in Ranking.objects.order_by("id")] == [
        {"A": 2, "B": 1, "C": None, "D": None},
        {"A": None, "B": None, "C": 1, "D": 2},
    ]
    assert bench.page.evaluate("Object.keys(localStorage)") == []
    quiet_console.clear()


def test_a_lost_reply_makes_one_ranking(bench: Bench, quiet_console: list[str]) -> None:
    keys: list[str] = []

    def lose_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        answer = route.fetch()
        if len(keys) == 1:
            assert answer.status == 200
            route.abort()
        else:
            route.fulfill(response=answer)

    bench.page.route("**/rank/submit/", lose_first)
    bench.keys("b 1 a 2 Enter")
    bench.asks("Question number 2?")
    bench.saved()
    assert len(keys) == 2 and keys[0] == keys[1]
    assert Ranking.objects.count() == 1 and Slot.objects.filter(state="done").count() == 1
    quiet_console.clear()


def test_an_answer_on_its_way_survives_a_closed_tab(bench: Bench, quiet_console: list[str]) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    bench.page.route("**/rank/submit/", lose)
    bench.keys("b 1 a 2 Enter")
    expect(bench.part("save-state")).to_contain_text("Offline")
    bench.page.close()
    assert Ranking.objects.count() == 1
    requests: list[int] = []
    bench.page.context.on("response", lambda one: one.url.endswith("/submit/") and requests.append(one.status))
    again = Bench(bench.page.context.new_page(), "", bench.project)
    again.address = bench.address
    again.open().asks("Question number 2?")
    assert requests == [200]  # the first answer again
    assert tiers_by_letter(Ranking.objects.get()) == {"A": 2, "B": 1, "C": None, "D": None}
    quiet_console.clear()


def test_an_answer_that_is_refused_comes_back_to_be_corrected(bench: Bench, quiet_console: list[str]) -> None:
    refusal = {"error": {"code": "invalid_answer", "message": "It breaks a rule.", "fields": {"ranking": "Try again."}}}
    bench.page.route("**/rank/submit/", lambda route: route.fulfill(status=422, json=refusal), times=1)
    bench.keys("b 1 a 2 Enter")
    notice = bench.page.locator("dialog#notice")
    expect(notice).to_contain_text("It breaks a rule. Try again. Your answer is kept")
    notice.get_by_role("button", name="Go on").click()
    bench.asks("Question number 1?")
    bench.says("B > A, C, D unranked")
    bench.keys("c 3 Enter")
    bench.asks("Question number 2?")
    bench.saved()
    assert tiers_by_letter(Ranking.objects.get()) == {"A": 2, "B": 1, "C": 3, "D": None}
    quiet_console.clear()


def test_a_closed_project_takes_what_was_begun_and_says_that_it_is_closed(bench: Bench) -> None:
    bench.keys("b 1 a 2")
    bench.saved()
    Project.objects.update(archived_at=timezone.now())
    bench.keys("Enter")
    bench.asks("Question number 2?")
    bench.keys("a 1 b 2 Enter")
    expect(bench.page.get_by_text("This project was closed")).to_be_visible()
    assert Ranking.objects.filter(counted=True).count() == 2


def test_a_draft_of_the_last_moment_is_saved_before_a_log_out(bench: Bench) -> None:
    bench.keys("b 1 a 2")
    bench.page.locator(".menu-button").click()
    bench.page.get_by_role("button", name="Log out").click()
    expect(bench.page).not_to_have_url(bench.address)
    assert [len(tier) for tier in Draft.objects.get().body["ranking"]] == [1, 1]
    assert bench.page.evaluate("Object.keys(localStorage)") == []


def test_a_lease_that_ran_out_is_said(
    page: Page, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    project, annotator = project_with_tasks(1, lease_seconds=30)  # extended each 7.5 s while the page is in use
    login(page.context, annotator)
    bench = Bench(page, live_server.url, project).open()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotate_slot SET expires_at = now() - interval '1 hour' WHERE state = 'leased'")
    next_leases(project=project, annotator=make_user("bob", project=project))
    bench.keys("a 1")
    with page.expect_response("**/extend/", timeout=20_000):
        page.mouse.move(5, 5)
    expect(bench.part("hint")).to_contain_text("Your hold on this task has run out")
    bench.saved()
    quiet_console.clear()


def test_an_expired_lease_that_someone_else_took_is_kept_as_an_extra(bench: Bench) -> None:
    bench.keys("b 1 a 2")
    bench.saved()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotate_slot SET expires_at = now() - interval '1 hour' WHERE state = 'leased'")
    other = make_user("bob", project=bench.project)
    assert {slot.task_id for slot in next_leases(project=bench.project, annotator=other, count=2)} == set(
        Slot.objects.values_list("task_id", flat=True)
    )
    told = bench.page.get_by_text("Your answer is kept, but it does not count")
    expect(told).to_be_hidden()
    bench.keys("Enter")
    expect(told).to_be_visible()
    bench.page.get_by_role("button", name="All right").click()
    expect(told).to_be_hidden()
    ranking = Ranking.objects.get()
    assert not ranking.counted and tiers_by_letter(ranking) == {"A": 2, "B": 1, "C": None, "D": None}


def test_a_draft_whose_place_was_taken_is_there_after_a_reload(bench: Bench) -> None:
    bench.keys("b 1 a 2")
    bench.saved()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotate_slot SET expires_at = now() - interval '1 hour' WHERE state = 'leased'")
    next_leases(project=bench.project, annotator=make_user("bob", project=bench.project), count=2)
    bench.open()
    bench.asks("Question number 1?")
    bench.says("B > A, C, D unranked")
    bench.act("skip").click()
    bench.page.locator("dialog#skip").get_by_label("It is too long").check()
    bench.page.get_by_role("button", name="Skip it").click()
    expect(bench.page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    bench.saved()
    assert Skip.objects.get().reason == "long" and not Ranking.objects.exists()


def test_a_draft_that_only_this_browser_has_comes_back_though_its_place_was_taken(
    bench: Bench, quiet_console: list[str]
) -> None:
    broken = [True]
    bench.page.route("**/draft/", lambda route: route.abort() if broken else route.continue_())
    bench.keys("c 1 a 2")
    expect(bench.part("save-state")).to_contain_text("Offline")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotate_slot SET expires_at = now() - interval '1 hour' WHERE state = 'leased'")
    next_leases(project=bench.project, annotator=make_user("bob", project=bench.project), count=2)
    broken.clear()
    Project.objects.update(archived_at=timezone.now())  # also where nothing is handed out any more
    bench.open()
    bench.asks("Question number 1?")
    bench.says("C > A, B, D unranked")
    assert bench.page.evaluate("Object.keys(localStorage)") == []
    bench.keys("Enter")
    expect(bench.page.get_by_text("This project was closed")).to_be_visible()
    bench.saved()
    assert tiers_by_letter(Ranking.objects.get()) == {"A": 2, "B": None, "C": 1, "D": None}
    quiet_console.clear()


def test_a_log_out_in_mid_work_keeps_it(
    bench: Bench, live_server: LiveServer, login: Login, quiet_console: list[str]
) -> None:
    bench.keys("b 1")
    bench.saved()
    Session.objects.all().delete()
    bench.keys("a 2")
    expect(bench.page.get_by_role("heading", name="You were logged out")).to_be_visible()
    expect(bench.page.get_by_role("link", name="Log in again")).to_have_attribute(
        "href", f"/accounts/login/?next=/p/{bench.project.slug}/rank/"
    )
    login(bench.page.context, User.objects.get(username="ann"))
    bench.open().says("B > A, C, D unranked")
    bench.saved()
    bench.keys("Enter")
    bench.asks("Question number 2?")
    quiet_console.clear()


def test_what_one_person_left_is_not_shown_to_the_next(bench: Bench, login: Login, quiet_console: list[str]) -> None:
    bench.page.route("**/draft/", lambda route: route.abort())
    bench.keys("b 1 a 2")
    expect(bench.part("save-state")).to_contain_text("Offline")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotate_slot SET expires_at = now() - interval '1 hour' WHERE state = 'leased'")
    login(bench.page.context, make_user("bob", project=bench.project))
    bench.open().says("Nothing placed yet")
    quiet_console.clear()
