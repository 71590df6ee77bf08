"""Exports over HTTP; what is in the lines is tested with the services."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from annotate.api import exports
from annotate.api.exports import BLOCK_BYTES, ReleasedStream, in_blocks
from annotate.models import Project, RankingTask
from tests.annotate.api.conftest import Cast, ClientFor
from tests.annotate.api.helpers import error_of, submit, take
from tests.annotate.factories import make_task

EXPORT = "/api/v1/projects/tales/export/"


@pytest.fixture
def eve(cast: Cast, task: RankingTask, client_for: ClientFor) -> APIClient:
    return client_for(cast.eve)


@pytest.fixture
def bob(cast: Cast, client_for: ClientFor) -> APIClient:
    return client_for(cast.bob)


def rows(answer: Any) -> list[dict[str, Any]]:
    body = b"".join(answer.streaming_content)
    assert body.endswith(b"\n") or not body
    return [json.loads(line) for line in body.splitlines()]


def test_an_export_has_as_many_lines_as_it_says(eve: APIClient, bob: APIClient) -> None:
    submit(bob, "tales", take(bob, "tales"))
    answer = eve.get(EXPORT)
    assert answer.status_code == 200 and answer["Content-Type"] == "application/x-ndjson"
    found = rows(answer)
    assert len(found) == int(answer["Plackett-Count"]) == 1
    assert found[0]["format"] == "plackett/1" and found[0]["project"] == "tales"
    assert "bob" not in json.dumps(found)


@pytest.mark.parametrize("kind", ["trl", "trl-conversational"])
def test_pairs_for_trl(eve: APIClient, bob: APIClient, kind: str) -> None:
    submit(bob, "tales", take(bob, "tales"))
    answer = eve.get(EXPORT, {"format": kind})
    found = rows(answer)
    assert len(found) == int(answer["Plackett-Count"]) == 3
    assert all({"prompt", "chosen", "rejected"} <= set(row) for row in found)


def test_the_cursor_gives_exactly_what_is_new(
    eve: APIClient, bob: APIClient, cast: Cast, project: Project, client_for: ClientFor
) -> None:
    make_task(project)
    submit(bob, "tales", take(bob, "tales"))
    first = eve.get(EXPORT)
    assert len(rows(first)) == 1
    nothing = eve.get(EXPORT, {"since": first["Plackett-Cursor"]})
    assert (rows(nothing), nothing["Plackett-Count"]) == ([], "0")
    submit(bob, "tales", take(bob, "tales"))
    more = eve.get(EXPORT, {"since": first["Plackett-Cursor"]})
    assert len(rows(more)) == 1


@pytest.mark.parametrize("query", [{"format": "csv"}, {"format": ""}])
def test_an_unknown_format_is_400(eve: APIClient, query: dict[str, str]) -> None:
    assert list(error_of(eve.get(EXPORT, query), 400)["fields"]) == ["format"]


@pytest.mark.parametrize("since", ["nonsense", "\0", "é", "x" * 5000])
def test_a_cursor_that_is_none_is_refused(eve: APIClient, since: str) -> None:
    answer = eve.get(EXPORT, {"since": since})
    error_of(answer, answer.status_code)
    assert answer.status_code in {400, 409, 422}


def test_texts_are_for_engineers_alone(eve: APIClient, cast: Cast, client_for: ClientFor) -> None:
    for person in (cast.vera, cast.bob, cast.rita):
        error_of(client_for(person).get(EXPORT), 403, "forbidden")
    error_of(client_for(cast.charlie).get(EXPORT), 404, "not_found")
    assert rows(client_for(cast.sue).get(EXPORT)) == []


def test_a_third_export_at_once_is_429(eve: APIClient) -> None:
    first, second = eve.get(EXPORT), eve.get(EXPORT)
    refused = eve.get(EXPORT)
    error_of(refused, 429, "throttled")
    assert int(refused["Retry-After"]) > 0
    rows(first)
    third = eve.get(EXPORT)
    assert third.status_code == 200
    for answer in (second, third):
        rows(answer)


def test_a_refused_export_takes_no_place(eve: APIClient) -> None:
    for _ in range(5):
        assert eve.get(EXPORT, {"since": "nonsense"}).status_code != 429
        assert eve.head(EXPORT).status_code == 200
    answer = eve.get(EXPORT)
    assert answer.status_code == 200
    rows(answer)


def test_closing_twice_gives_one_place_back() -> None:
    taken = [exports._room.acquire(blocking=False) for _ in range(2)]
    assert taken == [True, True]
    stream = ReleasedStream(iter([b"x"]), release=exports._room.release)
    stream.close()
    stream.close()
    exports._room.release()


def test_blocks_hold_the_same_bytes() -> None:
    lines = [b"x" * 1000 + b"\n"] * 200
    blocks = list(in_blocks(iter(lines)))
    assert b"".join(blocks) == b"".join(lines)
    assert len(blocks) == 4 and all(len(block) >= BLOCK_BYTES for block in blocks[:-1])
    assert list(in_blocks(iter([]))) == []


def test_options_are_query_parameters_and_a_table_says_what_it_is(eve: APIClient, bob: APIClient) -> None:
    submit(bob, "tales", take(bob, "tales"))
    answer = eve.get(EXPORT, {"format": "openrlhf", "as": "csv", "margin": "strength", "votes": "majority"})
    body = b"".join(answer.streaming_content).decode()
    assert answer["Content-Type"] == "text/csv" and 'filename="tales-openrlhf.csv"' in answer["Content-Disposition"]
    assert body.splitlines()[0] == "chosen,rejected,margin" and len(body.splitlines()) == 4
    answer = eve.get(EXPORT, {"format": "nectar", "as": "parquet"})
    assert answer["Content-Type"] == "application/vnd.apache.parquet"
    assert b"".join(answer.streaming_content).endswith(b"PAR1")


@pytest.mark.parametrize(
    ("query", "field"),
    [({"ties": "soft"}, "ties"), ({"format": "trl", "agreement": "2"}, "agreement"), ({"as": "xlsx"}, "as")],
)
def test_an_option_that_cannot_be_is_named(eve: APIClient, query: dict[str, str], field: str) -> None:
    assert list(error_of(eve.get(EXPORT, query), 422)["fields"]) == [field]
