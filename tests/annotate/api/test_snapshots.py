"""Snapshots over HTTP: freeze, list, download whole and in parts."""

import hashlib
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.models import Project, RankingTask, Snapshot
from annotate.services.snapshots import withdraw_snapshot
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of, submit, take

SNAPSHOTS = "/api/v1/projects/tales/snapshots/"


@pytest.fixture
def eve(cast: Cast, task: RankingTask, client_for: ClientFor) -> APIClient:
    bob = client_for(cast.bob)
    submit(bob, "tales", take(bob, "tales"))
    return client_for(cast.eve)


@pytest.fixture
def frozen(eve: APIClient) -> dict[str, Any]:
    answer = eve.post(SNAPSHOTS, {"name": "first"})
    assert answer.status_code == 201, answer.content
    manifest: dict[str, Any] = answer.json()
    return manifest


def path_of(manifest: dict[str, Any]) -> str:
    return f"/api/v1/snapshots/{manifest['snapshot']}/download/"


def read(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


def test_a_snapshot_is_frozen_listed_and_downloaded(eve: APIClient, frozen: dict[str, Any]) -> None:
    assert frozen["project"] == "tales" and frozen["counts"]["rankings"] == 1 and frozen["state"] == "frozen"
    assert eve.get(SNAPSHOTS).json() == {"results": [frozen], "next": None}
    answer = eve.get(path_of(frozen))
    body = read(answer)
    assert hashlib.sha256(body).hexdigest() == frozen["sha256"]
    assert answer["ETag"] == f'"{frozen["sha256"]}"' and answer["Content-Length"] == str(len(body))
    assert answer["Content-Type"] == "application/x-ndjson"


def test_downloading_twice_gives_the_same_bytes(eve: APIClient, frozen: dict[str, Any]) -> None:
    assert read(eve.get(path_of(frozen))) == read(eve.get(path_of(frozen)))


def test_what_one_has_is_not_sent_again(eve: APIClient, frozen: dict[str, Any]) -> None:
    etag = f'"{frozen["sha256"]}"'
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = eve.get(path_of(frozen), headers={"If-None-Match": known})
        assert answer.status_code == 304 and answer["ETag"] == etag and not answer.content
    assert read(eve.get(path_of(frozen), headers={"If-None-Match": '"other"'}))


def test_head_says_everything_but_the_bytes(eve: APIClient, frozen: dict[str, Any]) -> None:
    answer = eve.head(path_of(frozen))
    assert answer.status_code == 200 and answer["Content-Length"] == str(frozen["size_bytes"])


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=10-", 10, None),
        ("bytes=-7", -7, None),
        ("bytes=5-5", 5, 6),
        ("bytes=3-99999999", 3, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_range_is_that_part_of_the_file(
    eve: APIClient, frozen: dict[str, Any], asked: str, start: int, stop: int | None
) -> None:
    whole = read(eve.get(path_of(frozen)))
    answer = eve.get(path_of(frozen), headers={"Range": asked})
    part = read(answer)
    assert answer.status_code == 206 and part == whole[start:stop]
    first = start % len(whole)
    assert answer["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(whole)}"
    assert answer["Content-Length"] == str(len(part))


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=9-3", "bytes=a-b", "bytes=٣-"])
def test_a_range_that_we_do_not_serve_gives_the_whole(eve: APIClient, frozen: dict[str, Any], asked: str) -> None:
    answer = eve.get(path_of(frozen), headers={"Range": asked})
    assert answer.status_code == 200 and len(read(answer)) == frozen["size_bytes"]


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_file_is_416(eve: APIClient, frozen: dict[str, Any], asked: str) -> None:
    answer = eve.get(path_of(frozen), headers={"Range": asked})
    error_of(answer, 416, "range_not_satisfiable")
    assert answer["Content-Range"] == f"bytes */{frozen['size_bytes']}"


def test_a_range_of_another_file_gives_the_whole(eve: APIClient, frozen: dict[str, Any]) -> None:
    same, other = f'"{frozen["sha256"]}"', '"other"'
    assert len(read(eve.get(path_of(frozen), headers={"Range": "bytes=0-1", "If-Range": same}))) == 2
    whole = read(eve.get(path_of(frozen), headers={"Range": "bytes=0-1", "If-Range": other}))
    assert len(whole) == frozen["size_bytes"]


def test_a_withdrawn_snapshot_cannot_be_downloaded(
    eve: APIClient, frozen: dict[str, Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        withdraw_snapshot(snapshot=Snapshot.objects.get())
    etag = {"If-None-Match": f'"{frozen["sha256"]}"'}
    error_of(eve.get(path_of(frozen), headers=etag), 409, "withdrawn")
    assert eve.get(SNAPSHOTS).json()["results"][0]["state"] == "withdrawn"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "name"),
        ({"name": ""}, 400, "name"),
        ({"name": "x" * 121}, 400, "name"),
        ({"name": "x", "filter": {}}, 400, "filter"),
        ({"name": "x", "filters": {"splits": ["all"]}}, 422, "filters.splits"),
        ({"name": "x", "filters": {"counted": "yes"}}, 422, "filters.counted"),
        ({"name": "x", "filters": {"colour": "red"}}, 422, "filters.colour"),
        ({"name": "x", "filters": []}, 400, "filters"),
    ],
)
def test_what_makes_no_sense_is_named(eve: APIClient, body: dict[str, Any], status: int, field: str) -> None:
    assert field in error_of(eve.post(SNAPSHOTS, body), status)["fields"]


def test_there_must_be_something_to_freeze(cast: Cast, client_for: ClientFor) -> None:
    error_of(client_for(cast.eve).post(SNAPSHOTS, {"name": "empty"}), 422, "empty")


def test_a_key_freezes_once(eve: APIClient) -> None:
    for _ in range(2):
        answer = eve.post(SNAPSHOTS, {"name": "once"}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
    assert Snapshot.objects.count() == 1


def test_snapshots_are_for_engineers_of_the_project(
    eve: APIClient, frozen: dict[str, Any], cast: Cast, project: Project, client_for: ClientFor
) -> None:
    for person, status in ((cast.bob, 403), (cast.rita, 403), (cast.vera, 403), (cast.charlie, 404)):
        client = client_for(person)
        error_of(client.get(SNAPSHOTS), status)
        error_of(client.post(SNAPSHOTS, {"name": "x"}), status)
        error_of(client.get(path_of(frozen)), status)
    error_of(eve.get("/api/v1/snapshots/999999/download/"), 404)
