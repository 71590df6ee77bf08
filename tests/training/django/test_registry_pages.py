"""A model's page: lineage both ways, its card, its files; lists that say what a policy has."""

from html import unescape
from pathlib import Path

import pytest

from annotate.models import Snapshot
from tests.training.core.policies import ppo_report, sft_report
from tests.training.django.helpers import RunCast, claim, make_snapshot, queue_run
from tests.training.django.test_model_report import of_kind
from tests.training.django.test_registry_deletion import with_files
from tests.training.django.test_registry_rules import make_model
from tests.training.django.test_registry_stages import page_of
from tests.training.django.test_run_api import client_of, finished
from training.models import ModelVersion, Run, RunInput
from training.services.claims import mark_running, succeed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("runs_root")]


def trained_from(run: Run, *, parent: ModelVersion | None, name: str) -> ModelVersion:
    """What the run, the next in the queue, has made."""
    held = claim()
    assert held.run_id == run.pk
    mark_running(held, process_id=1, process_started_at=1.0)
    model = ModelVersion(
        project=run.project, run=run, parent=parent, name=name, kind="policy", folder=f"{run.pk}/out/model",
        size_bytes=7,
    )  # fmt: skip
    succeed(held, model=model, step=1, report={})
    return model


def html_of(model: ModelVersion, user: object) -> str:
    answer = page_of(user).get(f"/models/{model.pk}/")
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_lineage_is_told_both_ways(snapshot: Snapshot, people: RunCast) -> None:
    """snapshot → SFT → policy → PPO (with a reward model) → policy → a run that waits."""
    later = make_snapshot(snapshot.project, name="second")
    reward = finished(snapshot, name="the judge of taste")
    sft = queue_run(snapshot, kind="sft", name="imitation")
    first = trained_from(sft, parent=None, name="first policy")
    ppo = queue_run(later, kind="ppo", name="reinforcement", base_model=f"registry:{first.pk}", base_version=first)
    RunInput.objects.create(run=ppo, role="reward_model", name=f"registry:{reward.pk}", version=reward)
    second = trained_from(ppo, parent=first, name="second policy")
    waits = queue_run(later, kind="dpo", name="still to come", base_version=second)

    html = html_of(second, people.alice)
    line = html[html.index('aria-label="Lineage"') : html.index("Use it")]
    words = ["snapshot first", "tiny", f"/runs/{sft.pk}/", "first policy", "snapshot second", f"/runs/{ppo.pk}/"]
    words += ["Reward model: ", "the judge of taste", f"model {second.pk}", f"/runs/{waits.pk}/", "still to come"]
    places = [line.index(one) for one in words]
    assert places == sorted(places)
    html = html_of(first, people.alice)
    assert "reinforcement" in html and "second policy" in html and "still to come" not in html
    html = html_of(reward, people.alice)
    assert "reinforcement" in html and "Reads it as" in html
    answers = {one: client_of(people.alice).get(f"/api/v1/models/{one.pk}/").json() for one in (first, second, reward)}
    assert [answers[one]["used_by"] for one in (first, second, reward)] == [[ppo.pk], [waits.pk], [ppo.pk]]
    assert answers[second]["lineage"] == [first.pk]


def test_lineage_tells_nothing_of_other_projects(snapshot: Snapshot, people: RunCast) -> None:
    base = make_model(snapshot, name="secret ancestor", shared=True)
    theirs = make_snapshot(people.charlie.memberships.get().project)
    run = queue_run(theirs, kind="sft", name="run of theirs", base_version=base)
    child = trained_from(run, parent=base, name="child of theirs")
    html = html_of(base, people.alice)
    assert "run of theirs" not in html and "child of theirs" not in html
    assert "One more run reads it, an older one or one of another project." in html
    assert "secret ancestor" in html_of(child, people.charlie)
    ModelVersion.objects.filter(pk=base.pk).update(shared=False)
    html = html_of(child, people.charlie)
    assert "secret ancestor" not in html and f"model {base.pk} of another project" in html
    assert client_of(people.alice).get(f"/api/v1/models/{base.pk}/").json()["used_by"] == []


def test_the_card_is_shown_safely_and_without_its_head(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    with_files(model)
    card = "---\ntags: [plackett]\nlicense: secret-of-the-head\n---\n\n# Reward model\n\nFrom *people*.\n\n"
    card += "<script>alert(1)</script> [bad](javascript:alert(1)) ![x](http://elsewhere.example/x.png)\n"
    (model.path / "README.md").write_text(card)
    html = page_of(people.alice).get(f"/models/{model.pk}/").content.decode()
    assert "Model card" in html and "<em>people</em>" in html and "<h3>Reward model</h3>" in html
    assert "secret-of-the-head" not in html
    assert "<script>alert" not in html and 'href="javascript:' not in html and "<img" not in html


def test_a_card_that_is_a_link_or_no_text_does_no_harm(snapshot: Snapshot, people: RunCast, tmp_path: Path) -> None:
    model = finished(snapshot)
    with_files(model)
    (tmp_path / "secret").write_text("the secret")
    (model.path / "README.md").unlink()
    (model.path / "README.md").symlink_to(tmp_path / "secret")
    assert "the secret" not in html_of(model, people.alice)
    (model.path / "README.md").unlink()
    (model.path / "README.md").write_bytes(b"\xff\xfe\0---\n" * 10)
    assert "Model card" in html_of(model, people.alice)


def test_files_are_listed_with_their_sizes(snapshot: Snapshot, people: RunCast) -> None:
    model = finished(snapshot)
    assert "The folder is not there" in html_of(model, people.alice)
    with_files(model)
    (model.path / "link").symlink_to("/etc")
    html = html_of(model, people.alice)
    assert "<code>model.safetensors</code>" in html and "9.8\xa0KB" in html
    assert "<code>link</code>" not in html and f"/api/v1/models/{model.pk}/download/" in html


def test_lists_say_what_a_policy_has(snapshot: Snapshot, people: RunCast) -> None:
    reports = {"ppo": ppo_report(), "sft": sft_report()}
    for kind, report in reports.items():
        of_kind(snapshot, people, kind, report, "en")
    finished(snapshot)
    wins, perplexity = reports["ppo"]["win_rate"], reports["sft"]["validation"]["perplexity"]
    for address in ("/runs/", "/models/"):
        html = unescape(page_of(people.alice).get(address).content.decode())
        assert f"<b>{wins['value'] * 100:.1f}\xa0%</b> wins against the start" in html
        assert f"95 % interval {wins['low'] * 100:.1f}\xa0% to {wins['high'] * 100:.1f}\xa0%" in html
        assert f"<b>{perplexity['value']:#.3g}</b> perplexity" in html
        assert "<b>71.0\xa0%</b> held-out accuracy" in html
    assert "longer wins 55.0\xa0%" in html
    rows = client_of(people.alice).get("/api/v1/models/").json()["results"]
    assert [row["win_rate"] and row["win_rate"]["value"] for row in rows] == [wins["value"], None, None]
    assert [row["perplexity"] and row["perplexity"]["value"] for row in rows] == [None, perplexity["value"], None]
    assert [row["accuracy"] and row["accuracy"]["value"] for row in rows] == [None, None, 0.71]
