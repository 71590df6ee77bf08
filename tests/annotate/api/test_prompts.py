"""Prompts in bulk, and their list."""

import gzip
import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.models import IdempotencyKey, ImportBatch, Project, Prompt, RankingTask
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of, take

PROMPTS = "/api/v1/projects/tales/prompts/"


@pytest.fixture
def alice(cast: Cast, client_for: ClientFor) -> APIClient:
    return client_for(cast.alice)


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "external_id": name,
        "prompt": [{"role": "user", "content": f"Question {name}?"}],
        "responses": [{"id": "a", "text": "yes", "model": "m1"}, {"id": "b", "text": "no"}],
    } | fields


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in records)


def send_lines(client: APIClient, body: bytes, query: str = "", **headers: str) -> Any:
    return client.generic("POST", PROMPTS + query, body, content_type="application/x-ndjson", headers=headers)


def test_records_become_tasks_that_can_be_ranked(alice: APIClient, cast: Cast, client_for: ClientFor) -> None:
    report = alice.post(PROMPTS, {"records": [record("one"), record("two")]})
    assert report.status_code == 200, report.content
    assert (report.json()["read"], report.json()["written"], report.json()["errors"]) == (2, 2, [])
    assert RankingTask.objects.count() == 2 and RankingTask.objects.filter(overlap=2).count() == 2
    assert take(client_for(cast.bob), "tales")["prompt"][0]["content"] == "Question one?"
    assert ImportBatch.objects.get().created_by == cast.alice


@pytest.mark.parametrize("shape", ["envelope", "list", "lines"])
def test_all_three_shapes_mean_the_same(alice: APIClient, shape: str) -> None:
    records = [record("one"), record("two")]
    if shape == "lines":
        answer = send_lines(alice, lines(*records))
    else:
        answer = alice.post(PROMPTS, {"records": records} if shape == "envelope" else records)
    assert answer.json()["written"] == 2
    assert sorted(Prompt.objects.values_list("external_id", flat=True)) == ["one", "two"]


@pytest.mark.parametrize("shape", ["envelope", "list", "lines"])
def test_a_bad_record_is_reported_and_the_rest_written(alice: APIClient, shape: str) -> None:
    parts = [
        json.dumps(record("one")),
        '{"external_id": "nan", "prompt": "p", "responses": [{"id": "a", "text": "x"}, {"id": "b", "text": NaN}]}',
        '{"external_id": "nul", "prompt": "p\\u0000", "responses": []}',
        json.dumps(record("k1", responses=[{"id": "a", "text": "alone"}])),
        json.dumps(record("two")),
    ]
    if shape == "lines":
        answer = send_lines(alice, "\n".join(parts).encode())
    else:
        body = "[" + ",\n".join(parts) + "]"
        body = '{"records": ' + body + "}" if shape == "envelope" else body
        answer = alice.generic("POST", PROMPTS, body, content_type="application/json")
    report = answer.json()
    assert (report["read"], report["written"], report["skipped"]) == (5, 2, 3)
    assert [error["line"] for error in report["errors"]] == [2, 3, 4]
    assert all(error["reason"] and error["kind"] == "skipped" for error in report["errors"])
    assert Prompt.objects.count() == 2


def test_doing_it_again_changes_nothing(alice: APIClient) -> None:
    body = {"records": [record("one"), record("two")]}
    alice.post(PROMPTS, body)
    again = alice.post(PROMPTS, body).json()
    assert (again["written"], again["unchanged"]) == (0, 2)
    changed = alice.post(PROMPTS, {"records": [record("one", prompt="Something else?")]}).json()
    assert (changed["written"], changed["conflicts"]) == (0, 1)
    assert Prompt.objects.count() == 2


def test_gzip_is_unpacked(alice: APIClient) -> None:
    assert send_lines(alice, gzip.compress(lines(record("one")))).json()["written"] == 1


@pytest.mark.parametrize(
    "body",
    [
        lines(record("one")) + b"\xff\xfe\n",
        gzip.compress(lines(*(record(str(n)) for n in range(200))))[:-20],
        b"[" + lines(record("one")).strip() + b",",
    ],
    ids=["encoding", "gzip", "cut list"],
)
def test_a_body_that_cannot_be_read_to_its_end_changes_nothing(alice: APIClient, body: bytes) -> None:
    error = error_of(send_lines(alice, body), 400, "parse_error")
    assert "nothing was changed" in error["message"]
    assert not Prompt.objects.exists()


@pytest.mark.parametrize("body", ["", "  ", "{}", '{"rows": []}', '{"records": 5}', '"text"', "5"])
def test_a_body_without_records_is_400(alice: APIClient, body: str) -> None:
    error_of(alice.generic("POST", PROMPTS, body, content_type="application/json"), 400, "parse_error")


def test_an_empty_list_is_no_error(alice: APIClient) -> None:
    assert alice.post(PROMPTS, {"records": []}).json()["read"] == 0


