"""Runs beside each other: which may be, what differs, what came out, and what one would compare a run with."""

import re
from html import unescape
from typing import Any

import pytest

from annotate.models import Project, Role, Snapshot
from tests.annotate.factories import make_project, make_user
from tests.training.django.helpers import RunCast, make_snapshot, queue_run
from tests.training.django.test_run_api import REPORT, client_of, finished
from tests.training.django.test_run_pages import form_of, page_of
from training.models import Run
from training.selectors_comparison import companions_of, end_figures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def address(*runs: Run | int) -> str:
    return "/runs/compare/?" + "&".join(f"run={one if isinstance(one, int) else one.pk}" for one in runs)


def test_two_runs_stand_beside_each_other(snapshot: Snapshot, people: RunCast) -> None:
    done = finished(snapshot).run
    assert done is not None
    other = queue_run(snapshot, name="another <one>", config={"seed": 1, "epochs": 1, "loss": "pairwise"})
    html = unescape(page_of(people.alice).get(address(done, other)).content.decode())
    assert "2 runs beside each other" in html and "another <one>" in html
    figures = html[html.index("What came out") : html.index("Settings that differ")]
    assert "71.0\N{NO-BREAK SPACE}%" in figures and "60.0\N{NO-BREAK SPACE}% to 80.0\N{NO-BREAK SPACE}%" in figures
    differ = html[html.index("Settings that differ") :]
    assert re.findall(r"<code>(.*?)</code>", differ) == ["seed"]  # epochs are alike, and loss only one of them has
    assert re.search(r"<td>0</td><td>1</td>", differ)
    for run in (done, other):
        assert f'data-curves-url="/runs/{run.pk}/curves/"' in html
    lines = re.findall(r'data-series="train/loss" data-run="(\d+)" data-number="(\d)"', html)
    assert lines == [(str(done.pk), "1"), (str(other.pk), "2")]
    assert "style=" not in html and "<script>" not in html


def test_curves_of_several_kinds_share_a_chart_only_if_they_are_alike(snapshot: Snapshot, people: RunCast) -> None:
    runs = [queue_run(snapshot, kind=kind) for kind in ("reward", "dpo", "sft", "ppo", "evaluate")]
    html = unescape(page_of(people.alice).get(address(*runs)).content.decode())
    charts = html.split("<figure ")[1:]
    told = {}
    for chart in charts:
        key = re.search(r'data-chart="([^"]+)" data-name="([^"]+)"', chart)
        assert key is not None
        told[key[1]] = (key[2], re.findall(r'data-number="(\d)"', chart))
    assert len(told) == len(charts)
    assert told["train/loss"] == ("Loss", ["1", "2"])  # nats a pair
    assert ("Loss", ["3"]) in told.values()  # nats a token
    assert told["validation/score"] == ("Score on held-out prompts", ["4"])
    assert told["train/grad_norm"][1] == ["1", "2", "3", "4"]


