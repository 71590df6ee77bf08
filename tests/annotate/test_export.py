"""Exports and their cursors: everything once, nothing skipped, and what is taken back is said."""

import json
import threading
from typing import Any

import pytest
from django.db import connection, transaction

from annotate.errors import Conflict, Invalid
from annotate.interchange.native import record_from_object
from annotate.models import Membership, Project, Prompt, Ranking, User
from annotate.selectors import records as record_selectors
from annotate.selectors.cursors import Cursor, change_of, current_epoch, last_change
from annotate.selectors.records import RankingFilter, pseudonym_of, records_since
from annotate.services.epochs import start_epoch
from annotate.services.exports import ExportBroken, open_export
from annotate.services.imports import import_records
from annotate.services.queue import next_leases
from annotate.services.rankings import revise_ranking
from annotate.services.skips import skip_task
from annotate.services.withdrawals import withdraw_prompt, withdraw_ranking
from tests.annotate.factories import make_project, make_task, make_user
from tests.annotate.helpers import answer_of, submit

pytestmark = pytest.mark.django_db

KEYS = [
    "format", "id", "project", "task", "external_id", "split_group", "split", "kind", "counted", "prompt", "responses",
    "ranking", "unranked", "strengths", "all_bad", "ratings", "flags", "rationale", "rewrite", "annotator",
    "annotator_kind", "weight", "revision", "guideline_version", "presented_order", "seconds", "change", "submitted_at",
]  # fmt: skip


def lines_of(project: Project, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_export(project, **options).lines]


def rank_one(project: Project, annotator: User | None = None, **fields: Any) -> Ranking:
    """A new task, ranked in the order shown."""
    make_task(project)
    annotator = annotator or make_user(project=project)
    (slot,) = next_leases(project=project, annotator=annotator)
    return submit(slot, annotator, **fields)


def revise(ranking: Ranking, tiers: list[list[int]]) -> Ranking:
    slot = ranking.slot
    assert slot is not None
    return revise_ranking(
        ranking_id=ranking.pk,
        supersedes=ranking.pk,
        annotator=ranking.annotator,
        answer=answer_of(slot, tiers=tiers),
        seconds=None,
        source=Ranking.Source.PAGE,
    )


def test_a_record_has_every_key_in_order() -> None:
    project = make_project()
    ann = make_user(project=project)
    ranking = rank_one(project, ann, tiers=[[2], [0]], strengths=[2], rationale="Because.")
    (record,) = lines_of(project)
    assert list(record) == KEYS
    names = {str(response.pk): response.key for response in ranking.task.prompt.responses.all()}
    shown = [names[str(pk)] for pk in ranking.presented_order]
    assert record["ranking"] == [[shown[2]], [shown[0]]] and record["unranked"] == [shown[1]]
    assert record["presented_order"] == shown
    assert [response["id"] for response in record["responses"]] == ["r1", "r2", "r3"]
    assert record["annotator"] == pseudonym_of(project, ann.pk) != pseudonym_of(make_project(), ann.pk)
    assert ann.username not in json.dumps(record)
    assert (record["weight"], record["revision"], record["guideline_version"]) == (1.0, 1, 1)
    assert record["id"] == str(ranking.pk) and record["change"] == 1
    assert record_from_object(record).ranking is not None


def test_the_weight_is_the_members() -> None:
    project = make_project()
    ann = make_user(project=project)
    rank_one(project, ann)
    Membership.objects.filter(user=ann).update(weight=0.25)
    assert lines_of(project)[0]["weight"] == 0.25


def test_a_round_trip_gives_equal_records() -> None:
    first = make_project()
    rank_one(first, tiers=[[0, 1], [2]], strengths=[3], rationale="Good.", ratings={}, flags={})
    ranking = rank_one(first)
    revise(ranking, [[2], [0, 1]])
    rank_one(first, all_bad=True, tiers=[])
    exported = lines_of(first)
    second = make_project()
    report = import_records(project=second, records=[record_from_object(line) for line in exported])
    assert (report.written, report.fault_count) == (3, 0)
    third = make_project()
    again = lines_of(second)
    import_records(project=third, records=[record_from_object(line) for line in again])
    # What names a place in a database differs; the rest, all that was said and about what, must not.
    of_the_database = {"id", "project", "task", "change", "annotator"}
    stripped = [
        [{key: value for key, value in line.items() if key not in of_the_database} for line in lines]
        for lines in (exported, again, lines_of(third))
    ]
    human = [line | {"annotator_kind": "imported"} for line in stripped[0]]
    assert human == stripped[1] == stripped[2]


