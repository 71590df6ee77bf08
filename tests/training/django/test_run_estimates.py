"""Before a run is queued: what it would need, what is worth knowing, presets and queue, in form, API and command."""

from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

from annotate.models import Project, Snapshot
from tests.training.django.helpers import RunCast, claim, make_snapshot, queue_run
from tests.training.django.test_run_api import body, client_of
from tests.training.django.test_run_pages import form_of, page_of
from tests.training.django.test_run_start import command
from tests.training.snapshots import prompts, record, records
from training import base_models
from training.core.model_sizes import gated_decoder, read_model_size, size_of
from training.models import ModelVersion, Run, Worker
from training.pages.forms import TrainForm
from training.recipes.configs import PRESETS, RECIPES, build
from training.services import snapshot_texts
from training.services.claims import give_back, mark_running, succeed
from training.services.metrics import StepMetrics, begin_attempt, record_metrics
from training.services.plans import Estimate
from training.services.run_settings import set_by_server
from training.services.runs import look_ahead, start_run
from training.services.snapshot_texts import texts_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]

GIB = 2**30


def alive(name: str, *queues: str, gib: float = 8, gpus: tuple[float, ...] = (), processes: int = 1) -> Worker:
    """A worker that says so."""
    return Worker.objects.create(
        name=name, host="h", process_id=1, queues=list(queues), processors=2, memory_bytes=int(gib * GIB),
        memory_used_bytes=0, started_at=Now(), processes=processes,
        gpus=[{"name": "H", "memory_bytes": int(one * GIB), "memory_used_bytes": 0, "busy": 0} for one in gpus],
    )  # fmt: skip


def ahead(snapshot: Snapshot, **changes: Any) -> Estimate:
    values: dict[str, Any] = {
        "project": snapshot.project, "kind": "reward", "snapshot": snapshot, "base_model": "tiny", "config": {},
    }  # fmt: skip
    _plan, found = look_ahead(**(values | changes))
    assert not Run.objects.filter(state="queued", name="").exists()
    return found


def test_an_estimate_says_memory_time_steps_and_room(snapshot: Snapshot) -> None:
    alive("a", "gpu")
    found = ahead(snapshot)
    assert found.need is not None and found.seconds is not None and found.exact
    assert found.need.steps == 2  # 16 prompts, 8 at once
    assert 0 < found.need.rest_bytes < found.need.peak_bytes < 0.1 * GIB
    assert (found.seconds.runs, found.room.workers, found.room.fitting) == (0, 1, 1)
    assert found.seconds.low < found.seconds.high
    assert any("16 prompts to train from are enough to try" in one for one in found.notices)


def test_the_built_in_models_are_as_large_as_they_are_said_to_be(models_root: Path) -> None:
    built_in = base_models.BUILT_IN["tiny"].config
    assert size_of(built_in, gated_decoder(built_in)).parameters == read_model_size(models_root / "tiny").parameters
    smollm2 = base_models.BUILT_IN["smollm2"].config
    assert size_of(smollm2, gated_decoder(smollm2)).parameters == 134_515_008


def test_what_is_not_known_is_said(snapshot: Snapshot) -> None:
    found = ahead(snapshot, base_model="owner/name")
    assert found.need is None and found.seconds is None and "owner/name is not on this server" in found.why_unknown
    awaited = queue_run(snapshot, kind="sft")
    assert ahead(snapshot, base_model=f"run:{awaited.pk}").need == ahead(snapshot).need


def test_too_large_is_a_warning_and_impossible_a_refusal(snapshot: Snapshot) -> None:
    alive("small", "gpu", gib=2.3)
    found = ahead(snapshot, base_model="smollm2", config={"micro_batch_tokens": 8192})
    assert found.room.fitting == 0 and not found.refusals
    assert any("at the peak; the largest worker of gpu" in one for one in found.notices)
    Worker.objects.update(memory_bytes=1 * GIB)
    run = {"project": snapshot.project, "started_by": None, "kind": "reward", "snapshot": snapshot, "queue": "gpu"}
    with pytest.raises(Exception, match="cannot be started") as refusal:
        start_run(**run, base_model="smollm2", config={})  # type: ignore[arg-type]
    assert "LoRA rank" in refusal.value.fields["base_model"]  # type: ignore[attr-defined]
    assert start_run(**run, base_model="smollm2", config={"lora_rank": 4}).queue == "gpu"  # type: ignore[arg-type]


