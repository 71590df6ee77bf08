"""Runs of every kind, and runs that build on others: SFT → reward model → PPO, each begun when that before is done."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from annotate.errors import Conflict, Invalid
from annotate.models import Project, Snapshot
from annotate.services.snapshots import withdraw_snapshot
from tests.annotate.factories import make_project
from tests.training.django.helpers import RunCast, claim, make_snapshot
from training.models import ModelVersion, Run, RunInput
from training.runner.prepare import CannotStart, bring_inputs, command_line
from training.selectors import family_of, withdrawn_among
from training.services.claims import Claim, end_cancelled, fail, give_back, mark_running, succeed
from training.services.models import model_of
from training.services.pipelines import start_pipeline
from training.services.runs import cancel_run, resume_run, start_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def start(snapshot: Snapshot, kind: str, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "project": snapshot.project, "started_by": None, "kind": kind, "snapshot": snapshot, "base_model": "tiny",
        "config": {},
    }  # fmt: skip
    return start_run(**(values | changes))


def faults_of(snapshot: Snapshot, kind: str, **changes: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        start(snapshot, kind, **changes)
    return refusal.value.fields


def chain(snapshot: Snapshot) -> tuple[Run, Run, Run]:
    """The three stages, all started at once."""
    sft = start(snapshot, "sft")
    reward = start(snapshot, "reward", base_model=f"run:{sft.pk}")
    ppo = start(snapshot, "ppo", base_model=f"run:{sft.pk}", inputs={"reward_model": f"run:{reward.pk}"})
    return sft, reward, ppo


def do_next(expected: Run) -> ModelVersion:
    """A worker takes the next run and brings it to a good end."""
    return finish(expected, begin_next(expected))


def begin_next(expected: Run) -> Claim:
    """A worker takes the next run and trains."""
    held = claim()
    assert held.run_id == expected.pk
    mark_running(held, process_id=1, process_started_at=1.0)
    return held


def finish(run: Run, held: Claim) -> ModelVersion:
    """The run makes a model."""
    run.refresh_from_db()
    folder = run.folder / "out" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    model = model_of(run, folder=folder, report={})
    succeed(held, model=model, step=1, report={}, suspect=False)
    return model


def states(*runs: Run) -> list[str]:
    for run in runs:
        run.refresh_from_db()
    return [run.state for run in runs]


# --- every kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward"])
def test_each_kind_is_queued_with_its_own_settings(snapshot: Snapshot, kind: str, tmp_path: Path) -> None:
    run = start(snapshot, kind, config={"max_steps": 3})
    assert (run.state, run.kind, run.config["max_steps"]) == ("queued", kind, 3)
    command = command_line(run, model="base", data=tmp_path / "data.jsonl", inputs={})
    assert command[2] == f"training.recipes.{kind}" and "--max-steps" in " ".join(command)


def test_ppo_is_given_its_reward_model_and_judge(snapshot: Snapshot, tmp_path: Path) -> None:
    reward, judge = (
        ModelVersion.objects.create(project=snapshot.project, name=name, kind="reward", folder=name, size_bytes=1)
        for name in ("r", "j")
    )
    named = {"reward_model": f"registry:{reward.pk}", "judge": f"registry:{judge.pk}"}
    run = start(snapshot, "ppo", inputs=named)
    assert {one.role: one.version for one in run.inputs.all()} == {"reward_model": reward, "judge": judge}
    for model in (reward, judge):
        model.path.mkdir(parents=True)
        (model.path / "config.json").write_text("{}")
    here = {"log": tmp_path / "log.txt", "pulse": lambda: None, "started": lambda _group: None}
    brought = bring_inputs(run, **here)  # type: ignore[arg-type]
    flags = " ".join(command_line(run, model="base", data=tmp_path / "d", inputs=brought))
    assert str(reward.path) in flags and str(judge.path) in flags and "allow-code" not in flags
    (judge.path / "config.json").unlink()
    with pytest.raises(CannotStart, match="gone"):
        bring_inputs(run, **here)  # type: ignore[arg-type]


def test_ppo_needs_something_to_be_rewarded(snapshot: Snapshot) -> None:
    assert "is required" in faults_of(snapshot, "ppo")["reward_model"]
    assert start(snapshot, "ppo", config={"reward": ["numeric"]}).state == "queued"


@pytest.mark.parametrize(
    "reward", ["model:/etc", "ensemble:/etc", "python:os.system", "tests", "numeric:x", "nothing", "regex:"]
)
def test_rewards_that_are_paths_or_code_or_none_are_refused(snapshot: Snapshot, reward: str) -> None:
    assert set(faults_of(snapshot, "ppo", config={"reward": [reward]})) == {"config.reward"}


def test_what_the_operator_allows_may_be_named_and_is_asked_again(
    snapshot: Snapshot, settings: Any, tmp_path: Path
) -> None:
    settings.REWARD_FUNCTIONS = ("python:rewards.mine", "tests")
    run = start(snapshot, "ppo", config={"reward": ["python:rewards.mine", "tests*0.5"]})
    faults = faults_of(snapshot, "ppo", config={"reward": ["python:rewards.other"]})
    assert "python:rewards.mine" in faults["config.reward"]
    assert "--allow-code-execution" in command_line(run, model="m", data=tmp_path / "d", inputs={})
    settings.REWARD_FUNCTIONS = ()
    with pytest.raises(CannotStart, match="no longer offers"):
        command_line(run, model="m", data=tmp_path / "d", inputs={})


@pytest.mark.parametrize("name", ["reward_model", "judge", "value_model", "ptx_data", "allow_code_execution"])
def test_paths_and_leave_to_run_code_are_no_settings(snapshot: Snapshot, name: str) -> None:
    faults = faults_of(snapshot, "ppo", config={"reward": ["numeric"], name: "/etc/passwd"})
    assert faults == {f"config.{name}": "is set by the server"}


def test_a_model_must_be_of_the_kind_that_is_needed(snapshot: Snapshot) -> None:
    policy = ModelVersion.objects.create(project=snapshot.project, name="p", kind="policy", folder="p", size_bytes=1)
    reward = ModelVersion.objects.create(project=snapshot.project, name="r", kind="reward", folder="r", size_bytes=1)
    faults = faults_of(
        snapshot, "ppo", base_model=f"registry:{reward.pk}", inputs={"reward_model": f"registry:{policy.pk}"}
    )
    assert set(faults) == {"base_model", "reward_model"}
    assert "no such model" in faults_of(snapshot, "reward", inputs={"judge": f"registry:{reward.pk}"})["judge"]
    foreign = ModelVersion.objects.create(project=make_project(), name="x", kind="reward", folder="x", size_bytes=1)
    named = {"reward_model": f"registry:{foreign.pk}"}
    assert "no such model" in faults_of(snapshot, "ppo", inputs=named)["reward_model"]


def test_a_judge_is_another_model_than_the_reward_model(snapshot: Snapshot) -> None:
    reward = start(snapshot, "reward")
    named = {"reward_model": f"run:{reward.pk}", "judge": f"run:{reward.pk}"}
    assert "never trained against" in faults_of(snapshot, "ppo", inputs=named)["judge"]
    model = do_next(reward)
    named["judge"] = f"registry:{model.pk}"
    assert set(faults_of(snapshot, "ppo", inputs=named)) == {"judge"}


def test_a_snapshot_must_hold_what_the_kind_learns_from(project: Project) -> None:
    bare = make_snapshot(project, counts={"prompts": 3})
    for kind in ("sft", "reward", "dpo"):
        assert "nothing to train from" in faults_of(bare, kind)["snapshot"]
    assert start(bare, "ppo", config={"reward": ["format"]}).state == "queued"


# --- chains -----------------------------------------------------------------------------------------------------------


def test_each_stage_begins_when_the_one_before_has_succeeded(snapshot: Snapshot) -> None:
    sft, reward, ppo = chain(snapshot)
    assert states(sft, reward, ppo) == ["queued", "waiting", "waiting"]
    assert (reward.parent, ppo.parent) == (sft, reward)
    policy = do_next(sft)
    assert states(sft, reward, ppo) == ["succeeded", "queued", "waiting"]
    assert reward.base_version == policy
    scorer = do_next(reward)
    assert states(reward, ppo) == ["succeeded", "queued"]
    assert (ppo.base_version, ppo.inputs.get().version) == (policy, scorer)
    assert do_next(ppo).parent == policy


def test_a_run_that_awaits_two_begins_when_both_are_done_in_either_order(snapshot: Snapshot) -> None:
    sft, reward = start(snapshot, "sft"), start(snapshot, "reward")
    ppo = start(snapshot, "ppo", base_model=f"run:{sft.pk}", inputs={"reward_model": f"run:{reward.pk}"})
    early = start(snapshot, "ppo", base_model=f"run:{sft.pk}", config={"reward": ["numeric"]})
    policy = do_next(sft)
    assert states(ppo, early) == ["waiting", "queued"]
    assert ppo.base_version == policy
    do_next(reward)
    assert states(ppo) == ["queued"]


def test_a_model_that_is_there_already_is_not_waited_for(snapshot: Snapshot) -> None:
    sft = start(snapshot, "sft")
    policy = do_next(sft)
    run = start(snapshot, "reward", base_model=f"run:{sft.pk}")
    assert (run.state, run.base_version, run.parent) == ("queued", policy, None)


@pytest.mark.django_db(transaction=True)
def test_a_run_that_succeeds_while_another_begins_to_wait_for_it_tells_it(snapshot: Snapshot) -> None:
    sft = start(snapshot, "sft")
    held = begin_next(sft)

    def succeed_elsewhere() -> None:
        try:
            finish(Run.objects.get(pk=sft.pk), held)
        finally:
            connection.close()

    ending = threading.Thread(target=succeed_elsewhere)
    with transaction.atomic():
        child = start(snapshot, "reward", base_model=f"run:{sft.pk}")
        ending.start()
        ending.join(1)  # without the lock it is over by now, and has seen no child
    ending.join(20)
    assert states(sft, child) == ["succeeded", "queued"]


def test_cancelling_a_stage_cancels_what_waited_for_it(snapshot: Snapshot) -> None:
    stages = chain(snapshot)
    cancel_run(stages[0])
    assert states(*stages) == ["cancelled"] * 3
    assert str(stages[0].pk) in stages[1].reason
    with pytest.raises(Conflict, match="no model yet"):
        resume_run(stages[2])
    resume_run(stages[0])
    assert states(*stages) == ["queued", "cancelled", "cancelled"]


@pytest.mark.parametrize("way", ["ended", "given back"])
def test_a_cancel_that_the_worker_carries_out_reaches_what_waited(snapshot: Snapshot, way: str) -> None:
    stages = chain(snapshot)
    held = claim()
    cancel_run(stages[0])
    assert states(*stages) == ["stopping", "waiting", "waiting"]
    end_cancelled(held) if way == "ended" else give_back(held, lost=True, reason="gone")
    assert states(*stages) == ["cancelled"] * 3


def test_behind_a_failed_stage_the_others_wait_for_it_to_be_resumed(snapshot: Snapshot) -> None:
    sft, reward, ppo = chain(snapshot)
    fail(claim(), reason="because")
    assert states(sft, reward, ppo) == ["failed", "waiting", "waiting"]
    resume_run(sft)
    do_next(sft)
    assert states(sft, reward, ppo) == ["succeeded", "queued", "waiting"]


def test_a_run_whose_model_was_deleted_is_not_resumed(snapshot: Snapshot) -> None:
    sft, reward = start(snapshot, "sft"), start(snapshot, "reward")
    policy, scorer = do_next(sft), do_next(reward)
    for deleted, kind, named in ((policy, "reward", {}), (scorer, "ppo", {"reward_model": f"registry:{scorer.pk}"})):
        run = start(snapshot, kind, base_model=f"registry:{policy.pk}" if deleted == policy else "tiny", inputs=named)
        cancel_run(run)
        ModelVersion.objects.filter(pk=deleted.pk).update(deleted_at="2026-01-01T00:00:00Z")
        with pytest.raises(Conflict, match="deleted"):
            resume_run(run)


def test_a_withdrawal_ends_what_waits_for_its_snapshot(snapshot: Snapshot) -> None:
    sft, reward, ppo = chain(snapshot)
    held = claim()
    withdraw_snapshot(snapshot=snapshot)
    mark_running(held, process_id=1, process_started_at=1.0)
    sft.refresh_from_db()
    folder = sft.folder / "out" / "model"
    folder.mkdir(parents=True)
    succeed(held, model=model_of(sft, folder=folder, report={}), step=1)
    assert states(sft, reward, ppo) == ["succeeded", "failed", "failed"]
    assert "withdrawn" in reward.reason and "withdrawn" in ppo.reason


def test_a_withdrawal_ends_also_what_waits_behind_those_that_it_ends(snapshot: Snapshot) -> None:
    sft = start(snapshot, "sft")
    kept = make_snapshot(snapshot.project, name="kept")
    dpo = start(snapshot, "dpo", base_model=f"run:{sft.pk}")
    child = start(kept, "dpo", base_model=f"run:{dpo.pk}")
    grandchild = start(kept, "reward", base_model=f"run:{child.pk}")
    held = begin_next(sft)
    withdraw_snapshot(snapshot=snapshot)
    finish(sft, held)
    assert states(sft, dpo, child, grandchild) == ["succeeded", "failed", "failed", "failed"]
    assert "its snapshot was withdrawn" in grandchild.reason and str(dpo.pk) in grandchild.reason


@pytest.mark.parametrize("way", ["failed", "given up"])
def test_what_waits_for_a_run_that_a_withdrawal_ended_ends_with_it(snapshot: Snapshot, way: str) -> None:
    sft, reward, ppo = chain(snapshot)
    held = claim()
    withdraw_snapshot(snapshot=snapshot)
    Run.objects.filter(pk=sft.pk).update(times_lost=2)
    fail(held, reason="withdrawn") if way == "failed" else give_back(held, lost=True, reason="gone")
    assert states(sft, reward, ppo) == ["failed"] * 3
    assert "cannot go on: its snapshot was withdrawn" in ppo.reason


def test_a_policy_that_learned_from_a_withdrawn_reward_model_is_told(snapshot: Snapshot) -> None:
    elsewhere = make_snapshot(snapshot.project, name="second")
    reward = start(snapshot, "reward")
    do_next(reward)
    ppo = start(elsewhere, "ppo", inputs={"reward_model": f"run:{reward.pk}"})
    policy = do_next(ppo)
    assert withdrawn_among([policy]) == set()
    withdraw_snapshot(snapshot=snapshot)
    assert withdrawn_among([policy]) == {policy.pk}


def test_runs_that_cannot_be_waited_for_are_refused(snapshot: Snapshot) -> None:
    elsewhere = start(make_snapshot(make_project()), "sft")
    gone = start(snapshot, "sft")
    cancel_run(gone)
    for name in (f"run:{elsewhere.pk}", f"run:{gone.pk}", "run:999999", "run:x"):
        assert set(faults_of(snapshot, "reward", base_model=name)) == {"base_model"}, name
    reward = start(snapshot, "reward")
    assert "policy" in faults_of(snapshot, "sft", base_model=f"run:{reward.pk}")["base_model"]


# --- stages with one press --------------------------------------------------------------------------------------------


def press(snapshot: Snapshot, stages: list[str], **config: dict[str, object]) -> list[Run]:
    return start_pipeline(
        project=snapshot.project, started_by=None, snapshot=snapshot, base_model="tiny", stages=stages, config=config
    )


def test_all_stages_start_at_once_and_build_on_each_other(snapshot: Snapshot) -> None:
    sft, reward, dpo, ppo = press(snapshot, ["ppo", "dpo", "reward", "sft"], ppo={"max_steps": 9})
    assert [run.kind for run in (sft, reward, dpo, ppo)] == ["sft", "reward", "dpo", "ppo"]
    assert states(sft, reward, dpo, ppo) == ["queued", "waiting", "waiting", "waiting"]
    assert (reward.parent, dpo.parent, ppo.parent) == (sft, sft, reward)
    assert (reward.config["half"], ppo.config["max_steps"]) == ("first", 9)
    assert ppo.inputs.get().name == f"run:{reward.pk}"
    assert family_of(dpo) == family_of(sft) == [sft, reward, dpo, ppo]
    alone = start(snapshot, "sft")
    assert family_of(alone) == [alone]


def test_without_sft_the_others_start_from_the_base_model(snapshot: Snapshot) -> None:
    reward, ppo = press(snapshot, ["reward", "ppo"])
    assert (reward.state, ppo.state, ppo.base_model, ppo.parent) == ("queued", "waiting", "tiny", reward)


@pytest.mark.parametrize(
    ("stages", "config", "field"),
    [
        ([], {}, "stages"),
        (["sft", "sample"], {}, "stages"),
        (["sft", "ppo"], {}, "stages"),
        (["sft"], {"ppo": {}}, "config.ppo"),
        (["sft", "reward"], {"reward": {"epochs": 0}}, "reward.config.epochs"),
        (["sft", "reward", "ppo"], {"ppo": {"reward": ["tests"]}}, "ppo.config.reward"),
    ],
)
def test_one_wrong_stage_and_nothing_is_started(
    snapshot: Snapshot, stages: list[str], config: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        press(snapshot, stages, **config)
    assert set(refusal.value.fields) == {field}
    assert not Run.objects.exists()


def test_the_form_of_stages(snapshot: Snapshot, people: RunCast) -> None:
    client, address = client_of(people.alice), f"/p/{snapshot.project.slug}/pipeline/"
    boxes = re.findall(r'<input[^>]*name="stages"[^>]*>', client.get(address).content.decode())
    assert ["checked" in box for box in boxes] == [True, True, False, True, True]
    given = form_of(snapshot, stages=["sft", "reward", "ppo"], lora_rank="4", max_steps="x")
    answer = client.post(address, given)
    assert answer.status_code == 422 and "SFT: " in answer.content.decode()
    assert not Run.objects.exists()
    answer = client.post(address, given | {"max_steps": "5"})
    runs = list(Run.objects.order_by("pk"))
    assert answer.status_code == 302 and answer["Location"] == f"/runs/{runs[0].pk}/"
    assert [(run.kind, run.config["lora_rank"], run.config["max_steps"]) for run in runs] == [
        ("sft", 4, 5), ("reward", 4, 5), ("ppo", 4, 5),
    ]  # fmt: skip
    html = client.get(f"/runs/{runs[2].pk}/").content.decode()
    assert all(f"/runs/{run.pk}/" in html for run in runs)
    assert client_of(people.bob).get(address).status_code == 403
    assert client_of(people.charlie).post(address, given).status_code == 404


def test_the_api_starts_stages(snapshot: Snapshot, people: RunCast) -> None:
    client, address = client_of(people.alice), "/api/v1/pipelines/"
    body = {"project": snapshot.project.slug, "snapshot": snapshot.pk, "base_model": "tiny", "stages": ["sft", "dpo"]}
    answer = client.post(address, body, content_type="application/json")
    assert answer.status_code == 201, answer.content
    assert [(run["kind"], run["state"]) for run in answer.json()["runs"]] == [("sft", "queued"), ("dpo", "waiting")]
    wrong = client.post(address, body | {"base_model": "../x"}, content_type="application/json")
    assert wrong.status_code == 422 and set(wrong.json()["error"]["fields"]) == {"base_model"}
    assert Run.objects.count() == 2


# --- API and pages ----------------------------------------------------------------------------------------------------


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def form_of(snapshot: Snapshot, **changes: Any) -> dict[str, Any]:
    return {"snapshot": snapshot.pk, "base_model": "tiny", "hub_model": "", "name": "", **changes}


def test_the_api_starts_a_chain(snapshot: Snapshot, people: RunCast) -> None:
    client = client_of(people.alice)

    def post(**values: Any) -> Any:
        body = {"project": snapshot.project.slug, "snapshot": snapshot.pk, "base_model": "tiny"} | values
        return client.post("/api/v1/runs/", body, content_type="application/json")

    reward = post(kind="reward").json()
    answer = post(kind="ppo", reward_model=f"run:{reward['id']}", config={"kl_coefficient": 0.1})
    assert answer.status_code == 201, answer.content
    told = answer.json()
    assert (told["state"], told["waits_for"]) == ("waiting", reward["id"])
    assert told["inputs"] == [{"role": "reward_model", "name": f"run:{reward['id']}", "model": None}]
    refused = post(kind="ppo", config={"reward": ["python:os.system"]})
    assert refused.status_code == 422 and "config.reward" in refused.json()["error"]["fields"]


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "ppo"])
def test_the_form_of_each_kind_starts_it_and_its_clone_shows_the_same(
    snapshot: Snapshot, people: RunCast, kind: str
) -> None:
    client, address = client_of(people.alice), f"/p/{snapshot.project.slug}/train/?kind={kind}"
    waited = start(snapshot, "reward")
    given = form_of(snapshot, **{"config.max_steps": "7", "config.lora_rank": "4"})
    if kind == "ppo":
        given |= {"reward_model": f"run:{waited.pk}", "config.reward": "numeric*0.5\n format \n"}
        assert f"run:{waited.pk}" in client.get(address).content.decode()
    answer = client.post(address, given)
    assert answer.status_code == 302, answer.content.decode()
    run = Run.objects.latest("pk")
    assert (run.kind, run.config["max_steps"]) == (kind, 7)
    html = client.get(f"/p/{snapshot.project.slug}/train/?clone={run.pk}").content.decode()
    assert 'name="config.max_steps" value="7"' in html and 'name="config.lora_rank" value="4"' in html
    live = client.get(f"/runs/{run.pk}/").content.decode()
    assert f"?clone={run.pk}" in live
    if kind == "ppo":
        assert run.config["reward"] == ["numeric*0.5", "format"] and "numeric*0.5\nformat" in html
        assert f'<option value="run:{waited.pk}" selected>' in html
        assert f"/runs/{waited.pk}/" in live
        assert f"/runs/{run.pk}/" in client.get(f"/runs/{waited.pk}/").content.decode()


def test_wrong_answers_of_the_form_stand_at_their_fields(snapshot: Snapshot, people: RunCast) -> None:
    client, address = client_of(people.alice), f"/p/{snapshot.project.slug}/train/?kind=ppo"
    answer = client.post(address, form_of(snapshot, **{"config.reward": "tests", "config.clip": "9"}))
    assert answer.status_code == 422
    html = answer.content.decode()
    assert "is not offered here" in html or "clip" in html
    assert Run.objects.count() == 0


def test_clones_and_kinds_that_are_none_are_not_found(snapshot: Snapshot, people: RunCast) -> None:
    run = start(make_snapshot(make_project()), "sft")
    address = f"/p/{snapshot.project.slug}/train/"
    for query in (f"?clone={run.pk}", "?clone=x", "?clone=99999999999999999999999", "?kind=nothing"):
        assert client_of(people.alice).get(address + query).status_code == 404, query
    assert client_of(people.bob).get(address + "?kind=ppo").status_code == 403
    assert client_of(people.charlie).get(address + "?kind=ppo").status_code == 404


def test_the_inputs_of_a_run_are_held_by_the_database(snapshot: Snapshot) -> None:
    from django.db import IntegrityError, transaction

    run = start(snapshot, "ppo", config={"reward": ["numeric"]})
    RunInput.objects.create(run=run, role="judge", name="tiny")
    for role in ("judge", "nothing"):
        with pytest.raises(IntegrityError), transaction.atomic():
            RunInput.objects.create(run=run, role=role, name="tiny")