def test_an_export_that_comes_home_changes_nothing() -> None:
    project = make_project()
    rank_one(project, rationale="  With blanks around.  ")
    revise(rank_one(project), [[1], [0]])
    lines = [record_from_object(line) for line in lines_of(project)]
    report = import_records(project=project, records=lines)
    assert (report.unchanged, report.written, report.fault_count) == (2, 0, 0)


def test_every_ranking_is_told_exactly_once_while_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_selectors, "FIRST_PAGE", 2)
    monkeypatch.setattr(record_selectors, "PAGE", 2)
    project = make_project()
    cursor, told = None, []
    for count in (3, 0, 1, 5, 2):
        made = [rank_one(project).pk for _ in range(count)]
        export = open_export(project, since=cursor)
        late = rank_one(project).pk
        found = [int(json.loads(line)["id"]) for line in export.lines]
        assert set(made) <= set(found) and late not in found and len(found) == export.count
        told += found
        cursor = export.cursor
    told += [int(line["id"]) for line in lines_of(project, since=cursor)]
    assert sorted(told) == sorted(Ranking.objects.values_list("pk", flat=True))


def test_corrections_and_withdrawals_are_marked() -> None:
    project = make_project()
    kept, corrected, gone = (rank_one(project) for _ in range(3))
    start = open_export(project)
    assert [json.loads(line)["id"] for line in start.lines] == [str(one.pk) for one in (kept, corrected, gone)]
    new = revise(corrected, [[2], [1], [0]])
    withdraw_ranking(ranking=gone)
    since = lines_of(project, since=start.cursor)
    assert [(line.get("type"), line["id"]) for line in since] == [
        ("superseded", str(corrected.pk)), (None, str(new.pk)), ("withdrawn", str(gone.pk)),
    ]  # fmt: skip
    assert since[0]["superseded_by"] == str(new.pk)
    whole = lines_of(project)
    assert [line["id"] for line in whole] == [str(kept.pk), str(new.pk)]
    assert all("type" not in line for line in whole)


def test_an_earlier_watermark_shows_what_stood_then() -> None:
    project = make_project()
    first = rank_one(project)
    mark = last_change(project)
    revise(first, [[2], [0]])
    then = list(records_since(project, up_to_change=mark))
    assert [record["id"] for record in then] == [str(first.pk)]


def test_skips_take_numbers_but_give_no_lines() -> None:
    project = make_project()
    make_task(project)
    ann = make_user(project=project)
    (slot,) = next_leases(project=project, annotator=ann)
    assert slot.lease_id is not None
    skip_task(lease_id=slot.lease_id, annotator=ann, reason="long")
    export = open_export(project)
    assert export.count == 0 and list(export.lines) == []
    assert change_of(export.cursor, project=project) == 1


