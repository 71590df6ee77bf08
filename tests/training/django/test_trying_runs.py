"""Runs that try models out: evaluations and samples, from the form to their page."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotate.errors import Invalid
from annotate.models import Snapshot
from annotate.services.snapshots import withdraw_snapshot
from tests.training.django.helpers import RunCast, make_sampled, make_snapshot
from tests.training.snapshots import prompts, records, write_jsonl
from training.models import ModelVersion, Run
from training.runner.prepare import bring_inputs, command_line
from training.selectors import family_of
from training.selectors_responses import models_sampled, responses_of
from training.services.pipelines import start_pipeline
from training.services.runs import start_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def brought(run: Run, folder: Path) -> dict[str, str]:
    """Where a worker has the models that the run reads besides its first."""
    return bring_inputs(run, log=folder / "log.txt", pulse=lambda: None, started=lambda _group: None)


@pytest.fixture
def models(snapshot: Snapshot) -> dict[str, ModelVersion]:
    """Two policies and two reward models of the registry, with their files."""
    made = {}
    for name, kind in (("p", "policy"), ("q", "policy"), ("r", "reward"), ("j", "reward")):
        made[name] = ModelVersion.objects.create(
            project=snapshot.project, name=f"model {name}", kind=kind, folder=name, size_bytes=1
        )
        made[name].path.mkdir(parents=True)
        (made[name].path / "config.json").write_text("{}")
    return made


def start(snapshot: Snapshot, kind: str, base: str, config: dict[str, Any] | None = None, **inputs: str) -> Run:
    return start_run(
        project=snapshot.project, started_by=None, kind=kind, snapshot=snapshot, base_model=base, inputs=inputs,
        config={"split": "validation"} | (config or {}),
    )  # fmt: skip


def faults_of(snapshot: Snapshot, kind: str, base: str, **inputs: str) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        start(snapshot, kind, base, **inputs)
    assert not Run.objects.exists()
    return refusal.value.fields


def named(model: ModelVersion) -> str:
    return f"registry:{model.pk}"


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_reward_model_is_evaluated_on_rankings(
    snapshot: Snapshot, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    run = start(snapshot, "evaluate", named(models["r"]))
    assert (run.state, run.base_version, run.config["split"]) == ("queued", models["r"], "validation")
    command = command_line(run, model="scorer", data=tmp_path / "d", inputs=brought(run, tmp_path))
    assert command[2] == "training.recipes.evaluate_reward" and "--model=scorer" in command
    with pytest.raises(Invalid, match="cannot be started") as refusal:
        start(snapshot, "evaluate", named(models["r"]), {"split": "test"})
    assert "no preference in its split test" in refusal.value.fields["snapshot"]


def test_with_a_baseline_two_policies_are_compared(
    snapshot: Snapshot, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    run = start(snapshot, "evaluate", named(models["p"]), baseline="tiny", judge=named(models["j"]))
    command = command_line(run, model="policy", data=tmp_path / "d", inputs=brought(run, tmp_path))
    assert command[2] == "training.recipes.evaluate_policy"
    assert f"--judge={models['j'].path}" in command and any(flag.startswith("--baseline=") for flag in command)


def test_a_sampling_run_asks_all_its_models(
    snapshot: Snapshot, models: dict[str, ModelVersion], tmp_path: Path
) -> None:
    run = start(snapshot, "sample", "tiny", model_3=named(models["q"]), reward_model=named(models["r"]))
    command = command_line(run, model="first", data=tmp_path / "d", inputs=brought(run, tmp_path))
    assert [flag for flag in command if flag.startswith("--model=")] == ["--model=first", f"--model={models['q'].path}"]
    assert f"--reward-model={models['r'].path}" in command and "--stream" not in command
    assert models_sampled(run) == ["tiny", named(models["q"])]


def test_what_an_evaluation_lacks_is_said_at_its_field(snapshot: Snapshot, models: dict[str, ModelVersion]) -> None:
    policy, reward = named(models["p"]), named(models["r"])
    assert "compared with another" in faults_of(snapshot, "evaluate", policy)["baseline"]
    assert "name none" in faults_of(snapshot, "evaluate", reward, baseline=policy, judge=reward)["baseline"]
    assert faults_of(snapshot, "evaluate", policy, baseline="tiny") == {"judge": "is required"}
    assert "reward model is needed" in faults_of(snapshot, "evaluate", policy, baseline="tiny", judge=policy)["judge"]
    assert set(faults_of(snapshot, "evaluate", reward, judge=reward)) == {"judge"}


def test_what_a_sampling_run_cannot_be_given_is_said_at_its_field(
    snapshot: Snapshot, models: dict[str, ModelVersion]
) -> None:
    assert "sampled already" in faults_of(snapshot, "sample", "tiny", model_2="tiny")["model_2"]
    assert "not from a reward model" in faults_of(snapshot, "sample", "tiny", model_4=named(models["r"]))["model_4"]
    assert set(faults_of(snapshot, "sample", "tiny", baseline="tiny", judge="tiny")) == {"baseline", "judge"}
    with pytest.raises(Invalid) as refusal:
        start(snapshot, "sample", "tiny", {"samples_per_prompt": 65, "stream": True, "model": "/etc"})
    assert set(refusal.value.fields) == {"config.samples_per_prompt", "config.stream", "config.model"}
    empty = make_snapshot(snapshot.project, counts={"rankings": 0})
    with pytest.raises(Invalid) as refusal:
        start(empty, "sample", "tiny")
    assert "no prompt" in refusal.value.fields["snapshot"]


def test_nobody_builds_on_a_run_that_makes_no_model(snapshot: Snapshot) -> None:
    run = start(snapshot, "sample", "tiny")
    with pytest.raises(Invalid) as refusal:
        start(snapshot, "sft", f"run:{run.pk}", {"split": "validation"})
    assert "makes no model" in refusal.value.fields["base_model"]


@pytest.mark.parametrize("recipe", ["evaluate_reward", "evaluate_policy", "sample"])
def test_the_form_starts_it_and_its_clone_shows_the_same(
    snapshot: Snapshot, models: dict[str, ModelVersion], people: RunCast, recipe: str
) -> None:
    client, address = client_of(people.alice), f"/p/{snapshot.project.slug}/train/?kind={recipe}"
    html = client.get(address).content.decode()
    offered = re.search(r'<select name="base_model".*?</select>', html, re.DOTALL)
    assert offered is not None
    assert (named(models["r"]) in offered[0]) == (recipe == "evaluate_reward")
    given = {
        "snapshot": snapshot.pk, "hub_model": "", "name": "", "config.split": "validation", "config.seed": "7",
        "base_model": named(models["r" if recipe == "evaluate_reward" else "p"]),
    } | {
        "evaluate_reward": {},
        "evaluate_policy": {"baseline": "tiny", "judge": named(models["j"])},
        "sample": {"model_2": "tiny", "reward_model": named(models["r"]), "config.samples_per_prompt": "3"},
    }[recipe]  # fmt: skip
    answer = client.post(address, given)
    assert answer.status_code == 302, answer.content.decode()
    run = Run.objects.get()
    assert run.kind == recipe.partition("_")[0] and run.config["seed"] == 7
    html = client.get(f"/p/{snapshot.project.slug}/train/?clone={run.pk}").content.decode()
    assert 'name="config.seed" value="7"' in html and f"?kind={recipe}" in html
    assert (f'<option value="{named(models["j"])}" selected>' in html) == (recipe == "evaluate_policy")
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert f"?clone={run.pk}" in page and "data-charts" not in page


def test_the_api_takes_every_role(snapshot: Snapshot, models: dict[str, ModelVersion], people: RunCast) -> None:
    body = {
        "project": snapshot.project.slug, "snapshot": snapshot.pk, "kind": "evaluate",
        "base_model": named(models["p"]), "baseline": named(models["q"]), "judge": named(models["j"]),
        "reward_model": named(models["r"]), "config": {"max_prompts": 5},
    }  # fmt: skip
    answer = client_of(people.alice).post("/api/v1/runs/", body, content_type="application/json")
    assert answer.status_code == 201, answer.content
    roles = {one["role"]: one["model"] for one in answer.json()["inputs"]}
    assert roles == {"baseline": models["q"].pk, "judge": models["j"].pk, "reward_model": models["r"].pk}
    assert client_of(people.charlie).post("/api/v1/runs/", body, content_type="application/json").status_code == 404


# --- stages that end with an evaluation -------------------------------------------------------------------------------


def test_the_last_stage_sets_each_policy_beside_sft_by_a_judge_of_the_other_half(snapshot: Snapshot) -> None:
    runs = start_pipeline(
        project=snapshot.project, started_by=None, snapshot=snapshot, base_model="tiny",
        stages=["sft", "reward", "dpo", "ppo", "evaluate"],
        config={"reward": {"epochs": 2}, "ppo": {"max_response_length": 9}, "evaluate": {"max_prompts": 4}},
    )  # fmt: skip
    sft, reward, judge, dpo, of_dpo, ppo, of_ppo = runs
    kinds = ["sft", "reward", "reward", "dpo", "evaluate", "ppo", "evaluate"]
    assert [run.kind for run in runs] == kinds and family_of(of_ppo) == runs
    assert [reward.config[name] for name in ("half", "epochs")] == ["first", 2]
    assert [judge.config[name] for name in ("half", "epochs")] == ["second", 2]
    assert judge.config["seed"] != reward.config["seed"] and "Judge" in judge.name
    inputs = {run: {one.role: one.name for one in run.inputs.all()} for run in runs}
    assert inputs[ppo] == {"reward_model": f"run:{reward.pk}", "judge": f"run:{judge.pk}"}
    compared = {"baseline": f"run:{sft.pk}", "judge": f"run:{judge.pk}", "reward_model": f"run:{reward.pk}"}
    assert inputs[of_dpo] == inputs[of_ppo] == compared
    assert (of_dpo.base_model, of_ppo.base_model) == (f"run:{dpo.pk}", f"run:{ppo.pk}")
    assert (of_ppo.config["max_response_length"], of_ppo.config["max_prompts"]) == (9, 4)
    assert [run.state for run in runs] == ["queued"] + ["waiting"] * 6


def test_an_evaluation_needs_a_policy_and_faults_stand_at_their_stage(snapshot: Snapshot) -> None:
    for stages, config, field in (
        (["sft", "reward", "evaluate"], {}, "stages"),
        (["sft", "dpo", "evaluate"], {"evaluate": {"max_prompts": 0}}, "evaluate.config.max_prompts"),
    ):
        with pytest.raises(Invalid) as refusal:
            start_pipeline(
                project=snapshot.project, started_by=None, snapshot=snapshot, base_model="tiny", stages=stages,
                config=config,
            )  # fmt: skip
        assert set(refusal.value.fields) == {field} and not Run.objects.exists()


def test_the_form_of_stages_ends_with_an_evaluation(snapshot: Snapshot, people: RunCast) -> None:
    given = {
        "snapshot": snapshot.pk, "base_model": "tiny", "hub_model": "", "stages": ["dpo", "evaluate"],
        "lora_rank": "4", "max_steps": "5",
    }  # fmt: skip
    client = client_of(people.alice)
    answer = client.post(f"/p/{snapshot.project.slug}/pipeline/", given)
    assert answer.status_code == 302, answer.content.decode()
    runs = list(Run.objects.order_by("pk"))
    assert [run.kind for run in runs] == ["reward", "dpo", "evaluate"]
    assert [run.config.get("lora_rank") for run in runs] == [4, 4, None]
    # The judge is nobody's parent, but the evaluation reads it: all three are one chain, from each of them.
    for page in runs:
        html = client.get(f"/runs/{page.pk}/").content.decode()
        assert all(f"/runs/{run.pk}/" in html for run in runs)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_responses_side_by_side_some_prompts_at_a_time(snapshot: Snapshot, people: RunCast) -> None:
    run = make_sampled(snapshot, [[f"first {number}", f"<b>second {number}</b>"] for number in range(12)], models=2)
    client = client_of(people.alice)
    html = client.get(f"/runs/{run.pk}/").content.decode()
    assert "Question 9?" in html and "Question 10?" not in html and "Prompts 1 to 10 of 12" in html
    assert (
        "&lt;b&gt;second 0&lt;/b&gt;" in html and "owner/model" in html and "cut off" in html and "<b>1.5</b>" in html
    )
    html = client.get(f"/runs/{run.pk}/?prompts=10").content.decode()
    assert "Question 11?" in html and "Question 9?" not in html
    assert client.get(f"/runs/{run.pk}/?prompts=x").status_code == 200
    withdraw_snapshot(snapshot=snapshot)
    assert "Question 1?" not in client.get(f"/runs/{run.pk}/").content.decode()


def test_what_the_recipe_writes_is_what_the_page_reads(snapshot: Snapshot, models_root: Path, tmp_path: Path) -> None:
    """The command that a worker would start, carried out."""
    run = start(snapshot, "sample", "tiny", {"max_response_length": 4, "max_prompts": 2, "samples_per_prompt": 2})
    data = write_jsonl(tmp_path / "data.jsonl", [*prompts(train=1, validation=3), *records(train=1, validation=1)])
    done = subprocess.run(
        command_line(run, model=str(models_root / "tiny"), data=data, inputs={}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    responses = responses_of(run)
    assert responses is not None and len(responses) == 2
    (first, second) = responses.prompts()
    assert [one.sample for one in first.responses] == [0, 1] and second.split == "validation"
