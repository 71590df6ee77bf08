"""Imports: every record once, bad ones reported with their place, and a second time changes nothing."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.errors import Conflict, Invalid
from annotate.interchange.records import BadRecord, FileError, ImportedRecord
from annotate.models import (
    Change,
    Demonstration,
    Entry,
    ImportBatch,
    Prompt,
    Ranking,
    RankingTask,
    Response,
    Slot,
    SplitGroup,
    User,
)
from annotate.preferences import split_for_group
from annotate.services import imports
from annotate.services.imports import StrictImportRefused, import_files, import_records, import_stream, undo_import
from annotate.services.queue import next_leases
from annotate.services.rankings import submit_ranking
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_user
from tests.annotate.helpers import answer_of
from tests.annotate.import_lines import line, put, ranked, records, written
from tests.conftest import SHARED_DATA

pytestmark = pytest.mark.django_db


def everything() -> dict[str, int]:
    models = (ImportBatch, SplitGroup, Prompt, Response, RankingTask, Slot, Ranking, Entry, Change, Demonstration, User)
    return {model.__name__: model.objects.count() for model in models}


def test_prompts_become_tasks_with_the_projects_overlap() -> None:
    project = make_project(overlap=2)
    report = put(project, line(), line("What is coffee?"))
    assert (report.read, report.written, report.fault_count) == (2, 2, 0)
    assert report.rows["tasks"] == 2 and report.rows["responses"] == 6
    slots = Slot.objects.filter(project=project).order_by("offer")
    assert [slot.offer for slot in slots] == [1, 2, 3, 4]
    assert len({slot.task_id for slot in slots}) == 2
    assert len(next_leases(project=project, annotator=make_user(project=project), count=2)) == 2


def test_overlap_can_be_chosen_and_rankings_need_none() -> None:
    project = make_project(overlap=2)
    put(project, ranked(), line("What is coffee?"), overlap=3)
    put(project, ranked("What is cocoa?"))
    overlaps = RankingTask.objects.order_by("pk").values_list("overlap", flat=True)
    assert list(overlaps) == [3, 3, 0]
    assert Slot.objects.count() == 6


def test_an_overlap_beyond_the_limit_is_refused() -> None:
    with pytest.raises(Invalid):
        put(make_project(), line(), overlap=51)


def test_a_ranking_keeps_all_that_was_said() -> None:
    project = make_project()
    said = ranked(
        "What is tea?", ["r2"], ["r1"], strengths=[3], ratings={"r1": {"helpful": 2}}, flags={"r3": ["unsafe"]},
        rationale="Clear.", rewrite={"of": "r2", "text": "Better."}, annotator="Ann", seconds=4.5, counted=False,
        submitted_at="2026-01-02T03:04:05Z", presented_order=["r3", "r1", "r2"], weight=0.5, mood="good",
    )  # fmt: skip
    put(project, said)
    ranking = Ranking.objects.get()
    ids = dict(Response.objects.values_list("key", "id"))
    assert {entry.response_id: entry.tier for entry in ranking.entries.all()} == {
        ids["r2"]: 1, ids["r1"]: 2, ids["r3"]: None,
    }  # fmt: skip
    assert ranking.strengths == [3] and ranking.rationale == "Clear." and ranking.seconds == 4.5
    assert ranking.ratings == {str(ids["r1"]): {"helpful": 2}} and ranking.flags == {str(ids["r3"]): ["unsafe"]}
    assert ranking.rewrite_of_id == ids["r2"] and not ranking.counted and ranking.slot is None
    assert ranking.presented_order == [ids["r3"], ids["r1"], ids["r2"]]
    assert ranking.extra == {"mood": "good", "weight": 0.5}
    assert ranking.submitted_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert (ranking.annotator.username, ranking.annotator.kind) == (f"imported:{project.slug}:Ann", "imported")
    assert not ranking.annotator.is_active and not ranking.annotator.has_usable_password()
    assert list(Change.objects.values_list("kind", "ranking")) == [("ranking", ranking.pk)]


def test_lines_of_one_prompt_are_one_task_with_several_rankings() -> None:
    project = make_project()
    report = put(
        project,
        ranked(annotator="Ann"),
        ranked("What is tea?", ["r3"], ["r1"], annotator="Bob"),
        ranked("What is tea?", ["r1"], ["r2"], annotator="judge", annotator_kind="machine"),
        ranked("What is tea?", ["r1"], ["r2"], annotator="demo", annotator_kind="example"),
    )
    assert report.written == 4
    assert (Prompt.objects.count(), RankingTask.objects.count(), Ranking.objects.count()) == (1, 1, 4)
    kinds = User.objects.filter(rankings__isnull=False).order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["imported", "imported", "machine", "example"]


def test_unnamed_answers_with_ids_are_different_people() -> None:
    project = make_project()
    lines = [ranked(id="a"), ranked("What is tea?", ["r3"], ["r1"], id="b"), ranked("What is coffee?", id="c")]
    assert put(project, *lines).written == 3
    names = Ranking.objects.order_by("pk").values_list("annotator__first_name", flat=True)
    assert list(names) == ["anonymous", "anonymous 2", "anonymous"]
    assert put(project, *lines[::-1]).unchanged == 3


@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_again_changes_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(imports, "CHUNK_RECORDS", chunk)
    project = make_project()
    lines = [
        ranked(external_id="x", annotator="Ann", split_group="drinks"),
        ranked("What is tea?", ["r1"], ["r2"], external_id="x", annotator="Bob"),
        ranked("What is coffee?", annotator="Ann", revision=1),
        ranked("What is coffee?", ["r3"], ["r1"], annotator="Ann", revision=2),
        line("What is cocoa?"),
        {"type": "demonstration", "prompt": "Name a drink.", "response": "Tea."},
        {"type": "prompt", "prompt": "2 + 2?", "answer": 4},
    ]
    first = put(project, *lines)
    assert (first.written, first.fault_count) == (7, 0)
    before = everything()
    second = put(project, *lines)
    assert (second.read, second.unchanged, second.written, second.fault_count) == (7, 7, 0, 0)
    assert everything() == before
    assert second.batch_id is None


def test_revisions_form_a_chain() -> None:
    project = make_project()
    put(
        project,
        ranked(annotator="Ann", revision=2),
        ranked("What is tea?", ["r3"], ["r1"], annotator="Ann", revision=5),
    )
    first, second = Ranking.objects.order_by("revision")
    assert (first.revision, second.revision, second.supersedes_id) == (1, 2, first.pk)
    assert (first.extra["revision"], second.extra["revision"]) == (2, 5)
    late = put(project, ranked("What is tea?", ["r1"], ["r3"], annotator="Ann", revision=3))
    assert late.skipped == 1 and "comes after" in late.faults[0].reason
    assert list(Change.objects.order_by("number").values_list("kind", flat=True)) == ["ranking", "revision"]


def test_other_content_is_a_conflict_and_is_not_written() -> None:
    project = make_project()
    put(project, ranked(external_id="x", annotator="Ann"))
    before = everything()
    other = line(external_id="x")
    other["responses"][0]["text"] = "Something else."
    report = put(project, other, ranked("What is tea?", ["r3"], ["r1"], external_id="x", annotator="Ann"))
    assert report.conflicts == 2 and report.written == 0
    assert [fault.line for fault in report.faults] == [1, 2]
    assert "external_id 'x' is known with other content" in report.faults[0].reason
    assert "known with another answer" in report.faults[1].reason
    assert everything() == before


def test_without_external_id_the_content_names_the_prompt() -> None:
    project = make_project()
    put(project, line())
    swapped = line()
    swapped["responses"].reverse()
    assert put(project, swapped).unchanged == 1
    assert put(project, line(external_id="named")).written == 1


def test_bad_records_are_reported_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = json.dumps(line())
    lone = '{"prompt": "\\ud800", "responses": []}'
    path.write_text("\n".join([good, "{", lone, '{"prompt": NaN}', json.dumps(line("One?", responses=[])), good]))
    (report,) = import_files(project=make_project(), files=[path], format="plackett")
    assert (report.read, report.written, report.skipped, report.conflicts) == (6, 1, 5, 0)
    assert [(fault.source, fault.line) for fault in report.faults] == [("mixed.jsonl", n) for n in (2, 3, 4, 5, 6)]
    assert sum(report.reasons.values()) == 5
    assert ImportBatch.objects.get().counts["skipped"] == 5


def test_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", line("Fine?"))
    bad = tmp_path / "bad.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(line(f"Question {n}?")) + "\n" for n in range(2000)).encode())
    bad.write_bytes(whole[:-20])
    project = make_project()
    before = everything()
    with pytest.raises(FileError, match=r"bad.jsonl.gz: the gzip file ends too early"):
        import_files(project=project, files=[good, bad], format="plackett")
    assert everything() == before
    bad.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(FileError):
        import_files(project=project, files=[bad], format="plackett")
    assert everything() == before


def test_a_stream_is_looked_at_whole_first() -> None:
    project = make_project()
    stream = io.BytesIO(json.dumps(line()).encode() + b"\n\xff\n")
    with pytest.raises(FileError):
        import_files(project=project, files=[stream], format="plackett")
    assert Prompt.objects.count() == 0
    assert import_files(project=project, files=[io.BytesIO(json.dumps(line()).encode())], format="plackett")[0].written


def test_a_stream_that_breaks_off_changes_nothing() -> None:
    project = make_project()
    before = everything()
    body = b"".join(json.dumps(ranked(f"{number}?")).encode() + b"\n" for number in range(3))
    with pytest.raises(FileError):
        import_stream(project=project, stream=io.BytesIO(body + b"\xff"), format="plackett", source="API")
    assert everything() == before
    report = import_stream(project=project, stream=io.BytesIO(gzip.compress(body)), format="plackett", source="API")
    assert report.written == 3 and ImportBatch.objects.get().source == "API"


def test_a_source_that_breaks_on_the_way_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "CHUNK_RECORDS", 2)

    def broken() -> Iterator[ImportedRecord | BadRecord]:
        yield from records(line("1?"), line("2?"), line("3?"))
        raise FileError("the connection is gone")

    with pytest.raises(FileError):
        import_records(project=make_project(), records=broken())
    assert Prompt.objects.count() == SplitGroup.objects.count() == 0
    assert ImportBatch.objects.get().undone_at is not None


def test_strict_treats_every_fault_as_a_bad_file(tmp_path: Path) -> None:
    project = make_project()
    put(project, line(external_id="x"))
    before = everything()
    conflicting = [line("New?"), line("Other?", external_id="x")]
    with pytest.raises(StrictImportRefused) as refused:
        put(project, *conflicting, strict=True)
    assert refused.value.report.conflicts == 1
    files = [written(tmp_path / "one.jsonl", line("New?")), written(tmp_path / "two.jsonl", {"prompt": 1})]
    with pytest.raises(StrictImportRefused):
        import_files(project=project, files=files, format="plackett", strict=True)
    assert everything() == before
    assert put(project, line("New?"), strict=True).written == 1


def test_a_dry_run_says_what_would_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "CHUNK_RECORDS", 2)
    project = make_project()
    put(project, line("Known?"))
    lines = [
        line("Known?"), ranked(annotator="Ann"), ranked("What is tea?", ["r1"], ["r3"], annotator="Bob"), line("New?"),
        ranked("What is tea?", ["r1"], ["r3"], annotator="Ann"),
    ]  # fmt: skip
    before = everything()
    rehearsal = put(project, *lines, dry_run=True)
    assert everything() == before
    real = put(project, *lines)
    assert rehearsal.dry_run and rehearsal.counts() == real.counts()
    assert (real.written, real.unchanged, real.conflicts) == (3, 1, 1)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_splits_follow_the_group_and_the_data_wins() -> None:
    project = make_project()
    put(project, line("What is  TEA?"), line("Plain", split_group="root 1"), line("Given", split="test"))
    splits = dict(Prompt.objects.values_list("messages__0__content", "split_group__split"))
    assert splits == {
        "What is  TEA?": split_for_group("what is tea?"),
        "Plain": split_for_group("root 1"),
        "Given": "test",
    }


def test_a_split_against_its_group_is_skipped() -> None:
    project = make_project()
    put(project, line("One", split_group="g", split="validation"))
    report = put(
        project,
        line("Two", split_group="g", split="train"),
        line("Three", split_group="g"),
        line("One", split_group="g", split="test"),
        line("One", split_group="other"),
    )
    assert (report.skipped, report.written, report.conflicts) == (2, 1, 1)
    assert set(Prompt.objects.values_list("split_group__split", flat=True)) == {"validation"}


# --- other lines ------------------------------------------------------------------------------------------------------


def test_demonstrations_of_one_prompt_share_it() -> None:
    project = make_project()
    put(
        project,
        line("What is tea?", external_id="x"),
        {"type": "demonstration", "external_id": "x", "prompt": "What is tea?", "response": "A drink."},
        {"type": "demonstration", "external_id": "x", "prompt": "What is tea?", "response": "A leaf.", "id": "2"},
        {"type": "demonstration", "prompt": "Sing.", "response": "La."},
    )
    assert Prompt.objects.count() == 2
    assert Prompt.objects.get(external_id="x").demonstrations.count() == 2
    other = {"type": "demonstration", "external_id": "x", "prompt": "What is mate?", "response": "A drink."}
    assert put(project, other).conflicts == 1


def test_prompts_keep_what_checks_their_answers() -> None:
    project = make_project()
    put(project, {"type": "prompt", "prompt": "2 + 2?", "answer": 4, "tests": ["assert f() == 4"], "level": 1})
    prompt = Prompt.objects.get()
    assert (prompt.answer, prompt.tests, prompt.extra) == ("4", ["assert f() == 4"], {"level": 1})
    assert RankingTask.objects.count() == 0
    assert put(project, {"type": "prompt", "prompt": "2 + 2?", "answer": 5}).written == 1


def test_a_repeat_needs_its_original() -> None:
    project = make_project()
    assert put(project, ranked(annotator="Ann", kind="repeat")).skipped == 1
    report = put(
        project, ranked(annotator="Ann"), ranked("What is tea?", ["r1"], ["r2"], annotator="Ann", kind="repeat")
    )
    assert report.written == 2
    original, repeat = RankingTask.objects.order_by("pk")
    assert repeat.repeat_of_id == original.pk and repeat.overlap == 0


# --- the way back -----------------------------------------------------------------------------------------------------


def test_an_import_can_be_undone_and_done_again() -> None:
    project = make_project()
    put(project, line("Stays?"))
    before = everything()
    lines = [line(), line("Two?", split="test"), {"type": "demonstration", "prompt": "Sing.", "response": "La."}]
    batch = ImportBatch.objects.get(pk=put(project, *lines).batch_id)
    undo_import(batch=batch, by=None)
    assert everything() == before | {"ImportBatch": 2}
    with pytest.raises(Conflict):
        undo_import(batch=batch, by=None)
    assert put(project, *lines).written == 3


def test_an_import_someone_works_on_is_not_undone() -> None:
    project = make_project()
    ann = make_user(project=project)
    batch = ImportBatch.objects.get(pk=put(project, line()).batch_id)
    (slot,) = next_leases(project=project, annotator=ann)
    with pytest.raises(Conflict, match="ranking a task"):
        undo_import(batch=batch, by=None)
    assert slot.lease_id is not None
    submit_ranking(annotator=ann, lease_id=slot.lease_id, answer=answer_of(slot))
    with pytest.raises(Conflict, match="ranking a task"):
        undo_import(batch=batch, by=None)


def test_undoing_imported_rankings_withdraws_them() -> None:
    project = make_project()
    batch = ImportBatch.objects.get(pk=put(project, ranked(annotator="Ann", rationale="Mine."), line("Two?")).batch_id)
    undo_import(batch=batch, by=make_user())
    prompt, ranking = Prompt.objects.get(), Ranking.objects.get()
    assert prompt.messages == [] and ranking.rationale is None and ranking.withdrawn_at is not None
    assert list(Change.objects.order_by("number").values_list("kind", flat=True)) == [
        "ranking", "withdrawal", "withdrawal",
    ]  # fmt: skip


def test_what_was_withdrawn_does_not_come_back() -> None:
    project = make_project()
    lines = [ranked(id="a"), ranked("What is mate?", annotator="Bob")]
    put(project, *lines)
    withdraw_ranking(ranking=Ranking.objects.get(annotator__first_name="anonymous"))
    withdraw_prompt(prompt=Prompt.objects.get(messages__0__content="What is mate?"))
    before = everything()
    report = put(project, *lines)
    assert report.skipped == 2 and all("withdrawn" in fault.reason for fault in report.faults)
    assert everything() == before


# --- real data and size -----------------------------------------------------------------------------------------------


def test_all_ranked_groups_of_the_open_assistant_trees() -> None:
    trees = SHARED_DATA / "oasst" / "en_100_tree.jsonl"
    if not trees.exists():
        pytest.skip(f"the shared data folder is absent: {trees}")
    project = make_project()
    (report,) = import_files(project=project, files=[trees], format="oasst")
    assert (report.written, report.fault_count) == (211, 0)
    assert Ranking.objects.filter(counted=True).count() == 211
    assert set(User.objects.filter(kind="imported").values_list("first_name", flat=True)) == {"oasst consensus"}
    split_of_trees = SplitGroup.objects.filter(project=project).count()
    assert split_of_trees <= 100
    (again,) = import_files(project=project, files=[trees], format="oasst")
    assert (again.unchanged, again.written) == (211, 0)


def test_pairs_of_helpful_dialogues() -> None:
    folder = SHARED_DATA / "hh_helpful"
    files = sorted(folder.glob("*.json*")) if folder.exists() else []
    if not files:
        pytest.skip(f"the shared data folder is absent: {folder}")
    project = make_project()
    reports = import_files(project=project, files=files, format="hh")
    assert sum(report.written for report in reports) > 1500
    assert Ranking.objects.count() == sum(report.rows["rankings"] for report in reports)
