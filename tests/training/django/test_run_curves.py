"""A running run's page draws the curves of its kind, and shows the last values of what matters there."""

import re
from html import unescape

import pytest
from django.test import Client

from annotate.models import Snapshot
from tests.training.django.helpers import RunCast, claim, queue_run
from training.models import Run, RunMetric
from training.pages.curves import CURVES, LATEST, use_charts
from training.services.claims import mark_running

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def live_page(
    snapshot: Snapshot, people: RunCast, kind: str, rows: list[dict[str, float]], language: str = "en"
) -> str:
    run = queue_run(snapshot, kind=kind)
    mark_running(claim(), process_id=1, process_started_at=1.0)
    for step, values in enumerate(rows, 1):
        RunMetric.objects.create(run=run, attempt=1, step=step, values=values)
    client = Client(headers={"accept-language": language})
    client.force_login(people.alice)
    return unescape(client.get(f"/runs/{run.pk}/").content.decode())


@pytest.mark.parametrize("kind", ["reward", "sft", "dpo", "ppo"])
def test_each_kind_has_its_curves(snapshot: Snapshot, people: RunCast, kind: str) -> None:
    html = live_page(snapshot, people, kind, [])
    assert re.findall(r'<figure class="card chart" data-chart="([^"/]+/[^"]+)"', html) == [
        curve.series for curve in CURVES[kind]
    ]
    assert re.findall(r'data-series="([^"]+)"', html) == [
        series for curve in CURVES[kind] for series in (curve.series, curve.beside) if series
    ]
    assert html.count(": nothing measured yet") == len(CURVES[kind]) + len(use_charts())
    assert len({curve.series for curve in CURVES[kind]}) == len(CURVES[kind])


def test_a_ppo_run_shows_its_score_and_kl_and_no_accuracy(snapshot: Snapshot, people: RunCast) -> None:
    rows = [
        {"ppo/score_mean": 0.25, "ppo/kl": 0.1, "ppo/eos_rate": 0.5, "validation/score": 0.3},
        {"ppo/score_mean": 0.5, "ppo/kl": 1.75, "ppo/eos_rate": 0.875},
    ]
    html = live_page(snapshot, people, "ppo", rows)
    for value in ("<b>0.5</b>", "<b>1.75</b>", "<b>87.5\xa0%</b>"):
        assert value in html
    assert "accuracy" not in html and "chance" not in html
    assert 'data-series="validation/score"' in html and 'data-name="held-out prompts"' in html
    german = live_page(snapshot, people, "ppo", rows, language="de")
    assert "KL zur Referenz" in german and "Token je Antwort" in german and "noch nichts gemessen" in german


def test_what_is_not_taken_at_every_step_stays_until_it_is_taken_again(snapshot: Snapshot, people: RunCast) -> None:
    rows = [{"train/loss": 3.0, "validation/loss": 2.5, "validation/perplexity": 12.25}, {"train/loss": 2.0}]
    html = live_page(snapshot, people, "sft", rows)
    assert "<b>12.2</b>" in html and "<b>2</b>" in html


def test_every_kind_has_figures_and_those_that_train_have_curves() -> None:
    assert set(CURVES) == set(LATEST) == set(Run.Kind)
    assert {kind for kind, curves in CURVES.items() if not curves} == {Run.Kind.EVALUATE, Run.Kind.SAMPLE}
