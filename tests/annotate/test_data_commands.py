"""The commands for data: what they say, their exit status, and that a dry run changes nothing."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotate.models import (
    ApiToken,
    DatabaseEpoch,
    ImportBatch,
    Membership,
    Project,
    Prompt,
    Ranking,
    Slot,
    Snapshot,
    User,
)
from annotate.services import demo
from annotate.services.demo import seed_demo
from annotate.services.tokens import find_token
from tests.annotate.factories import make_project, make_user

pytestmark = pytest.mark.django_db


def run(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=out, **options)
    return out.getvalue()


def record(question: str, **fields: Any) -> dict[str, Any]:
    responses = [{"id": f"r{number}", "text": f"{question} {number}"} for number in (1, 2)]
    return {"external_id": question, "prompt": question, "responses": responses} | fields


def ranked(question: str, **fields: Any) -> dict[str, Any]:
    return record(question, ranking=[["r2"], ["r1"]], annotator="Ann", annotator_kind="example") | fields


def written(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_import_counts_and_names_what_it_left(tmp_path: Path) -> None:
    make_project("tea")
    path = written(tmp_path / "x.jsonl", record("One?"), {"prompt": 1}, record("Two?"))
    said = run("import_data", "--project", "tea", "--format", "plackett", path)
    assert "3 read, 2 written, 0 unchanged, 0 conflicts, 1 skipped" in said
    assert "x.jsonl, line 2: prompt must be a text or a list of messages" in said
    assert "2 unchanged" in run("import_data", "--project", "tea", "--format", "plackett", path)


def test_import_dry_run_and_new_projects(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", record("One?"))
    arguments = ("import_data", "--project", "tea", "--format", "plackett", path)
    with pytest.raises(CommandError, match="no project 'tea'"):
        run(*arguments)
    assert "1 would be written" in run(*arguments, "--create-project", "--dry-run")
    assert not Project.objects.exists()
    assert "1 written" in run(*arguments, "--create-project", "--overlap", "3")
    assert Slot.objects.count() == 3
    with pytest.raises(CommandError, match="0 to 50"):
        run(*arguments, "--overlap", "51")


def test_a_bad_file_or_a_strict_fault_ends_the_command(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl.gz"
    bad.write_bytes(gzip.compress(json.dumps(record("One?")).encode())[:-6])
    faulty = written(tmp_path / "faulty.jsonl", record("One?"), {"prompt": 1})
    with pytest.raises(CommandError, match="gzip file ends too early. Nothing was changed"):
        run("import_data", "--project", "tea", "--create-project", "--format", "plackett", bad)
    with pytest.raises(CommandError, match="1 of 2 records have faults; nothing was imported"):
        run("import_data", "--project", "tea", "--create-project", "--strict", "--format", "plackett", faulty)
    assert not Project.objects.exists() and not Prompt.objects.exists()


def test_export_to_a_file_and_from_a_cursor(tmp_path: Path) -> None:
    make_project("tea")
    run("import_data", "--project", "tea", "--format", "plackett", written(tmp_path / "x.jsonl", ranked("One?")))
    out = tmp_path / "out.jsonl"
    assert "1 lines would be written" in run("export_data", "--project", "tea", "--output", out, "--dry-run")
    assert not out.exists()
    said = run("export_data", "--project", "tea", "--format", "trl", "--output", out)
    assert json.loads(out.read_text()) == {"prompt": "One?", "chosen": "One? 2", "rejected": "One? 1"}
    cursor = said.split("cursor: ")[1].strip()
    run("import_data", "--project", "tea", "--format", "plackett", written(tmp_path / "y.jsonl", ranked("Two?")))
    run("export_data", "--project", "tea", "--since", cursor, "--output", out)
    assert [json.loads(line)["external_id"] for line in out.read_text().splitlines()] == ["Two?"]
    with pytest.raises(CommandError, match="no cursor"):
        run("export_data", "--project", "tea", "--since", "nonsense", "--output", out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_new_epoch_refuses_old_cursors(tmp_path: Path) -> None:
    make_project("tea")
    out = tmp_path / "out.jsonl"
    cursor = run("export_data", "--project", "tea", "--output", out).split("cursor: ")[1].strip()
    epochs = DatabaseEpoch.objects.count()
    run("new_epoch", "--dry-run")
    assert DatabaseEpoch.objects.count() == epochs
    run("new_epoch")
    with pytest.raises(CommandError, match="restored"):
        run("export_data", "--project", "tea", "--since", cursor, "--output", out)


def test_create_snapshot(tmp_path: Path) -> None:
    make_project("tea")
    path = written(tmp_path / "x.jsonl", ranked("One?", split="train"), ranked("Two?", split="test"))
    with pytest.raises(CommandError, match="nothing to freeze"):
        run("create_snapshot", "--project", "tea", "--name", "first")
    run("import_data", "--project", "tea", "--format", "plackett", path)
    rehearsed = run("create_snapshot", "--project", "tea", "--name", "first", "--dry-run")
    assert "would hold 2 lines: 2 rankings with 2 pairs" in rehearsed and not Snapshot.objects.exists()
    said = run("create_snapshot", "--project", "tea", "--name", "first", "--splits", "train")
    assert "holds 1 lines" in said and Snapshot.objects.get().sha256 in said


# --- the demo ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    questions = [f"Question {number}?" for number in range(6)]
    written(folder / "demo.jsonl", *(record(question) for question in questions))
    written(folder / "example_rankings.jsonl", *(ranked(question) for question in questions[:4]))
    return folder


def test_the_demo_is_ready_to_rank_and_to_train(tmp_path: Path, data: Path) -> None:
    home = tmp_path / "home"
    assert len(seed_demo(home=home, data=data)) == 5
    path = home / "demo-logins.json"
    assert path.stat().st_mode & 0o777 == 0o600
    logins = json.loads(path.read_text())
    assert list(logins) == ["annotator", "manager", "admin"]
    for name, login in logins.items():
        user = User.objects.get(username=login["username"])
        token = find_token(login["token"])
        assert user.check_password(login["password"]) and token is not None and token.user == user
        assert user.is_superuser == (name == "admin")
    project = Project.objects.get(slug="demo")
    roles = dict(Membership.objects.values_list("user__username", "role"))
    assert roles == {"annotator": "annotator", "manager": "manager"}
    assert Membership.objects.get(role="manager").engineer
    assert set(ApiToken.objects.get(user__username="annotator").scopes) == {"read", "annotate"}
    assert Slot.objects.filter(project=project, state="free").count() == 6
    assert Ranking.objects.filter(annotator__kind="example").count() == 4
    version = project.versions.get()
    assert version.allow_ties and version.allow_partial and version.strength == "optional" and version.guidelines
    assert Snapshot.objects.get().counts["rankings"] == 4


def test_seeding_again_changes_nothing(tmp_path: Path, data: Path) -> None:
    home = tmp_path / "home"
    seed_demo(home=home, data=data)
    before = (home / "demo-logins.json").read_text()
    counts = [model.objects.count() for model in (User, ApiToken, Prompt, Ranking, Snapshot, ImportBatch)]
    assert demo.missing_parts(home=home, data=data) == []
    assert seed_demo(home=home, data=data) == []
    assert (home / "demo-logins.json").read_text() == before
    assert counts == [model.objects.count() for model in (User, ApiToken, Prompt, Ranking, Snapshot, ImportBatch)]


def test_a_lost_log_in_file_is_written_anew_and_strangers_stay(tmp_path: Path, data: Path) -> None:
    stranger = make_user("admin")
    home = tmp_path / "home"
    seed_demo(home=home, data=data)
    first = json.loads((home / "demo-logins.json").read_text())
    assert first["admin"]["username"] == "demo-admin"
    (home / "demo-logins.json").unlink()
    assert len(seed_demo(home=home, data=data)) == 1
    second = json.loads((home / "demo-logins.json").read_text())
    assert find_token(first["manager"]["token"]) is None and find_token(second["manager"]["token"]) is not None
    assert {one["username"] for one in first.values()} == {one["username"] for one in second.values()}
    stranger.refresh_from_db()
    assert stranger.check_password("admin") and not stranger.is_superuser


def test_no_demo_unless_asked_for(settings: Any) -> None:
    settings.PLACKETT_DEMO = False
    with pytest.raises(CommandError, match="PLACKETT_DEMO is 0"):
        run("seed_demo")
    assert not Project.objects.exists() and not User.objects.exists()


def test_tables_are_mapped_and_exports_take_options(tmp_path: Path) -> None:
    make_project("tea")
    table = tmp_path / "t.csv"
    table.write_text("question,answer_a,answer_b,better,who\nTea?,one,two,b,ann\nMilk?,one,two,tie,ann\n")
    mapped = ["--map", "question=prompt", "--map", "answer_a=response_1", "--map", "answer_b=response_2"]
    said = run("import_data", "--project", "tea", "--format", "csv", *mapped, "--map", "better=winner", table)
    assert "2 read, 2 written" in said and "2 rankings" in said
    output = tmp_path / "out.jsonl"
    run("export_data", "--project", "tea", "--format", "trl", "--ties", "soft", "--models", "yes", "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(row["preference"] for row in rows) == [0.5, 1.0] and "chosen_model" in rows[0]
    for wrong in (["--map", "question"], ["--map", "question=nothing"]):
        with pytest.raises(CommandError, match="(?i)map"):
            run("import_data", "--project", "tea", "--format", "csv", *wrong, table)
    with pytest.raises(CommandError, match="has no use for ties"):
        run("export_data", "--project", "tea", "--format", "sft", "--ties", "soft", "--output", output)


def test_files_that_belong_together_are_one_batch(tmp_path: Path) -> None:
    make_project("tea")
    files = []
    for model in ("x", "y"):
        files.append(tmp_path / f"{model}.json")
        files[-1].write_text(json.dumps([{"instruction": "Tea?", "output": model, "generator": model}]))
    said = run("import_data", "--project", "tea", "--format", "alpaca-eval", *files)
    assert "1 read, 1 written" in said and f"{files[0]}, {files[1]}" in said
    assert ImportBatch.objects.get().source == "x.json, y.json"
    assert Slot.objects.count() == Project.objects.get().overlap
