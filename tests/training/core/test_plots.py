"""The plots: whole, safe under the policy of the pages, told in words, and drawn where the figures are."""

import re
import sys
from collections.abc import Callable
from subprocess import run
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.training.core.judged import example, random_split
from training.core.evaluation import evaluate
from training.core.plots import LEFT, NAMES, RIGHT, best_of_n_plot, calibration_plot, parts_plot, plots_of
from training.core.svg import standalone
from training.core.wording import ENGLISH, Wording

SVG = "{http://www.w3.org/2000/svg}"
OLD = ("accuracy", "length_baseline", "log_loss", "ece", "temperature", "kendall_tau_b")


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    found: dict[str, Any] = evaluate(*random_split(60), seed=0, known_annotators=[1, 2])
    return found


def parsed(plot: str) -> ElementTree.Element:
    return ElementTree.fromstring(plot)


def test_each_plot_is_an_image_with_its_numbers_in_words(section: dict[str, Any]) -> None:
    plots = plots_of(section, name="validation")
    assert list(plots) == ["calibration", "best_of_n", "parts"]
    identities = []
    for plot in plots.values():
        root = parsed(plot)
        assert root.tag == f"{SVG}svg" and root.get("role") == "img"
        title, told = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert title is not None and told is not None
        assert (root.get("aria-labelledby") or "").split() == [title.get("id"), told.get("id")]
        identities += [title.get("id"), told.get("id")]
    assert len(set(identities)) == 6
    whole = section["accuracy"]
    said = (
        f"all pairs: {whole['value'] * 100:.1f}\xa0% ({whole['low'] * 100:.1f}\xa0% to {whole['high'] * 100:.1f}\xa0%)"
    )
    assert said in plots["parts"]
    last = section["best_of_n"]["points"][-1]
    assert f"Of {last['n']}: the pick by score stands at {last['model']['value'] * 100:.1f}\xa0%" in plots["best_of_n"]
    for one in section["calibration"]:
        assert (
            f"Confidence {one['confidence'] * 100:.1f}\xa0%: {one['accuracy']['value'] * 100:.1f}\xa0%"
            in plots["calibration"]
        )


def test_inline_plots_hold_nothing_that_the_policy_refuses(section: dict[str, Any]) -> None:
    for plot in plots_of(section, name="x").values():
        for part in parsed(plot).iter():
            assert part.tag.removeprefix(SVG) in {"svg", "title", "desc", "path", "circle", "text"}
            assert not {"style", "fill", "stroke", "href"} & set(part.keys())
            assert not any(name.startswith("on") for name in part.attrib)


def test_a_file_brings_its_own_colours_for_light_and_dark(section: dict[str, Any]) -> None:
    for plot in plots_of(section, name="x").values():
        file = standalone(plot)
        root = parsed(file)
        style = root.find(f"{SVG}style")
        assert style is not None and "prefers-color-scheme: dark" in (style.text or "")
        # every class that is drawn has a colour
        for part in root.iter():
            for kind in (part.get("class") or "").replace("plot", "").split():
                assert f".{kind}" in (style.text or ""), kind
        assert int(root.get("width") or 0) == 720


def test_points_lie_where_their_figures_are() -> None:
    """σ(ln 3) = 0.75 is in the middle of the axis; 3 of 4 right lies on the dashed line from (½, ½) to (1, 1)."""
    log3 = 1.0986122886681098
    data = [example([1, 1], [[0], [1]], group=number) for number in range(4)]
    section = evaluate(data, [[log3, 0.0]] * 3 + [[0.0, log3]], seed=0)
    plot = calibration_plot(section, name="x")
    assert plot is not None
    root = parsed(plot)
    (dot,) = root.iter(f"{SVG}circle")
    middle = (LEFT + RIGHT) / 2
    assert float(dot.get("cx") or 0) == pytest.approx(middle, abs=0.1)
    dashed = next(part.get("d") or "" for part in root.iter(f"{SVG}path") if part.get("class") == "dashed")
    x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", dashed))
    assert float(dot.get("cy") or 0) == pytest.approx(y0 + (y1 - y0) * (middle - x0) / (x1 - x0), abs=0.2)
    whisker = next(part.get("d") or "" for part in root.iter(f"{SVG}path") if part.get("class") == "whisker")
    low, high = map(float, re.findall(r"[\d.]+", whisker)[1:])
    assert high < float(dot.get("cy") or 0) < low


