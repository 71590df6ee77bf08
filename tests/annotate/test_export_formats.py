"""Every export format out of the database: as many lines as were promised, options, and what `since` cannot tell."""

import io
import itertools
import json
from typing import Any

import pyarrow.parquet
import pytest

from annotate.errors import Invalid
from annotate.interchange import EXPORTS
from annotate.interchange.native import record_from_object
from annotate.models import Project, Ranking
from annotate.selectors.records import pseudonym_of
from annotate.services.exports import ExportBroken, first_rows, open_export
from annotate.services.imports import import_records
from annotate.services.withdrawals import withdraw_ranking
from tests.annotate.factories import make_project, make_user

pytestmark = pytest.mark.django_db

IDS = ["r1", "r2", "r3", "r4"]


def said(question: str, annotator: str, ranking: list[list[str]], **more: Any) -> dict[str, Any]:
    responses = [{"id": name, "text": f"{question} {name}", "model": f"model {name}"} for name in IDS]
    return {"external_id": question, "prompt": question, "responses": responses, "ranking": ranking,
            "annotator": annotator} | more  # fmt: skip


RECORDS = [
    said("one?", "ann", [["r1"], ["r2"], ["r3"], ["r4"]], strengths=[1, None, 3]),
    said("one?", "bob", [["r2"], ["r1", "r3"]]),
    said("one?", "cy", [["r1", "r2"], ["r4"]], weight=0.5),
    said("two?", "ann", [["r1", "r2", "r3", "r4"]]),
    said("two?", "bob", [], all_bad=True),
    said("three?", "ann", [["r4"], ["r1"]], all_bad=True),
    said("three?", "bob", [["r4"], ["r2", "r3"], ["r1"]], rewrite={"of": "r4", "text": "better"}),
    said("three?", "cy", [["r1"], ["r4"]], counted=False),
    said("four?", "ann", [["r1"], ["r2"]], kind="gold"),
    said("five?", "ann", [["r2"], ["r1"]], split="test", all_bad=True, rewrite={"of": "r1", "text": "mine"}),
]


@pytest.fixture
def project() -> Project:
    made = make_project("tales")
    report = import_records(project=made, records=[record_from_object(record) for record in RECORDS])
    assert (report.written, report.fault_count) == (len(RECORDS), 0)
    return made


def lines_of(project: Project, **asked: Any) -> list[dict[str, Any]]:
    export = open_export(project, **asked)
    found = [json.loads(line) for line in export.lines]
    assert len(found) == export.count
    return found


def asked_of(format: str) -> list[dict[str, str]]:
    """Every combination of the options that change the number of lines; of pairs for one of their formats."""
    options = {"split": ["", "test"]}
    if format == "trl":
        options |= {"ties": ["drop", "both", "soft"], "votes": ["each", "majority"], "agreement": ["0", "0.6"]}
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def test_there_are_as_many_lines_as_promised(project: Project) -> None:
    for format in EXPORTS:
        counts = [len(lines_of(project, format=format, options=options)) for options in asked_of(format)]
        assert counts[0] > 0 and len(set(counts)) > 1, format


def test_the_lines_are_those_of_the_record(project: Project) -> None:
    """Counted by hand from RECORDS."""
    counts = {format: len(lines_of(project, format=format)) for format in EXPORTS}
    strict, tied = 6 + 2 + 2 + 0 + 0 + 1 + 5 + 1, 1 + 1 + 6 + 1
    assert counts == {
        "plackett": 10, "trl": strict, "trl-conversational": strict, "openrlhf": strict, "hh": strict,
        "kto": 2 + 3 + 3 + 0 + 4 + 4 + 2 + 4, "sft": 6, "ultrafeedback": 7, "nectar": 7, "arena": strict + tied,
    }  # fmt: skip


def test_what_the_majority_of_a_task_prefers(project: Project) -> None:
    asked = {"votes": "majority", "split": "", "margin": "strength"}
    pairs = {(row["chosen"], row["rejected"]): row["margin"] for row in lines_of(project, format="trl", options=asked)}
    # Of the first task: r1 and r2 stand 1 : 1 with a weak tie; Ann and Bob agree that r2 is before r3.
    assert ("one? r1", "one? r2") not in pairs and pairs["one? r2", "one? r3"] == 0.0
    assert pairs["one? r1", "one? r4"] == 4.0
    assert not any("four?" in one for pair in pairs for one in pair)


def test_since_is_refused_where_it_would_not_be_exact(project: Project) -> None:
    cursor = open_export(project).cursor
    for asked in ({"votes": "majority"}, {"agreement": "0.5"}):
        with pytest.raises(Invalid, match="without since") as refused:
            open_export(project, format="trl", since=cursor, options=asked)
        assert list(refused.value.fields) == ["since"]
    assert lines_of(project, format="sft", since=cursor) == []
    shown = record_from_object({"type": "demonstration", "prompt": "six?", "response": "so"})
    import_records(project=project, records=[shown])
    with pytest.raises(Invalid, match="without since"):
        open_export(project, format="sft", since=cursor)
    assert len(lines_of(project, format="sft")) == 7
    with pytest.raises(Invalid) as refused:
        open_export(project, format="sft", options={"ties": "drop"})
    assert list(refused.value.fields) == ["ties"]


def test_since_gives_the_lines_of_what_is_new(project: Project) -> None:
    cursor = open_export(project, format="hh").cursor
    record = record_from_object(said("new?", "ann", [["r1"], ["r2"]]))
    import_records(project=project, records=[record])
    for format in EXPORTS:
        new = lines_of(project, format=format, since=cursor)
        assert new and all("new?" in json.dumps(row) for row in new), format


def test_pseudonyms_are_the_same_under_one_key_and_unrelated_under_another(project: Project) -> None:
    def judges(**options: str) -> list[str]:
        return sorted({row["judge"] for row in lines_of(project, format="arena", options=options)})

    assert judges(key="ours") == judges(key="ours")
    assert not {*judges(key="ours")} & {*judges(key="theirs"), *judges()}
    native = {row["annotator"] for row in lines_of(project, options={"key": "ours"})}
    assert {*judges(key="ours")} <= native
    user = make_user()
    keys = ("", "1", "2")
    assert len({pseudonym_of(project, user.pk, key=key) for key in keys}) == 3


@pytest.mark.parametrize("asked", [{}, {"votes": "majority"}])
@pytest.mark.parametrize("container", ["csv", "parquet"])
def test_tables_have_as_many_rows_and_are_cut_off_by_a_withdrawal(
    project: Project, container: str, asked: dict[str, str]
) -> None:
    asked = asked | {"as": container}
    export = open_export(project, format="trl", options=asked)
    data = b"".join(export.lines)
    if container == "csv":
        assert data.count(b"\r\n") == export.count + 1 and export.media_type == "text/csv"
    else:
        assert pyarrow.parquet.read_table(io.BytesIO(data)).num_rows == export.count
    broken = open_export(project, format="trl", options=asked)
    withdraw_ranking(ranking=Ranking.objects.filter(project=project).order_by("pk")[0])
    with pytest.raises(ExportBroken):
        list(broken.lines)


def test_the_first_rows_are_shown_without_reading_the_rest(project: Project) -> None:
    rows = first_rows(project, format="arena", limit=2)
    assert [row["winner"] for row in rows] == ["model_a", "model_a"]
