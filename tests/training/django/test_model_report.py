"""A model's page says what its report says: warnings first, plots, every figure; old reports as far as they go."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from annotate.models import Snapshot
from tests.training.core.judged import random_split
from tests.training.core.policies import ppo_report, sft_report
from tests.training.core.test_plots import OLD
from tests.training.django.helpers import RunCast, claim, queue_run
from tests.training.django.test_run_api import finished
from training.core.evaluation import evaluate
from training.models import ModelVersion
from training.services.claims import mark_running, succeed

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


def of_kind(snapshot: Snapshot, people: RunCast, kind: str, report: dict[str, Any], language: str) -> tuple[str, str]:
    """The pages of a policy and of the run that made it, as Alice reads them."""
    run = queue_run(snapshot, kind=kind)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    folder = f"{run.pk}/out/model"
    model = ModelVersion(
        project=snapshot.project, run=run, name="m", kind="policy", folder=folder, size_bytes=7, report=report
    )
    succeed(held, model=model, step=3, report=report)
    client = Client(headers={"accept-language": language})
    client.force_login(people.alice)
    return tuple(
        unescape(client.get(url).content.decode()) for url in (f"/models/{model.pk}/", f"/runs/{model.run_id}/")
    )


def test_a_policys_page_says_what_was_won_and_what_to_mind(snapshot: Snapshot, people: RunCast) -> None:
    report = ppo_report()
    html, live = of_kind(snapshot, people, "ppo", report, "en")
    assert html.count('class="plot"') == 3 and 'id="report-policy"' in html
    wins = f"{report['win_rate']['value'] * 100:.1f}\xa0%"
    words = [
        "The run that made it was suspect",
        "Suspect of over-optimisation",
        "wins against the start",
        f"<b>{wins}</b>",
    ]
    places = [html.index(one) for one in words]
    assert places == sorted(places)
    for one in ("Reward against KL", "the judge's held-out accuracy", "Before and after", "Evaluations"):
        assert one in html
    assert "held-out accuracy is unknown" not in html
    assert wins in live and "best of 4 of the start" in live and "Suspect of over-optimisation" in live
    assert "no held-out pairs" not in live


def test_a_policys_page_is_in_the_language_of_the_reader(snapshot: Snapshot, people: RunCast) -> None:
    html, live = of_kind(snapshot, people, "ppo", ppo_report(), "de")
    for one in ("gewinnt gegen den Anfang", "Belohnung gegen KL", "Genauigkeit des Gutachters", "Vorher und nachher"):
        assert one in html
    assert "beste von 4 des Anfangs" in live
    for one in ("against the start<", "Reward against KL", "Before and after"):
        assert one not in html


def test_perplexity_of_an_sft_model(snapshot: Snapshot, people: RunCast) -> None:
    html, live = of_kind(snapshot, people, "sft", sft_report(), "en")
    for page in (html, live):
        assert "perplexity" in page and "before training" in page
    assert "loss changed by" in html and "was suspect" not in html


def test_a_policy_without_held_out_prompts_says_so(snapshot: Snapshot, people: RunCast) -> None:
    html, live = of_kind(snapshot, people, "dpo", {"kind": "dpo", "warnings": []}, "en")
    assert "It was not tried on held-out prompts." in html
    assert "There was nothing held out to try it on." in live
