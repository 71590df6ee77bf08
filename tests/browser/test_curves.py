"""Curves in the browser: the pure modules against closed forms, and runs beside each other as someone uses them."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotate.models import User
from tests.annotate.factories import make_project, make_user
from tests.browser.test_safe_and_open import violations
from tests.training.django.helpers import claim, make_snapshot, queue_run
from training.models import Run
from training.services.claims import mark_running, succeed
from training.services.metrics import StepMetrics, begin_attempt, record_metrics

STATIC = Path(__file__).resolve().parents[2] / "training" / "static"
Login = Callable[[BrowserContext, User], None]
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(browser: Browser) -> Iterator[Ask]:
    """Calls a function of our modules on a blank page of an address that exists only here."""
    page = browser.new_page()

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix("http://modules.test/")
        if path:
            route.fulfill(path=STATIC / path, content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")

    page.route("http://modules.test/**", serve)
    page.goto("http://modules.test/")

    def call(expression: str, *given: Any) -> Any:
        """`expression` is of the modules p (points), s (scales), c (choices) and the arguments a."""
        return page.evaluate(
            """async ([expression, a]) => {
              const names = ["curve_points", "scales", "curve_choices"];
              const [p, s, c] = await Promise.all(names.map((name) => import(`/training/${name}.js`)));
              return new Function("p", "s", "c", "a", `return ${expression}`)(p, s, c, a);
            }""",
            [expression, list(given)],
        )

    yield call
    page.close()


# --- smoothing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.5, 0.9, 0.99])
def test_smoothing_is_the_moving_average_with_its_bias_corrected(ask: Ask, weight: float) -> None:
    """Of x_n = r^n it is (1 - w) r (r^n - w^n) / ((r - w) (1 - w^n)), the sum of a geometric series."""
    ratio, steps = 0.7, range(1, 41)
    found = ask("p.smoothed(a[0], a[1])", [[n, ratio**n] for n in steps], weight)
    closed = [(1 - weight) * ratio * (ratio**n - weight**n) / ((ratio - weight) * (1 - weight**n)) for n in steps]
    assert [point[1] for point in found] == pytest.approx(closed, rel=1e-9)
    assert ask("p.smoothed(a[0], a[1])", [[n, 3.5] for n in steps], weight)[-1][1] == pytest.approx(3.5)


def test_a_stretch_counts_as_its_points_and_a_gap_as_none(ask: Ask) -> None:
    one_by_one = ask("p.smoothed(a[0], 0.8)", [[n, 2.0] for n in range(1, 11)] + [[11, 5.0]])
    fewer = ask("p.smoothed(a[0], 0.8)", [[10, 2.0, 6, 5, 2.0, 6, 2.0], [11, 5.0]])
    whole = ask("p.smoothed(a[0], 0.8)", [[10, 2.0, 10, 5, 2.0, 6, 2.0], [11, 5.0]])
    assert whole[-1][1] == pytest.approx(one_by_one[-1][1])
    assert fewer[-1][1] != pytest.approx(one_by_one[-1][1])  # six points weigh less than ten
    assert ask("p.smoothed(a[0], 0.5)", [[1, 1.0], [2, None], [3, 1.0]]) == [[1, 1], [2, None], [3, 1]]


# --- points ----------------------------------------------------------------------------------------------------------


def test_new_points_are_added_and_a_resumed_run_begins_anew(ask: Ask) -> None:
    first = {"points": {"loss": [[1, 3.0], [2, 2.0]]}, "attempt": 1, "step": 2, "whole": True}
    more = {"points": {"loss": [[3, 1.0]], "held": [[3, 9.0]]}, "attempt": 1, "step": 3, "whole": False}
    cut = {"points": {"loss": [[1, 3.0], [2, 7.0]]}, "attempt": 2, "step": 2, "whole": True}
    expression = "a.reduce(p.taken, p.nothing())"
    assert ask(expression, first, more)["points"] == {"loss": [[1, 3], [2, 2], [3, 1]], "held": [[3, 9]]}
    assert ask(expression, first, more, cut) == {"points": {"loss": [[1, 3], [2, 7]]}, "attempt": 2, "step": 2}
    assert ask("((s) => p.taken(s, a[0]) === s)(p.taken(p.nothing(), a[0]))", first)


def test_thinning_loses_no_spike(ask: Ask) -> None:
    points = [[n, 50.0 if n == 777 else -9.0 if n == 1234 else n % 10] for n in range(1, 3001)]
    found = ask("p.thin(a[0], 100)", points)
    assert len(found) <= 102 and found[-1] == [3000, 0]
    assert [777, 50] in found and [1234, -9] in found
    assert [point[0] for point in found] == sorted(point[0] for point in found)


def test_the_nearest_point_is_found_at_every_place(ask: Ask) -> None:
    xs = [1.0, 2.0, 4.0, 8.0, 8.5]
    asked = [-5, 1, 1.4, 1.6, 3, 6.1, 8.2, 8.3, 99]
    found = ask("a[1].map((x) => p.nearest(a[0], x))", [[x] for x in xs], asked)
    assert found == [min(range(len(xs)), key=lambda place: (abs(xs[place] - x), place)) for x in asked]
    assert ask("p.nearest([], 1)") == -1
    assert ask("p.placesOf(a[0])", [[[1, 0.5], [3, None]], [[2, 0.1], [1, 0.2]]]) == [1, 2]


def test_minutes_follow_the_time_that_steps_took(ask: Ask) -> None:
    seconds = [[1, 60.0], [2, 30.0], [10, 15.0, 8, 3, 1.0, 4, 99.0]]
    assert ask("[0, 1, 1.5, 2, 6, 10].map(p.clockOf(a[0]))", seconds) == [0, 1, 1.25, 1.5, 2.5, 3.5]
    assert ask("p.clockOf([])") is None


def test_a_logarithm_leaves_out_what_has_none_and_counts_it(ask: Ask) -> None:
    found = ask("p.positive(a[0])", [[1, 1.0], [2, 0.0], [3, -1.0], [4, None], [5, 2.0]])
    assert found == {"points": [[1, 1], [2, None], [3, None], [4, None], [5, 2]], "leftOut": 2}


# --- axes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0, 1, False), (-3.2, 17, False), (0.00011, 0.00019, False), (1, 100_000, False), (0.5, 0.5001, False),
     (0.01, 1000, True), (0.4, 6, True), (2.1, 2.6, True), (1e-9, 1e9, True)],
)  # fmt: skip
def test_ticks_are_round_and_inside(ask: Ask, low: float, high: float, log: bool) -> None:
    ticks = ask("s.ticksOf([a[0], a[1]], 5, a[2])", low, high, log)
    assert 2 <= len(ticks) <= 8 and ticks == sorted(set(ticks))
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    digits = [f"{tick:.5e}".split("e")[0].replace(".", "").replace("-", "").rstrip("0") for tick in ticks]
    assert max(map(len, digits)) <= (5 if low == 0.5 else 3)


def test_scales_lead_from_values_to_places(ask: Ask) -> None:
    assert ask("[0, 5, 10].map(s.scaleOf([0, 10], [100, 0]))") == [100, 50, 0]
    assert ask("[1, 10, 100].map(s.scaleOf([1, 100], [0, 8], true))") == pytest.approx([0, 4, 8])
    low, high = ask("s.rangeOf([0.01, 10], {log: true, floor: 0})")
    assert 0 < low < 0.01 and high > 10
    assert ask("s.rangeOf([0.4, 0.7], {line: 0.5, ceiling: 1})") == pytest.approx([0.382, 0.718])
    assert ask("s.rangeOf([2, 4], {floor: 0})")[0] == 0
    assert ask("s.rangeOf([])") == [0, 1] and ask("s.rangeOf([3, 3])") == [2.44, 3.56]
    assert math.isclose(ask("s.rangeOf([3], {log: true})")[1], 6)


def test_numbers_are_written_in_the_language_of_the_page(ask: Ask) -> None:
    expression = "a[0].map((value) => s.written(value, {decimal: ','}))"
    assert ask(expression, [0.12345, 1234.5, 0.00002, 0, None]) == ["0,123", "1235", "2,0e-5", "0", "–"]
    assert ask("s.written(0.5, {percent: true})") == "50.0\N{NO-BREAK SPACE}%"


# --- choices ---------------------------------------------------------------------------------------------------------


def test_a_link_shows_the_same_choices(ask: Ask) -> None:
    given = "run=1&run=2&smooth=0.9&smooth=train/loss~0&log=ppo/kl&x=minutes"
    choices = ask("c.parse(new URLSearchParams(a[0]))", given)
    assert choices == {"x": "minutes", "smooth": {"": "0.9", "train/loss": "0"}, "log": ["ppo/kl"]}
    again = ask("[...c.withChoices(new URLSearchParams(a[0]), a[1])]", given, choices)
    assert sorted(map(tuple, again)) == sorted(tuple(part.split("=", 1)) for part in given.split("&"))
    assert ask("c.withChoices(new URLSearchParams('samples=4'), c.usual()).toString()") == "samples=4"
    nonsense = "smooth=7&smooth=train/loss~x&x=years&log="
    assert ask("c.parse(new URLSearchParams(a[0]))", nonsense) == ask("c.usual()")
    assert ask("c.weightOf(c.withWeight(c.parse(new URLSearchParams(a[0])), '', '0.5'), 'train/loss')", given) == "0.5"


def test_a_page_loads_little_script() -> None:
    modules = ["curves", "chart", "curve_points", "curve_choices", "scales"]
    assert sum((STATIC / "training" / f"{name}.js").stat().st_size for name in modules) < 40_000


# --- the page --------------------------------------------------------------------------------------------------------


def finished_run(snapshot: Any, name: str, losses: list[float]) -> Run:
    run = queue_run(snapshot, name=name, config={"seed": 0, "learning_rate": losses[0]})
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=len(losses))
    rows = [StepMetrics(step, {"train/loss": loss, "time/step_seconds": 6.0}) for step, loss in enumerate(losses, 1)]
    record_metrics(held, rows=rows, from_step=0)
    succeed(held, model=None, step=len(losses), report={})
    return run


def value_of(page: Page, number: int) -> str:
    return page.locator(f"[data-chart='train/loss'] [data-number='{number}'] [data-value]").inner_text()


@pytest.mark.django_db(transaction=True)
def test_two_runs_are_compared_by_keyboard(page: Page, live_server: LiveServer, login: Login) -> None:
    snapshot = make_snapshot(make_project())
    flat = finished_run(snapshot, "flat", [0.5] * 20)
    falling = finished_run(snapshot, "falling", [2.0 - 0.1 * step for step in range(1, 31)])  # ends at -1
    login(page.context, make_user(project=snapshot.project, engineer=True))

    page.goto(f"{live_server.url}/runs/")
    for name in ("falling", "flat"):
        page.get_by_role("checkbox", name=f"Compare {name},").press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("2 runs beside each other")

    chart = page.locator("[data-chart='train/loss']")
    plot, said = chart.get_by_role("application"), page.locator("[data-said]")
    expect(chart.locator("[data-number='1'] [data-value]")).to_have_text("-1")
    plot.focus()
    plot.press("Home")
    expect(said).to_have_text(f"step 1: falling {falling.pk} 1.9, flat {flat.pk} 0.5")
    plot.press("ArrowRight")
    assert (value_of(page, 1), chart.locator("[data-at]").inner_text()) == ("1.8", "step 2")
    plot.press("End")
    assert (value_of(page, 1), value_of(page, 2)) == ("-1", "–")  # the other had ended before
    plot.press("Escape")
    assert value_of(page, 2) == "0.5"
    colours, dashes = (
        [chart.locator(f"path.curve.line-{n}").first.evaluate(f"one => getComputedStyle(one).{what}") for n in (1, 2)]
        for what in ("stroke", "strokeDasharray")
    )
    assert colours[0] != colours[1] and dashes[0] != dashes[1]

    assert chart.locator("path.raw").count() == 0
    chart.get_by_label("Smoothing Loss").select_option("0.9")
    expect(chart.locator("path.raw")).to_have_count(2)
    assert float(value_of(page, 1)) > -0.9 and chart.locator("[data-measured]").first.inner_text() == "(-1)"
    chart.get_by_label("Smoothing Loss").select_option("0")
    chart.get_by_label("log scale Loss").press("Space")
    expect(chart.locator("[data-left-out]")).to_have_text(
        "11 points at or below zero have no logarithm and are left out."
    )
    page.get_by_label("Along").select_option("minutes")
    plot.press("Home")
    expect(said).to_contain_text("0.1 min: falling")

    assert "log=train%2Floss" in page.url and "x=minutes" in page.url and "smooth=train%2Floss%7E0" in page.url
    page.evaluate("localStorage.clear()")
    page.reload()
    expect(chart.locator("[data-left-out]")).to_be_visible()
    page.goto(f"{live_server.url}/runs/{falling.pk}/")  # kept in this browser, too
    expect(page.locator("[data-chart='train/loss'] [data-left-out]")).to_be_visible()
    assert "x=minutes" in page.url

    box = page.locator("[data-chart='train/loss'] [data-plot]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    expect(page.locator("[data-chart='train/loss'] [data-at]")).to_contain_text("min")
    expect(page.locator("[data-chart='train/loss'] path.guide")).to_be_attached()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_a_comparison_is_open_to_all(
    browser: Browser, live_server: LiveServer, login: Login, scheme: Any, width: int
) -> None:
    snapshot = make_snapshot(make_project())
    runs = [finished_run(snapshot, f"run {number}", [number + 1.0, 0.5, 0.2]) for number in range(6)]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    login(context, make_user(project=snapshot.project, engineer=True))
    page = context.new_page()
    page.goto(f"{live_server.url}/runs/compare/?" + "&".join(f"run={run.pk}" for run in runs))
    expect(page.locator("[data-chart='train/loss'] [data-plot] path.curve")).to_have_count(6)
    page.locator("[data-chart='train/loss'] [data-plot]").press("End")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()