def test_time_is_told_from_runs_like_it(snapshot: Snapshot) -> None:
    alive("a", "gpu")
    rough = ahead(snapshot).seconds
    run = queue_run(snapshot, config=ahead_config(snapshot))
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=2)
    rows = [StepMetrics(step, {"time/step_seconds": 100.0}) for step in (1, 2)]
    record_metrics(held, rows=rows, from_step=0)
    model = ModelVersion(project=run.project, run=run, name="m", kind="reward", folder="f", size_bytes=1)
    succeed(held, model=model, step=2)
    told, longer = ahead(snapshot).seconds, ahead(snapshot, config={"epochs": 10}).seconds
    assert rough is not None and told is not None and longer is not None
    assert told.runs == 1 and told.low < 200 < told.high < 400
    assert 1000 < longer.low < 2000 < longer.high
    assert ahead(snapshot, base_model="smollm2").seconds.runs == 0  # type: ignore[union-attr]  # of another size


def test_what_sampling_needs_is_told(snapshot: Snapshot) -> None:
    alive("a", "gpu")
    sample = {"kind": "sample", "config": {"max_response_length": 64, "batch_size": 8}}
    one = ahead(snapshot, **sample)
    assert one.need is not None and one.seconds is not None and not one.why_unknown
    assert one.need.steps == 3 and one.need.tokens >= 20 * 64  # 20 prompts, 8 at once
    assert any("as long as they may" in notice for notice in one.notices)
    two = ahead(snapshot, **sample, inputs={"model_2": "smollm2"})
    assert two.need is not None and two.need.steps == 6
    assert two.need.rest_bytes > 100 * one.need.rest_bytes, "the largest of them, as one follows the other"
    longer = ahead(snapshot, kind="sample", config=sample["config"] | {"samples_per_prompt": 4})
    assert longer.need is not None and longer.need.operations == pytest.approx(4 * one.need.operations)
    assert ahead(snapshot, **sample, inputs={"model_2": "owner/name"}).why_unknown
    nothing = ahead(snapshot, kind="sample", config={"split": "test"})
    assert "no such line in the split test" in nothing.refusals["snapshot"]


