"""The pages of runs and models, and the form that starts a run."""

import re
from typing import Any

import pytest
from django.test import Client

from annotate.models import Project, Snapshot, User
from tests.annotate.factories import make_project
from tests.training.django.helpers import RunCast, claim, expire, make_snapshot, queue_run
from tests.training.django.test_run_api import finished
from training.models import Run
from training.pages.forms import MAIN
from training.recipes.configs import RewardConfig, describe
from training.services.claims import fail, give_back, mark_running, update_run
from training.services.metrics import StepMetrics, begin_attempt, record_metrics
from training.services.run_settings import set_by_server
from training.services.tracking import note_tracker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def page_of(user: User | None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def test_the_form_has_every_setting_of_the_recipe(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    html = page_of(people.alice).get(f"/p/{project.slug}/train/").content.decode()
    named = set(re.findall(r'name="config\.(\w+)"', html))
    assert named == {field.name for field in describe(RewardConfig)} - set(set_by_server("reward"))
    assert set(MAIN["reward"]) <= named
    assert 'value="2e-05"' in html and "Prompts per optimiser step" in html and "In prompts" not in html
    assert "style=" not in html and "<script>" not in html and "onclick" not in html


def form_of(snapshot: Snapshot, **changes: Any) -> dict[str, Any]:
    """What a browser sends: every field, with its default."""
    values = {
        f"config.{field.name}": "" if field.default is None else str(field.default)
        for field in describe(RewardConfig)
        if field.name not in set_by_server("reward") and field.kind != "boolean"
    }
    return values | {"snapshot": snapshot.pk, "base_model": "tiny", "hub_model": "", "name": ""} | changes


def sampling_form(snapshot: Snapshot, **changes: Any) -> dict[str, Any]:
    values = {"snapshot": snapshot.pk, "base_model": "hub", "hub_model": "owner/first", "model_2": "hub"}
    return values | {"hub_model_2": "owner/second", "model_3": "tiny", "hub_model_3": "ignored/name"} | changes


def test_each_sampled_model_may_be_one_of_the_hub(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    client, address = page_of(people.alice), f"/p/{project.slug}/train/?kind=sample"
    html = client.get(address).content.decode()
    for number in (2, 3, 4):
        assert f'name="hub_model_{number}"' in html
    assert html.count('<option value="hub"') == 4, "reward models are not asked of the hub"
    assert client.post(address, sampling_form(snapshot)).status_code == 302
    run = Run.objects.get()
    assert {one.role: one.name for one in run.inputs.all()} == {"model_2": "owner/second", "model_3": "tiny"}
    clone = client.get(f"/p/{project.slug}/train/?clone={run.pk}").content.decode()
    assert 'value="owner/first"' in clone and 'value="owner/second"' in clone
    assert clone.count('<option value="hub" selected>') == 2


def test_what_is_wrong_with_a_model_of_the_hub_stands_at_its_field(
    project: Project, snapshot: Snapshot, people: RunCast
) -> None:
    client, address = page_of(people.alice), f"/p/{project.slug}/train/?kind=sample"
    for written, told in (
        ("", "Write owner/name"),
        ("a b", "owner/name on the hub"),
        ("owner/first", "sampled already"),
    ):
        answer = client.post(address, sampling_form(snapshot, hub_model_2=written))
        assert answer.status_code == 422, written
        assert told in answer.context["form"].errors["hub_model_2"][0]
    assert not Run.objects.exists()


def test_the_page_says_where_else_measurements_are_shown_and_where_no_more(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    held = claim()
    note_tracker(held, name="MLflow", url="https://mlflow.example/#/experiments/1/runs/2")
    html = page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()
    assert f'href="/api/v1/runs/{run.pk}/tensorboard/"' in html
    assert 'href="https://mlflow.example/#/experiments/1/runs/2"' in html and "told no more" not in html
    note_tracker(held, name="MLflow", fault="it <refuses>")
    html = page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()
    assert "MLflow is told no more of this run: it &lt;refuses&gt;." in html and "mlflow.example" not in html
    give_back(held, lost=False, reason="x")
    claim()
    run.refresh_from_db()
    assert run.trackers == {"MLflow": {}}, "the next attempt says for itself"


def test_a_good_form_leads_to_the_live_page_of_its_run(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    client = page_of(people.alice)
    given = form_of(snapshot, **{"config.epochs": "3", "config.gradient_checkpointing": "on"})
    answer = client.post(f"/p/{project.slug}/train/", given)
    run = Run.objects.get()
    assert answer.status_code == 302 and answer["Location"] == f"/runs/{run.pk}/"
    assert run.started_by == people.alice
    assert (run.config["epochs"], run.config["gradient_checkpointing"], run.config["max_steps"]) == (3, True, None)
    html = client.get(answer["Location"]).content.decode()
    assert "queued" in html and "No worker serves gpu now" in html


def test_a_wrong_form_says_at_each_field_what_is_wrong(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    given = form_of(snapshot, base_model="hub", hub_model="no hub id", **{"config.epochs": "0", "config.warmup": "2"})
    answer = page_of(people.alice).post(f"/p/{project.slug}/train/", given)
    html = answer.content.decode()
    assert answer.status_code == 422 and not Run.objects.exists()
    assert "must be at least 1, not 0" in html and "must be at most 1, not 2" in html
    assert "owner/name on the hub" in html
    assert "<details open" in html  # warm-up is one of the folded settings


def test_a_hub_model_is_taken_where_the_hub_was_chosen(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    client = page_of(people.alice)
    client.post(f"/p/{project.slug}/train/", form_of(snapshot, base_model="hub", hub_model=" owner/name "))
    client.post(f"/p/{project.slug}/train/", form_of(snapshot, base_model="tiny", hub_model="owner/name"))
    assert list(Run.objects.order_by("pk").values_list("base_model", flat=True)) == ["owner/name", "tiny"]


def test_settings_that_do_not_go_together_are_told_at_the_top_with_a_way_to_the_field(
    project: Project, snapshot: Snapshot, people: RunCast
) -> None:
    given = form_of(snapshot, **{"config.loss": "plackett-luce", "config.ties": "rao-kupper"})
    answer = page_of(people.alice).post(f"/p/{project.slug}/train/", given)
    html = answer.content.decode()
    assert answer.status_code == 422 and not Run.objects.exists()
    summary = html[html.index('role="alert"') : html.index("</ul>", html.index('role="alert"'))]
    assert 'href="#id_config.ties"' in summary and "with --loss plackett-luce choose davidson" in summary


def test_without_a_snapshot_the_form_says_what_to_do(project: Project, people: RunCast) -> None:
    make_snapshot(make_project())
    html = page_of(people.alice).get(f"/p/{project.slug}/train/").content.decode()
    assert "no snapshot to train from" in html and '<form method="post" class="card form"' not in html


def running(snapshot: Snapshot) -> Run:
    run = queue_run(snapshot)
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=10)
    values = {"train/loss": 0.5, "time/step_seconds": 30.0}
    record_metrics(held, rows=[StepMetrics(step, values) for step in (1, 2, 3, 4)], from_step=0)
    update_run(held, log_tail="step 4/10 <loss>")
    return Run.objects.get(pk=run.pk)


def test_a_live_page_shows_how_far_it_is(snapshot: Snapshot, people: RunCast) -> None:
    run = running(snapshot)
    html = page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()
    assert 'max="10" value="4"' in html and "step 4 of 10" in html
    assert "3 min left" in html  # 6 steps of 30 s
    assert "step 4/10 &lt;loss&gt;" in html
    assert f'data-curves-url="/runs/{run.pk}/curves/"' in html
    assert f'hx-get="/runs/{run.pk}/live/?seen=' in html and 'hx-trigger="every 2s"' in html
    assert f'href="/runs/{run.pk}/cancel/"' in html
    assert "style=" not in html


def test_the_moving_part_comes_only_when_something_moved(snapshot: Snapshot, people: RunCast) -> None:
    run = running(snapshot)
    client = page_of(people.alice)
    html = client.get(f"/runs/{run.pk}/live/").content.decode()
    seen = re.search(r"seen=(\w+)", html)
    assert seen is not None
    assert client.get(f"/runs/{run.pk}/live/?seen={seen[1]}").status_code == 204
    Run.objects.filter(pk=run.pk).update(step=5)
    moved = client.get(f"/runs/{run.pk}/live/?seen={seen[1]}")
    assert moved.status_code == 200 and "step 5 of 10" in moved.content.decode()


def test_a_failure_shows_its_reason_and_the_log_and_asks_no_more(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    fail(claim(), reason="no <good> data", log_tail="last words")
    html = page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()
    assert "Why it failed" in html and "no &lt;good&gt; data" in html and "last words" in html
    assert 'hx-trigger="every' not in html
    assert f'action="/runs/{run.pk}/resume/"' in html


def test_a_worker_that_is_not_heard_of_is_no_healthy_sight(snapshot: Snapshot, people: RunCast) -> None:
    run = running(snapshot)
    expire(run)
    Run.objects.filter(pk=run.pk).update(heartbeat_at="2001-01-01T00:00:00Z")
    assert "has not been heard of" in page_of(people.alice).get(f"/runs/{run.pk}/").content.decode()


def test_a_result_stands_beside_its_baseline(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    client = page_of(people.alice)
    space = "\N{NO-BREAK SPACE}"
    for address in (f"/runs/{model.run_id}/", f"/models/{model.pk}/"):
        html = client.get(address).content.decode()
        assert f"71.0{space}%" in html and f"60.0{space}% to 80.0{space}%" in html and f"55.0{space}%" in html
    listed = client.get("/models/").content.decode()
    assert f"71.0{space}%" in listed and f"/runs/{model.run_id}/" in listed
    assert f"71.0{space}%" in client.get("/runs/").content.decode()


def test_models_from_withdrawn_data_are_marked(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    Snapshot.objects.filter(pk=snapshot.pk).update(state="withdrawn", withdrawn_at="2026-01-01T00:00:00Z")
    client = page_of(people.alice)
    assert "data withdrawn" in client.get("/models/").content.decode()
    assert "Do not use it further" in client.get(f"/models/{model.pk}/").content.decode()
    assert "must not be used" in client.get(f"/runs/{model.run_id}/").content.decode()


def test_cancelling_asks_first(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot)
    client = page_of(people.alice)
    assert "Cancel this run?" in client.get(f"/runs/{run.pk}/cancel/").content.decode()
    assert Run.objects.get().state == "queued"
    assert client.post(f"/runs/{run.pk}/cancel/", follow=True).redirect_chain == [(f"/runs/{run.pk}/", 302)]
    assert Run.objects.get().state == "cancelled"
    client.post(f"/runs/{run.pk}/resume/")
    assert Run.objects.get().state == "queued"
    assert "Only a failed or cancelled run" in client.post(f"/runs/{run.pk}/resume/", follow=True).content.decode()


def test_a_list_goes_on_with_older_runs(snapshot: Snapshot, people: RunCast) -> None:
    runs = [queue_run(snapshot, name=f"run number {number}") for number in range(51)]
    client = page_of(people.alice)
    newest = client.get("/runs/").content.decode()
    assert "run number 50" in newest and "run number 0<" not in newest
    assert f"?before={runs[1].pk}" in newest
    assert "run number 0<" in client.get(f"/runs/?before={runs[1].pk}").content.decode()
    assert client.get("/runs/?before=x").status_code == 404
    assert client.get(f"/runs/?before={10**40}").status_code == 404


GET_PAGES = [
    "/runs/{run}/",
    "/runs/{run}/live/",
    "/runs/{run}/curves/",
    "/runs/{run}/cancel/",
    "/p/{slug}/train/",
    "/models/{model}/",
]
POST_PAGES = ["/runs/{run}/cancel/", "/runs/{run}/resume/", "/p/{slug}/train/"]


@pytest.mark.parametrize(
    ("method", "address"), [("get", one) for one in GET_PAGES] + [("post", one) for one in POST_PAGES]
)
def test_each_page_is_for_engineers_of_its_project(
    snapshot: Snapshot, people: RunCast, method: str, address: str
) -> None:
    model, run = finished(snapshot), queue_run(snapshot)
    url = address.format(run=run.pk, model=model.pk, slug=snapshot.project.slug)
    nobody = 401 if url.endswith(("/live/", "/curves/")) else 302
    for user, status in ((people.charlie, 404), (people.bob, 403), (None, nobody)):
        answer = getattr(page_of(user), method)(url)
        assert answer.status_code == status, (url, user)
        assert status != 302 or answer["Location"].startswith("/accounts/login/")
    assert Run.objects.get(pk=run.pk).state == "queued" and Run.objects.count() == 2
    assert getattr(page_of(people.alice), method)(url).status_code in {200, 302, 422}


@pytest.mark.parametrize("address", ["/runs/", "/models/"])
def test_lists_show_nothing_of_others(snapshot: Snapshot, people: RunCast, address: str) -> None:
    model = finished(snapshot)
    assert model.get_absolute_url() in page_of(people.sue).get("/models/").content.decode()
    for user in (people.charlie, people.bob):
        html = page_of(user).get(address).content.decode()
        assert f"/runs/{model.run_id}/" not in html and model.get_absolute_url() not in html
    assert page_of(None).get(address).status_code == 302


def test_the_administration_shows_history_and_acts_through_services(snapshot: Snapshot, people: RunCast) -> None:
    people.sue.is_staff = True
    people.sue.save()
    model, run = finished(snapshot), queue_run(snapshot)
    client = page_of(people.sue)
    for address in ("run/", f"run/{run.pk}/change/", "modelversion/", f"modelversion/{model.pk}/change/"):
        assert client.get(f"/admin/training/{address}").status_code == 200
    for address in ("run/add/", f"run/{run.pk}/delete/", "modelversion/add/"):
        assert client.get(f"/admin/training/{address}").status_code == 403
    assert client.post(f"/admin/training/run/{run.pk}/change/", {"name": "other"}).status_code == 403
    client.post("/admin/training/run/", {"action": "cancel", "_selected_action": [run.pk, model.run_id]})
    assert {one.pk: one.state for one in Run.objects.all()} == {run.pk: "cancelled", model.run_id: "succeeded"}