def test_a_page_costs_the_same_number_of_queries_whatever_is_on_it(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project()
    for _ in range(2):
        rank_one(project)
    with django_assert_num_queries(7):  # the watermark, the weights, and five for the page
        assert len(list(records_since(project, up_to_change=last_change(project)))) == 2
    for _ in range(6):
        rank_one(project)
    with django_assert_num_queries(7):
        assert len(list(records_since(project, up_to_change=last_change(project)))) == 8


# --- pairs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["trl", "trl-conversational"])
def test_pairs_are_the_strict_preferences(format: str) -> None:
    project = make_project()
    rank_one(project, tiers=[[0, 1], [2]])  # 2 pairs: a tie gives none
    rank_one(project, tiers=[[1], [0]])  # 1 pair: unranked gives none
    revise(rank_one(project), [[0], [1], [2]])  # 3 pairs, of the revision alone
    export = open_export(project, format=format)
    pairs = [json.loads(line) for line in export.lines]
    assert len(pairs) == export.count == 6
    assert all(list(pair) == ["prompt", "chosen", "rejected"] for pair in pairs)


def test_pairs_come_from_counted_normal_rankings_only() -> None:
    project = make_project()
    said = {"prompt": "Tea?", "responses": [{"id": "a", "text": "Yes."}, {"id": "b", "text": "No."}], "annotator": "A"}
    said["ranking"] = [["a"], ["b"]]
    lines = [said, said | {"kind": "repeat"}, said | {"counted": False, "prompt": "Milk?"}]
    import_records(project=project, records=[record_from_object(line) for line in lines])
    assert open_export(project).count == 3
    assert open_export(project, format="trl").count == len(lines_of(project, format="trl")) == 1


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(Invalid):
        open_export(make_project(), format="excel")


def test_filters_choose() -> None:
    project = make_project()
    rank_one(project)
    said = {"prompt": "Tea?", "responses": [{"id": "a", "text": "Yes."}, {"id": "b", "text": "No."}], "annotator": "A"}
    said |= {"ranking": [["a"], ["b"]], "annotator_kind": "machine", "split": "test", "counted": False}
    import_records(project=project, records=[record_from_object(said)])
    mark = last_change(project)

    def count(**wanted: Any) -> int:
        return len(list(records_since(project, up_to_change=mark, wanted=RankingFilter(**wanted))))

    assert count() == 2
    assert count(counted=True) == count(annotator_kinds=("human",)) == count(annotator_kinds=("machine",)) == 1
    assert count(kinds=("gold",)) == 0 and count(splits=("test",)) >= 1


# --- cursors ----------------------------------------------------------------------------------------------------------


def test_a_cursor_of_another_project_or_none_at_all_is_refused() -> None:
    project, other = make_project(), make_project()
    cursor = open_export(project).cursor
    assert change_of(cursor, project=project) == 0
    with pytest.raises(Invalid, match="another project"):
        open_export(other, since=cursor)
    for broken in ("", "x", "é", "AAAA", cursor[:-3], cursor + "%%"):
        with pytest.raises(Invalid):
            Cursor.decode(broken)


def test_a_cursor_of_another_history_is_a_conflict() -> None:
    project = make_project()
    rank_one(project)
    cursor = open_export(project).cursor
    future = Cursor(project.pk, 2, current_epoch()).encode()
    with pytest.raises(Conflict) as refused:
        open_export(project, since=future)
    assert refused.value.code == "unknown_epoch"
    start_epoch()
    with pytest.raises(Conflict) as refused:
        open_export(project, since=cursor)
    assert refused.value.code == "unknown_epoch"
    assert open_export(project, since=open_export(project).cursor).count == 0


# --- things that happen meanwhile -------------------------------------------------------------------------------------


def test_a_withdrawal_in_between_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_selectors, "FIRST_PAGE", 1)
    monkeypatch.setattr(record_selectors, "PAGE", 1)
    project = make_project()
    rankings = [rank_one(project) for _ in range(3)]
    export = open_export(project)
    next(export.lines)
    withdraw_prompt(prompt=Prompt.objects.get(tasks=rankings[2].task_id))
    with pytest.raises(ExportBroken):
        list(export.lines)


@pytest.mark.django_db(transaction=True)
def test_a_slow_transaction_is_not_skipped() -> None:
    """One writer holds its number and does not commit; another would like the next. Neither may be passed over."""
    project = make_project()
    first, second = make_user(project=project), make_user(project=project)
    for _ in range(2):
        make_task(project)
    (slow_slot,) = next_leases(project=project, annotator=first)
    (quick_slot,) = next_leases(project=project, annotator=second)
    drawn, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                submit(slow_slot, first)
                drawn.set()
                may_commit.wait(timeout=30)
        finally:
            connection.close()

    def quick() -> None:
        try:
            submit(quick_slot, second)
        finally:
            connection.close()

    slow_writer = threading.Thread(target=slow)
    slow_writer.start()
    assert drawn.wait(timeout=30)
    quick_writer = threading.Thread(target=quick)
    quick_writer.start()
    quick_writer.join(timeout=0.5)
    # The number after the open one has not been given out: a reader now stands before both.
    early = open_export(project)
    assert quick_writer.is_alive() and early.count == 0 and change_of(early.cursor, project=project) == 0
    may_commit.set()
    slow_writer.join(timeout=30)
    quick_writer.join(timeout=30)
    told = [json.loads(line)["annotator"] for line in open_export(project, since=early.cursor).lines]
    assert told == [pseudonym_of(project, first.pk), pseudonym_of(project, second.pk)]


@pytest.mark.django_db(transaction=True)
def test_readers_among_writers_see_each_ranking_once() -> None:
    project = make_project()
    people = [make_user(project=project) for _ in range(4)]
    for _ in range(40):
        make_task(project)

    def work(person: User) -> None:
        try:
            while slots := next_leases(project=project, annotator=person):
                submit(slots[0], person)
        finally:
            connection.close()

    writers = [threading.Thread(target=work, args=(person,)) for person in people]
    for writer in writers:
        writer.start()
    told: list[int] = []
    cursor = None
    while True:
        finished_before = not any(writer.is_alive() for writer in writers)
        export = open_export(project, since=cursor)
        told += [int(json.loads(line)["id"]) for line in export.lines]
        cursor = export.cursor
        if finished_before:
            break
    assert sorted(told) == sorted(Ranking.objects.values_list("pk", flat=True))
    assert len(told) == 40