def test_what_an_evaluation_needs_is_told(snapshot: Snapshot) -> None:
    alive("small", "gpu", gib=1)
    reward = queue_run(snapshot, config={})
    judge = {"base_model": "tiny", "inputs": {"baseline": "smollm2", "judge": f"run:{reward.pk}"}}
    compared = ahead(snapshot, kind="evaluate", **judge)
    assert compared.need is not None and compared.need.steps == 2  # 4 prompts by each of two models
    assert compared.need.rest_bytes > 4 * 134_515_008 and not compared.refusals
    assert any("shorter responses take less" in one for one in compared.notices)
    scored = ahead(snapshot, kind="evaluate", base_model=f"run:{reward.pk}", config={"split": "validation"})
    assert scored.need is not None and (scored.need.steps, scored.room.fitting) == (1, 1)
    assert scored.need.rest_bytes < scored.need.peak_bytes < compared.need.peak_bytes
    Worker.objects.update(memory_bytes=GIB // 4)
    assert "The weights alone take" in ahead(snapshot, kind="evaluate", **judge).refusals["base_model"]


def test_time_of_sampling_is_told_from_runs_like_it(snapshot: Snapshot) -> None:
    alive("a", "gpu")
    plan, _found = look_ahead(
        project=snapshot.project, kind="sample", snapshot=snapshot, base_model="tiny", config={"batch_size": 10}
    )  # fmt: skip
    queue_run(snapshot, kind="sample", config=dict(plan.config))
    held = claim()
    mark_running(held, process_id=1, process_started_at=1.0)
    begin_attempt(held, from_step=0, total_steps=2)
    record_metrics(held, rows=[StepMetrics(step, {"time/step_seconds": 50.0}) for step in (1, 2)], from_step=0)
    succeed(held, model=None, step=2)
    told = ahead(snapshot, kind="sample", config={"samples_per_prompt": 10}).seconds
    assert told is not None and told.runs == 1 and told.low < 1000 < told.high < 2000


def ahead_config(snapshot: Snapshot) -> dict[str, Any]:
    """All settings with their defaults, as a started run has them."""
    plan, _found = look_ahead(
        project=snapshot.project, kind="reward", snapshot=snapshot, base_model="tiny", config={}
    )  # fmt: skip
    return dict(plan.config)


def test_a_large_snapshot_is_told_from_a_sample(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_snapshot(project, records(train=600, validation=0), name="large")
    whole = texts_of(snapshot, bytewise=False)
    monkeypatch.setattr(snapshot_texts, "MOST_BYTES", snapshot.size_bytes // 4)
    monkeypatch.setattr(snapshot_texts, "PIECE_BYTES", snapshot.size_bytes // 4 // 8)
    snapshot_texts._counted.cache_clear()
    sample = texts_of(snapshot, bytewise=False)
    snapshot_texts._counted.cache_clear()
    assert whole is not None and sample is not None and whole.exact and not sample.exact
    for name in ("rows", "tokens"):
        real, told = (getattr(each.splits["train"].ranked, name) for each in (whole, sample))
        assert told == pytest.approx(real, rel=0.15)


def test_a_snapshot_without_a_train_line_of_the_kind_is_refused(project: Project) -> None:
    held_out = make_snapshot(project, [record(1, split="validation")], counts={"rankings": 1})
    assert "train split" in ahead(held_out, kind="sft").refusals["snapshot"]
    trained = make_snapshot(project, records(train=2, validation=0), name="no validation")
    assert any("Nothing is held out" in one for one in ahead(trained).notices)


def test_ppo_says_how_its_models_fit_together(project: Project, runs_root: Path) -> None:
    snapshot = make_snapshot(project, prompts(), counts={"prompts": 32})
    reward = queue_run(snapshot, config={"lora_rank": 2, "ensemble": 1})
    policy = {"kind": "ppo", "config": {"lora_rank": 4}, "inputs": {"reward_model": f"run:{reward.pk}"}}
    assert any("share one frozen base" in one for one in ahead(snapshot, **policy).notices)
    apart = ahead(snapshot, **(policy | {"config": {"trunk": "separate", "lora_rank": 4}}))
    assert any("weights of its own: trunk is set" in one for one in apart.notices)
    shared = ahead(snapshot, **policy)
    assert shared.need is not None and apart.need is not None
    assert shared.need.rest_bytes < apart.need.rest_bytes
    folder = runs_root / "other" / "model"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((Path(base_models.models_root()) / "tiny" / name).read_bytes())
    (folder / "tokenizer.json").write_text("{}")
    other = ModelVersion.objects.create(project=project, name="r", kind="reward", folder="other/model", size_bytes=1)
    told = ahead(snapshot, **(policy | {"inputs": {"reward_model": f"registry:{other.pk}"}})).notices
    assert any("another tokenizer or chat template" in one for one in told)
    assert any("no run of this server" in one or "that a run of this server made" in one for one in told)
    assert not any("no chat template" in one for one in told)


@pytest.mark.parametrize("kind", PRESETS)
def test_presets_are_settings_of_their_recipe(kind: str) -> None:
    needed = {"reward": ["format"]} if kind == "ppo" else {}
    for preset in PRESETS[kind]:
        assert not set(preset.config) & set(set_by_server(kind))
        build(RECIPES[kind], {"model": "-", "data": "-", "output": "-"} | needed | dict(preset.config))
    assert {"try", "lora", "whole"} <= {preset.name for preset in PRESETS[kind]}


# --- where -----------------------------------------------------------------------------------------------------------


def test_the_queue_is_chosen_by_rule_or_by_name(snapshot: Snapshot) -> None:
    assert ahead(snapshot).room.queue == "gpu"
    assert ahead(snapshot, config={"device": "cpu"}).room.queue == "cpu"
    assert ahead(snapshot, queue="gpu.large").room.queue == "gpu.large"
    alive("small", "gpu", gib=1)
    alive("large", "gpu.large", gib=2, gpus=(80,))
    assert ahead(snapshot).room.queue == "gpu"
    assert ahead(snapshot, base_model="smollm2").room.queue == "gpu.large"
    assert ahead(snapshot, base_model="smollm2", queue="gpu").room.queue == "gpu"


def test_places_that_there_are_not_are_refused(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)
    fields = client.post("/api/v1/runs/", body(snapshot, queue="moon", config={"shard": True})).json()["error"][
        "fields"
    ]
    assert set(fields) == {"queue", "config.shard"}
    alive("a", "gpu", processes=2)
    answer = client.post("/api/v1/runs/", body(snapshot, processes=3))
    assert "at most 2 processes" in answer.json()["error"]["fields"]["processes"]
    assert client.post("/api/v1/runs/", body(snapshot, processes=65)).status_code in (400, 422)
    made = client.post("/api/v1/runs/", body(snapshot, processes=2, nodes=2, queue="gpu", config={"shard": True}))
    assert made.status_code == 201, made.content
    assert [made.json()[name] for name in ("queue", "processes", "nodes")] == ["gpu", 2, 2]


def test_a_run_whose_queue_nobody_serves_says_so(snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot, queue="gpu.large", nodes=2)
    client = page_of(people.alice)

    def page() -> str:
        return client.get(f"/runs/{run.pk}/").content.decode()

    assert "No worker serves gpu.large now" in page()
    alive("a", "gpu.large")
    assert "Waits for 2 workers of gpu.large at once; 1 are alive" in page()
    alive("b", "gpu.large")
    assert "Waits for a worker of the queue gpu.large" in page()
    held = claim(queues=("gpu",)) if queue_run(snapshot) else None
    assert held is not None and give_back(held, lost=False, reason="r") == "queued"


# --- form, API, command ----------------------------------------------------------------------------------------------


def test_the_api_tells_what_a_run_would_need(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)
    answer = client.post("/api/v1/runs/estimate/", body(snapshot))
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert told["steps"] == 4 and told["memory"]["peak_bytes"] > told["memory"]["rest_bytes"] > 0
    assert told["room"]["queue"] == "gpu" and told["room"]["workers"] == 0
    assert any("No worker serves gpu now" in one for one in told["notices"])
    assert not Run.objects.exists()
    assert client.post("/api/v1/runs/estimate/", body(snapshot, base_model="none")).status_code == 422
    unknown = client.post("/api/v1/runs/estimate/", body(snapshot, base_model="owner/name")).json()
    assert unknown["memory"] is None and unknown["seconds"] is None and unknown["unknown"]


@pytest.mark.parametrize(("who", "status"), [("charlie", 404), ("bob", 403), ("sue", 200), (None, 401)])
def test_who_may_ask(who: str | None, status: int, snapshot: Snapshot, people: RunCast) -> None:
    user = None if who is None else getattr(people, who)
    assert client_of(user).post("/api/v1/runs/estimate/", body(snapshot)).status_code == status
    page = page_of(user).post(f"/p/{snapshot.project.slug}/train/estimate/", form_of(snapshot))
    assert page.status_code == status


def test_presets_in_the_api(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)
    offered = client.get("/api/v1/runs/presets/").json()["results"]
    assert {one["kind"] for one in offered} == set(PRESETS) and all(one["description"] for one in offered)
    made = client.post("/api/v1/runs/", body(snapshot, preset="try", config={"max_steps": 3}))
    assert made.status_code == 201, made.content
    assert (made.json()["config"]["lora_rank"], made.json()["config"]["max_steps"]) == (4, 3)
    wrong = client.post("/api/v1/runs/", body(snapshot, preset="none")).json()["error"]["fields"]
    assert "try, lora, whole" in wrong["preset"]
    assert client_of(None).get("/api/v1/runs/presets/").status_code == 401


def test_the_form_estimates_fills_in_and_starts(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    client, address = page_of(people.alice), f"/p/{project.slug}/train/"
    first = client.get(address).content.decode()
    assert 'id="estimate"' in first and "of memory a process at the peak" in first
    assert f'hx-post="{address}estimate/?kind=reward"' in first
    assert first.index("Start the run</button>") < first.index('value="fill"'), "Enter in a field starts the run"
    given = form_of(snapshot, preset="lora", name="kept", queue="cpu", processes="2", nodes="")
    filled = client.post(address, given | {"do": "fill"}).content.decode()
    assert not Run.objects.exists()
    assert 'name="config.lora_rank" value="16"' in filled and 'value="kept"' in filled
    told = client.post(address, given | {"do": "estimate"}).content.decode()
    assert "queue cpu" in told and not Run.objects.exists()
    part = client.post(address + "estimate/?kind=reward", given | {"config.epochs": "0"}).content.decode()
    assert "Epochs" in part and "at least 1" in part and "<html" not in part
    assert client.post(address, given).status_code == 302
    run = Run.objects.get()
    assert (run.queue, run.processes, run.nodes, run.config["lora_rank"]) == ("cpu", 2, 1, 0)


def test_a_clone_keeps_its_place(project: Project, snapshot: Snapshot, people: RunCast) -> None:
    run = queue_run(snapshot, queue="gpu.large", processes=2, nodes=3, config=ahead_config(snapshot))
    html = page_of(people.alice).get(f"/p/{project.slug}/train/?clone={run.pk}").content.decode()
    assert '<option value="gpu.large" selected>' in html
    assert 'name="nodes" value="3"' in html


def test_the_form_as_it_would_be_sent_is_whole(project: Project, snapshot: Snapshot) -> None:
    sent = TrainForm(project=project, recipe="reward").as_sent()
    assert sent.is_valid(), sent.errors
    assert sent.chosen()["snapshot"] == snapshot


def test_the_command_says_what_a_run_would_need(snapshot: Snapshot) -> None:
    alive("a", "gpu")
    base = ("--project", snapshot.project.slug, "--base-model", "tiny", "--preset", "try")
    told = command(*base, "--dry-run")
    assert "of memory a process at the peak; 1 of 1 workers of gpu" in told and "10 steps" in told
    assert "minutes, roughly" in told and not Run.objects.exists()
    command(*base, "--set", "max_steps=2", "--queue", "cpu")
    run = Run.objects.get()
    assert (run.queue, run.config["max_steps"], run.config["lora_rank"]) == ("cpu", 2, 4)