def test_one_run_shows_what_to_compare_it_with(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    parent = queue_run(snapshot, kind="sft", name="the parent")
    origin = queue_run(snapshot, name="the origin")
    run = queue_run(snapshot, state="waiting", parent=parent, cloned_from=origin, queued_at=None)
    clone = queue_run(snapshot, kind="ppo", cloned_from=run, name="the clone")
    sibling = queue_run(snapshot, name="a sibling")
    cousin = queue_run(make_snapshot(project, name="second"), name="a cousin")
    queue_run(snapshot, kind="dpo", name="no relation")
    queue_run(make_snapshot(make_project()), name="far away")
    assert [one for one, _ in companions_of(run)] == [origin, clone, parent, sibling, cousin]
    html = page_of(people.alice).get(address(run)).content.decode()
    assert html.index("the origin") < html.index("the clone") < html.index("a cousin")
    assert "no relation" not in html and "far away" not in html
    assert f'<input type="hidden" name="run" value="{run.pk}">' in html
    assert "Tick two to 6 runs" in page_of(people.alice).get("/runs/compare/").content.decode()


def test_a_run_remembers_what_it_was_cloned_from(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    origin = queue_run(snapshot)
    client = page_of(people.alice)
    assert client.post(f"/p/{project.slug}/train/?clone={origin.pk}", form_of(snapshot)).status_code == 302
    run = Run.objects.latest("pk")
    assert run.cloned_from == origin and run.parent is None
    assert client_of(people.alice).get(f"/api/v1/runs/{run.pk}/").json()["cloned_from"] == origin.pk
    stranger = queue_run(make_snapshot(make_project()))
    assert client.post(f"/p/{project.slug}/train/?clone={stranger.pk}", form_of(snapshot)).status_code == 404


def test_the_list_of_runs_leads_there_by_a_plain_form(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    html = page_of(people.alice).get("/runs/").content.decode()
    assert '<form method="get" action="/runs/compare/"' in html
    assert f'<input type="checkbox" name="run" value="{run.pk}" aria-label="Compare a run, run {run.pk}">' in html
    assert f'href="/runs/compare/?run={run.pk}"' in page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()


@pytest.mark.parametrize("api", [False, True])
def test_one_run_of_others_is_enough_to_be_refused(snapshot: Snapshot, people: RunCast, api: bool) -> None:
    run, other = queue_run(snapshot), queue_run(snapshot)
    elsewhere = make_snapshot(make_project())
    mine = queue_run(elsewhere)
    zoe = make_user(project=elsewhere.project, role=Role.VIEWER, engineer=True)
    path = ("/api/v1" if api else "") + address(run, other)
    mixed = ("/api/v1" if api else "") + address(mine, run)
    ask: Any = client_of if api else page_of
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, 401 if api else 302), (people.alice, 200)):
        assert ask(user).get(path).status_code == status
    assert ask(zoe).get(mixed).status_code == 404 and ask(people.alice).get(mixed).status_code == 404
    assert ask(people.sue).get(mixed).status_code == 200  # of two projects


@pytest.mark.parametrize("asked", ["run=x", "run=-1", f"run={10**40}", "run=1&run=999999999"])
def test_what_is_no_run_is_not_found(snapshot: Snapshot, people: RunCast, asked: str) -> None:
    assert page_of(people.alice).get(f"/runs/compare/?{asked}").status_code == 404


def test_there_are_two_to_six(snapshot: Snapshot, people: RunCast) -> None:
    runs = [queue_run(snapshot) for _ in range(7)]
    page, api = page_of(people.alice), client_of(people.alice)
    assert page.get(address(*runs[:6])).status_code == 200
    refused = page.get(address(*runs))
    assert refused.status_code == 422 and "At most 6 runs" in refused.content.decode()
    assert api.get("/api/v1" + address(*runs)).status_code == 422
    assert api.get("/api/v1" + address(runs[0], runs[0])).status_code == 400
    assert api.get("/api/v1/runs/compare/?run=x").status_code == 400


def test_the_api_tells_settings_and_figures_in_numbers(snapshot: Snapshot, people: RunCast) -> None:
    done = finished(snapshot).run
    assert done is not None
    other = queue_run(snapshot, kind="sft", config={"seed": 1, "epochs": 1})
    answer = client_of(people.alice).get("/api/v1" + address(other, done)).json()
    assert [one["id"] for one in answer["runs"]] == [other.pk, done.pk]
    assert answer["runs"][0]["figures"] == {}
    assert answer["runs"][1]["figures"]["validation/accuracy"] == {"value": 0.71, "low": 0.6, "high": 0.8}
    settings = {one["name"]: one["values"] for one in answer["settings"]}
    assert settings == {
        "kind": {str(other.pk): "sft", str(done.pk): "reward"},
        "seed": {str(other.pk): 1, str(done.pk): 0},
    }


def test_the_figures_of_a_report_are_its_numbers() -> None:
    report = REPORT | {"kind": "ppo", "steps": 9, "win_rate": {"value": None}, "suspect": True, "counts": {"read": 3}}
    assert set(end_figures(report)) == {"validation/accuracy", "validation/length_baseline", "steps"}
    assert end_figures(None) == {}