def test_no_interval_reaches_the_name_of_the_axis() -> None:
    """The least sure choices are all right, so an interval ends at the top, beside where the axis is named."""
    data = [example([1, 1], [[0], [1]], group=number) for number in range(4)]
    section = evaluate(data, [[0.01, 0.0]] * 3 + [[0.0, 0.01]], seed=0)
    section["calibration"][0]["accuracy"]["high"] = 1.0
    section["best_of_n"]["points"][0]["model"]["high"] = 1.0
    for plot, name in ((calibration_plot(section, name="x"), "right"), (best_of_n_plot(section, name="x"), "ranked")):
        assert plot is not None
        root = parsed(plot)
        label = next(part for part in root.iter(f"{SVG}text") if (part.text or "").startswith(name))
        drawn = [part.get("d") or "" for part in root.iter(f"{SVG}path") if part.get("class") == "whisker"]
        highest = min(float(end) for course in drawn for end in re.findall(r"[\d.]+", course)[1:])
        assert 8 <= float(label.get("y") or 0) < highest - 3  # 3 of its descenders; 8 of its height are inside


def test_the_length_rule_stays_on_the_axis_however_wrong_it_is(section: dict[str, Any]) -> None:
    family = section["accuracy_by"]["placed"]
    low = {**section, "accuracy_by": {"placed": [
        {**part, "length_baseline": {**part["length_baseline"], "value": 0.0}} for part in family
    ]}}  # fmt: skip
    plot = parts_plot(low, name="x")
    assert plot is not None
    places = [float(each) for each in re.findall(r'class="rule" d="M([0-9.]+)', plot)]
    assert places and min(places) >= NAMES + 10


def test_an_interval_without_width_is_not_told_as_certainty() -> None:
    assert ENGLISH.interval({"value": 1.0, "low": 1.0, "high": 1.0}) == ENGLISH.percent(1.0)
    assert ENGLISH.percent(0.8) in ENGLISH.interval({"value": 0.9, "low": 0.8, "high": 1.0})


def test_a_way_that_parts_nothing_has_no_rows() -> None:
    data = [example([1, 2], [[0], [1]], group=number) for number in range(4)]
    assert parts_plot(evaluate(data, [[1.0, 0.0]] * 4, seed=0), name="x") is None
    with_lengths = [example([1, 2 + number], [[0], [1]], group=number) for number in range(4)]
    plot = parts_plot(evaluate(with_lengths, [[1.0, 0.0]] * 4, seed=0), name="x")
    assert plot is not None
    assert "Characters apart" in plot and "Responses placed" not in plot


def test_reports_without_the_figures_have_no_plots(section: dict[str, Any]) -> None:
    assert plots_of({name: section[name] for name in OLD}, name="x") == {}
    assert plots_of(evaluate([], [], seed=0), name="x") == {}


def test_words_of_another_language_are_escaped_and_numbers_follow_it(section: dict[str, Any]) -> None:
    shout: Callable[[str], str] = lambda text: f'<{text}>"'  # noqa: E731
    plots = plots_of(section, name='"x', words=Wording(shout, ",", "."))
    for plot in plots.values():
        assert parsed(plot).find(f"{SVG}title") is not None
    assert "&lt;Calibration&gt;" in plots["calibration"]
    assert re.search(r"\d,\d\xa0%", plots["calibration"])
    assert not re.search(r"\d\.\d\xa0%", plots["calibration"])


def test_drawing_and_telling_load_neither_torch_nor_numpy() -> None:
    code = "import sys, training.core.plots, training.core.report_words, training.core.report_page; print(*sys.modules)"
    loaded = run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "training.core.plots" in loaded
    assert not {"torch", "numpy", "transformers", "django"} & set(loaded)