def test_strict_refuses_all_for_one_fault(alice: APIClient) -> None:
    body = lines(record("one"), {"prompt": "x", "responses": []})
    error = error_of(send_lines(alice, body, "?strict=1"), 422, "strict")
    assert error["extra"]["report"]["skipped"] == 1
    assert not Prompt.objects.exists()


def test_a_dry_run_writes_nothing(alice: APIClient) -> None:
    report = send_lines(alice, lines(record("one")), "?dry_run=1").json()
    assert report["written"] == 1 and report["dry_run"] is True
    assert not Prompt.objects.exists() and not ImportBatch.objects.exists()


def test_overlap_and_priority_are_those_of_the_new_tasks(alice: APIClient) -> None:
    send_lines(alice, lines(record("one")), "?overlap=3&priority=0")
    task = RankingTask.objects.get()
    assert (task.overlap, task.priority, task.slots.count()) == (3, 0, 3)


@pytest.mark.parametrize("query", ["?overlap=51", "?overlap=-1", "?priority=4", "?strict=maybe", "?format=xml"])
def test_an_option_out_of_range_is_400(alice: APIClient, query: str) -> None:
    error = error_of(send_lines(alice, lines(record("one")), query), 400)
    assert list(error["fields"]) == [query[1:].split("=")[0]]


def test_a_key_gives_the_first_report_again(alice: APIClient) -> None:
    key = {"Idempotency-Key": "batch-1"}
    first = send_lines(alice, lines(record("one")), **key)
    again = send_lines(alice, lines(record("one")), **key)
    assert first.json()["written"] == 1 and again.json() == first.json()
    assert again["Idempotent-Replay"] == "true"
    error_of(send_lines(alice, lines(record("two")), **key), 422, "idempotency_key_reused")
    assert IdempotencyKey.objects.count() == 1 and ImportBatch.objects.count() == 1


def test_a_list_that_is_too_large_is_413(alice: APIClient, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    error_of(alice.post(PROMPTS, {"records": [record("one", rationale="x" * 1000)]}), 413, "too_large")


def test_lines_may_be_longer_than_what_is_held_in_memory(alice: APIClient, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    body = lines(*(record(str(number)) for number in range(50)))
    assert send_lines(alice, body).json()["written"] == 50
    for replayed in (False, True):
        answer = send_lines(alice, body, **{"Idempotency-Key": "k"})
        assert answer.json()["unchanged"] == 50 and ("Idempotent-Replay" in answer) is replayed
    error_of(send_lines(alice, body[:-2], **{"Idempotency-Key": "k"}), 422, "idempotency_key_reused")


def test_a_list_may_come_compressed(alice: APIClient) -> None:
    packed = gzip.compress(json.dumps([record("one"), record("two")]).encode())
    answer = alice.generic("POST", PROMPTS, packed, content_type="application/json")
    assert answer.status_code == 200 and answer.json()["written"] == 2


def test_another_media_type_is_415(alice: APIClient) -> None:
    error_of(alice.generic("POST", PROMPTS, b"a,b", content_type="text/plain"), 415)


def test_the_list_shows_prompts_with_responses(alice: APIClient, project: Project) -> None:
    send_lines(alice, lines(record("one"), record("two")))
    page = alice.get(PROMPTS, {"limit": 1}).json()
    shown = page["results"][0]
    assert shown["external_id"] == "one" and shown["split"] in {"train", "validation", "test"}
    assert [(one["key"], one["text"], one["model"]) for one in shown["responses"]] == [
        ("a", "yes", "m1"),
        ("b", "no", ""),
    ]
    rest = alice.get(PROMPTS, {"cursor": page["next"]}).json()
    assert [one["external_id"] for one in rest["results"]] == ["two"] and rest["next"] is None


TABLE = b"question,answer_a,answer_b,better\nTea?,one,two,b\nMilk?,one,two,neither\n"
MAP = "?map=question=prompt&map=answer_a=response_1&map=answer_b=response_2&map=better=winner"


def test_a_table_is_a_body_of_its_own_kind(alice: APIClient) -> None:
    answer = alice.generic("POST", PROMPTS + MAP, TABLE, content_type="text/csv; charset=utf-8")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert (found["written"], found["skipped"], found["rows"]["rankings"]) == (1, 1, 1)
    assert found["errors"][0]["line"] == 3 and "neither" in found["errors"][0]["reason"]
    again = alice.generic("POST", PROMPTS + MAP + "&format=csv&dry_run=1", TABLE, content_type="application/x-ndjson")
    assert again.json()["unchanged"] == 1
    broken = alice.generic("POST", PROMPTS, b"PAR1 and no more", content_type="application/vnd.apache.parquet")
    assert "nothing was changed" in error_of(broken, 400)["message"]


@pytest.mark.parametrize(
    ("query", "status"), [("?map=prompt", 400), ("?map=a=nothing", 422), ("?format=hh&map=a=prompt", 422)]
)
def test_a_mapping_that_cannot_be_is_named(alice: APIClient, query: str, status: int) -> None:
    refused = alice.generic("POST", PROMPTS + query, TABLE, content_type="text/csv")
    assert list(error_of(refused, status)["fields"]) == ["map"]
