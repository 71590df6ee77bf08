"""A model's page says what its report says: warnings first, plots, every figure; old reports as far as they go."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from annotate.models import Snapshot
from tests.training.core.judged import random_split
from tests.training.core.test_plots import OLD
from tests.training.django.helpers import RunCast
from tests.training.django.test_run_api import finished
from training.core.evaluation import evaluate
from training.models import ModelVersion

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    data, scores = random_split(20)
    names = ["<b>robot</b>", *(f"annotator {number}" for number in range(1, 8))]
    found: dict[str, Any] = evaluate(data, scores, seed=0, known_annotators=[1], annotators=names)
    return found


def page(snapshot: Snapshot, people: RunCast, report: dict[str, Any], *, language: str = "en") -> str:
    """The model's page as Alice reads it."""
    model = finished(snapshot)
    ModelVersion.objects.filter(pk=model.pk).update(report=report)
    client = Client(headers={"accept-language": language})
    client.force_login(people.alice)
    return client.get(f"/models/{model.pk}/").content.decode()


def test_warnings_come_first_then_the_figures_of_each_split(
    snapshot: Snapshot, people: RunCast, section: dict[str, Any]
) -> None:
    html = page(snapshot, people, {"validation": section, "test": section, "warnings": ["Mind <this>."]})
    assert html.count("<svg") == 6
    assert len(re.findall(r' id="([^"]+)"', html)) == len(set(re.findall(r' id="([^"]+)"', html)))
    places = [html.index(words) for words in ("Mind &lt;this&gt;.", "Validation</h2>", "<svg", "Test</h2>", "Use it")]
    assert places == sorted(places)
    assert "style=" not in html and "<style" not in html and "<script>" not in html
    assert "<b>robot</b>" not in html and "&lt;b&gt;robot&lt;/b&gt;" in html
    told = f"{section['ceiling']['two_annotators']['value'] * 100:.1f}\xa0% ("
    assert told in html
    assert html.count("<details") == 2


def test_what_is_of_the_model_itself_stands_with_the_first_split(
    snapshot: Snapshot, people: RunCast, section: dict[str, Any]
) -> None:
    more = {
        "kept_step": 1200,
        "score_scale": {"mean": -1.4331, "std": 1.0965, "responses_of_prompts": 40},
        "thresholds": {"eta_1": 0.31864, "<b>eta</b>": 1.25},
    }
    html = page(snapshot, people, {"validation": section, "test": section, **more}, language="de")
    for words in (
        "Gewichte von Schritt",
        "1.200",
        "Skala der Scores</h3>",
        "−1,433",
        "0,319",
        "&lt;b&gt;eta&lt;/b&gt;",
    ):
        assert html.count(words) == 1
        assert html.index(words) < html.index("Test</h2>")
    assert html.count("<details") == 2
    assert "Schwellen" not in page(snapshot, people, {"validation": section}, language="de")


def test_the_report_is_in_the_language_of_the_reader(
    snapshot: Snapshot, people: RunCast, section: dict[str, Any]
) -> None:
    html = unescape(page(snapshot, people, {"validation": section}, language="de"))
    for words in (
        "Kalibrierung",
        "Übereinstimmung zweier Annotierender",
        "Genauigkeit nach Längenunterschied",
        "nach Score",
    ):
        assert words in html
    value = f"{section['accuracy']['value'] * 100:.1f}\xa0%"
    assert value not in html and value.replace(".", ",") in html
    for words in ("Calibration", "longer response", "Pairs right", "annotators with"):
        assert words not in html


def test_an_old_report_shows_what_it_has(snapshot: Snapshot, people: RunCast, section: dict[str, Any]) -> None:
    html = page(snapshot, people, {"validation": {name: section[name] for name in OLD}})
    assert f"{section['accuracy']['value'] * 100:.1f}\xa0%" in html
    assert "<svg" not in html and "<details" not in html and "Warnings" not in html
    assert "fitted temperature" in html
    for nothing in ({}, {"validation": evaluate([], [], seed=0)}):
        ModelVersion.objects.all().delete()
        assert "Its held-out accuracy is unknown." in page(snapshot, people, nothing)
